"""Early warnings: that the order stream of a partition changed, told within the week in which it does.

Each day is judged once the partition's watermark has passed it. A warning is shown and never acted on: the
verdict on a window is the detectors'. It is a function of the partition's log like everything else in its
state, which these tests are part of; lines that come after their day was judged are left out.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from models.features import DAY_S
from models.lines import Lines, distinct
from streams import cloudevents
from streams.grid import floor_end, iso
from streams.warning_signals import SIGNALS, Finding, Signal
from streams.window_state import Segment

WARNING = "clv.warning.v1"

Values = tuple[float, float, float]  # of an order: logarithms of amount, price a piece and lines

WEEK_DAYS = 7
SILENCE_DAYS = 28  # without an order, after which everything begins anew


@dataclass(frozen=True)
class Warned:
    """What was found on a day of a partition."""

    partition: int
    day: int
    findings: tuple[Finding, ...]

    def to_event(self, source: str, hop_s: int) -> dict[str, Any]:
        """Return the warning as a CloudEvent; its time is the end of the day."""
        start = self.day * DAY_S
        data = {
            "partition": self.partition,
            "day": iso(start),
            "window_end": iso(floor_end(start, hop_s) + hop_s),
            "findings": [
                {
                    "signal": found.signal,
                    "onset": iso(found.onset_day * DAY_S),
                    "change": round(found.change, 4),
                    "statistic": round(found.statistic, 4),
                    "threshold": found.threshold,
                }
                for found in self.findings
            ],
        }
        return cloudevents.envelope(kind=WARNING, source=source, window_end=start + DAY_S, data=data)

    def record(self, source: str, hop_s: int) -> tuple[bytes, bytes]:
        """Return the warning as a message; the same day of a partition has the same key."""
        key = f"{iso(self.day * DAY_S)}/{self.partition}".encode()
        return key, cloudevents.encode(self.to_event(source, hop_s))


@dataclass
class Tally:
    """What was ever found in a partition: how often by signal, and when last."""

    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys((s.name for s in SIGNALS), 0))
    last_day: int | None = None  # days since 1970

    def add(self, warned: Warned) -> None:
        """Count the findings of a day."""
        for finding in warned.findings:
            self.found[finding.signal] += 1
        self.last_day = warned.day


class EarlyWarnings:
    """The signals of a partition, up to the day before `day`."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.day: int | None = None  # the first that is not judged, days since 1970
        self.tally = Tally()
        self._begin()

    def _begin(self) -> None:
        self.signals = [Signal(spec) for spec in SIGNALS]
        self.counts: list[int] = []  # orders of the last days, the first of them with any

    def advance(self, day: int, segments: Iterable[Segment]) -> list[Warned]:
        """Judge the days before `day`, with what `segments` hold of them; return those that warn."""
        if self.day is None or day <= self.day:
            self.day = day if self.day is None else self.day
            return []
        first, self.day = self.day, day
        begin, end = first * DAY_S, day * DAY_S
        recent = [_sales(segment.lines, begin, end) for segment in segments if segment.max_time >= begin]
        orders = orders_of(Lines.concat(recent))
        warned = []
        each = first
        while each < day:
            if not self.counts and each not in orders:  # nothing to be silent after: on to the next order
                each = min((other for other in orders if other > each), default=day)
                continue
            findings = self._judge(each, orders.get(each, []))
            if findings:
                warned.append(Warned(self.partition, each, findings))
                self.tally.add(warned[-1])
            each += 1
        return warned

    def _judge(self, day: int, orders: list[Values]) -> tuple[Finding, ...]:
        """Show a day's orders to the tests; return what they found, the first of each."""
        found: dict[str, Finding] = {}
        *of_orders, weekly = self.signals
        for signal, values in zip(of_orders, zip(*orders, strict=True), strict=False):
            for value in values:
                finding = signal.update(value, day)
                if finding is not None:
                    found.setdefault(finding.signal, finding)
        self.counts = [*self.counts, len(orders)][-SILENCE_DAYS:]
        if len(self.counts) >= WEEK_DAYS:
            finding = weekly.update(weekly_value(self.counts[-WEEK_DAYS:]), day)
            if finding is not None:
                found[finding.signal] = finding
        if not any(self.counts) and len(self.counts) == SILENCE_DAYS:
            self._begin()
        return tuple(found.values())

    def stored(self) -> dict[str, Any]:
        """Return the state as numbers, texts and lists of them."""
        signals = [signal.stored() for signal in self.signals]
        return {"day": self.day, "counts": self.counts, "signals": signals, "tally": asdict(self.tally)}

    def restore(self, stored: dict[str, Any]) -> None:
        """Take up what `stored` gave."""
        self.day, self.counts, self.tally = stored["day"], stored["counts"], Tally(**stored["tally"])
        for signal, state in zip(self.signals, stored["signals"], strict=True):
            signal.restore(state)


def orders_of(lines: Lines) -> dict[int, list[Values]]:
    """Return the values of each order in sale lines, those of a day (days since 1970) in the order of time.

    An order is what a customer bought on an invoice within a day. Orders of one moment stand in the order of
    their sums, so that neither codes nor the order of arrival matter.
    """
    if not len(lines):
        return {}
    first, last = int(lines.time.min()) // DAY_S, int(lines.time.max()) // DAY_S
    if first == last:
        return {first: _values(lines)}
    days = lines.time // DAY_S
    return {day: _values(lines.select(days == day)) for day in distinct(days).tolist()}


def weekly_value(counts: list[int]) -> float:
    """Return the value of the signal `Orders` after a week of so many orders a day."""
    return 2 * math.sqrt(sum(counts) + 0.375)


def _values(lines: Lines) -> list[Values]:
    """Return the values of each order of a day, which has at least one."""
    runs = lines.runs
    orders: dict[int, tuple[int, int, int, int]] = {}
    for key, time, amount, pieces, count in zip(
        runs.keys.tolist(),
        np.minimum.reduceat(lines.time, runs.starts).tolist(),
        np.add.reduceat(lines.amount, runs.starts).tolist(),
        np.add.reduceat(lines.quantity, runs.starts).tolist(),
        np.diff(runs.starts, append=len(lines)).tolist(),
        strict=True,
    ):
        first, *sums = orders.get(key, (time, 0, 0, 0))
        orders[key] = (min(first, time), sums[0] + amount, sums[1] + pieces, sums[2] + count)
    # Logarithms of Python's own: numpy's may round otherwise where it has another number of values at once.
    log = math.log
    return [
        (log(amount), log(amount) - log(pieces), log(count))
        for _, amount, pieces, count in sorted(orders.values())
    ]


def _sales(lines: Lines, begin: int, end: int) -> Lines:
    """Return the sale lines in [begin, end)."""
    return lines.select((lines.time >= begin) & (lines.time < end) & lines.is_sale)
