"""Prediction intervals: between which amounts a customer's spend will lie, by what came of alike customers.

Split conformal prediction in groups (Vovk, Gammerman and Shafer 2005, "Mondrian"): customers who were not
trained on are grouped by their prediction, and the errors of a group, relative to the prediction, are the
errors to expect of whoever is predicted alike. Nothing is assumed of their distribution. What is assumed
is that the customers to come are like those: a season or a drift takes coverage away, as it does accuracy.
"""

from math import ceil, floor, inf

import msgspec
import numpy as np
import numpy.typing as npt

from models.lines import Floats

COVERAGE = 0.9
GROUPS_MAX = 10
GROUP_CUSTOMERS_MIN = 40  # twice what a finite interval of 90% needs
# Added to a prediction before an error is divided by it, in mean predictions: near 0 ratios mean nothing.
SOFTENING = 0.05


class Intervals(msgspec.Struct, frozen=True, kw_only=True):
    """What makes intervals of predictions, for a model's predictions at level 1.

    Group k holds the predictions up to `upto[k]` (the last one all others); its labels lie between
    p + low[k] (p + softening) and p + high[k] (p + softening), p being the prediction. Currency units.
    """

    coverage: float
    softening: float
    upto: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    customers: int


def calibrated(predicted: Floats, labels: Floats, coverage: float = COVERAGE) -> Intervals | None:
    """Return the intervals that `coverage` of customers like these lie in; None where they are too few.

    `predicted` and `labels`, shape (n,), are of customers whom the model was not fitted on, each once;
    labels below zero count as 0, as predictions do. Half of what is left out lies on either side.
    """
    order = np.lexsort((labels, predicted))  # sums do not depend on the order of rows
    predicted, labels = predicted[order], labels[order]
    groups = min(GROUPS_MAX, len(predicted) // GROUP_CUSTOMERS_MIN)
    softening = SOFTENING * float(predicted.mean()) if len(predicted) else 0.0
    if groups == 0 or softening <= 0:
        return None
    upto = _edges(predicted, groups)
    group = np.searchsorted(upto, predicted)
    error = (np.maximum(labels, 0.0) - predicted) / (predicted + softening)
    edges = [_quantiles(np.sort(error[group == k]), 1 - coverage) for k in range(len(upto) + 1)]
    if not all(np.isfinite(edge).all() for edge in edges):
        return None
    low, high = zip(*edges, strict=True)
    return Intervals(
        coverage=coverage,
        softening=softening,
        upto=upto,
        low=low,
        high=high,
        customers=len(predicted),
    )


def interval(intervals: Intervals, predicted: npt.ArrayLike, level: float = 1.0) -> tuple[Floats, Floats]:
    """Return the least and the most that each customer is expected to spend, shape (n,), 0 or more.

    `predicted` are the model's predictions, at its `level` (`models.recalibration`).
    """
    plain = np.asarray(predicted, np.float64) / level
    group = np.searchsorted(np.array(intervals.upto), plain)
    width = plain + intervals.softening
    low, high = (plain + np.array(edge)[group] * width for edge in (intervals.low, intervals.high))
    return level * np.maximum(low, 0.0), level * np.maximum(high, 0.0)


def _edges(predicted: Floats, groups: int) -> tuple[float, ...]:
    """Return what the groups but the last go up to, given rising predictions.

    About as many customers in each; equal predictions stay together, and a group too small is none.
    """
    edges: list[float] = []
    taken = 0
    for edge in np.quantile(predicted, np.arange(1, groups) / groups, method="higher").tolist():
        upto = int(np.searchsorted(predicted, edge, side="right"))
        if min(upto - taken, len(predicted) - upto) >= GROUP_CUSTOMERS_MIN // 2:
            edges.append(edge)
            taken = upto
    return tuple(edges)


def _quantiles(errors: Floats, left_out: float) -> tuple[float, float]:
    """Return the two order statistics of rising `errors` between which the next one lies.

    Of n + 1 errors in any order, the new one is the k-th smallest with probability 1 / (n + 1): ranks
    floor((n + 1) a / 2) and ceil((n + 1) (1 - a / 2)); infinite where n is too small for them.
    """
    n = len(errors)
    first, last = floor((n + 1) * left_out / 2), ceil((n + 1) * (1 - left_out / 2))
    return (float(errors[first - 1]) if first >= 1 else -inf, float(errors[last - 1]) if last <= n else inf)
