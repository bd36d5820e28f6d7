"""The Page-Hinkley test: has the mean of a stream of values moved, how far, and since when."""

from typing import Any, NamedTuple


class Shift(NamedTuple):
    """A change of the mean, and how much evidence there was."""

    size: float  # from the mean so far to that of the values since the onset; below zero for a fall
    statistic: float
    onset: int  # the mark of the first value that speaks for it
    values: int  # from that one on


Side = tuple[float, int, int]  # a sum, how many values are in it, the mark of the first
NOTHING: Side = (0.0, 0, 0)


class PageHinkley:
    """Sums of what exceeds the mean so far, by more than `delta`, in either direction; `threshold` is enough.

    E. S. Page, Continuous Inspection Schemes, Biometrika 41 (1954), 100-115. It says what river's
    `PageHinkley` says with `alpha=1` (no forgetting), and is here for what that one does not give: its state
    as numbers, which a checkpoint can hold, and when the change began.

    `values` and `mean` may be those of values seen before, which are then not tested.

    >>> test = PageHinkley(delta=0.1, threshold=5.0)
    >>> found = [test.update(value, mark=i) for i, value in enumerate([0.0] * 20 + [2.0] * 10)]
    >>> next(shift.onset for shift in found if shift)
    20
    """

    __slots__ = ("delta", "fall", "mean", "rise", "threshold", "values")

    def __init__(self, *, delta: float, threshold: float, values: int = 0, mean: float = 0.0) -> None:
        self.delta = delta
        self.threshold = threshold
        self.values = values
        self.mean = mean
        self.rise = self.fall = NOTHING

    def update(self, value: float, mark: int) -> Shift | None:
        """Take a value, `mark` says which; return the change that it completes, which ends the test."""
        self.values += 1
        self.mean += (value - self.mean) / self.values
        deviation = value - self.mean
        risen, count, onset = self.rise
        risen += deviation - self.delta
        self.rise = (risen, count + 1, onset if count else mark) if risen > 0.0 else NOTHING
        fallen, count, onset = self.fall
        fallen -= deviation + self.delta
        self.fall = (fallen, count + 1, onset if count else mark) if fallen > 0.0 else NOTHING
        if risen > self.threshold:
            return self._shift(self.rise, 1)
        if fallen > self.threshold:
            return self._shift(self.fall, -1)
        return None

    def _shift(self, side: Side, sign: int) -> Shift:
        total, count, onset = side
        return Shift(sign * (total / count + self.delta), total, onset, count)

    def stored(self) -> list[Any]:
        """Return the state as numbers and tuples of numbers."""
        return [self.values, self.mean, self.rise, self.fall]

    def restore(self, stored: list[Any]) -> None:
        """Take up what `stored` gave."""
        self.values, self.mean = stored[:2]
        self.rise, self.fall = tuple(stored[2]), tuple(stored[3])
