"""Evidently's verdicts as detectors: they read the comparison of the window that Evidently made."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from streams.detectors.effects import country_cause, country_counts, finite, numeric_cause
from streams.detectors.interface import (
    CATEGORICAL,
    COMPARED_COLUMNS,
    Carry,
    Cause,
    DetectionContext,
    Verdict,
)
from streams.settings import Settings

DATASET, ANY = "evidently_dataset", "evidently_any"
EVIDENTLY_DETECTORS = frozenset({DATASET, ANY})


def waits_for_comparison(settings: Settings) -> bool:
    """Return whether a window is evaluated only once Evidently has compared it."""
    return settings.acting_detector in EVIDENTLY_DETECTORS


class _EvidentlyDetector(ABC):
    """What both have in common: when they cannot tell, and the columns that Evidently says drifted.

    The tests, their thresholds and so the promise are Evidently's. `scores` stay empty: by the size of the
    reference they are p-values or distances, and stand in the topic of comparisons with their method.
    """

    def __init__(self, *, scale_weeks: int) -> None:
        self.scale_weeks = scale_weeks

    def judge(self, context: DetectionContext, carry: Carry | None = None) -> tuple[Verdict, Carry | None]:
        """Return the verdict on the window; `carry` is passed on as it came."""
        reason = _cannot_tell(context)
        if reason:
            return Verdict(drift=None, reason=reason), carry
        assert context.comparison is not None
        return self._verdict(context, context.comparison), carry

    @abstractmethod
    def _verdict(self, context: DetectionContext, comparison: Mapping[str, Any]) -> Verdict:
        """Return the verdict that a comparison which succeeded leads to."""

    def _causes(self, context: DetectionContext, drifted: list[str]) -> tuple[Cause, ...]:
        """Return a cause for each column, those first whose score is furthest past its threshold."""
        assert context.comparison is not None
        columns = context.comparison["columns"]
        ranked = sorted(drifted, key=lambda name: -_excess(columns[name]))
        return tuple(self._cause(name, context) for name in ranked)

    def _cause(self, name: str, context: DetectionContext) -> Cause:
        now, before = context.current, context.reference
        if name == CATEGORICAL:
            return country_cause(*country_counts(now, before), scale_weeks=self.scale_weeks)
        return numeric_cause(name, finite(now[name]), finite(before[name]), scale_weeks=self.scale_weeks)


class EvidentlyDataset(_EvidentlyDetector):
    """Drift where the share of columns that drifted (`statistic`) is at or above `drift_share`."""

    name = DATASET

    def _verdict(self, context: DetectionContext, comparison: Mapping[str, Any]) -> Verdict:
        drifted = _drifted(comparison)
        return Verdict(
            drift=comparison["dataset_drift"],
            statistic=comparison["share"],
            threshold=comparison["drift_share"],
            causes=self._causes(context, drifted) if comparison["dataset_drift"] else (),
            drifted_columns=len(drifted),
            columns=len(comparison["columns"]),
        )


class EvidentlyAny(_EvidentlyDetector):
    """Drift where at least one column drifted; `statistic` is their number.

    Cannot tell where none did but some column has no score.
    """

    name = ANY

    def _verdict(self, context: DetectionContext, comparison: Mapping[str, Any]) -> Verdict:
        drifted = _drifted(comparison)
        unknown = [name for name in COMPARED_COLUMNS if comparison["columns"][name]["drift"] is None]
        if unknown and not drifted:
            return Verdict(drift=None, reason=f"Evidently has no finite score of {', '.join(unknown)}")
        return Verdict(
            drift=bool(drifted),
            statistic=float(len(drifted)),
            threshold=1.0,
            causes=self._causes(context, drifted),
            drifted_columns=len(drifted),
            columns=len(comparison["columns"]),
        )


def _cannot_tell(context: DetectionContext) -> str:
    """Return why there is no verdict of Evidently's on the window, or nothing."""
    if context.partial:
        return "the window is partial: the input ended before it did"
    if context.comparison is None:
        return "Evidently did not compare the window"
    status = context.comparison["status"]
    if status == "failed":
        return f"Evidently's comparison failed: {context.comparison['reason']}"
    return "" if status == "compared" else f"Evidently's comparison has the status {status}"


def _drifted(comparison: Mapping[str, Any]) -> list[str]:
    return [name for name in COMPARED_COLUMNS if comparison["columns"][name]["drift"]]


def _excess(column: Mapping[str, Any]) -> float:
    """Return how far a drifted column is past its threshold: 1 at it, whichever way its score counts."""
    score, threshold = column["score"], column["threshold"]
    low, high = min(score, threshold), max(score, threshold)
    return float(high / low) if low else float("inf")
