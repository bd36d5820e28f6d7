"""From the windows of the history to what the statistics look at."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from models.features import DAY_S
from models.lines import Codes, Floats, Lines, distinct
from streams.detectors.calibrated.arcs import Arc, Flags
from streams.detectors.calibrated.circle import Circle, Reference
from streams.detectors.calibrated.contributions import (
    BASE_FEATURES,
    IS_MEAN,
    Scene,
    distance_values,
    histograms,
    sum_values,
    sums,
)
from streams.detectors.calibrated.norms import Deviations
from streams.detectors.calibrated.statistic import LONG, MID, SHORT, Scale
from streams.detectors.interface import NUMERIC_UNITS
from streams.history import History, PastWindow


class NotComparableError(Exception):
    """A window that cannot be judged; the message says why."""


@dataclass(frozen=True)
class Grid:
    """The lengths of the windows in hops, the length of a hop, and how the columns of the scales end."""

    scale: Scale
    hop_s: int
    suffixes: tuple[str, str, str]


@dataclass(frozen=True)
class Known:
    """The customers of a reference in the codes of the history, and up to which hash customers count."""

    reference: Reference
    codes: Codes  # customer i of the reference has the code `codes[i]`
    bound: int | None


def reference_of(history: History, ends: Sequence[int], hop_s: int, customers_max: int) -> Known:
    """Return the sale lines of the windows that end at `ends`, a hop each, as a reference.

    A first hop that the stream entered on its way is left out. Of more than `customers_max` customers
    those with the smallest hashes stand for all. Raises NotComparableError where a hop is missing.
    """
    windows = [history.windows[end] for end in ends]
    gaps = [after - before for before, after in pairwise(ends) if after - before != hop_s]
    if gaps:
        raise NotComparableError("a window is missing from the reference")
    lines = Lines.concat([_own_invoices(window.lines, i) for i, window in enumerate(windows)])
    start = ends[0] - hop_s
    if ends[0] == history.first_end and lines.time.min(initial=ends[0]) >= start + hop_s // 7:
        start += hop_s
    sales = lines.select(lines.is_sale & (lines.time >= start) & (lines.time < ends[-1]))
    bounds = [window.sample_bound for window in windows if window.sample_bound is not None]
    bound = min(bounds, default=None)
    sales = sales.select(history.within(sales.customer, bound))
    codes: Codes = distinct(sales.customer)
    if len(codes) > customers_max:
        bound = history.bound_of(codes, customers_max)
        sales = sales.select(history.within(sales.customer, bound))
        codes = distinct(sales.customer)
    # In the order of their ids: codes depend on what came before the reference.
    by_id = np.argsort(np.array(history.customer_ids(codes), dtype=object), kind="stable")
    number = np.empty(len(codes), np.int32)
    number[by_id] = np.arange(len(codes), dtype=np.int32)
    customer = number[np.searchsorted(codes, sales.customer)]
    sales = replace(sales, customer=customer).select(np.argsort(sales.time, kind="stable"))
    reference = Reference(sales, start, (ends[-1] - start) // hop_s, hop_s, len(codes))
    return Known(reference, codes[by_id], bound)


def _own_invoices(lines: Lines, window: int) -> Lines:
    """Return lines whose invoices are told apart from those of other windows."""
    return replace(lines, invoice=lines.invoice + np.int32(window << 20))


class Observer:
    """Sees windows as the statistics of one reference do; remembers what it has seen of each."""

    def __init__(self, history: History, known: Known, circle: Circle, grid: Grid) -> None:
        self.history = history
        self.known = known
        self.circle = circle
        self.grid = grid
        self._deviations: dict[int, tuple[Codes, Deviations]] = {}  # by window end: whose, and what

    def of(self, history: History, same: Collection[int]) -> "Observer":
        """Return an observer of another history, whose windows that end at `same` are those seen here."""
        other = Observer(history, self.known, self.circle, self.grid)
        other._deviations = {end: seen for end, seen in self._deviations.items() if end in same}
        return other

    def sums(self, end: int) -> tuple[Floats, Floats]:
        """Return the sums and the histograms of the window; raises NotComparableError."""
        scene = self._scene(end)
        yardsticks = self.circle.yardsticks
        return sums(scene, self.grid.scale, yardsticks), histograms(scene.arcs, yardsticks)

    def values(self, summed: Floats, counts: Floats, reference_values: Floats) -> Floats:
        """Return the statistics of a window's sums and histograms, in the order of `STATISTICS`."""
        means = sum_values(summed) - reference_values
        # A mean over nobody says nothing; neither does that over a few.
        means[IS_MEAN & (summed[1::2] < FEW)] = 0.0
        distances = distance_values(counts, self.circle.histograms)
        values: Floats = np.concatenate([means, distances])
        return values

    def short_sums(self, end: int) -> Floats:
        """Return the sums of the short window alone: no earlier window is needed for them."""
        window = self.history.windows[end]
        cast = _Cast(self, window)
        arc = cast.arc(SHORT)
        nobody = np.zeros(cast.size, bool)
        scene = Scene((arc, arc, arc), (cast.bases,) * 3, self.circle.base_length, nobody, nobody)
        return sums(scene, self.grid.scale, self.circle.yardsticks)

    def _scene(self, end: int) -> Scene:
        window = self.history.windows[end]
        before = [self._window(end - self.grid.scale[i] * self.grid.hop_s) for i in (LONG, MID)]
        cast = _Cast(self, window, *before)
        return Scene(
            arcs=(cast.arc(LONG), cast.arc(MID), cast.arc(SHORT)),
            bases=(cast.bases,) * 3,
            base_length=self.circle.base_length,
            before_long=cast.present(before[0]),
            before_mid=cast.present(before[1]),
        )

    def _window(self, end: int) -> PastWindow:
        found = self.history.windows.get(end)
        if found is None:
            raise NotComparableError("an earlier window, which it is compared with, is missing")
        return found

    def deviations(self, end: int) -> tuple[Codes, Deviations]:
        """Return the deviations of the lines folded in a window, and whose they are."""
        found = self._deviations.get(end)
        if found is None:
            lines = self._window(end).lines
            sales = lines.select(lines.is_sale & self.history.within(lines.customer, self.known.bound))
            codes: Codes = distinct(sales.customer)
            own = replace(sales, customer=np.searchsorted(codes, sales.customer).astype(np.int32))
            found = self._deviations[end] = codes, self.circle.norms.deviations(own, len(codes))
        return found

    def forget(self) -> None:
        """Forget what the history has forgotten."""
        self._deviations = {
            end: seen for end, seen in self._deviations.items() if end in self.history.windows
        }


FEW = 5  # customers below whom no mean is taken


class _Cast:
    """The customers of a scene, numbered: those of the reference, of a window and of some earlier ones."""

    def __init__(self, observer: Observer, window: PastWindow, *earlier: PastWindow) -> None:
        self.observer = observer
        self.window = window
        windows = [window, *earlier]
        grid, history = observer.grid, observer.history
        bound = observer.known.bound
        if bound is not None and any(w.sample_bound is not None and w.sample_bound < bound for w in windows):
            raise NotComparableError("the sample has become smaller than the reference's: it needs a new one")
        self._inside = {w.window_end: history.within(w.row_customer, bound) for w in windows}
        rows = [w.row_customer[self._inside[w.window_end]] for w in windows]
        weeks = range(window.window_end, window.window_end - grid.scale.long * grid.hop_s, -grid.hop_s)
        self._weeks = [end for end in weeks if end in history.windows]
        seen = [observer.deviations(end)[0] for end in self._weeks]
        self.codes: Codes = distinct(np.concatenate([observer.known.codes, *rows, *seen]))
        self.size = len(self.codes)

    @cached_property
    def bases(self) -> list[Arc]:
        """The spans of the reference among the customers of the scene."""
        at = self._at(self.observer.known.codes)
        return [base.enlarged(at, self.size, BASE_FEATURES) for base in self.observer.circle.bases]

    @cached_property
    def _rows(self) -> tuple[dict[str, Floats], Codes, Codes]:
        """The columns of the window's rows that arcs are made of, whose each row is, and the countries."""
        inside = self._inside[self.window.window_end]
        places = {name: i for i, name in enumerate(self.window.rows.columns.tolist())}
        names = [name + suffix for suffix in self.observer.grid.suffixes for name in NUMERIC_UNITS]
        names = [name for name in names if name in places]
        # By their places and all at once: a column by its name costs more to get than to work with.
        frame = self.window.rows.take([places[name] for name in names], axis="columns")
        table = np.ascontiguousarray(frame.to_numpy(np.float64)[inside].T)
        at = self._at(self.window.row_customer[inside])
        return dict(zip(names, table, strict=True)), at, self.window.row_country[inside]

    @cached_property
    def _parts(self) -> list[tuple[Codes, Deviations]]:
        """The deviations of each of the weeks, and whose they are."""
        return [(self._at(codes), part) for codes, part in map(self.observer.deviations, self._weeks)]

    def arc(self, scale: int) -> Arc:
        """Return what the window's rows say of one of its scales."""
        grid = self.observer.grid
        first = self.window.window_end - grid.scale[scale] * grid.hop_s
        parts = [part for end, part in zip(self._weeks, self._parts, strict=True) if end > first]
        columns, at, country = self._rows
        gathered = Deviations.gathered(parts, self.size)
        return Arc.of_rows(columns, grid.suffixes[scale], at, self.size, country, gathered)

    def present(self, window: PastWindow) -> Flags:
        """Return which customers were active in the last `base_length` hops up to the end of `window`."""
        grid = self.observer.grid
        days = self.observer.circle.base_length * grid.hop_s // DAY_S
        active = self._inside[window.window_end] & (window.rows["Recency"].to_numpy() < days)
        there = np.zeros(self.size, bool)
        there[self._at(window.row_customer[active])] = True
        return there

    def _at(self, codes: Codes) -> Codes:
        return np.searchsorted(self.codes, codes).astype(np.int32)
