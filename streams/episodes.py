"""Episodes: a drift followed from its onset until it is over, and what is asked for meanwhile."""

import msgspec

from models.features import DAY_S
from streams.carry import Carry
from streams.draft import Draft
from streams.grid import floor_end
from streams.history import History
from streams.policy import PolicyState, State
from streams.remedies import Action, Choice, Episode, Evidence, choose
from streams.rivals import matured_since, review_due
from streams.settings import Settings
from streams.succession import replaced

_LASTING = frozenset({State.SUSPECTED, State.CONFIRMED})


def follow(draft: Draft, settings: Settings) -> None:
    """Begin, refine or end the episode by the policies' states after this window."""
    carry = draft.carry
    data, model = (carry.policies.get(name, PolicyState()) for name in ("data", "model"))
    if data.state not in _LASTING and model.state not in _LASTING:
        draft.carry = replaced(carry, episode=None)
        return
    onsets = []
    if data.drift_run and data.state in _LASTING:
        onsets.append(_dated(draft) or _run_began(data, draft.window_end, settings))
    if model.drift_run and model.state in _LASTING and carry.episode is None:
        # What erred were predictions made a horizon before the labels were known.
        erred = _run_began(model, draft.window_end, settings) - settings.monitor_horizon_days * DAY_S
        onsets.append(floor_end(erred, settings.hop_s))
    episode = carry.episode
    if episode is None:
        if not onsets:
            return
        episode = Episode(onset=min(onsets))
    # What is asked for is counted from the onset: it stays once something was, or was seen to be needed.
    elif onsets and not (episode.harmed or episode.tried):
        episode = msgspec.structs.replace(episode, onset=min(onsets))
    harmed = episode.harmed or _confirmed_now(draft, "model", settings)
    draft.carry = replaced(carry, episode=msgspec.structs.replace(episode, harmed=harmed))


def asked_for(draft: Draft, history: History, settings: Settings) -> Choice:
    """Return what to ask for in this window.

    A remedy for a drift comes first, then the review of a rival, then the schedule.
    """
    carry, end = draft.carry, draft.window_end
    if (obstacle := _obstacle(draft)) is not None:
        return Choice(Action.NONE, obstacle)
    if draft.asked_by_hand:
        return Choice(Action.RETRAIN, "asked for by hand")
    choice = _remedy(draft, history, settings)
    if choice.action is not Action.NONE:
        return choice
    if carry.rival is not None and review_due(carry.rival, history, settings, at=end):
        return Choice(Action.REVIEW, f"labels have matured to hold model {carry.rival.version} against")
    if settings.retrain_every_days and end - _last_trained(carry) >= settings.retrain_every_days * DAY_S:
        return Choice(Action.RETRAIN, f"scheduled every {settings.retrain_every_days} days")
    return choice


def _obstacle(draft: Draft) -> str | None:
    """Return why nothing can be asked for in this window, None if something can."""
    if draft.window.partial:
        return "the window is not whole"
    if draft.carry.pending:
        return "a model is on its way"
    return "no model serves" if draft.carry.champion is None else None


def _remedy(draft: Draft, history: History, settings: Settings) -> Choice:
    carry, end = draft.carry, draft.window_end
    episode = carry.episode
    onset = end if episode is None else episode.onset
    last = carry.last_request
    verdict = draft.model_rule[1]
    return choose(
        episode,
        Evidence(
            drift=_confirmed_now(draft, "data", settings),
            harm=_confirmed_now(draft, "model", settings),
            blind=verdict is None or verdict.drift is None,
            matured_short=len(
                matured_since(history, onset, settings, days=settings.monitor_horizon_days, at=end)
            ),
            matured_long=len(matured_since(history, onset, settings, days=settings.horizon_days, at=end)),
        ),
        harm_gate=settings.harm_gate,
        min_matured_windows=settings.min_matured_windows,
        cooling=last is not None and end - last < settings.cooldown_days * DAY_S,
    )


def _confirmed_now(draft: Draft, kind: str, settings: Settings) -> bool:
    """Return whether this very window belongs to a confirmed drift."""
    policy = draft.carry.policies.get(kind, PolicyState())
    verdict = draft.model_rule[1] if kind == "model" else draft.verdicts.get(draft.acting_detector)
    if verdict is None or not verdict.drift or (kind == "data" and draft.expected):
        return False
    return policy.state is State.CONFIRMED and policy.drift_run >= settings.confirm_windows


def _dated(draft: Draft) -> int | None:
    """Return where the acting detector dates the drift that it sees in this window."""
    verdict = draft.verdicts.get(draft.acting_detector)
    return verdict.onset if verdict is not None and verdict.drift else None


def _run_began(policy: PolicyState, window_end: int, settings: Settings) -> int:
    """Return the end of the first window of a policy's run of drift.

    A drift that stayed confirmed over a promotion has another, newer run than the one that it began with.
    """
    run = window_end - (policy.drift_run - 1) * settings.hop_s
    return run if policy.onset is None else max(policy.onset, run)


def _last_trained(carry: Carry) -> int:
    """Return when a model was last asked for, the first one too."""
    return max(carry.last_request or 0, carry.first_requested or 0)
