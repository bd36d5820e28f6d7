"""Errors of the served model in a matured window, summed by group of customers.

The error of a customer is log(1 + spend) - log(1 + prediction), on the log scale because money spans five
decades and one order of a wholesaler would drown everybody else. Its mean (bias) and the mean of its absolute
value are taken among three sets of customers: most of them spend nothing in a month, and the noise of whether
they do hides what those do who buy, and the few on whom most of the money depends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.detectors.grouped_means import Floats, GroupSums, customer_groups, group_sums

BIAS, ABSOLUTE_ERROR = "bias", "absolute_error"
MEASURES = (BIAS, ABSOLUTE_ERROR)

ALL, BOUGHT, TOP_BOUGHT = "", "customers who bought", "top 10% by prediction who bought"
SEGMENTS = (ALL, BOUGHT, TOP_BOUGHT)
TOP_SHARE = 0.1

# What is carried needs no more: `grouped_means.SPREAD_MIN` lies well above what rounding leaves.
CARRIED_DIGITS = 9


@dataclass(frozen=True, eq=False)
class MaturedWindow:
    """A window whose labels are known, scored with the model `version` that served it; one entry a customer.

    `label` and `prediction` are spend over the horizon, currency units; `weight` says how many customers an
    entry stands for; `window_end` is in epoch seconds. Raises ValueError where the lengths differ.
    """

    window_end: int
    version: str
    customers: Sequence[str]
    label: Floats
    prediction: Floats
    weight: Floats

    def __post_init__(self) -> None:
        lengths = {len(self.customers), len(self.label), len(self.prediction), len(self.weight)}
        if len(lengths) != 1:
            raise ValueError(f"a matured window has columns of different lengths: {sorted(lengths)}")

    def of(self, chosen: NDArray[np.bool_]) -> "MaturedWindow":
        """Return the same window with the customers at the mask `chosen`, shape (n,)."""
        return replace(
            self,
            customers=[self.customers[index] for index in np.flatnonzero(chosen).tolist()],
            label=self.label[chosen],
            prediction=self.prediction[chosen],
            weight=self.weight[chosen],
        )


class SegmentSums(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A segment's errors: `entries` counts its customers, each once a window; the rest has a sum a group.

    `totals` holds, by measure, the sums of weight times value.
    """

    entries: int
    weights: tuple[float, ...]
    totals: dict[str, tuple[float, ...]]

    def of(self, measure: str) -> GroupSums:
        """Return the sums of a measure."""
        return GroupSums(np.array(self.weights), np.array(self.totals[measure]))

    def plus(self, other: "SegmentSums") -> "SegmentSums":
        """Return the sums over both."""
        return SegmentSums(
            self.entries + other.entries,
            _added(self.weights, other.weights),
            {measure: _added(total, other.totals[measure]) for measure, total in self.totals.items()},
        )


ErrorSums = dict[str, SegmentSums]  # by segment


def sum_errors(matured: MaturedWindow) -> ErrorSums:
    """Return the sums of one window, a segment each of `SEGMENTS`.

    Entries that are not finite or without weight are left out. The top are those at or above the 90% quantile
    of the predictions, so ties at the edge all belong to it.
    """
    label, prediction, weight = (
        np.asarray(column, np.float64) for column in (matured.label, matured.prediction, matured.weight)
    )
    usable = np.isfinite(label) & np.isfinite(prediction) & np.isfinite(weight) & (weight > 0)
    group = customer_groups(matured.customers)[usable]
    label, prediction, weight = label[usable], prediction[usable], weight[usable]
    error = log_errors(label, prediction)
    values = {BIAS: error, ABSOLUTE_ERROR: np.abs(error)}
    sums: ErrorSums = {}
    for segment, chosen in zip(SEGMENTS, _segments(label, prediction), strict=True):
        grouped = {name: group_sums(group[chosen], weight[chosen], v[chosen]) for name, v in values.items()}
        sums[segment] = SegmentSums(
            int(np.count_nonzero(chosen)),
            _rounded(grouped[BIAS].weight),
            {measure: _rounded(summed.total) for measure, summed in grouped.items()},
        )
    return sums


def log_errors(label: Floats, prediction: Floats) -> Floats:
    """Return log(1 + label) - log(1 + prediction) of each customer; amounts below zero count as none.

    >>> log_errors(np.array([0.0, 99.0]), np.array([9.0, 9.0])).round(3).tolist()
    [-2.303, 2.303]
    """
    errors: Floats = np.log1p(np.maximum(label, 0)) - np.log1p(np.maximum(prediction, 0))
    return errors


def _segments(label: Floats, prediction: Floats) -> Iterator[NDArray[np.bool_]]:
    """Yield who belongs to each of `SEGMENTS`."""
    bought = label > 0
    yield np.ones(len(label), bool)
    yield bought
    edge = np.quantile(prediction, 1 - TOP_SHARE) if len(prediction) else 0.0
    yield bought & (prediction >= edge)


def _added(left: tuple[float, ...], right: tuple[float, ...]) -> tuple[float, ...]:
    return _rounded(np.array(left) + np.array(right))


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{value:.{CARRIED_DIGITS}g}") for value in values.tolist())
