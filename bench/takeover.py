"""How long a start and a take-over last, by the size of the state: `python bench/takeover.py` (Linux).

Made-up orders are sent and one worker stores them all. Then, in turns: that worker is stopped and a fresh one
started, timed from the start of the process to the moment when all partitions are loaded; a second one is
started, and when each has its share the first is killed, timed from the kill to the moment when the survivor
has loaded all partitions. The broker's wait for the dead one, the session timeout, is part of that time.

The last row has three times as many lines in three times as many days: as much state behind a longer log.
What a load reads is the log of checkpoints as the broker keeps it: besides the state it holds what newer
records have replaced, until the broker compacts it.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from itertools import chain
from pathlib import Path

from installation import loads, records, settings_of, start_worker, told, wait_spread, watch
from orders import Case, batches, end, send
from programs import KAFKA_CACHE, used, wait_until

from streams.embedded_kafka import EmbeddedKafka
from streams.processes import Child, stop_all
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

MB = 1e6
TITLES = (
    "customers",
    "lines in the log",
    "state, MB",
    "its log, MB",
    "start, s",
    "of it loading, s",
    "take-over, s",
    "peak, MB",
)


@dataclass(frozen=True)
class Times:
    """A start, a take-over, and the peak of memory of the worker that was started."""

    start_s: float
    load_s: float  # of the start: what followed when the process had come up and asked for its partitions
    takeover_s: float
    peak_mb: float


def wait_loaded(settings: Settings, worker: Child, since: float) -> float:
    """Wait until a worker has loaded every partition after `since`; return how long after, seconds."""

    def moments() -> list[float]:
        return [at for at in loads(worker).values() if at > since]

    wait_until(lambda: len(moments()) == settings.partitions, [worker])
    return max(moments()) - since


def times(settings: Settings, home: Path, turns: int, workers: list[Child]) -> Iterator[Times]:
    """Stop, start, join and kill; the processes that run are in `workers`, one at the beginning."""
    for _ in range(turns):
        stop_all(workers)
        begun = time.time()
        workers[:] = [start_worker(settings, home)]
        start_s = wait_loaded(settings, workers[0], begun)
        (started, _), *_ = told(workers[0], "worker started")
        peak_mb = used([workers[0].process.pid]).rss_peak_mb
        workers.append(start_worker(settings, home))
        wait_spread(settings, workers)
        killed = time.time()
        workers[0].process.kill()
        workers.pop(0).process.wait()
        takeover_s = wait_loaded(settings, workers[0], killed)
        yield Times(start_s, begun + start_s - started, takeover_s, peak_mb)


def sizes(settings: Settings) -> tuple[int, int]:
    """Return the bytes of the newest checkpoints, and of all records that the log of checkpoints holds."""
    live = whole = 0
    for partition in range(settings.partitions):
        newest: dict[bytes, int] = {}
        for record in read_all(settings, catalogue(settings).state.name, partition):
            size = len(record.key) + len(record.value or b"")
            newest[record.key] = size if record.value is not None else 0
            whole += size
        live += sum(newest.values())
    return live, whole


def measure(settings: Settings, case: Case, home: Path, turns: int) -> str:
    """Return a row of the table."""
    ensure_topics(settings)
    topic = catalogue(settings).transactions.name
    asyncio.run(send(settings.bootstrap_servers, topic, chain(batches(case), end(case))))
    workers = [start_worker(settings, home)]
    try:
        watch(settings, workers, poll_s=0.1)
        live, whole = sizes(settings)
        found = list(times(settings, home, turns, workers))
    finally:
        stop_all(workers)
    start_s, load_s, takeover_s, peak_mb = (
        statistics.median(values) for values in zip(*map(astuple, found), strict=True)
    )
    return (
        f"| {case.customers:,} | {records(settings, topic):,} | {live / MB:.1f} | {whole / MB:.1f}"
        f" | {start_s:.1f} | {load_s:.1f} | {takeover_s:.1f} | {peak_mb:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--customers", type=int, nargs="+", default=[4_000, 40_000, 400_000])
    parser.add_argument("--lines", type=int, default=Case.lines, help="lines of a year")
    parser.add_argument("--turns", type=int, default=3, help="starts and take-overs of each case")
    parser.add_argument("--keep", type=Path, help="directory for logs and data, kept; else a temporary one")
    options = parser.parse_args()
    cases = [Case(lines=options.lines, customers=customers) for customers in options.customers]
    cases.append(replace(cases[0], lines=3 * cases[0].lines, days=3 * cases[0].days))
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.keep or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        with EmbeddedKafka(home / "kafka", KAFKA_CACHE) as kafka:
            print(f"| {' | '.join(TITLES)} |")
            print("|" + " ---: |" * len(TITLES))
            for number, case in enumerate(cases):
                prefix = f"takeover{number}."
                settings = settings_of(kafka.bootstrap_servers, prefix, home, partitions=case.partitions)
                print(measure(settings, case, home, options.turns), flush=True)


if __name__ == "__main__":
    main()
