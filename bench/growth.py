"""How the cost of the ingest path grows, without Kafka: `python bench/growth.py [--quick]`.

One thing grows at a time: lines, customers, partitions, the long window. Each row is a process of its own, so
that its peak of memory is its own: CPU time a line, the batch that took longest (it closed a window), what
the checkpoints hold at the end, and how long a worker needs to load them.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

from orders import LINES_AN_ORDER_MAX, Case, batches

from streams.checkpoints import Ledger, load
from streams.partition import PartitionState
from streams.settings import Settings
from streams.snapshots import encode_part
from streams.state_config import StateConfig
from streams.worker import GC_THRESHOLD


def measure(case: Case) -> dict[str, float]:
    """Run one case in this process."""
    gc.set_threshold(GC_THRESHOLD)
    settings = Settings(window_days=case.window_days, reference_weeks=60, partitions=case.partitions)
    config = StateConfig.of(settings)
    states = [PartitionState(partition, config) for partition in range(case.partitions)]
    ledgers = [Ledger() for _ in states]
    stores: list[dict[bytes, bytes]] = [{} for _ in states]
    cpu_s = close_max_s = 0.0
    read = 0
    for partition, values, headers in batches(case):
        state, begun = states[partition], time.process_time()
        first = state.read_offset + 1
        for cut in state.apply(range(first, first + len(values)), values, headers).cuts:
            for part in cut.parts:
                encode_part(part, case.partitions)
            for key, value in ledgers[partition].commit(cut, state.words):
                if value is None:
                    stores[partition].pop(key, None)
                else:
                    stores[partition][key] = value
        took = time.process_time() - begun
        close_max_s = max(close_max_s, took)
        cpu_s, read = cpu_s + took, read + len(values)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = time.process_time()
    for partition, store in enumerate(stores):
        assert load(partition, config, store) is not None
    return {
        "us_a_line": 1e6 * cpu_s / read,
        "batch_max_ms": 1e3 * close_max_s,
        "peak_mb": peak_mb,
        "state_mb": sum(map(len, (value for store in stores for value in store.values()))) / 1e6,
        "load_s": time.process_time() - begun,
    }


def cases(*, quick: bool) -> Iterator[tuple[str, Case]]:
    """Yield what grows, and the case."""
    usual = Case(lines=108_000, days=182) if quick else Case()
    yield "as it is", usual
    for times in (3, 10):
        yield f"{times} x lines", replace(usual, lines=times * usual.lines)
    for customers in (40_000, 400_000, 4_000_000):
        if not quick or customers < 400_000:
            # Two lines or more for each: everybody buys at least once, or they would not be customers.
            lines = max(usual.lines, customers * LINES_AN_ORDER_MAX // 8)
            yield f"{customers:,} customers", replace(usual, customers=customers, lines=lines)
    for partitions in (1, 16, 64):
        yield f"{partitions} partitions", replace(usual, partitions=partitions)
    for weeks in (4, 26, 52):
        yield f"{weeks} weeks' window", replace(usual, window_days=7 * weeks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the lines, no millions of customers")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        print(json.dumps(measure(Case(**json.loads(chosen.case)))))
        return
    titles = ("us a line", "longest batch, ms", "peak, MB", "checkpoints, MB", "load, s of CPU")
    print("| what grows | lines | " + " | ".join(titles) + " |")
    print("| --- |" + " ---: |" * 6)
    for name, case in cases(quick=chosen.quick):
        command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        figures = " | ".join(f"{value:,.2f}" if value < 20 else f"{value:,.0f}" for value in found.values())
        print(f"| {name} | {case.lines:,} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
