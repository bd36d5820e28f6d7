"""What a line costs with several workers instead of one: `python bench/scale.py` (Linux).

Workers that ingest start on empty topics. When every partition is loaded and each worker has its share, the
whole input is replayed, as fast as that goes, and the CPU time of all workers until the last checkpoint is
summed: what coordination costs shows in the CPU time a line. The wall time shows how many cores the machine
has to spare beside the replay and the broker, which work meanwhile.
"""

import argparse
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from installation import (
    given_input,
    settings_of,
    start_replay,
    start_worker,
    stored,
    wait_spread,
    watch,
)
from measure import Run
from programs import KAFKA_CACHE

from streams.embedded_kafka import EmbeddedKafka
from streams.processes import Child, stop_all
from streams.settings import Settings
from streams.topic_admin import ensure_topics

POLL_S = 0.1  # the watcher has no core of its own here


def measure(settings: Settings, workers: int, home: Path) -> Run:
    """Let so many workers take the whole input while it is replayed."""
    ensure_topics(settings)
    children: list[Child] = []
    try:
        children.extend(start_worker(settings, home) for _ in range(workers))
        wait_spread(settings, children)
        children.append(start_replay(settings, home, *given_input()))
        first, last = watch(settings, children[:workers], filling=children[workers], poll_s=POLL_S)
    finally:
        stop_all(children)
    cpu_s = last[1].cpu_s - first[1].cpu_s
    return Run(stored(settings), last[0] - first[0], cpu_s, last[1].rss_peak_mb)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="the first is compared with")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="directory for logs and data, kept; else a temporary one")
    options = parser.parse_args()
    found: dict[int, list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.keep or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        with EmbeddedKafka(home / "kafka", KAFKA_CACHE) as kafka:
            for turn in range(options.turns):
                for workers in options.workers:
                    prefix = f"scale{turn}.{workers}."
                    settings = settings_of(
                        kafka.bootstrap_servers, prefix, home, partitions=options.partitions
                    )
                    run = measure(settings, workers, home)
                    found[workers].append(run)
                    print(f"turn {turn + 1}  {workers} worker(s): {run.lines:,} records {run}", flush=True)
    cpu = {n: statistics.median(run.cpu_us_per_line for run in runs) for n, runs in found.items()}
    wall = {n: statistics.median(run.wall_s for run in runs) for n, runs in found.items()}
    one = options.workers[0]
    for workers in options.workers:
        print(
            f"{workers} worker(s): {cpu[workers]:.2f} us of CPU a record, {cpu[workers] / cpu[one]:.2f} times"
            f" that of {one}; {wall[workers]:.1f} s, {wall[workers] / wall[one]:.2f} times"
        )


if __name__ == "__main__":
    main()
