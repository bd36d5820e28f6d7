"""Who serves: what decisions make of the champion, the rival, the reference and the policies."""

from collections.abc import Callable
from typing import Any

import msgspec

from models.registry import RegistryError
from streams.carry import Carry, Purpose, Request, Rival, Serving
from streams.decisions import Decision, DecisionLog, Outcome
from streams.draft import Draft
from streams.policy import after_promotion
from streams.remedies import Action
from streams.rivals import reviews_max

Load = Callable[[str], Any]


def apply_decisions(draft: Draft, log: DecisionLog, load: Load) -> None:
    """Let decisions take effect: those on requests that are due, then those made by hand.

    A version that cannot be loaded is refused: the champion stays, and `draft.refused` says why.
    """
    end = draft.window_end
    for request in draft.carry.due(end):
        event_id, decision = log.by_request[request.request_id]
        draft.applied.append(event_id)
        _apply(draft, request, decision, load)
    pending = tuple(r for r in draft.carry.pending if r.effective_from > end)
    draft.carry = replaced(draft.carry, pending=pending)
    for name, made in log.due_by_hand(end, draft.carry.applied_by_hand).items():
        draft.applied.append(made.event_id)
        if made.decision.outcome is Outcome.REQUESTED:
            draft.asked_by_hand = True
        elif _loads(draft, made.decision.version, load):
            _serve(draft, made.decision.version)
            # What a person chose is not reviewed: the person is asked, if anyone.
            draft.carry = replaced(draft.carry, rival=None, detectors={}, policies=_begun_anew(draft.carry))
        applied = (*draft.carry.applied_by_hand, name)
        draft.carry = replaced(draft.carry, applied_by_hand=applied)


def _apply(draft: Draft, request: Request, decision: Decision, load: Load) -> None:
    """Let the decision on a request take effect."""
    carry = draft.carry
    match decision.outcome:
        case Outcome.PROMOTED | Outcome.ROLLED_BACK | Outcome.SHADOWED if not _loads(
            draft, decision.version, load
        ):
            pass
        case Outcome.PROMOTED:
            _promote(draft, request, decision)
        case Outcome.ROLLED_BACK:
            _serve(draft, decision.version)
            policies = {**carry.policies, **_begun_anew(carry, "model")}
            draft.carry = replaced(draft.carry, rival=None, policies=policies)
        case Outcome.SHADOWED:
            rival = Rival(
                version=str(decision.version),
                purpose=Purpose.SHADOW,
                since=draft.window_end,
                retrained_at=_retrained_at(request, decision),
                onset=request.onset,
            )
            draft.carry = replaced(carry, rival=rival)
        case _ if request.action is Action.REVIEW and carry.rival is not None:
            if carry.rival.reviews >= reviews_max(carry.rival):
                draft.carry = replaced(carry, rival=None)


def _promote(draft: Draft, request: Request, decision: Decision) -> None:
    """Put the answer to a request into service; the model that it replaces stays beside it.

    A model retrained after a drift brings a reference with it, from the onset to the window that asked, and
    ends the episode. Where the customers had not changed their reference stays: after a recalibration, and
    after a retrain that no drift asked for; a year of scheduled ones would wear the detectors' promise out.
    """
    carry, shadow = draft.carry, request.rival
    version, onset = str(decision.version), request.onset
    retrained_at = _retrained_at(request, decision)
    if shadow is not None:
        retrained_at, onset = shadow.retrained_at, shadow.onset
    before = carry.champion
    _serve(draft, version)
    rival = None
    if before is not None and before != version:
        rival = Rival(version=before, purpose=Purpose.ROLLBACK, since=draft.window_end)
    if retrained_at is None or onset is None:
        policies = {**carry.policies, **_begun_anew(carry, "model")}
        draft.carry = replaced(draft.carry, rival=rival, policies=policies)
        return
    draft.carry = replaced(
        draft.carry,
        rival=rival,
        reference_start=onset,
        reference_end=retrained_at,
        policies=_begun_anew(carry),
        episode=None,
        detectors={},
    )


def _retrained_at(request: Request, decision: Decision) -> int | None:
    """Return the window that a decision's model was trained at; None where only its level is new."""
    if request.action is not Action.RETRAIN or (decision.card or {}).get("recalibrates") is not None:
        return None
    return request.requested_at


def _serve(draft: Draft, version: str | None) -> None:
    assert version is not None
    serving = (*draft.carry.serving, Serving(draft.window_end, version))
    draft.carry = replaced(draft.carry, serving=serving)


def _loads(draft: Draft, version: str | None, load: Load) -> bool:
    assert version is not None
    try:
        load(version)
    except RegistryError as exc:
        draft.refused = str(exc)
        return False
    return True


def _begun_anew(carry: Carry, *names: str) -> dict[str, Any]:
    """Return the policies of `names`, or all, with their runs begun anew."""
    chosen = names or tuple(carry.policies)
    return {name: after_promotion(carry.policies[name]) for name in chosen if name in carry.policies}


def replaced(carry: Carry, **changes: Any) -> Carry:
    """Return the carry with some fields changed."""
    return msgspec.structs.replace(carry, **changes)
