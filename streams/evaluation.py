"""Evaluation of a window: a function of the windows up to it, the decisions, and what the last one left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from models.features import DAY_S
from models.registry import RegistryError
from models.training import predict
from streams import cloudevents
from streams.carry import EVALUATION, Carry, Request, Serving
from streams.comparisons import Wanted
from streams.decisions import Decision, DecisionLog, Outcome
from streams.detectors.interface import DetectionContext, Detector, Verdict, rounded
from streams.detectors.plugins import judged
from streams.expected import explaining
from streams.grid import floor_end, iso
from streams.history import History, PastWindow
from streams.performance import ModelLoader
from streams.policy import Action, PolicyState, State, Step, after_promotion, step
from streams.served import acting_verdict, watch_model
from streams.settings import Settings

REFERENCE_READY = "clv.reference.ready.v1"
DETECTED = "clv.drift.detected.v1"
CHANGED = "clv.drift.changed.v1"
RESOLVED = "clv.drift.resolved.v1"


@dataclass(frozen=True)
class Evaluated:
    """What a window led to: events to publish first, then the evaluation, which commits it."""

    window_end: int
    evaluation: dict[str, Any]  # a CloudEvent
    events: list[dict[str, Any]]  # CloudEvents
    carry: Carry


@dataclass
class _Draft:
    """What an evaluation is being put together from."""

    window: PastWindow
    carry: Carry
    comparison: Mapping[str, Any] | None = None  # Evidently's, where its verdict acts
    applied: list[str] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    performance: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    estimates: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    origin: Verdict | None = None  # against the first reference
    expected: list[str] = field(default_factory=list)  # events of the schedule that explain the drift
    predicted: dict[str, Any] | None = None
    action: Action = Action.NONE
    refused: str | None = None  # why a model was not loaded
    model_rule: tuple[str, Verdict | None] = ("", None)  # the verdict on the model that the policy follows


class Evaluator:
    """Evaluates windows one after another; holds nothing that changes."""

    def __init__(self, settings: Settings, detectors: Sequence[Detector], load: ModelLoader) -> None:
        self.settings = settings
        self.detectors = detectors
        self.load = load
        self.source = settings.event_source

    def comparison_wanted(self, history: History, carry: Carry, log: DecisionLog) -> Wanted | None:
        """Return the comparison by Evidently that `evaluate` can use for the last window, None if none."""
        draft = self._begun(history, carry, log)
        window, reference_end = draft.window, draft.carry.reference_end
        if window.partial or window.split_customers or reference_end not in history.windows:
            return None
        return Wanted.of(draft.carry)

    def evaluate(
        self,
        history: History,
        carry: Carry,
        log: DecisionLog,
        comparison: Mapping[str, Any] | None = None,
    ) -> Evaluated:
        """Evaluate the last window of `history`; every request that is due must stand decided in `log`.

        `comparison` is the data of the one that `comparison_wanted` names, where Evidently's verdict acts.
        """
        draft = self._begun(history, carry, log)
        draft.comparison = comparison
        window = draft.window
        self._judge(draft, history)
        self._measure(draft, history)
        state = self._decide(draft)
        data = self._data(draft, state)
        evaluation = cloudevents.envelope(
            kind=EVALUATION, source=self.source, window_end=window.window_end, data=data
        )
        return Evaluated(window.window_end, evaluation, draft.events, draft.carry)

    def weeks_seen(self, carry: Carry, window_end: int) -> int:
        """Return how many weeks the stream has shown at `window_end`, the first, cut one included."""
        assert carry.first_window is not None
        return (window_end - carry.first_window) // (7 * DAY_S) + 1

    # -- steps, in order ------------------------------------------------------

    def _begun(self, history: History, carry: Carry, log: DecisionLog) -> _Draft:
        """Begin with the last window of `history`, under the decisions that hold in it."""
        window = history.latest
        first = window.window_end if carry.first_window is None else carry.first_window
        draft = _Draft(window, _replace(carry, window_end=window.window_end, first_window=first))
        self._apply_decisions(draft, log)
        return draft

    def _apply_decisions(self, draft: _Draft, log: DecisionLog) -> None:
        """Let decisions take effect: those on requests that are due, then those made by hand."""
        end = draft.window.window_end
        for request in draft.carry.due(end):
            event_id, decision = log.by_request[request.request_id]
            draft.applied.append(event_id)
            if decision.outcome is Outcome.PROMOTED:
                self._promote(draft, decision, trained_at=request.requested_at)
        pending = tuple(r for r in draft.carry.pending if r.effective_from > end)
        draft.carry = _replace(draft.carry, pending=pending)
        for name, made in log.due_by_hand(end, draft.carry.applied_by_hand).items():
            draft.applied.append(made.event_id)
            self._promote(draft, made.decision, trained_at=None)
            applied = (*draft.carry.applied_by_hand, name)
            draft.carry = _replace(draft.carry, applied_by_hand=applied)

    def _promote(self, draft: _Draft, decision: Decision, *, trained_at: int | None) -> None:
        """Put a version into service from this window on; the runs of the policies begin anew.

        One that cannot be loaded is refused: the champion stays, and the evaluation says so. The reference of
        a model trained after a drift begins at the drift's onset and ends where it was asked for; one chosen
        by hand (`trained_at` None) leaves the reference alone.
        """
        assert decision.version is not None
        carry = draft.carry
        try:
            self.load(decision.version)
        except RegistryError as exc:
            draft.refused = str(exc)
            return
        start, end = carry.reference_start, carry.reference_end
        if trained_at is not None:
            drift = carry.policies.get("data", PolicyState())
            start, end = drift.onset or start, trained_at
        draft.carry = _replace(
            carry,
            serving=(*carry.serving, Serving(draft.window.window_end, decision.version)),
            reference_start=start,
            reference_end=end,
            policies={name: after_promotion(state) for name, state in carry.policies.items()},
            detectors={},
        )

    def _judge(self, draft: _Draft, history: History) -> None:
        """Ask every detector, once there is a reference."""
        carry = draft.carry
        if carry.reference_end is None or carry.reference_end not in history.windows:
            return
        assert carry.reference_start is not None
        left: dict[str, dict[str, Any] | None] = {}
        context = self._context(draft.window, history, carry.reference_start, carry.reference_end)
        context = replace(context, comparison=draft.comparison)
        for detector in self.detectors:
            if draft.window.split_customers:
                names = ", ".join(draft.window.split_customers[:3])
                verdict = Verdict(drift=None, reason=f"customers found in two partitions: {names}")
                left[detector.name] = carry.detectors.get(detector.name)
            else:
                verdict, left[detector.name] = judged(detector, context, carry.detectors.get(detector.name))
            draft.verdicts[detector.name] = verdict
        draft.carry = _replace(carry, detectors=left)
        self._judge_distance(draft, history)

    def _judge_distance(self, draft: _Draft, history: History) -> None:
        """Compare with the first reference too, once it was replaced, so that no creeping drift can hide.

        What comes of it is shown and never acted on.
        """
        origin, carry = draft.carry.origin, draft.carry
        if origin is None or origin == (carry.reference_start, carry.reference_end):
            return
        if draft.window.split_customers or origin[1] not in history.windows:
            return
        context = self._context(draft.window, history, *origin)
        for detector in self.detectors:
            if detector.name == self.settings.acting_detector:
                draft.origin, _ = judged(detector, context, None)

    def _context(self, window: PastWindow, history: History, start: int, last: int) -> DetectionContext:
        """Return what detectors are given of a window and the reference from `start` to `last`.

        A reference that was too short for a calibration when it was fixed grows until it suffices.
        """
        least = start + self.settings.reference_least_s
        return DetectionContext(
            window_end=window.window_end,
            current=window.rows,
            reference=history.windows[last].rows,
            reference_window_end=last,
            partial=window.partial,
            history=history,
            reference_ends=tuple(e for e in sorted(history.windows) if start <= e <= max(last, least)),
        )

    def _measure(self, draft: _Draft, history: History) -> None:
        """Watch the served model on what matured, and score the window with it."""
        watched = watch_model(history, draft.carry, self.load, self.settings, at=draft.window.window_end)
        draft.carry, draft.performance = watched.carry, watched.performance
        draft.estimates = watched.estimates
        draft.refused = watched.refused or draft.refused
        draft.verdicts |= watched.verdicts
        draft.model_rule = acting_verdict(watched, self.settings)
        try:
            draft.predicted = self._predicted(draft)
        except RegistryError as exc:
            draft.refused = str(exc)

    def _decide(self, draft: _Draft) -> str:
        """Step the policies; return the state of the stream."""
        end, carry, window = draft.window.window_end, draft.carry, draft.window
        weeks = self.weeks_seen(carry, end)
        if carry.reference_end is None:
            if weeks * 7 < self.settings.window_days:
                return "warming"
            if weeks >= self.settings.reference_weeks and not window.partial:
                assert carry.first_window is not None
                draft.carry = _replace(
                    carry,
                    reference_start=carry.first_window,
                    reference_end=end,
                    origin=(carry.first_window, end),
                )
                self._ask_for_first_model(draft)
            return "reference"
        cooldown_s = self.settings.cooldown_days * DAY_S
        if carry.champion is None and not carry.pending and end - (carry.first_requested or 0) >= cooldown_s:
            self._ask_for_first_model(draft)
        model = self._step(draft, "model", draft.model_rule[1])
        if model.changed:
            self._announce(draft, "model", model._replace(action=Action.NONE))
        acting = draft.verdicts.get(self.settings.acting_detector)
        draft.expected = self._expected(draft, acting)
        data = self._step(draft, "data", None if draft.expected else acting)
        if draft.carry.pending:
            data = data._replace(action=Action.NONE)  # a model is on its way: one is enough
        if data.changed or data.action is not Action.NONE:
            self._announce(draft, "data", data)
        return data.state.state.value

    def _expected(self, draft: _Draft, verdict: Verdict | None) -> list[str]:
        """Return the events of the schedule that explain a verdict of drift."""
        if verdict is None or not verdict.drift:
            return []
        end = draft.window.window_end
        # What happened in the long window moves its statistics until it has left it.
        start = end - self.settings.window_days * DAY_S
        return explaining(self.settings.expected_events, verdict.aspects, start, end)

    def _ask_for_first_model(self, draft: _Draft) -> None:
        """Ask for a first model; again where the request expired or nothing good enough came of it."""
        draft.carry = _replace(draft.carry, first_requested=draft.window.window_end)
        self._request(draft, REFERENCE_READY, self._event_data(draft, "data", None, Action.RETRAIN))

    def _step(self, draft: _Draft, kind: str, verdict: Verdict | None) -> Step:
        settings = self.settings
        stepped = step(
            draft.carry.policies.get(kind, PolicyState()),
            window_end=draft.window.window_end,
            drift=None if verdict is None else verdict.drift,
            confirm_windows=settings.confirm_windows,
            resolve_windows=settings.resolve_windows,
            cooldown_days=settings.cooldown_days,
        )
        policies = {**draft.carry.policies, kind: stepped.state}
        draft.carry = _replace(draft.carry, policies=policies)
        return stepped

    def _announce(self, draft: _Draft, kind: str, stepped: Step) -> None:
        """Publish a change of verdict; one that asks for a model is a request."""
        data = self._event_data(draft, kind, stepped.state, stepped.action)
        name = {State.CONFIRMED: DETECTED, State.RESOLVED: RESOLVED}.get(stepped.state.state, CHANGED)
        if stepped.action is Action.RETRAIN:
            self._request(draft, name, data)
        else:
            draft.events.append(self._event(draft, name, data))

    def _request(self, draft: _Draft, kind: str, data: dict[str, Any]) -> None:
        """Publish an event that asks for a model, and wait for its decision from `effective_from` on."""
        end = draft.window.window_end
        # The first window end on the grid that lies `promotion_delay_days` or more ahead.
        delayed = end + self.settings.promotion_delay_days * DAY_S
        effective = floor_end(delayed - 1, self.settings.hop_s) + self.settings.hop_s
        event = self._event(draft, kind, data | {"effective_from": iso(effective)})
        draft.events.append(event)
        request = Request(event["id"], end, effective, draft.carry.champion)
        draft.carry = _replace(draft.carry, pending=(*draft.carry.pending, request))
        draft.action = Action.RETRAIN

    # -- documents ------------------------------------------------------------

    def _event(self, draft: _Draft, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        end = draft.window.window_end
        return cloudevents.envelope(kind=kind, source=self.source, window_end=end, data=data)

    def _event_data(
        self, draft: _Draft, kind: str, policy: PolicyState | None, action: Action
    ) -> dict[str, Any]:
        name, verdict = self.settings.acting_detector, draft.verdicts.get(self.settings.acting_detector)
        if kind == "model":
            name, verdict = draft.model_rule
        state = policy.state.value if policy else "reference"
        suspected = policy.onset if policy else None
        # Where the detector dates the change, that; else the end of the window that was first suspected.
        onset = suspected if verdict is None or verdict.onset is None else verdict.onset
        told = verdict.to_dict() if verdict else {"aspects": [], "causes": []}
        return {
            "window_end": iso(draft.window.window_end),
            "drift_type": kind,
            "state": state,
            "onset": None if onset is None else iso(onset),
            "suspected_at": None if suspected is None else iso(suspected),
            "aspects": told["aspects"],
            "causes": told["causes"],
            "action": action.value,
            "severity": "warning" if state == State.CONFIRMED else "info",
            "detector": name,
            "model_version": draft.carry.champion,
            "reference_end": None if draft.carry.reference_end is None else iso(draft.carry.reference_end),
            "evaluation_id": iso(draft.window.window_end),
        }

    def _data(self, draft: _Draft, state: str) -> dict[str, Any]:
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
            "model_version": carry.champion,
            "model_refused": draft.refused,
            "reference_start": None if carry.reference_start is None else iso(carry.reference_start),
            "reference_end": None if carry.reference_end is None else iso(carry.reference_end),
            "action": draft.action.value,
            "applied_decisions": draft.applied,
            "events": [event["id"] for event in draft.events],
            "carry": carry.to_dict(),
        }

    def _predicted(self, draft: _Draft) -> dict[str, Any] | None:
        """Score the window's customers with the champion."""
        if draft.carry.champion is None or draft.window.rows.empty:
            return None
        model, card = self.load(draft.carry.champion)
        scores = predict(model, draft.window.rows)
        return {
            "horizon_days": card.horizon_days,
            "mean": rounded(float(scores.mean())),
            "total": rounded(float(scores @ draft.window.rows["SampleWeight"].to_numpy())),
        }


def _replace(carry: Carry, **changes: Any) -> Carry:
    return msgspec.structs.replace(carry, **changes)
