"""An evaluation while it is being put together, and the documents that come of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.carry import Carry
from streams.detectors.interface import Verdict
from streams.grid import iso
from streams.history import PastWindow
from streams.policy import PolicyState, State
from streams.remedies import Action

REFERENCE_READY = "clv.reference.ready.v1"
DETECTED = "clv.drift.detected.v1"
CHANGED = "clv.drift.changed.v1"
RESOLVED = "clv.drift.resolved.v1"
ACTION_REQUESTED = "clv.action.requested.v1"  # an action in a window that changes no verdict


@dataclass
class Draft:
    """What an evaluation is being put together from."""

    window: PastWindow
    carry: Carry
    acting_detector: str
    comparison: Mapping[str, Any] | None = None  # Evidently's, where its verdict acts
    applied: list[str] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    performance: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    estimates: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    origin: Verdict | None = None  # against the first reference
    expected: list[str] = field(default_factory=list)  # events of the schedule that explain the drift
    predicted: dict[str, Any] | None = None
    beside: dict[str, Any] | None = None  # the rival's measures, and the champion's on the same rows
    action: Action = Action.NONE
    action_reason: str = ""
    asked_by_hand: bool = False  # a person asked for a retrain
    refused: str | None = None  # why a model was not loaded
    model_rule: tuple[str, Verdict | None] = ("", None)  # the verdict on the model that the policy follows

    @property
    def window_end(self) -> int:
        """End of the window, epoch seconds."""
        return self.window.window_end


def event_data(
    draft: Draft, kind: str, policy: PolicyState | None, action: Action, reason: str
) -> dict[str, Any]:
    """Return the data of an event about the customers (`kind` data) or the served model (model)."""
    name, verdict = draft.acting_detector, draft.verdicts.get(draft.acting_detector)
    if kind == "model":
        name, verdict = draft.model_rule
    state = policy.state.value if policy else "reference"
    suspected = policy.onset if policy else None
    # Where the detector dates the change, that; else the end of the window that was first suspected.
    onset = suspected if verdict is None or verdict.onset is None else verdict.onset
    told = verdict.to_dict() if verdict else {"aspects": [], "causes": []}
    return {
        "window_end": iso(draft.window_end),
        "drift_type": kind,
        "state": state,
        "onset": None if onset is None else iso(onset),
        "suspected_at": None if suspected is None else iso(suspected),
        "aspects": told["aspects"],
        "causes": told["causes"],
        "action": action.value,
        "reason": reason,
        "severity": "warning" if state == State.CONFIRMED or action is Action.ASK else "info",
        "detector": name,
        "model_version": draft.carry.champion,
        "reference_end": None if draft.carry.reference_end is None else iso(draft.carry.reference_end),
        "evaluation_id": iso(draft.window_end),
    }


def evaluation_data(draft: Draft, state: str) -> dict[str, Any]:
    """Return the data of the evaluation; `state` is the stream's."""
    window, carry = draft.window, draft.carry
    return {
        "window_end": iso(window.window_end),
        "partial": window.partial,
        "lines": window.totals["lines"],
        "lines_week": window.totals["lines_week"],
        "customers": window.totals["customers"],
        "sampled_customers": len(window.rows),
        "split_customers": len(window.split_customers),
        "state": state,
        "expected_events": draft.expected,
        "verdicts": {name: verdict.to_dict() for name, verdict in draft.verdicts.items()},
        "origin": None if draft.origin is None else draft.origin.to_dict(),
        "calibrations": {
            name: verdict.calibration
            for name, verdict in draft.verdicts.items()
            if verdict.calibration is not None
        },
        "performance": {days: figures for days, figures in draft.performance.items() if figures},
        "error_estimates": {days: found for days, found in draft.estimates.items() if found},
        "predicted": draft.predicted,
        "rival": draft.beside,
        "model_version": carry.champion,
        "model_refused": draft.refused,
        "reference_start": None if carry.reference_start is None else iso(carry.reference_start),
        "reference_end": None if carry.reference_end is None else iso(carry.reference_end),
        "action": draft.action.value,
        "action_reason": draft.action_reason,
        "applied_decisions": draft.applied,
        "events": [event["id"] for event in draft.events],
        "carry": carry.to_dict(),
    }
