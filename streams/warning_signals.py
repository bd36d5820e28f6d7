"""What is watched of the order stream for early warnings: one signal a test, each learning what is usual."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from streams.page_hinkley import PageHinkley, Shift


class SignalSpec(NamedTuple):
    """What is watched, and how much evidence is a warning.

    Values are standardised: `delta` and `threshold` count standard deviations. They are chosen by
    measurement, for few false warnings: `bench/early_warnings.py`.
    """

    name: str
    warm_values: int  # that only say what is usual
    delta: float
    threshold: float
    scale: float | None  # standard deviation of a value; None: that of the warm-up
    power: float | None  # a value is so many times a power of what is reported; None: its logarithm


# An order's values are logarithms. Of orders, twice the root of a week's count is watched every day: its
# standard deviation is about 1 whatever the mean (F. J. Anscombe, Biometrika 35 (1948), 246-254).
SIGNALS = (
    SignalSpec("OrderValue", 300, 0.1, 60.0, None, None),
    SignalSpec("PiecePrice", 300, 0.1, 60.0, None, None),
    SignalSpec("LinesPerOrder", 300, 0.1, 50.0, None, None),
    SignalSpec("Orders", 28, 1.5, 25.0, 1.0, 0.5),
)


@dataclass(frozen=True)
class Finding:
    """A signal that changed: from when on, by which share of what was usual, on how much evidence."""

    signal: str
    onset_day: int  # days since 1970
    change: float  # 0.2: a fifth more
    statistic: float
    threshold: float


class Signal:
    """A test with its warm-up, in which it learns what is usual."""

    __slots__ = ("_centre", "_scale", "_squares", "spec", "test", "warmed")

    def __init__(self, spec: SignalSpec) -> None:
        self.spec = spec
        self._begin()

    def _begin(self) -> None:
        self.warmed = 0
        self._centre = 0.0
        self._squares = 0.0  # sum of squares about the mean
        self._scale = 0.0
        self.test: PageHinkley | None = None

    def update(self, value: float, day: int) -> Finding | None:
        """Take a value of `day`; return the change that it completes, after which the warm-up begins anew."""
        if self.test is None:
            self._warm(value)
            return None
        shift = self.test.update((value - self._centre) / self._scale, day)
        if shift is None:
            return None
        found = self._finding(shift)
        self._begin()
        return found

    def _warm(self, value: float) -> None:
        """Welford's mean and sum of squares (Technometrics 4 (1962), 419-420)."""
        spec = self.spec
        self.warmed += 1
        step = value - self._centre
        self._centre += step / self.warmed
        self._squares += step * (value - self._centre)
        if self.warmed < spec.warm_values:
            return
        scale = math.sqrt(self._squares / (self.warmed - 1)) if spec.scale is None else spec.scale
        if scale == 0.0:  # all alike: what is usual is not known yet
            self._begin()
            return
        self._scale = scale
        self.test = self._new_test()

    def _new_test(self) -> PageHinkley:
        # The values of the warm-up have mean 0 once they are standardised by it.
        return PageHinkley(delta=self.spec.delta, threshold=self.spec.threshold, values=self.warmed)

    def _finding(self, shift: Shift) -> Finding:
        spec, test = self.spec, self.test
        assert test is not None
        moved = shift.size * self._scale
        if spec.power is None:
            change = math.expm1(moved)
        else:
            usual = self._centre + self._scale * test.mean
            change = (max(0.0, usual + moved) / usual) ** (1 / spec.power) - 1
        return Finding(spec.name, shift.onset, change, shift.statistic, spec.threshold)

    def stored(self) -> list[Any]:
        """Return the state as numbers and lists of them."""
        test = self.test
        return [
            self.warmed,
            self._centre,
            self._squares,
            self._scale,
            None if test is None else test.stored(),
        ]

    def restore(self, stored: list[Any]) -> None:
        """Take up what `stored` gave."""
        self.warmed, self._centre, self._squares, self._scale, test = stored
        self.test = None
        if test is not None:
            self.test = self._new_test()
            self.test.restore(test)
