"""Throughput of one worker process on one core, with a real broker: `python bench/worker.py` (Linux).

The input topic is filled first. Then the worker starts, pinned to one core, and is watched from its first
checkpoint to its last: records a second, CPU time a record, peak memory. Broker and watcher keep to the other
cores. The second run adds a worker that evaluates the windows, on the same core. Before each, aiokafka alone
reads the same topic on the same core: machines differ, and only the ratio can be carried from one to another.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from installation import given_input, records, replay, settings_of, start_worker, stored
from kafka import KafkaConsumer, TopicPartition
from programs import KAFKA_CACHE, Usage, pinned

from streams.embedded_kafka import EmbeddedKafka
from streams.processes import Child, stop_all
from streams.roles import Role
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

POLL_S = 0.05
WAIT_MAX_S = 300.0


@dataclass
class Watched:
    """The log ends of some topics as they grow, and the use of CPU at those moments."""

    settings: Settings
    pid: int
    first: tuple[float, Usage] | None = None
    last: tuple[float, Usage] | None = None
    _seen: int = 0

    def look(self, consumer: KafkaConsumer, places: Sequence[TopicPartition]) -> None:
        """Note the moment if anything was written since the last look."""
        written = sum(consumer.end_offsets(list(places)).values())
        if written > self._seen:
            self._seen = written
            self.last = time.monotonic(), Usage.of(self.pid)
            self.first = self.first or self.last

    def quiet_s(self) -> float:
        """Return for how long nothing was written; 0 before the first record."""
        return time.monotonic() - self.last[0] if self.last else 0.0


def watch(settings: Settings, pid: int) -> Watched:
    """Watch the state topic until nothing was written for a while."""
    places = [TopicPartition(catalogue(settings).state.name, p) for p in range(settings.partitions)]
    watched = Watched(settings, pid)
    until = time.monotonic() + WAIT_MAX_S
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers)
    while watched.quiet_s() < 5.0:
        watched.look(consumer, places)
        if time.monotonic() > until:
            raise SystemExit("the worker did not come to an end")
        time.sleep(POLL_S)
    consumer.close()
    return watched


def bare_rate(settings: Settings, core: int) -> float:
    """Return the records a second that aiokafka alone reads on `core`, the better of two tries."""
    topic = catalogue(settings).transactions.name
    script = str(Path(__file__).with_name("bare.py"))
    rates = []
    for _ in range(2):
        with pinned({core}):
            done = subprocess.run(
                [sys.executable, script, settings.bootstrap_servers, topic], capture_output=True, check=True
            )
        read, wall_s, cpu_s = json.loads(done.stdout)
        rates.append(read / wall_s)
        print(f"{'bare aiokafka':>16}: {read / wall_s:,.0f}/s, {1e6 * cpu_s / read:.2f} us of CPU a record")
    return max(rates)


def measure(settings: Settings, roles: Sequence[Role], core: int, logs: Path) -> None:
    """Fill the input, run workers of `roles` on `core`, print what the one that ingests used."""
    ensure_topics(settings)
    replay(settings, logs, *given_input())
    bare = bare_rate(settings, core)
    workers: list[Child] = []
    try:
        with pinned({core}):
            workers.extend(start_worker(settings, logs, role) for role in roles)
        watched = watch(settings, workers[0].process.pid)
    finally:
        stop_all(workers)
    read = stored(settings)
    whole = read == records(settings, catalogue(settings).transactions.name)
    evaluations = sum(1 for _ in read_all(settings, catalogue(settings).evaluations.name))
    assert watched.first is not None
    assert watched.last is not None
    wall_s = watched.last[0] - watched.first[0]
    cpu_s = watched.last[1].cpu_s - watched.first[1].cpu_s
    print(
        f"{'+'.join(role.value for role in roles):>16}: {read:,} records{'' if whole else ' (NOT ALL)'}"
        f" in {wall_s:.2f} s, {cpu_s:.2f} s of it CPU: {read / wall_s:,.0f}/s"
        f" ({read / wall_s / bare:.2f} of bare aiokafka),"
        f" {1e6 * cpu_s / read:.2f} us of CPU a record, peak {watched.last[1].rss_peak_mb:.0f} MB,"
        f" {evaluations} windows evaluated",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--keep", type=Path, help="directory for logs and data, kept; else a temporary one")
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    core, others = cores[-1], set(cores[:-1]) or set(cores)
    with tempfile.TemporaryDirectory() as temporary, pinned(others):
        home = chosen.keep or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        with EmbeddedKafka(home / "kafka", KAFKA_CACHE) as kafka:
            for roles in ([Role.INGEST], [Role.INGEST, Role.EVALUATE]):
                prefix = f"bench{len(roles)}."
                settings = settings_of(kafka.bootstrap_servers, prefix, home, partitions=chosen.partitions)
                measure(settings, roles, core, home)


if __name__ == "__main__":
    main()
