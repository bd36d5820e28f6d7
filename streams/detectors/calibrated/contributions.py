"""What each customer adds to the statistics of a window.

Every statistic is a function of sums over customers: of a numerator and a denominator, or of the counts in
the bins of a histogram. So a window of resampled customers costs no more than adding their rows up.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.lines import Floats
from streams.detectors.calibrated.arcs import NOBODY, Arc, Flags
from streams.detectors.calibrated.statistic import (
    DISTANCES,
    RETAINED,
    SUMS,
    TOP,
    Kind,
    Scale,
    Statistic,
)
from streams.detectors.interface import CATEGORICAL

BINS = 100
OTHERS = BINS  # the bin of countries that the reference has little of
ABSENT = BINS + 1  # the bin of customers who bought nothing: counted, never compared
LOG_RATIO_MAX = 3.0  # no customer weighs more than one whose figure changed e^3 = 20 times
LINES_MAX = 20  # of a customer and window, after which further lines add no weight
FEATURE_MIN = 1e-3  # what is smaller is taken for this where a log is due: gifts, lines priced at zero

_DEVIATIONS = {"AvgUnitPrice": "mean_price", "AvgQuantity": "mean_quantity"}
_RATES = ("Monetary", "NumOrders", "TotalQuantity")  # features that grow with the length of the window
BASE_FEATURES = _RATES  # those that `SUMS` look up in a base

Small = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """A window with what it is compared with, all over the same customers.

    `bases` are, by scale, the spans of `base_length` hops that customers' own past is taken from. A customer
    had been there before if active in the span of that length that ended where the long window
    (`before_long`) or the middle one (`before_mid`) begins: on a short circle a longer one would reach around
    into the window itself.
    """

    arcs: tuple[Arc, Arc, Arc]
    bases: tuple[Sequence[Arc], Sequence[Arc], Sequence[Arc]]
    base_length: int
    before_long: Flags
    before_mid: Flags

    def among(self, customers: NDArray[np.intp], scale: int) -> "Scene":
        """Return the scene of some customers alone, for the statistics of one scale."""
        arc = self.arcs[scale].among(customers, _SUMMED)
        bases = [base.among(customers, BASE_FEATURES) for base in self.bases[scale]]
        return Scene(
            arcs=(arc, arc, arc),
            bases=(bases, bases, bases),
            base_length=self.base_length,
            before_long=self.before_long[customers],
            before_mid=self.before_mid[customers],
        )


@dataclass(frozen=True)
class Yardsticks:
    """What the reference fixes once: quantiles of the features, the cut of top customers, country bins.

    `grids` has `BINS` - 1 rising quantiles for each distribution statistic; `top_quantity` is a number of
    pieces, in window and base together, a hop each, by scale.
    """

    grids: dict[Statistic, Floats]
    top_quantity: tuple[float, float, float]
    countries: int  # codes below this one have a bin of their own


def contributions(scene: Scene, scale: Scale, yardsticks: Yardsticks) -> Small:
    """Return numerator and denominator of each of `SUMS`, in turns: an array (customers, 2 x statistics)."""
    table = np.empty((len(scene.before_mid), 2 * len(SUMS)), np.float32)
    for i, statistic in enumerate(SUMS):
        numerator, denominator = _CONTRIBUTIONS[statistic.kind](scene, statistic, scale, yardsticks)
        table[:, 2 * i], table[:, 2 * i + 1] = numerator, denominator
    return table


def sums(scene: Scene, scale: Scale, yardsticks: Yardsticks) -> Floats:
    """Return the sums over the customers of `contributions`, without the table."""
    # Whoever bought nothing in a window adds nothing to its statistics, unless it is they who are counted.
    buyers = [scene.among(np.flatnonzero(arc.active), i) for i, arc in enumerate(scene.arcs)]
    totals: list[float] = []
    for statistic in SUMS:
        whom = scene if statistic.feature == RETAINED else buyers[statistic.scale]
        columns = _CONTRIBUTIONS[statistic.kind](whom, statistic, scale, yardsticks)
        totals += [float(column.sum()) for column in columns]
    return np.array(totals)


def bins(arcs: Sequence[Arc], yardsticks: Yardsticks) -> NDArray[np.int16]:
    """Return the bin of each customer in each of `DISTANCES`: an array (customers, statistics)."""
    table = np.full((len(arcs[0].active), len(DISTANCES)), ABSENT, np.int16)
    for i, statistic in enumerate(DISTANCES):
        arc = arcs[statistic.scale]
        table[arc.active, i] = _bins_of(arc, arc.active, statistic, yardsticks)
    return table


def histograms(arcs: Sequence[Arc], yardsticks: Yardsticks) -> Floats:
    """Return the counts (statistics, bins) of the customers in the arcs of a window."""
    counts = np.zeros((len(DISTANCES), BINS + 2))
    for i, statistic in enumerate(DISTANCES):
        arc = arcs[statistic.scale]
        if statistic.kind is Kind.MIX:
            places = _bins_of(arc, arc.active, statistic, yardsticks)
            counts[i] = np.bincount(places, minlength=BINS + 2)
        else:
            # Few quantiles are looked up among sorted values many times faster than values among quantiles.
            values = np.sort(arc.features[statistic.feature][arc.active])
            below = np.searchsorted(values, yardsticks.grids[statistic], side="right")
            counts[i, : BINS - 1] = below
            counts[i, BINS - 1] = len(values)
            counts[i, 1:BINS] -= counts[i, : BINS - 1].copy()
    return counts


def _bins_of(
    arc: Arc, customers: Flags | NDArray[np.intp], statistic: Statistic, yardsticks: Yardsticks
) -> NDArray[np.intp]:
    """Return the bins of active customers in one statistic."""
    if statistic.kind is Kind.MIX:
        country = arc.country[customers]
        return np.where(country < yardsticks.countries, country, OTHERS).astype(np.intp)
    return np.searchsorted(yardsticks.grids[statistic], arc.features[statistic.feature][customers])


def sum_values(sums: Floats) -> Floats:
    """Return the statistics `SUMS` of sums (..., 2 x statistics): logs of counts, else means."""
    numerator, denominator = sums[..., 0::2], sums[..., 1::2]
    # Half a customer stands for none, so that a log exists.
    logs, means = np.log(np.maximum(numerator, 0.5)), numerator / np.maximum(denominator, 1)
    values: Floats = np.where(_IS_COUNT, logs, means)
    return values


def distance_values(counts: Floats, reference: Floats) -> Floats:
    """Return the statistics `DISTANCES` of counts (..., statistics, bins) against those of the reference.

    Kolmogorov-Smirnov on the reference's quantiles as a grid; total variation for the countries.
    """
    gap = _shares(counts) - _shares(reference)
    total, largest = np.abs(gap).sum(-1) / 2, np.abs(np.cumsum(gap, -1)).max(-1)
    values: Floats = np.where(_IS_MIX, total, largest)
    return values


_SUMMED = {statistic.feature for statistic in SUMS} - set(_DEVIATIONS)
_IS_COUNT = np.array([statistic.kind is Kind.COUNT for statistic in SUMS])
IS_MEAN = ~_IS_COUNT
_IS_MIX = np.array([statistic.kind is Kind.MIX for statistic in DISTANCES])


def _shares(counts: Floats) -> Floats:
    present = counts[..., :ABSENT]
    shares: Floats = present / np.maximum(present.sum(-1, keepdims=True), 1)
    return shares


def _count(scene: Scene, statistic: Statistic, *_: object) -> Iterator[Floats | Flags]:
    arc = scene.arcs[statistic.scale]
    before = scene.before_mid if statistic.scale else scene.before_long
    match statistic.feature:
        case "orders":
            yield arc.features["NumOrders"]
        case "arrivals":
            yield arc.active & ~before
        case "returning":
            yield arc.active & before
        case _:
            yield arc.active
    yield np.ones(len(before))


def _mean_log(scene: Scene, statistic: Statistic, *_: object) -> Iterator[Floats | Flags]:
    arc = scene.arcs[statistic.scale]
    values = arc.features[statistic.feature]
    yield _log(np.where(arc.active, np.maximum(values, FEATURE_MIN), 1.0))
    yield arc.active


def _same_product(scene: Scene, statistic: Statistic, *_: object) -> Iterator[Floats | Flags]:
    """Yield the mean deviation of a customer's lines, and its weight."""
    deviations = scene.arcs[statistic.scale].deviations
    weight = np.minimum(deviations.lines, LINES_MAX)
    yield weight * _mean_deviation(scene.arcs[statistic.scale], statistic.feature)
    yield weight


def _same_customer(
    scene: Scene, statistic: Statistic, scale: Scale, yardsticks: Yardsticks
) -> Iterator[Floats | Flags]:
    """Yield the log ratio of window to base, summed over the bases, and how many there are of it."""
    arc, length = scene.arcs[statistic.scale], scale[statistic.scale]
    total, count = np.zeros(len(arc.active)), np.zeros(len(arc.active))
    for base in scene.bases[statistic.scale]:
        both, ratio = _ratio(arc, length, base, scene.base_length, statistic.feature)
        if statistic.segment == TOP:
            pieces = (
                arc.features["TotalQuantity"] / length + base.features["TotalQuantity"] / scene.base_length
            )
            both = both & (pieces > yardsticks.top_quantity[statistic.scale])
        np.minimum(np.maximum(ratio, -LOG_RATIO_MAX, out=ratio), LOG_RATIO_MAX, out=ratio)
        total += np.where(both, ratio, 0)
        count += both
    yield total
    yield count


def _ratio(arc: Arc, length: int, base: Arc, base_length: int, feature: str) -> tuple[Flags, Floats]:
    """Return which customers have a figure in both spans, and the log ratio of the figures."""
    if feature in _DEVIATIONS:
        both = (arc.deviations.lines > 0) & (base.deviations.lines > 0)
        return both, _mean_deviation(arc, feature) - _mean_deviation(base, feature)
    both = arc.active & base.active
    now, then = (np.where(both, np.maximum(one.features[feature], FEATURE_MIN), 1.0) for one in (arc, base))
    rate = np.log(base_length / length) if feature in _RATES else 0.0
    now /= then
    return both, np.log(now, out=now) + rate


def _mean_deviation(arc: Arc, feature: str) -> Floats:
    means: Floats = getattr(arc.deviations, _DEVIATIONS[feature])
    return means


def _log(values: Floats) -> Floats:
    logs: Floats = np.log(values)
    return logs


def _share(scene: Scene, statistic: Statistic, *_: object) -> Iterator[Floats | Flags]:
    arc = scene.arcs[statistic.scale]
    if statistic.feature != CATEGORICAL:
        yield arc.active & scene.before_long
        yield scene.before_long
        return
    moved, count = np.zeros(len(arc.active)), np.zeros(len(arc.active))
    for base in scene.bases[statistic.scale]:
        both = (arc.country != NOBODY) & (base.country != NOBODY)
        moved += both & (arc.country != base.country)
        count += both
    yield moved
    yield count


_Contribution = Callable[[Scene, Statistic, Scale, Yardsticks], Iterator[Floats | Flags]]
_CONTRIBUTIONS: dict[Kind, _Contribution] = {
    Kind.COUNT: _count,
    Kind.MEAN_LOG: _mean_log,
    Kind.SAME_PRODUCT: _same_product,
    Kind.SAME_CUSTOMER: _same_customer,
    Kind.SHARE: _share,
}
