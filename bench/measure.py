"""One program at a time on one core of this machine: its rate, its CPU time, its memory, its delays."""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contestants import Contestant
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from paced import Sender
from programs import RUN_MAX_S, Spoken, spoken, used, wait_for
from worker import Usage, pinned

from producers.inputs import Input
from streams.checkpoints import newest_head
from streams.processes import Child, environment_of, stop_all
from streams.roles import Role
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

POLL_S = 0.01
QUIET_S = 3.0  # a worker that wrote nothing for so long has written everything
WHOLE, PART = "bench.", "part."


@dataclass(frozen=True)
class Run:
    """What a program did and used from its first record to its last."""

    lines: int
    wall_s: float
    cpu_s: float
    peak_mb: float

    @property
    def lines_per_s(self) -> float:
        """Records a second."""
        return self.lines / self.wall_s

    @property
    def cpu_us_per_line(self) -> float:
        """Microseconds of CPU a record."""
        return 1e6 * self.cpu_s / self.lines

    def __str__(self) -> str:
        return f"{self.lines_per_s:>9,.0f}/s {self.cpu_us_per_line:>8.2f} us CPU {self.peak_mb:>6.0f} MB"


@dataclass(frozen=True)
class Delay:
    """From the sending of a line to its being applied."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, delays_s: Sequence[float]) -> "Delay":
        """Return the quantiles of delays."""
        cuts = statistics.quantiles(delays_s, n=100, method="inclusive")
        return cls(1e3 * cuts[49], 1e3 * cuts[98])

    def __str__(self) -> str:
        return f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"


class Bench:
    """The broker, its filled topics, the core for the programs."""

    def __init__(self, source: Input, servers: str, python: Path, core: int, home: Path) -> None:
        self.source = source
        self.servers = servers
        self.python = python
        self.core = core
        self.home = home
        self.lines = 0  # records of the whole topic

    def settings(self, prefix: str) -> Settings:
        """Return the settings of an installation of its own."""
        return Settings(
            bootstrap_servers=self.servers,
            topic_prefix=prefix,
            decision_wait_s=0.1,  # nobody trains here
            training_timeout_s=0.05,
            kafka_dir=self.home / "kafka",
            registry_dir=self.home / "registry",
            reports_dir=self.home / "reports",
        )

    def fill(self, path: Path | None, slow_lines: int) -> None:
        """Write the whole input into one topic, its first lines into another."""
        for prefix, limit in ((WHOLE, []), (PART, ["--limit", str(slow_lines)])):
            settings = self.settings(prefix)
            ensure_topics(settings)
            arguments = ["replay", *([str(path)] if path else []), "--speed", "max", *limit]
            log_path = self.home / f"{prefix}replay.log"
            filling = Child.start(arguments, env=environment_of(settings), log_path=log_path)
            if filling.process.wait():
                raise SystemExit(filling.last_words())
        self.lines = self._records(catalogue(self.settings(WHOLE)).transactions.name)

    def throughput(self, contestant: Contestant, turn: int) -> Run:
        """Let a program read its topic from beginning to end."""
        prefix = PART if contestant.slow else WHOLE
        if contestant.roles:
            return self._run_worker(contestant, self.settings(prefix))
        topic = catalogue(self.settings(prefix)).transactions.name
        records = self._records(topic)
        output = ".".join(["out", contestant.script, *contestant.flags, str(turn)])
        with self._peer(contestant, topic, output, records, "rate") as peer:
            peer.expect("begin")
            wall_s, before = time.monotonic(), used([peer.pid])
            peer.expect("end")
            wall_s, after = time.monotonic() - wall_s, used([peer.pid])
        if contestant.slow and not self._records(output):  # whoever does the job has windows to show
            raise SystemExit(f"{contestant.name} wrote no window; give it more lines")
        return Run(records, wall_s, after.cpu_s - before.cpu_s, after.rss_peak_mb)

    def delay(self, contestant: Contestant, *, rate: float, seconds: int) -> Delay:
        """Let a program read lines as they are sent, `rate` a second."""
        name = contestant.script or "worker"
        settings = self.settings(f"delay.{name}.")
        ensure_topics(settings)
        topic, lines = catalogue(settings).transactions.name, round(rate * seconds)
        if contestant.roles:
            script = str(Path(__file__).with_name("delay_worker.py"))
            env = environment_of(settings)
            started = spoken(
                [sys.executable, script, str(lines + 1)], env, self.core, self.home / "delay-worker.log"
            )
        else:
            started = self._peer(contestant, topic, f"out.{name}.delay", lines + 1, "delay")
        sender = Sender(self.source, self.servers, topic)
        with started as program:
            sender.first()
            program.expect("begin")
            sender.rest(lines, rate)
            told = json.loads(program.expect("end"))
        assert len(told["delays_s"]) == lines, f"{name} told of {len(told['delays_s'])} of {lines} lines"
        return Delay.of(told["delays_s"])

    def _run_worker(self, contestant: Contestant, settings: Settings) -> Run:
        """Let workers, their state and outputs empty, read the input; the clock stops at the last output."""
        self._forget(settings)
        env, workers = environment_of(settings), []
        try:
            with pinned({self.core}):
                # The one that ingests comes last: the others' start must not share the core with its work.
                for role in reversed(contestant.roles):
                    log_path = self.home / f"worker-{role.value}-{time.monotonic_ns()}.log"
                    arguments = ["worker", "--role", role.value, "--port", "0"]
                    workers.append(Child.start(arguments, env=env, log_path=log_path))
                    wait_for(workers[-1], "partition loaded" if role is Role.INGEST else "worker started")
            first, last = self._watch(settings, workers)
        finally:
            stop_all(workers)
        lines = self._stored(settings)
        if Role.EVALUATE in contestant.roles:
            evaluations = sum(1 for _ in read_all(settings, catalogue(settings).evaluations.name))
            print(f"        {evaluations} windows evaluated")
            if not evaluations:
                raise SystemExit("no window was evaluated")
        return Run(lines, last[0] - first[0], last[1].cpu_s - first[1].cpu_s, last[1].rss_peak_mb)

    def _watch(
        self, settings: Settings, workers: Sequence[Child]
    ) -> tuple[tuple[float, Usage], tuple[float, Usage]]:
        """Return when reading could begin and when the last output was written, and the use then."""
        pids, until = [child.process.pid for child in workers], time.monotonic() + RUN_MAX_S
        first = last = time.monotonic(), used(pids)
        topics = catalogue(settings)
        places = [
            TopicPartition(spec.name, partition)
            for spec in (topics.state, topics.evaluations)
            for partition in range(spec.partitions)
        ]
        end = self._records(topics.transactions.name)
        consumer, seen = KafkaConsumer(bootstrap_servers=self.servers), 0
        while time.monotonic() - last[0] < QUIET_S or self._stored(settings) < end:
            written = sum(consumer.end_offsets(places).values())
            if written > seen:
                seen, last = written, (time.monotonic(), used(pids))
            if time.monotonic() > until:
                raise SystemExit(f"the worker stored {self._stored(settings):,} of {end:,} records")
            time.sleep(POLL_S)
        consumer.close()
        return first, last

    def _stored(self, settings: Settings) -> int:
        """Return the records that the newest checkpoints cover."""
        topics, read = catalogue(settings), 0
        for partition in range(settings.partitions):
            records = read_all(settings, topics.state.name, partition)
            head = newest_head([(record.key, record.value) for record in records])
            read += head["read_offset"] + 1 if head else 0
        return read

    def _records(self, topic: str) -> int:
        consumer = KafkaConsumer(bootstrap_servers=self.servers)
        places = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)]
        records = sum(consumer.end_offsets(places).values())
        consumer.close()
        return records

    def _forget(self, settings: Settings) -> None:
        """Make every topic but the input anew."""
        topics = catalogue(settings)
        names = [spec.name for spec in topics.specs if spec is not topics.transactions]
        with KafkaAdminClient(bootstrap_servers=self.servers) as admin:
            admin.delete_topics(names)
            until = time.monotonic() + 30.0
            while set(names) & set(admin.list_topics()):
                assert time.monotonic() < until, "the broker does not delete its topics"
                time.sleep(0.1)
        ensure_topics(settings)

    @contextmanager
    def _peer(
        self, contestant: Contestant, topic: str, output: str, records: int, mode: str
    ) -> Iterator[Spoken]:
        with KafkaAdminClient(bootstrap_servers=self.servers) as admin:
            # Records stamped with the data's times, years back, would fall to retention at once.
            configs = {"message.timestamp.type": "LogAppendTime"}
            admin.create_topics({output: {"num_partitions": 4, "replication_factor": 1, "configs": configs}})
            admin.wait_for_topics([output])
        program = [str(self.python), str(contestant.path)]
        arguments = [self.servers, topic, output, output, str(records), mode, *contestant.flags]
        log_path = self.home / f"{output}.log"
        with spoken([*program, *arguments], dict(os.environ), self.core, log_path) as peer:
            yield peer
