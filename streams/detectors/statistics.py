"""Two-sample tests, and the adjustment of their p-values for being many."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

EXPECTED_COUNT_MIN = 5.0

Floats = NDArray[np.float64]


class Comparison(NamedTuple):
    """Two samples compared: a distance in 0..1 (0 for equal distributions) and the p-value of equality."""

    distance: float
    p_value: float


def kolmogorov_smirnov(current: Floats, reference: Floats) -> Comparison:
    """Compare two samples of finite numbers, neither empty, by the largest gap of their distributions.

    The p-value is Kolmogorov's (1933) limit at the effective size m n / (m + n). It lies on the safe side: at
    30 values a side it is up to twice the exact one where the sizes differ, at thousands within a few
    percent, and ties only make it larger.

    >>> result = kolmogorov_smirnov(np.arange(100.0), np.arange(100.0) + 50)
    >>> round(result.distance, 6), result.p_value < 1e-9
    (0.5, True)
    """
    m, n = current.size, reference.size
    values = np.concatenate((current, reference))
    # The order within a tie decides nothing, so the quick sort will do.
    order = np.argsort(values)
    values = values[order]
    # Whole steps, so that equal distributions have a distance of exactly zero: each value of `current` lifts
    # the gap by n, each of `reference` lowers it by m, both in units of 1 / (m n).
    gap = np.cumsum(np.where(order < m, n, -m))
    last_of_tie = np.append(values[1:] != values[:-1], True)
    distance = float(np.abs(gap[last_of_tie]).max()) / (m * n)
    return Comparison(distance, float(special.kolmogorov(np.sqrt(m * n / (m + n)) * distance)))


def chi_square_homogeneity(current: Floats, reference: Floats) -> Comparison:
    """Compare the counts of the same categories in two samples, neither empty.

    Pearson's statistic of the 2 x K table: both rows are samples with errors of their own, neither is taken
    for the truth. Categories with an expected count below 5 in either row are pooled, and the pool joins the
    smallest other category if it is still too small; where only one category is left there is nothing to
    tell apart and the p-value is 1. The distance is the total variation over all categories, none pooled.

    >>> round(chi_square_homogeneity(np.array([90.0, 10.0]), np.array([70.0, 30.0])).p_value, 6)
    0.000407
    """
    sizes = np.array([current.sum(), reference.sum()])
    distance = float(np.abs(current / sizes[0] - reference / sizes[1]).sum() / 2)
    table = _pool_rare(np.stack((current, reference)), sizes)
    if table.shape[1] < 2:
        return Comparison(distance, 1.0)
    expected = np.outer(sizes, table.sum(axis=0)) / sizes.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    return Comparison(distance, float(special.chdtrc(table.shape[1] - 1, statistic)))


def _pool_rare(table: Floats, sizes: Floats) -> Floats:
    """Return the 2 x K table with rare categories pooled into one, so that expected counts are at least 5."""
    totals = table.sum(axis=0)
    total_min = EXPECTED_COUNT_MIN * sizes.sum() / sizes.min()
    rare = totals < total_min
    kept = table[:, ~rare]
    pool = table[:, rare].sum(axis=1)
    if pool.sum() >= total_min:
        return np.column_stack((kept, pool))
    if kept.shape[1]:
        kept[:, np.argmin(kept.sum(axis=0))] += pool
    return kept


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Return adjusted p-values: those at or below q are the discoveries at false discovery rate q.

    The step-up procedure of Benjamini and Hochberg (1995) on one or more p-values in 0..1, in their order.

    >>> [round(float(p), 6) for p in benjamini_hochberg(np.array([0.01, 0.5, 0.02]))]
    [0.03, 0.5, 0.03]
    """
    m = p_values.size
    order = np.argsort(p_values, kind="stable")[::-1]
    stepped = np.minimum.accumulate(p_values[order] * m / np.arange(m, 0, -1))
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
