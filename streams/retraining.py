"""The answer to a request for a model: train or recalibrate, hold against the champion, decide."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pandas as pd

from models.card import Card, card_of
from models.features import DAY_S
from models.fitted import FrameError, TrainedModel, predict
from models.gate import GateVerdict
from models.holdout import customer_hash, is_holdout
from models.metrics import performance
from models.recalibration import recalibrated
from models.registry import RegistryError, RegistryStorageError
from models.training import holdout_performance, train
from streams.carry import Purpose, Request, Rival
from streams.challenge import challenge, objection
from streams.decisions import Decision, Outcome
from streams.grid import iso
from streams.history import History
from streams.performance import ModelLoader
from streams.remedies import Action
from streams.rivals import matured_since, review_horizon, review_windows, scale_of, scored
from streams.settings import Settings

SELECTION_KEY = b"clv-drift/selection/1"  # splits the training customers to choose an estimator
SELECTION_MODULUS = 4
SHORT_LABEL = "label_short"


@dataclass(frozen=True)
class Answer:
    """A decision, and the model to store with its card and reference rows where one was made."""

    decision: Decision
    model: TrainedModel | None = None
    card: Card | None = None
    reference: pd.DataFrame | None = None


@dataclass(frozen=True)
class Served:
    """The champion as a request finds it: the model and its card."""

    model: TrainedModel
    card: Card


def answer_request(history: History, request: Request, load: ModelLoader, settings: Settings) -> Answer:
    """Answer `request` from what was known when it was made: the same request gives the same answer.

    `history` holds the windows up to the request's; later ones are not looked at. A champion that cannot be
    loaded stays, and nothing is made: it is for a person to say what becomes of it. Raises
    RegistryStorageError where the registry's place is at fault, not the champion.
    """
    try:
        served = None if request.champion is None else Served(*load(request.champion))
        if request.action is Action.REVIEW and request.rival is not None and served is not None:
            return _review(
                history, request, request.rival, served, Served(*load(request.rival.version)), settings
            )
    except RegistryStorageError:
        raise
    except RegistryError as exc:
        which = "the champion" if request.action is not Action.REVIEW else "one of the models"
        return Answer(_kept(request, f"{which} cannot be loaded: {exc}"))
    if request.action is Action.RECALIBRATE and served is not None:
        return _recalibrate(history, request, served, settings)
    return _retrain(history, request, served, settings)


def training_frame(
    history: History, *, at: int, settings: Settings, since: int | None = None
) -> pd.DataFrame:
    """Return the labelled rows of the newest windows whose labels are known at window end `at`.

    Only windows that show a full `window_days` of the stream have rows here, at most `training_windows_max`
    of them; from the window `since` on, if so many have matured that a retrain may rest on them. `label` is
    the spend over `horizon_days`, `label_short` over `monitor_horizon_days`.
    """
    horizon_s, short_s = settings.horizon_days * DAY_S, settings.monitor_horizon_days * DAY_S
    assert history.first_end is not None
    full_from = history.first_end + (settings.window_days - 7) * DAY_S
    ends = [end for end in history.matured(horizon_s=horizon_s, at=at) if end >= full_from]
    after = [end for end in ends if since is not None and end >= since]
    if len(after) >= max(1, settings.min_matured_windows):
        ends = after
    frames = []
    for end in ends[-settings.training_windows_max :]:
        rows = history.labelled(end, horizon_s=horizon_s, at=at)
        _, short = history.label(end, horizon_s=short_s, at=at)
        frames.append(rows.assign(**{SHORT_LABEL: short[rows.index.to_numpy()]}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def train_best(frame: pd.DataFrame, estimators: Sequence[str], seed: int) -> TrainedModel:
    """Train the estimator that does best on training customers it has not seen; on all of them.

    The choice leaves the hold-out alone: it belongs to the gate.
    """
    if len(estimators) == 1:
        return train(frame, estimators[0], seed)
    hashes = customer_hash(frame["CustomerID"].tolist(), SELECTION_KEY)
    unseen = hashes % np.uint64(SELECTION_MODULUS) == 0
    unseen &= ~is_holdout(frame["CustomerID"])
    judged = frame[unseen & (frame["window_end"] == frame["window_end"].max())]
    errors = {}
    for name in estimators:
        trial = train(frame[~unseen], name, seed)
        nmae = performance(judged["label"], predict(trial, judged))["nmae"]
        errors[name] = float("inf") if nmae is None else nmae
    return train(frame, min(estimators, key=lambda name: errors[name]), seed)


def _retrain(history: History, request: Request, served: Served | None, settings: Settings) -> Answer:
    """Train anew; a champion at another level is tried first, and the new model has to beat that too."""
    frame = training_frame(history, at=request.requested_at, settings=settings, since=request.onset)
    if frame.empty:
        return Answer(_kept(request, "no window with matured labels to train on"))
    try:
        model = train_best(frame, settings.estimators, settings.seed)
    except FrameError as exc:
        return Answer(_kept(request, f"the labelled windows cannot be trained on: {exc}"))
    if served is not None and model.version == served.model.version:
        return Answer(_kept(request, "training gives the champion again: no new labels have matured"))
    newest = frame[frame["window_end"] == frame["window_end"].max()]
    if served is None:
        verdict = challenge(newest, None, predict(model, newest), settings)
        return _answered(history, request, model, frame, verdict, settings, served=None)
    champion = predict(served.model, newest)
    retrained = challenge(newest, champion, predict(model, newest), settings)
    level = _levelled(served.model, newest, 1.0)
    if level is not None:
        rescaled = challenge(newest, champion, predict(level, newest), settings)
        # Another level is the smaller remedy: where it passes, the new model has to be better than that.
        if rescaled.promoted and not (
            retrained.promoted
            and challenge(newest, predict(level, newest), predict(model, newest), settings).promoted
        ):
            return _answered(
                history, request, level, frame, rescaled, settings, served=served, recalibrates=served.card
            )
    return _answered(history, request, model, frame, retrained, settings, served=served)


def _recalibrate(history: History, request: Request, served: Served, settings: Settings) -> Answer:
    """Bring the champion to the level of the short labels from after the onset."""
    at, days = request.requested_at, settings.monitor_horizon_days
    scale = scale_of(served.card, days)
    if scale is None:
        return Answer(_kept(request, f"the champion cannot be read over {days} days"))
    ends = matured_since(history, request.onset or 0, settings, days=days, at=at)[
        -settings.training_windows_max :
    ]
    if not ends:
        return Answer(_kept(request, f"no label over {days} days has matured since the onset"))
    frames = [history.labelled(end, horizon_s=days * DAY_S, at=at) for end in ends]
    frame = pd.concat(frames, ignore_index=True)
    newest = frames[-1]
    level = _levelled(served.model, frame, scale)
    if level is None or level.version == served.model.version:
        return Answer(_kept(request, "the short labels give the champion no other level"))
    champion, challenger = (predict(model, newest) * scale for model in (served.model, level))
    verdict = challenge(newest, champion, challenger, settings)
    return _answered(
        history,
        request,
        level,
        frame,
        verdict,
        settings,
        served=served,
        recalibrates=served.card,
        scale=scale,
    )


def _review(
    history: History, request: Request, rival: Rival, served: Served, other: Served, settings: Settings
) -> Answer:
    """Hold the rival against the champion on the windows since it runs beside, by the gate's rule."""
    at, days = request.requested_at, review_horizon(rival, settings)
    ends = matured_since(history, rival.since, settings, days=days, at=at)[-review_windows(rival, settings) :]
    frames = [history.labelled(end, horizon_s=days * DAY_S, at=at) for end in ends]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    champion, challenger = (scored(one.model, one.card, frame, days) for one in (served, other))
    if frame.empty or champion is None or challenger is None:
        return Answer(_kept(request, f"the models cannot be compared over {days} days"))
    verdict = challenge(frame, champion, challenger, settings)
    outcome = Outcome.KEPT
    if verdict.promoted:
        outcome = Outcome.ROLLED_BACK if rival.purpose is Purpose.ROLLBACK else Outcome.PROMOTED
    return Answer(
        Decision(
            outcome=outcome,
            reason=f"{rival.purpose}, {len(ends)} windows: {verdict.reason}",
            window_end=at,
            request_id=request.request_id,
            version=other.model.version if verdict.promoted else None,
            parent=request.champion,
            gate=verdict.to_json(),
        )
    )


def _levelled(model: TrainedModel, frame: pd.DataFrame, scale: float) -> TrainedModel | None:
    """Return the model at the level of the frame's labels, None where they give none."""
    try:
        return recalibrated(model, frame, scale)
    except FrameError:
        return None


def _answered(
    history: History,
    request: Request,
    model: TrainedModel,
    frame: pd.DataFrame,
    verdict: GateVerdict,
    settings: Settings,
    *,
    served: Served | None,
    recalibrates: Card | None = None,
    scale: float = 1.0,
) -> Answer:
    """Return the decision that the gate's verdict leads to, with the model and its card."""
    refusal = None
    if verdict.promoted and served is not None:
        refusal = objection(history, served.model, model, settings, at=request.requested_at)
    promoted = verdict.promoted and refusal is None
    # Labels over the short horizon measure nothing of the one that the card is about.
    judged = frame if scale == 1.0 else frame.head(0)
    card = card_of(
        model,
        horizon_days=settings.horizon_days if recalibrates is None else recalibrates.horizon_days,
        metrics=holdout_performance(model, judged),
        requested_at=iso(request.requested_at),
        parent=request.champion,
        gate=verdict.to_json(),
        recalibrates=None if recalibrates is None else recalibrates.version,
        onset=None if request.onset is None else iso(request.onset),
    )
    outcome = Outcome.KEPT
    if promoted:
        outcome = Outcome.SHADOWED if settings.shadow_windows and served is not None else Outcome.PROMOTED
    decision = Decision(
        outcome=outcome,
        reason=refusal or verdict.reason,
        window_end=request.requested_at,
        request_id=request.request_id,
        version=model.version if promoted else None,
        parent=request.champion,
        gate=verdict.to_json(),
        # Without the hashes of its files: those of equal models differ, a decision is replayed to the byte.
        card=_published(card),
    )
    return Answer(decision, model, card, history.windows[request.requested_at].rows)


def _kept(request: Request, reason: str) -> Decision:
    return Decision(
        outcome=Outcome.KEPT,
        reason=reason,
        window_end=request.requested_at,
        request_id=request.request_id,
        parent=request.champion,
    )


def _published(card: Card) -> dict[str, object]:
    content: dict[str, object] = msgspec.to_builtins(card)
    del content["artefacts"]
    return content
