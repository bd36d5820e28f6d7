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
from installation import given_input, records, replay, settings_of, start_worker, stored, watch
from kafka import KafkaAdminClient
from paced import Sender
from programs import Spoken, pinned, spoken, used, wait_for

from producers.inputs import Input
from streams.processes import Child, environment_of, stop_all
from streams.roles import Role
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

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
    """From the sending of a line to its being applied, at the rate that the sender reached."""

    lines_per_s: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, delays_s: Sequence[float], *, lines_per_s: float) -> "Delay":
        """Return the quantiles of delays."""
        cuts = statistics.quantiles(delays_s, n=100, method="inclusive")
        return cls(lines_per_s, 1e3 * cuts[49], 1e3 * cuts[98])

    def __str__(self) -> str:
        return f"{self.lines_per_s:>9,.0f}/s  p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"


class Bench:
    """The broker, its filled topics, the core for the programs."""

    def __init__(self, source: Input, servers: str, python: Path, core: int, home: Path) -> None:
        self.source = source
        self.servers = servers
        self.python = python
        self.core = core
        self.home = home

    def settings(self, prefix: str) -> Settings:
        """Return the settings of an installation of its own."""
        return settings_of(self.servers, prefix, self.home)

    def fill(self, slow_lines: int) -> int:
        """Write the input into one topic, its first lines into another; return the records of the first."""
        for prefix, limit in ((WHOLE, []), (PART, ["--limit", str(slow_lines)])):
            settings = self.settings(prefix)
            ensure_topics(settings)
            replay(settings, self.home, *given_input(), *limit)
        whole = self.settings(WHOLE)
        return records(whole, catalogue(whole).transactions.name)

    def throughput(self, contestant: Contestant, turn: int) -> Run:
        """Let a program read its topic from beginning to end."""
        settings = self.settings(PART if contestant.slow else WHOLE)
        if contestant.roles:
            return self._run_worker(contestant, settings)
        topic = catalogue(settings).transactions.name
        lines = records(settings, topic)
        output = ".".join(["out", contestant.script, *contestant.flags, str(turn)])
        with self._peer(contestant, topic, output, lines, "rate") as peer:
            peer.expect("begin")
            wall_s, before = time.monotonic(), used([peer.pid])
            peer.expect("end")
            wall_s, after = time.monotonic() - wall_s, used([peer.pid])
        if contestant.slow and not records(settings, output):  # whoever does the job has windows to show
            raise SystemExit(f"{contestant.name} wrote no window; give it more lines")
        return Run(lines, wall_s, after.cpu_s - before.cpu_s, after.rss_peak_mb)

    def delay(self, contestant: Contestant, *, rate: int, seconds: int) -> Delay:
        """Let a program read lines as they are sent, `rate` a second."""
        name = f"{contestant.script or 'worker'}.{rate}"
        settings = self.settings(f"delay.{name}.")
        ensure_topics(settings)
        topic, lines = catalogue(settings).transactions.name, rate * seconds
        if contestant.roles:
            command = [sys.executable, str(Path(__file__).with_name("delay_worker.py")), str(lines + 1)]
            log_path = self.home / f"delay.{name}.log"
            started = spoken(command, environment_of(settings), self.core, log_path)
        else:
            started = self._peer(contestant, topic, f"out.{name}.delay", lines + 1, "delay")
        sender = Sender(self.source, self.servers, topic)
        with started as program:
            sender.first()
            program.expect("begin")
            reached = sender.rest(lines, rate)
            told = json.loads(program.expect("end"))
        assert len(told["delays_s"]) == lines, f"{name} told of {len(told['delays_s'])} of {lines} lines"
        return Delay.of(told["delays_s"], lines_per_s=reached)

    def _run_worker(self, contestant: Contestant, settings: Settings) -> Run:
        """Let workers, their state and outputs empty, read the input; the clock stops at the last output."""
        self._forget(settings)
        workers: list[Child] = []
        try:
            with pinned({self.core}):
                # The one that ingests comes last: the others' start must not share the core with its work.
                for role in reversed(contestant.roles):
                    workers.append(start_worker(settings, self.home, role))
                    wait_for(workers[-1], "partition loaded" if role is Role.INGEST else "worker started")
            first, last = watch(settings, workers)
        finally:
            stop_all(workers)
        if Role.EVALUATE in contestant.roles:
            evaluations = sum(1 for _ in read_all(settings, catalogue(settings).evaluations.name))
            print(f"        {evaluations} windows evaluated")
            if not evaluations:
                raise SystemExit("no window was evaluated")
        cpu_s = last[1].cpu_s - first[1].cpu_s
        return Run(stored(settings), last[0] - first[0], cpu_s, last[1].rss_peak_mb)

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
        self, contestant: Contestant, topic: str, output: str, lines: int, mode: str
    ) -> Iterator[Spoken]:
        with KafkaAdminClient(bootstrap_servers=self.servers) as admin:
            # Records stamped with the data's times, years back, would fall to retention at once.
            configs = {"message.timestamp.type": "LogAppendTime"}
            admin.create_topics({output: {"num_partitions": 4, "replication_factor": 1, "configs": configs}})
            admin.wait_for_topics([output])
        program = [str(self.python), str(contestant.path)]
        arguments = [self.servers, topic, output, output, str(lines), mode, *contestant.flags]
        log_path = self.home / f"{output}.log"
        with spoken([*program, *arguments], dict(os.environ), self.core, log_path) as peer:
            yield peer
