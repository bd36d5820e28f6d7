"""Evaluation of a window: a function of the windows up to it, the decisions, and what the last one left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from models.features import DAY_S
from models.fitted import predict
from models.registry import RegistryError
from streams import cloudevents
from streams.carry import EVALUATION, Carry, Request
from streams.comparisons import Wanted
from streams.decisions import DecisionLog
from streams.detectors.interface import DetectionContext, Detector, Verdict, rounded
from streams.detectors.plugins import judged
from streams.draft import (
    ACTION_REQUESTED,
    CHANGED,
    DETECTED,
    REFERENCE_READY,
    RESOLVED,
    Draft,
    evaluation_data,
    event_data,
)
from streams.episodes import asked_for, follow
from streams.expected import explaining
from streams.grid import floor_end, iso
from streams.history import History, PastWindow
from streams.performance import ModelLoader
from streams.policy import PolicyState, State, Step, step
from streams.remedies import REQUESTS, Action, Choice
from streams.rivals import beside
from streams.scores import decile_cuts
from streams.served import acting_verdict, watch_model
from streams.settings import Settings
from streams.succession import apply_decisions, replaced


@dataclass(frozen=True)
class Evaluated:
    """What a window led to: events to publish first, then the evaluation, which commits it."""

    window_end: int
    evaluation: dict[str, Any]  # a CloudEvent
    events: list[dict[str, Any]]  # CloudEvents
    carry: Carry


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
        state = self._decide(draft, history)
        data = evaluation_data(draft, state)
        evaluation = cloudevents.envelope(
            kind=EVALUATION, source=self.source, window_end=window.window_end, data=data
        )
        return Evaluated(window.window_end, evaluation, draft.events, draft.carry)

    def weeks_seen(self, carry: Carry, window_end: int) -> int:
        """Return how many weeks the stream has shown at `window_end`, the first, cut one included."""
        assert carry.first_window is not None
        return (window_end - carry.first_window) // (7 * DAY_S) + 1

    # -- steps, in order ------------------------------------------------------

    def _begun(self, history: History, carry: Carry, log: DecisionLog) -> Draft:
        """Begin with the last window of `history`, under the decisions that hold in it."""
        window = history.latest
        first = window.window_end if carry.first_window is None else carry.first_window
        begun = replaced(carry, window_end=window.window_end, first_window=first)
        draft = Draft(window, begun, self.settings.acting_detector)
        apply_decisions(draft, log, self.load)
        return draft

    def _judge(self, draft: Draft, history: History) -> None:
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
        draft.carry = replaced(carry, detectors=left)
        self._judge_distance(draft, history)

    def _judge_distance(self, draft: Draft, history: History) -> None:
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

    def _measure(self, draft: Draft, history: History) -> None:
        """Watch the served model on what matured, and score the window with it."""
        watched = watch_model(history, draft.carry, self.load, self.settings, at=draft.window_end)
        draft.carry, draft.performance = watched.carry, watched.performance
        draft.estimates = watched.estimates
        draft.refused = watched.refused or draft.refused
        draft.verdicts |= watched.verdicts
        draft.model_rule = acting_verdict(watched, self.settings)
        try:
            draft.predicted = self._predicted(draft)
            draft.beside = self._beside(draft, history)
        except RegistryError as exc:
            draft.refused = str(exc)

    def _beside(self, draft: Draft, history: History) -> dict[str, Any] | None:
        """Score the rival and the champion on the same matured rows."""
        rival, champion = draft.carry.rival, draft.carry.champion
        if rival is None or champion is None:
            return None
        return beside(rival, champion, history, self.load, self.settings, at=draft.window_end)

    def _decide(self, draft: Draft, history: History) -> str:
        """Step the policies and ask for what follows from them; return the state of the stream."""
        end, carry, window = draft.window_end, draft.carry, draft.window
        weeks = self.weeks_seen(carry, end)
        if carry.reference_end is None:
            if weeks * 7 < self.settings.window_days:
                return "warming"
            if weeks >= self.settings.reference_weeks and not window.partial:
                assert carry.first_window is not None
                draft.carry = replaced(
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
        acting = draft.verdicts.get(self.settings.acting_detector)
        draft.expected = self._expected(draft, acting)
        steps = {
            "model": self._step(draft, "model", draft.model_rule[1]),
            "data": self._step(draft, "data", None if draft.expected else acting),
        }
        follow(draft, self.settings)
        self._announce(draft, steps, asked_for(draft, history, self.settings))
        return steps["data"].state.state.value

    def _expected(self, draft: Draft, verdict: Verdict | None) -> list[str]:
        """Return the events of the schedule that explain a verdict of drift."""
        if verdict is None or not verdict.drift:
            return []
        end = draft.window_end
        # What happened in the long window moves its statistics until it has left it.
        start = end - self.settings.window_days * DAY_S
        return explaining(self.settings.expected_events, verdict.aspects, start, end)

    def _ask_for_first_model(self, draft: Draft) -> None:
        """Ask for a first model; again where the request expired or nothing good enough came of it."""
        draft.carry = replaced(draft.carry, first_requested=draft.window_end)
        draft.action, draft.action_reason = Action.RETRAIN, "no model serves"
        data = event_data(draft, "data", None, draft.action, draft.action_reason)
        self._request(draft, REFERENCE_READY, data, onset=None)

    def _step(self, draft: Draft, kind: str, verdict: Verdict | None) -> Step:
        settings = self.settings
        stepped = step(
            draft.carry.policies.get(kind, PolicyState()),
            window_end=draft.window_end,
            drift=None if verdict is None else verdict.drift,
            confirm_windows=settings.confirm_windows,
            resolve_windows=settings.resolve_windows,
        )
        policies = {**draft.carry.policies, kind: stepped.state}
        draft.carry = replaced(draft.carry, policies=policies)
        return stepped

    def _announce(self, draft: Draft, steps: Mapping[str, Step], choice: Choice) -> None:
        """Publish each change of a state, and what is asked for: with such a change, or in an event alone."""
        if draft.action is Action.NONE:  # else a first model was asked for
            draft.action, draft.action_reason = choice.action, choice.reason
        acting = next(
            (kind for kind in ("data", "model") if steps[kind].state.state is State.CONFIRMED), "data"
        )
        for kind, stepped in steps.items():
            if stepped.changed:
                self._tell(draft, kind, stepped, choice if kind == acting else Choice(Action.NONE, ""))
        if choice.action is not Action.NONE and not steps[acting].changed:
            self._tell(draft, acting, steps[acting], choice)

    def _tell(self, draft: Draft, kind: str, stepped: Step, choice: Choice) -> None:
        """Publish one event; one that asks for a model is a request."""
        name = {State.CONFIRMED: DETECTED, State.RESOLVED: RESOLVED}.get(stepped.state.state, CHANGED)
        if not stepped.changed:
            name = ACTION_REQUESTED
        data = event_data(draft, kind, stepped.state, choice.action, choice.reason)
        carry = draft.carry
        if choice.action is Action.ASK and carry.episode is not None:
            draft.carry = replaced(carry, episode=carry.episode.having_tried(choice.action))
        if choice.action in REQUESTS:
            self._request(draft, name, data, onset=None if carry.episode is None else carry.episode.onset)
        else:
            draft.events.append(self._event(draft, name, data))

    def _request(self, draft: Draft, kind: str, data: dict[str, Any], *, onset: int | None) -> None:
        """Publish an event that asks for a model, and wait for its decision from `effective_from` on."""
        end, carry, action = draft.window_end, draft.carry, draft.action
        # The first window end on the grid that lies `promotion_delay_days` or more ahead.
        delayed = end + self.settings.promotion_delay_days * DAY_S
        effective = floor_end(delayed - 1, self.settings.hop_s) + self.settings.hop_s
        rival = carry.rival if action is Action.REVIEW else None
        told = {
            "effective_from": iso(effective),
            "rival": None if rival is None else msgspec.to_builtins(rival),
        }
        event = self._event(draft, kind, data | {"onset": None if onset is None else iso(onset)} | told)
        draft.events.append(event)
        request = Request(event["id"], end, effective, carry.champion, action, onset, rival)
        carry = replaced(carry, pending=(*carry.pending, request))
        if rival is not None:
            rival = msgspec.structs.replace(rival, reviews=rival.reviews + 1)
            carry = replaced(carry, rival=rival)
        elif carry.champion is not None:
            episode = None if carry.episode is None else carry.episode.having_tried(action)
            carry = replaced(carry, last_request=end, episode=episode)
        draft.carry = carry

    # -- documents ------------------------------------------------------------

    def _event(self, draft: Draft, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        end = draft.window_end
        return cloudevents.envelope(kind=kind, source=self.source, window_end=end, data=data)

    def _predicted(self, draft: Draft) -> dict[str, Any] | None:
        """Score the window's customers with the champion."""
        if draft.carry.champion is None or draft.window.rows.empty:
            return None
        model, card = self.load(draft.carry.champion)
        scores = predict(model, draft.window.rows)
        weight = draft.window.rows["SampleWeight"].to_numpy(np.float64)
        return {
            "horizon_days": card.horizon_days,
            "mean": rounded(float(scores.mean())),
            "total": rounded(float(scores @ weight)),
            "decile_cuts": decile_cuts(scores, weight),
        }
