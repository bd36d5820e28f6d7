"""What a detector is given and what it answers."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pandas as pd

from streams.aspects import Aspect, aspects_of
from streams.grid import iso
from streams.history import History

# The features whose distributions are compared, each with the unit of its values.
NUMERIC_UNITS = {
    "Recency": "days",
    "Frequency": "lines",
    "Monetary": "currency",
    "AvgQuantity": "pieces",
    "TotalQuantity": "pieces",
    "AvgUnitPrice": "currency",
    "NumOrders": "orders",
    "NumProducts": "products",
}
CATEGORICAL = "Country"
COMPARED_COLUMNS = (*NUMERIC_UNITS, CATEGORICAL)

SIGNIFICANT_DIGITS = 12
# Windows before this one that a detector may look at, and those of the reference: others may be gone, and a
# verdict must not depend on whether a worker has just been started.
LOOK_BACK_HOPS = 17


@dataclass(frozen=True, eq=False)
class DetectionContext:
    """A window beside its reference: frames of one row an active customer, at least `COMPARED_COLUMNS`.

    `window_end` and `reference_window_end` are epoch seconds (UTC). `partial` says that the input ended
    before the window did. `history` holds the windows up to this one, as many as are kept, with the lines of
    each, at least `LOOK_BACK_HOPS`; `reference_ends` are the ends of the reference's windows. `comparison` is
    the data of Evidently's comparison of these frames, None unless one of Evidently's detectors acts.
    """

    window_end: int
    current: pd.DataFrame
    reference: pd.DataFrame
    reference_window_end: int
    partial: bool
    history: History = field(default_factory=History)
    reference_ends: tuple[int, ...] = ()
    comparison: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One feature that changed: `effect` is current less reference, in `unit`.

    `scale_weeks` is the length of the window over which it was seen; `segment` names the customers
    concerned, as `Country=France`, or is empty where it is all of them.
    """

    feature: str
    scale_weeks: int
    segment: str
    effect: float
    unit: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A detector's answer on one window.

    `drift` is None where the detector cannot tell, and `reason` then says why. `causes` are ranked, the
    strongest first. `scores` holds a distance in 0..1 a feature, 0 for equal distributions; of the `columns`
    compared, `drifted_columns` differ. `strengths` says, of each feature over a window of so many weeks, what
    part of the way to the threshold it went: drift above 1. `false_alarm_probability` is None unless the
    detector can stand by it. `onset` is when the change began (epoch seconds), where that can be estimated.
    `calibration` holds, in the first verdict after the detector was calibrated anew, what anybody needs to
    check its verdicts.

    Raises ValueError on a figure that is not finite, and on a reason that is missing or out of place.
    """

    drift: bool | None
    reason: str = ""
    statistic: float | None = None
    threshold: float | None = None
    false_alarm_probability: float | None = None
    causes: tuple[Cause, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    strengths: dict[str, dict[int, float]] = field(default_factory=dict)
    drifted_columns: int = 0
    columns: int = 0
    onset: int | None = None
    calibration: dict[str, Any] | None = None

    @property
    def aspects(self) -> tuple[Aspect, ...]:
        """What changed, as far as the causes tell, the strongest first."""
        return aspects_of(cause.feature for cause in self.causes)

    def with_calibration(self, calibration: dict[str, Any]) -> "Verdict":
        """Return the verdict with the calibration behind it."""
        return replace(self, calibration=calibration)

    def __post_init__(self) -> None:
        if (self.drift is None) != bool(self.reason):
            raise ValueError("a verdict has a reason exactly where it cannot tell")
        for name, value in self._figures():
            if not math.isfinite(value):
                raise ValueError(f"{name} of a verdict is {value}")

    def _figures(self) -> Iterator[tuple[str, float]]:
        for name in ("statistic", "threshold", "false_alarm_probability"):
            value = getattr(self, name)
            if value is not None:
                yield name, value
        yield from ((f"score of {name}", score) for name, score in self.scores.items())
        for name, by_weeks in self.strengths.items():
            yield from ((f"strength of {name}", strength) for strength in by_weeks.values())
        yield from ((f"effect of {cause.feature}", cause.effect) for cause in self.causes)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values in a fixed order; figures have 12 significant digits."""
        return {
            "drift": self.drift,
            "reason": self.reason,
            "statistic": rounded(self.statistic),
            "threshold": rounded(self.threshold),
            "false_alarm_probability": rounded(self.false_alarm_probability),
            "aspects": [aspect.value for aspect in self.aspects],
            "causes": [
                {
                    "feature": cause.feature,
                    "scale_weeks": cause.scale_weeks,
                    "segment": cause.segment,
                    "effect": rounded(cause.effect),
                    "unit": cause.unit,
                }
                for cause in self.causes
            ],
            "scores": {name: rounded(score) for name, score in sorted(self.scores.items())},
            "strengths": {
                name: {str(weeks): rounded(strength) for weeks, strength in sorted(by_weeks.items())}
                for name, by_weeks in sorted(self.strengths.items())
            },
            "drifted_columns": self.drifted_columns,
            "columns": self.columns,
            "onset": None if self.onset is None else iso(self.onset),
        }


Carry = dict[str, Any]


class Detector(Protocol):
    """A judge of windows, called once a window in the order of their ends.

    `carry` is what the detector returned on the window before (None on the first): JSON values only, for it
    is kept in the evaluation, so that a verdict depends on nothing but the log.
    """

    @property
    def name(self) -> str:
        """The name under which verdicts are published."""
        ...

    def judge(self, context: DetectionContext, carry: Carry | None = None) -> tuple[Verdict, Carry | None]:
        """Return the verdict on the window and what to hand to the next call."""
        ...


def rounded(value: float | None) -> float | None:
    """Return a figure as it is published: 12 significant digits, None as it is.

    The last bits of a float may differ between builds of numpy; a published figure must not.
    """
    # Adding zero turns -0.0 into 0.0.
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}") + 0.0
