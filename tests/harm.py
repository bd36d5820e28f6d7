"""A stream that comes to harm by a schedule, and what must be there afterwards all the same."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from stream_run import StreamRun, backfilled, encoded, running

from producers import feed
from producers.inputs import Input
from streams import cloudevents
from streams.errors import ExitCode
from streams.partition import PartitionState
from streams.processes import Child
from streams.settings import Settings
from streams.snapshots import encode_part
from streams.state_config import StateConfig
from streams.topic_reader import read_all
from streams.topics import catalogue

WAIT_S = 300.0
ADVANCE_WAIT_S = 180.0


class Expected:
    """What a stream of `source` must leave in its topics, whatever happens to its processes."""

    def __init__(self, source: Input, settings: Settings, registry: Path) -> None:
        records = records_of(source, settings)
        config = StateConfig.of(settings)
        self.snapshots: dict[str, bytes] = {}
        self.warnings: dict[str, bytes] = {}
        self.counters: Counter[str] = Counter()
        for partition in range(settings.partitions):
            own = [record for record in records if record.partition == partition]
            state = PartitionState(partition, config)
            values, headers = [record.value for record in own], [record.headers for record in own]
            for cut in state.apply(range(len(own)), values, headers).cuts:
                for warned in cut.warned:
                    key, value = warned.record(settings.event_source, settings.hop_s)
                    self.warnings[key.decode()] = value
                for part in cut.parts:
                    messages = encode_part(part, settings.partitions)
                    self.snapshots |= {key.decode(): value for key, value in messages}
            self.counters.update(asdict(state.counters))
        followed = backfilled(source, settings, registry)
        self.evaluations = encoded(followed.evaluations)
        self.events = [cloudevents.encode(event) for event in followed.events]


def records_of(source: Input, settings: Settings) -> list[feed.Record]:
    """What a replay of `source` writes, in its order."""
    return list(
        feed.records(
            source.lines(),
            source=source.source,
            partitions=settings.partitions,
            jump_max_days=settings.jump_max_days,
            jump_confirm_lines=settings.jump_confirm_lines,
            start=source.start,
        )
    )


class HarmedStream:
    """A running stream, its schedule of harm, and the seed that repeats it."""

    def __init__(self, stream: StreamRun, seed: int) -> None:
        self.stream = stream
        self.settings = stream.settings
        self.seed = seed
        self.dice = random.Random(seed)
        self.done: list[str] = [f"seed {seed}"]
        self._began = time.monotonic()

    def note(self, what: str) -> None:
        """Write down what was done, and when: the schedule that a failure shows."""
        self.done.append(f"{time.monotonic() - self._began:6.1f} s  {what}")

    def report(self) -> str:
        """The schedule so far, and the processes' last words."""
        return "\n".join(self.done) + "\n" + self.stream.words()

    # -- how far it is --------------------------------------------------------

    def written(self) -> int:
        """Records that were ever written to the topics of state: they grow with each checkpoint."""
        name = catalogue(self.settings).state.name
        places = [TopicPartition(name, partition) for partition in range(self.settings.partitions)]
        consumer = KafkaConsumer(bootstrap_servers=self.settings.bootstrap_servers)
        try:
            return sum(consumer.end_offsets(places).values())
        finally:
            consumer.close()

    def advance(self, pause_max_s: float = 1.0) -> None:
        """Wait until another checkpoint is written, or no more lines come; then for a random moment."""
        before = self.written()
        self.stream.wait_for(lambda: self.written() > before or self._is_replayed(), timeout_s=ADVANCE_WAIT_S)
        time.sleep(self.dice.uniform(0, pause_max_s))

    def _is_replayed(self) -> bool:
        """Whether every replay so far is through."""
        replays = [child for child in self.stream.children if child.name == "replay"]
        return bool(replays) and all(replay.poll() == 0 for replay in replays)

    # -- harm -----------------------------------------------------------------

    def worker(self, fault: str = "", role: str = "all") -> Child:
        """Start a worker; with a `fault` it kills itself there."""
        settings, self.stream.settings = (
            self.stream.settings,
            self.settings.model_copy(update={"fault": fault}),
        )
        try:
            child = self.stream.worker(role)
        finally:
            self.stream.settings = settings
        self.note(f"started {child.log_path.name} {fault}")
        return child

    def lossy_worker(self) -> Child:
        """Start a worker that loses every batch once (`lossy_worker.py`)."""
        script = Path(__file__).with_name("lossy_worker.py")
        child = self.stream.start("worker", "--port", "0", program=(str(script),))
        self.note(f"started {child.log_path.name}, lossy")
        return child

    def stop(self, child: Child) -> None:
        """End a worker in order, as a rolling restart does."""
        child.process.terminate()
        # A process that has not come as far as to handle signals is ended by the first.
        assert child.process.wait(120) in {0, -signal.SIGTERM}, self.report()
        self.note(f"stopped {child.log_path.name}")

    def kill(self, child: Child) -> None:
        child.process.kill()
        child.process.wait()
        self.note(f"killed {child.log_path.name}")

    def freeze(self, pid: int, what: str, seconds: float) -> None:
        """Stop a process as it stands, and let it go on later."""
        os.kill(pid, signal.SIGSTOP)
        self.note(f"froze {what} for {seconds:g} s")
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)
        self.note(f"woke {what}")

    def revive(self, child: Child) -> Child:
        """Return a worker that runs: a new one where `child` gave up because it lost its broker."""
        code = child.poll()
        if code is None:
            return child
        assert code == ExitCode.BROKER, self.report()
        self.note(f"{child.log_path.name} gave up")
        return self.worker()

    def died(self, child: Child, timeout_s: float = ADVANCE_WAIT_S) -> None:
        """Wait until `child` has killed itself at the point that it was started with."""
        assert child.process.wait(timeout_s) == -signal.SIGKILL, self.report()
        self.note(f"{child.log_path.name} struck")

    # -- what must be there ---------------------------------------------------

    def check(self, expected: Expected, *, duplicates: int | None = 0, revived: Child | None = None) -> None:
        """Wait for the end, then compare all that was written with what `expected` says, byte for byte.

        `duplicates` is the number of lines that were sent again; None where that is left to chance.
        `revived` is the worker that may give up meanwhile because it lost its broker.
        """

        def has_ended() -> bool:
            nonlocal revived
            revived = revived and self.revive(revived)
            return self._has_ended(expected)

        self.stream.wait_for(has_ended, timeout_s=WAIT_S)
        assert _differences(self.stream.snapshots(), expected.snapshots) == [], self.report()
        assert _differences(self.stream.warnings(), expected.warnings) == [], self.report()
        assert _differences(self.stream.evaluations(), expected.evaluations) == [], self.report()
        assert self.events() == expected.events, self.report()
        counters, wanted = Counter(self.stream.counters()), Counter(expected.counters)
        if duplicates is not None:
            assert counters["duplicate"] == duplicates, f"{counters}\n{self.report()}"
        fates = ("on_time", "late", "duplicate", "control", "dead")
        assert counters["read"] == sum(counters[fate] for fate in fates), f"{counters}\n{self.report()}"
        for fate in ("on_time", "late", "dead"):
            assert counters[fate] == wanted[fate], f"{fate}: {counters} {wanted}\n{self.report()}"

    def events(self) -> list[bytes]:
        """Drift events in their order; one that was sent again is the same event."""
        records = read_all(self.settings, catalogue(self.settings).events.name)
        return list(dict.fromkeys(record.value for record in records))

    def _has_ended(self, expected: Expected) -> bool:
        if set(self.stream.evaluations()) < set(expected.evaluations):
            return False
        counters = self.stream.counters()
        return (
            counters["on_time"] + counters["late"] >= expected.counters["on_time"] + expected.counters["late"]
        )


def _differences(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """Return the keys whose values differ, or that only one side has."""
    return sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))


def paced(source_arguments: list[str], days: int, seconds: float) -> list[str]:
    """Arguments of a replay that takes some `seconds` for `days` of events."""
    return [*source_arguments, "--speed", str(round(days * 86_400 / seconds))]


@contextmanager
def harmed(settings: Settings, logs: Path, seed: int | None = None) -> Iterator[HarmedStream]:
    with running(settings, logs) as stream:
        yield HarmedStream(stream, int(time.time()) if seed is None else seed)
