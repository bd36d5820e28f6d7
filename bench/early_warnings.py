"""Early warnings on streams whose truth is known: how often for nothing, how soon for something.

`python bench/early_warnings.py` prints the table of docs/detectors.md. The streams are the lab's (`lab/`):
customers of the real year drawn anew and their years turned, so that nothing changes, and the same with a
drift at full strength, all at once, 32 weeks on. Each is dealt to partitions by customer; the signals of each
partition are those of the stream itself. Beside our Page-Hinkley test stand river's ADWIN and KSWIN on the
same values, standardised by the same warm-up, each begun anew after a warning.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, median, stdev
from typing import Protocol

from lab.drifts import DRIFTS, ONSET, SUDDEN, Variant, drifted
from lab.streams import POPULATIONS, START, WEEKS, Stream
from river.base import DriftDetector
from river.drift import ADWIN, KSWIN

from models.features import DAY_S
from streams.early_warnings import Values, orders_of, weekly_value
from streams.warning_signals import SIGNALS, Signal, SignalSpec

DAYS = WEEKS * 7
ONSET_DAY = (ONSET - START) // DAY_S
FOUND_WITHIN_DAYS = 91
SEEDS_FROM = 910_000  # for the report; parameters were chosen on 900,001 to 900,012

Day = list[Values]


class Watcher(Protocol):
    """A test of one signal that begins anew after it has fired."""

    def update(self, value: float, day: int) -> object | None: ...


@dataclass
class Peer:
    """A detector of river's behind the warm-up that ours has."""

    spec: SignalSpec
    make: Callable[[], DriftDetector]
    detector: DriftDetector | None = None
    waiting: list[float] = field(default_factory=list)
    scaled: Callable[[float], float] = float

    def update(self, value: float, _day: int) -> object | None:
        """Take a value; return something where it fires."""
        if self.detector is None:
            self._warm(value)
            return None
        self.detector.update(self.scaled(value))
        if not self.detector.drift_detected:
            return None
        self.detector, self.waiting = None, []
        return True

    def _warm(self, value: float) -> None:
        self.waiting.append(value)
        if len(self.waiting) == self.spec.warm_values:
            centre, scale = fmean(self.waiting), self.spec.scale or stdev(self.waiting)
            self.scaled = lambda value: (value - centre) / scale
            self.detector = self.make()
            for seen in self.waiting:
                self.detector.update(self.scaled(seen))


def _adwin(spec: SignalSpec) -> Peer:
    daily = spec.name == "Orders"  # few values, and those of neighbouring days alike
    return Peer(spec, partial(ADWIN, delta=1e-8 if daily else 1e-3, clock=1 if daily else 32))


def _kswin(spec: SignalSpec) -> Peer:
    window, newest = (42, 14) if spec.name == "Orders" else (200, 60)
    return Peer(spec, partial(KSWIN, alpha=1e-6, window_size=window, stat_size=newest, seed=1))


CONTESTANTS: dict[str, Callable[[SignalSpec], Watcher]] = {
    "Page-Hinkley": Signal,
    "ADWIN": _adwin,
    "KSWIN": _kswin,
}


@dataclass(frozen=True)
class Course:
    """What a contestant said of a seed's streams; days are counted from the start."""

    quiet: list[int]
    delays: dict[str, int | None]  # by drift: days from its onset to the first warning
    cpu_s: float
    orders: int


def dealt(stream: Stream, partitions: int) -> list[list[Day]]:
    """Return the orders of each partition, by day."""
    parts = []
    for partition in range(partitions):
        mine = stream.lines.customer % partitions == partition
        orders = orders_of(stream.lines.select(mine))
        parts.append([orders.get(START // DAY_S + day, []) for day in range(DAYS)])
    return parts


def warned_days(days: list[Day], make: Callable[[SignalSpec], Watcher]) -> Iterator[int]:
    """Yield the days on which a signal of a partition changed, one a signal."""
    *of_orders, weekly = (make(spec) for spec in SIGNALS)
    for day, orders in enumerate(days):
        for watcher, values in zip(of_orders, zip(*orders, strict=True), strict=False):
            fired = [value for value in values if watcher.update(value, day)]  # each must see every value
            if fired:
                yield day
        counts = [len(some) for some in days[max(0, day - 6) : day + 1]]
        if len(counts) == 7 and weekly.update(weekly_value(counts), day):
            yield day


def course(population: str, partitions: int, contestant: str, seed: int) -> Course:
    """Let a contestant watch the streams of a seed."""
    make, base = CONTESTANTS[contestant], POPULATIONS[population].make(seed)
    parts = dealt(base, partitions)
    begun = time.process_time()
    quiet = sorted(day for days in parts for day in warned_days(days, make))
    cpu_s = time.process_time() - begun
    delays: dict[str, int | None] = {}
    for name in DRIFTS:
        changed = dealt(drifted(base, Variant(name, "full", SUDDEN), seed), partitions)
        later = (day - ONSET_DAY for days in changed for day in warned_days(days, make))
        delays[name] = min((delay for delay in later if 0 <= delay < FOUND_WITHIN_DAYS), default=None)
    return Course(quiet, delays, cpu_s, sum(len(day) for days in parts for day in days))


def row(title: str, courses: list[Course]) -> str:
    """Return a row of the table."""
    count = len(courses)
    by_chance = sum(any(0 <= day - ONSET_DAY < FOUND_WITHIN_DAYS for day in it.quiet) for it in courses)
    cells = [
        title,
        str(count),
        f"{sum(len(it.quiet) for it in courses) / count:.2f}",
        f"{sum(bool(it.quiet) for it in courses) / count:.0%}",
        f"{by_chance / count:.0%}",
    ]
    for name in DRIFTS:
        found = [it.delays[name] for it in courses if it.delays[name] is not None]
        cells.append(f"{len(found) / count:.0%}" + (f", {median(found):.0f} d" if found else ""))
    cells.append(f"{1e6 * sum(it.cpu_s for it in courses) / sum(it.orders for it in courses):.1f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=40, help="streams of the real year; half as many of a shop"
    )
    parser.add_argument("--slow-seeds", type=int, default=2, help="of those, how many KSWIN watches")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    titles = ("contestant", "years", "false warnings a year", "quiet years with any", "in 13 weeks", *DRIFTS)
    print("| " + " | ".join((*titles, "us of CPU an order")) + " |")
    print("| --- |" + " ---: |" * (len(titles)))
    plan = [
        ("Page-Hinkley", "real", 4, chosen.seeds),
        ("Page-Hinkley", "real", 1, chosen.seeds),
        ("Page-Hinkley", "plain", 4, chosen.seeds // 2),
        ("ADWIN", "real", 4, chosen.seeds // 2),
        ("KSWIN", "real", 4, chosen.slow_seeds),
    ]
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for contestant, population, partitions, seeds in plan:
            watch = partial(course, population, partitions, contestant)
            courses = list(pool.map(watch, range(SEEDS_FROM, SEEDS_FROM + seeds)))
            print(row(f"{contestant}, {population}, {partitions} partitions", courses), flush=True)


if __name__ == "__main__":
    main()
