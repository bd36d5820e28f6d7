"""CPU time a line of the ingest path, step by step, without Kafka: `python bench/ingest.py`.

The records are made one batch at a time, as a consumer would hand them over; making them is not counted.
"""

import argparse
import gc
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from producers import feed
from producers.inputs import Input, find_input
from streams.checkpoints import Ledger
from streams.partition import PartitionState
from streams.settings import Settings, load_settings
from streams.snapshots import encode_part
from streams.state_config import StateConfig
from streams.worker import GC_THRESHOLD

STEPS = ("decode", "apply", "checkpoint", "snapshot")
T = TypeVar("T")


class Stopwatch:
    """CPU seconds by step."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, step: str, work: Callable[..., T]) -> Callable[..., T]:
        """Return `work`, its CPU time counted under `step`."""

        def run(*arguments: object) -> T:
            start = time.process_time()
            result = work(*arguments)
            self.seconds[step] += time.process_time() - start
            return result

        return run


class Bench:
    """The states of all partitions, fed a batch at a time."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self.watch = Stopwatch()
        config = StateConfig.of(settings, partitions)
        self.states = [PartitionState(partition, config) for partition in range(partitions)]
        self.ledgers = [Ledger() for _ in self.states]
        self.encode = self.watch.timed("snapshot", encode_part)
        for state in self.states:
            # On the object alone, so that the time can be told apart from the rest of `apply`.
            state.decoder.decode = self.watch.timed("decode", state.decoder.decode)  # type: ignore[method-assign]

    def take(self, records: Sequence[feed.Record]) -> None:
        """Apply a batch of one partition, and encode what follows from it."""
        partition = records[0].partition
        state, ledger = self.states[partition], self.ledgers[partition]
        first = state.read_offset + 1
        applied = self.watch.timed("apply", state.apply)(
            list(range(first, first + len(records))),
            [record.value for record in records],
            [tuple(record.headers) for record in records],
        )
        for cut in applied.cuts:
            for part in cut.parts:
                self.encode(part, len(self.states))
            self.watch.timed("checkpoint", ledger.commit)(cut, state.words)

    def microseconds_a_line(self) -> dict[str, float]:
        """Return the CPU time by step, microseconds a record read."""
        seconds = dict(self.watch.seconds)
        seconds["apply"] -= seconds["decode"]
        lines = sum(state.counters.read for state in self.states)
        return {step: 1e6 * seconds[step] / lines for step in STEPS}


def batches(source: Input, settings: Settings, partitions: int) -> Iterator[list[feed.Record]]:
    """Yield the records of a feed in batches of one partition each."""
    waiting: list[list[feed.Record]] = [[] for _ in range(partitions)]
    for record in feed.records(
        source.lines(),
        source=source.source,
        partitions=partitions,
        jump_max_days=settings.jump_max_days,
        jump_confirm_lines=settings.jump_confirm_lines,
        start=source.start,
    ):
        batch = waiting[record.partition]
        batch.append(record)
        if len(batch) == settings.batch_lines_max:
            yield batch
            waiting[record.partition] = []
    yield from filter(None, waiting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 4, 16])
    chosen = parser.parse_args().partitions
    named = os.environ.get("ONLINE_RETAIL")
    source, note = find_input(Path(named) if named else None, None)
    print(f"{note or source.title}; Python {platform.python_version()}, {os.cpu_count()} CPUs")
    print(f"{'partitions':>10} {'records':>9} " + " ".join(f"{step:>10}" for step in (*STEPS, "sum")))
    settings = load_settings()
    gc.set_threshold(GC_THRESHOLD)
    for partitions in chosen:
        bench = Bench(settings, partitions)
        for batch in batches(source, settings, partitions):
            bench.take(batch)
        times = bench.microseconds_a_line()
        read = sum(state.counters.read for state in bench.states)
        figures = " ".join(f"{value:10.2f}" for value in (*times.values(), sum(times.values())))
        print(f"{partitions:>10} {read:>9} {figures}  us of CPU a record")


if __name__ == "__main__":
    main()
