"""The reference as a circle of weeks: every customer in every window that can be laid on it.

Behaviour that does not change has no first week. So the reference may be turned, each customer by another
number of weeks, and every turn shows what might as well have happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.lines import Floats, Ints, Lines, distinct, pair_keys
from streams.detectors.calibrated.arcs import Arc, Flags
from streams.detectors.calibrated.contributions import (
    BINS,
    Scene,
    Small,
    Yardsticks,
    bins,
    contributions,
)
from streams.detectors.calibrated.norms import Deviations, Norms
from streams.detectors.calibrated.statistic import (
    ARRIVALS,
    DISTANCES,
    RETAINED,
    RETURNING,
    SUMS,
    TOP_SHARE,
    Kind,
    Scale,
    Statistic,
)


@dataclass(frozen=True)
class Reference:
    """Sale lines of `hops` whole hops from `start` (epoch seconds) on, in the order of time.

    Customers are numbered without gaps: each of the `customers` occurs.
    """

    sales: Lines
    start: int
    hops: int
    hop_s: int
    customers: int

    @property
    def end(self) -> int:
        """Where the reference ends, epoch seconds."""
        return self.start + self.hops * self.hop_s

    def hops_seen(self) -> Ints:
        """Return in how many hops each customer bought."""
        hop = ((self.sales.time - self.start) // self.hop_s).astype(np.int32)
        pairs = distinct(pair_keys(self.sales.customer, hop))
        return np.bincount(pairs >> 32, minlength=self.customers)

    def base_length(self, scale: Scale) -> int:
        """Return the length in hops of the spans that same customers are compared with."""
        return min(scale.long, self.hops - scale.long)


_PAIRED = {Kind.SAME_CUSTOMER, Kind.SAME_PRODUCT}


@dataclass(frozen=True)
class Circle:
    """A row a customer in every window that ends at one of the hops of the circle.

    `contributions` is an array (hops, customers, 2 x sums), `bins` one (hops, customers, distances). `bases`
    are the first and the last span of the reference as it lay in time.
    """

    scale: Scale
    norms: Norms
    yardsticks: Yardsticks
    contributions: Small
    bins: NDArray[np.int16]
    bases: tuple[Arc, Arc]
    base_length: int

    def in_time(self, statistics: Sequence[Statistic]) -> Flags:
        """Return in which windows a statistic is not of both ends of the reference: (hops, statistics).

        A window across the seam of the circle holds customers who left early beside those who came late. It
        has more customers than one of weeks that follow each other, and sees more of them come back, for the
        weeks that it sets apart lie closer together. What sets customers or products beside themselves is
        not touched by that.
        """
        reach = [self._reach(statistic) for statistic in statistics]
        return self._ends()[:, None] >= np.array(reach)

    def _reach(self, statistic: Statistic) -> int:
        """Return how many hops back a statistic looks, as far as it matters that they follow each other."""
        if statistic.kind in _PAIRED or (statistic.kind is Kind.SHARE and statistic.feature != RETAINED):
            return 0
        looks_before = statistic.feature in {ARRIVALS, RETURNING, RETAINED}
        return self.scale[statistic.scale] + (self.base_length if looks_before else 0)

    def middles(self, statistics: Sequence[Statistic]) -> Floats:
        """Return the middle of the windows that are `in_time`, in hops from that of the first hop."""
        ends = self._ends()[:, None]
        seen = self.in_time(statistics)
        lengths = np.array([self.scale[statistic.scale] for statistic in statistics])
        middles: Floats = (ends * seen).sum(axis=0) / seen.sum(axis=0) - (lengths + 1) / 2
        return middles

    def _ends(self) -> Ints:
        """Return before which hop each window ends, from 1 on; that before hop 0 is the reference's last."""
        hops = len(self.contributions)
        return np.concatenate([[hops], np.arange(1, hops)])

    def level(self, sums: Floats) -> Floats:
        """Return the mean of sums (..., hops, 2 x statistics) over the windows that are `in_time`."""
        seen = np.repeat(self.in_time(SUMS), 2, axis=1)
        level: Floats = np.einsum("...hs,hs->...s", sums, seen / seen.sum(axis=0))
        return level

    def histogram(self, counts: Floats) -> Floats:
        """Return the sum of counts (..., hops, statistics, bins) over the windows that are `in_time`."""
        total: Floats = np.einsum("...hsb,hs->...sb", counts, self.in_time(DISTANCES).astype(np.float64))
        return total

    @cached_property
    def histograms(self) -> Floats:
        """The bins of the reference's customers: an array (distances, bins)."""
        width = BINS + 2
        counts = [[np.bincount(column, minlength=width) for column in window.T] for window in self.bins]
        return self.histogram(np.array(counts, np.float64))


def lay_out(reference: Reference, scale: Scale) -> Circle:
    """Return the circle of a reference that is longer than the long window."""
    hops, base_length = reference.hops, reference.base_length(scale)
    norms = Norms.of(reference.sales)
    sales = reference.sales
    twice = Lines.concat([sales, replace(sales, time=sales.time + hops * reference.hop_s)])
    borders = np.searchsorted(twice.time, reference.start + np.arange(2 * hops + 1) * reference.hop_s)
    deviations = [
        norms.deviations(sales.select(slice(first, stop)), reference.customers)
        for first, stop in pairwise(borders[: hops + 1])
    ]

    def arc(last: int, length: int) -> Arc:
        """Return the span of `length` hops that ends before the hop `last` of the circle."""
        stop = hops + last % hops
        return Arc.of_lines(
            twice.select(slice(borders[stop - length], borders[stop])),
            reference.customers,
            reference.start + stop * reference.hop_s,
            Deviations.total([deviations[hop % hops] for hop in range(stop - length, stop)]),
        )

    arcs = [tuple(arc(last, length) for length in scale) for last in range(hops)]
    bases = [arc(last, base_length) for last in range(hops)]
    scenes = [
        Scene(
            arcs=(arcs[last][0], arcs[last][1], arcs[last][2]),
            # Nothing of a window is in its base: the base of the long one ends where that begins; that of the
            # shorter ones lies across the circle.
            bases=(
                [bases[(last - scale.long) % hops]],
                [bases[(last - (hops - base_length) // 2) % hops]],
                [bases[(last - (hops - base_length) // 2) % hops]],
            ),
            base_length=base_length,
            before_long=bases[(last - scale.long) % hops].active,
            before_mid=bases[(last - scale.mid) % hops].active,
        )
        for last in range(hops)
    ]
    yardsticks = _yardsticks(scenes, scale)
    binned = np.stack([bins(scene.arcs, yardsticks) for scene in scenes])
    return Circle(
        scale=scale,
        norms=norms,
        yardsticks=yardsticks,
        contributions=np.stack([contributions(scene, scale, yardsticks) for scene in scenes]),
        bins=binned,
        bases=(bases[base_length], bases[0]),
        base_length=base_length,
    )


def _yardsticks(scenes: list[Scene], scale: Scale) -> Yardsticks:
    """Return the quantiles of features over all windows of the circle, and the cut of top customers."""
    levels = np.arange(1, BINS) / BINS
    grids = {
        statistic: np.quantile(
            np.concatenate(
                [
                    scene.arcs[statistic.scale].features[statistic.feature][
                        scene.arcs[statistic.scale].active
                    ]
                    for scene in scenes[::2]
                ]
            ),
            levels,
        )
        for statistic in DISTANCES
        if statistic.kind is Kind.DISTRIBUTION
    }
    cuts = []
    for i, length in enumerate(scale):
        pieces = np.concatenate(
            [
                scene.arcs[i].features["TotalQuantity"] / length
                + scene.bases[i][0].features["TotalQuantity"] / scene.base_length
                for scene in scenes[::3]
            ]
        )
        cuts.append(float(np.quantile(pieces[pieces > 0], 1 - TOP_SHARE)))
    return Yardsticks(grids, (cuts[0], cuts[1], cuts[2]), countries=BINS)
