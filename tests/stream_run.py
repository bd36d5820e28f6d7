"""A stream as real processes: workers, the retrain consumer, replays; what they left in the topics."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.registry import Registry
from producers import feed
from producers.inputs import Input
from streams import cloudevents
from streams.backfill import Results, run
from streams.checkpoints import newest_head
from streams.decisions import DecisionLog
from streams.grid import from_iso
from streams.processes import Child, environment_of, stop_all
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue


class StreamRun:
    """Processes of one installation; use it as `with running(...)`."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self.settings = settings
        self.logs = logs
        self.children: list[Child] = []

    def start(self, *arguments: str, **how: Any) -> Child:
        number = len(self.children)
        child = Child.start(
            list(arguments),
            env=environment_of(self.settings),
            log_path=self.logs / f"{number:02d}-{arguments[0]}.log",
            **how,
        )
        self.children.append(child)
        return child

    def worker(self, role: str = "all") -> Child:
        return self.start("worker", "--role", role, "--port", "0")

    def retrain(self) -> Child:
        return self.start("retrain", "--port", "0")

    def replay(self, *arguments: str, timeout_s: float = 300) -> None:
        child = self.start("replay", *arguments)
        assert child.process.wait(timeout_s) == 0, child.log_path.read_text()

    def words(self) -> str:
        """What the processes said last, for the message of a failing test."""
        return "\n".join(
            f"--- {child.log_path.name}\n{child.log_path.read_text(errors='replace')[-3000:]}"
            for child in self.children
        )

    def wait_for(self, what: Callable[[], bool], *, timeout_s: float = 300) -> None:
        until = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < until, f"timed out\n{self.words()}"
            time.sleep(0.3)

    def evaluations(self) -> dict[str, bytes]:
        """The live evaluations, by window end; a second value for a key would be a contradiction."""
        return self._compacted(catalogue(self.settings).evaluations.name)

    def snapshots(self) -> dict[str, bytes]:
        return self._compacted(catalogue(self.settings).snapshots.name)

    def warnings(self) -> dict[str, bytes]:
        return self._compacted(catalogue(self.settings).warnings.name)

    def _compacted(self, topic: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for record in read_all(self.settings, topic):
            key = record.key.decode()
            assert found.setdefault(key, record.value) == record.value, f"{topic}: {key} has two values"
        return found

    def ended(self) -> bool:
        """Whether the window in which the input ends is evaluated."""
        found = self.evaluations()
        return bool(found) and cloudevents.decode(found[max(found)])["data"]["partial"]

    def decisions(self) -> DecisionLog:
        log = DecisionLog()
        for record in read_all(self.settings, catalogue(self.settings).models.name):
            log.add(record.offset, cloudevents.decode(record.value))
        return log

    def counters(self) -> dict[str, int]:
        """Counters of all partitions, as of their newest checkpoints."""
        total: dict[str, int] = {}
        for partition in range(self.settings.partitions):
            records = read_all(self.settings, catalogue(self.settings).state.name, partition)
            head = newest_head([(record.key, record.value) for record in records])
            for name, count in (head or {"counters": {}})["counters"].items():
                total[name] = total.get(name, 0) + count
        return total


@contextmanager
def running(settings: Settings, logs: Path) -> Iterator[StreamRun]:
    ensure_topics(settings)
    logs.mkdir(parents=True, exist_ok=True)
    stream = StreamRun(settings, logs)
    try:
        yield stream
    finally:
        stop_all(stream.children)


def backfilled(source: Input, settings: Settings, registry: Path, log: DecisionLog | None = None) -> Results:
    """The same input without Kafka, in one partition."""
    records = feed.records(
        source.lines(),
        source=source.source,
        partitions=1,
        jump_max_days=settings.jump_max_days,
        jump_confirm_lines=settings.jump_confirm_lines,
        start=source.start,
    )
    return run(records, settings, Registry(registry), partitions=1, log=log)


def encoded(events: list[dict]) -> dict[str, bytes]:
    """Evaluations by window end, as the topic has them."""
    return {event["data"]["window_end"]: cloudevents.encode(event) for event in events}


def is_later(key: str, than: str) -> bool:
    return from_iso(key) > from_iso(than)
