"""The baseline detector: a two-sample test a feature, at a common false discovery rate."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from streams.detectors.effects import country_cause, country_counts, finite, numeric_cause
from streams.detectors.interface import (
    COMPARED_COLUMNS,
    NUMERIC_UNITS,
    Carry,
    Cause,
    DetectionContext,
    Verdict,
)
from streams.detectors.statistics import (
    Comparison,
    benjamini_hochberg,
    chi_square_homogeneity,
    kolmogorov_smirnov,
)

CUSTOMERS_MIN = 30


class _Column(NamedTuple):
    """A feature compared, with what to say of it if it drifted."""

    comparison: Comparison
    cause: Cause


class BaselineDetector:
    """Kolmogorov-Smirnov on the numbers, chi-square on Country, Benjamini-Hochberg over all of them.

    A window drifts where the smallest adjusted p-value (`statistic`) is at or below
    `false_discovery_rate` (`threshold`). That is a level a window, and neighbouring windows share most of
    their customers: it promises nothing about a year of windows, so `false_alarm_probability` stays None.
    Causes are ranked by the distance of the distributions, which has no unit. The effect of a number is the
    difference of medians, which may be zero where only the tail moved; that of Country is the change of
    share of the country that changed most.

    The frames may hold a sample: customers weigh the same within it. Values that are not finite are
    left out; a feature with fewer than 30 values on either side is not compared. Without 30 customers on
    both sides, and on a partial window, the detector cannot tell. A frame that lacks a column raises
    ValueError. It carries nothing from window to window.
    """

    name = "baseline"

    def __init__(self, *, false_discovery_rate: float, scale_weeks: int) -> None:
        if not 0 < false_discovery_rate < 1:
            raise ValueError(f"false_discovery_rate is {false_discovery_rate}, not between 0 and 1")
        self.false_discovery_rate = false_discovery_rate
        self.scale_weeks = scale_weeks

    def judge(self, context: DetectionContext, carry: Carry | None = None) -> tuple[Verdict, Carry | None]:
        """Return the verdict on the window; `carry` is passed on as it came."""
        return self._verdict(context), carry

    def _verdict(self, context: DetectionContext) -> Verdict:
        reason = _cannot_tell(context)
        if reason:
            return Verdict(drift=None, reason=reason)
        columns = self._compare(context.current, context.reference)
        if not columns:
            return Verdict(drift=None, reason=f"no feature has {CUSTOMERS_MIN} values on both sides")
        adjusted = benjamini_hochberg(np.array([column.comparison.p_value for column in columns]))
        drifted = [
            column for column, p in zip(columns, adjusted, strict=True) if p <= self.false_discovery_rate
        ]
        # The sort is stable: equal distances keep the order of COMPARED_COLUMNS.
        drifted.sort(key=lambda column: -column.comparison.distance)
        return Verdict(
            drift=bool(drifted),
            statistic=float(adjusted.min()),
            threshold=self.false_discovery_rate,
            causes=tuple(column.cause for column in drifted),
            scores={column.cause.feature: column.comparison.distance for column in columns},
            drifted_columns=len(drifted),
            columns=len(columns),
        )

    def _compare(self, current: pd.DataFrame, reference: pd.DataFrame) -> list[_Column]:
        columns = [self._numeric(name, current, reference) for name in NUMERIC_UNITS]
        columns.append(self._categorical(current, reference))
        return [column for column in columns if column is not None]

    def _numeric(self, name: str, current: pd.DataFrame, reference: pd.DataFrame) -> _Column | None:
        now, before = finite(current[name]), finite(reference[name])
        if min(now.size, before.size) < CUSTOMERS_MIN:
            return None
        cause = numeric_cause(name, now, before, scale_weeks=self.scale_weeks)
        return _Column(kolmogorov_smirnov(now, before), cause)

    def _categorical(self, current: pd.DataFrame, reference: pd.DataFrame) -> _Column | None:
        names, now, before = country_counts(current, reference)
        if min(now.sum(), before.sum()) < CUSTOMERS_MIN:
            return None
        cause = country_cause(names, now, before, scale_weeks=self.scale_weeks)
        return _Column(chi_square_homogeneity(now, before), cause)


def _cannot_tell(context: DetectionContext) -> str:
    """Return why the window cannot be judged, or nothing; raises ValueError where a frame lacks a column."""
    if context.partial:
        return "the window is partial: the input ended before it did"
    for side, frame in (("window", context.current), ("reference", context.reference)):
        if len(frame) < CUSTOMERS_MIN:
            return f"the {side} has {len(frame)} customers, fewer than {CUSTOMERS_MIN}"
        missing = [name for name in COMPARED_COLUMNS if name not in frame]
        if missing:
            raise ValueError(f"the rows of the {side} lack {', '.join(missing)}")
    return ""
