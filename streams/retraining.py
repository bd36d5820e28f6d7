"""The answer to a request for a model: train, choose, hold against the champion, decide."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pandas as pd

from models.card import Card, card_of
from models.features import DAY_S
from models.gate import decide
from models.holdout import customer_hash, is_holdout
from models.metrics import performance
from models.registry import RegistryError, RegistryStorageError
from models.training import FrameError, TrainedModel, holdout_performance, predict, train
from streams.carry import Request
from streams.decisions import Decision, Outcome
from streams.grid import iso
from streams.history import History
from streams.performance import ModelLoader
from streams.settings import Settings

SELECTION_KEY = b"clv-drift/selection/1"  # splits the training customers to choose an estimator
SELECTION_MODULUS = 4
SHORT_LABEL = "label_short"


@dataclass(frozen=True)
class Answer:
    """A decision, and the model to store with its card and reference rows where one was trained."""

    decision: Decision
    model: TrainedModel | None = None
    card: Card | None = None
    reference: pd.DataFrame | None = None


def answer(history: History, request: Request, champion: TrainedModel | None, settings: Settings) -> Answer:
    """Answer `request` from what was known when it was made: the same request gives the same answer.

    `history` holds the windows up to the request's; later ones are not looked at. A champion is replaced only
    if the gate finds the challenger better on hold-out customers at the newest matured window.
    """
    at = request.requested_at
    frame = training_frame(history, at=at, settings=settings)
    parent = champion.version if champion else None
    if frame.empty:
        return Answer(_kept(request, parent, "no window with matured labels to train on"))
    try:
        model = train_best(frame, settings.estimators, settings.seed)
    except FrameError as exc:
        return Answer(_kept(request, parent, f"the labelled windows cannot be trained on: {exc}"))
    if champion is not None and model.version == champion.version:
        return Answer(_kept(request, parent, "training gives the champion again: no new labels have matured"))
    newest = frame[frame["window_end"] == frame["window_end"].max()]
    verdict = decide(
        newest["label"],
        None if champion is None else predict(champion, newest),
        predict(model, newest),
        newest["CustomerID"].tolist(),
        seed=settings.seed,
        resamples=settings.gate_resamples,
        probability=settings.gate_probability,
    )
    card = card_of(
        model,
        horizon_days=settings.horizon_days,
        metrics=holdout_performance(model, frame),
        requested_at=iso(at),
        parent=parent,
        gate=verdict.to_json(),
    )
    decision = Decision(
        outcome=Outcome.PROMOTED if verdict.promoted else Outcome.KEPT,
        reason=verdict.reason,
        window_end=at,
        request_id=request.request_id,
        version=model.version if verdict.promoted else None,
        parent=parent,
        gate=verdict.to_json(),
        # Without the hashes of its files: those of equal models differ, a decision is replayed to the byte.
        card=_published(card),
    )
    return Answer(decision, model, card, history.windows[at].rows)


def answer_request(history: History, request: Request, load: ModelLoader, settings: Settings) -> Answer:
    """Do as `answer`, with the champion that `load` gives for the request.

    A champion that cannot be loaded stays, and nothing is trained: it is for a person to say what becomes of
    it. Raises RegistryStorageError where the registry's place is at fault, not the champion.
    """
    champion = None
    if request.champion is not None:
        try:
            champion, _ = load(request.champion)
        except RegistryStorageError:
            raise
        except RegistryError as exc:
            return Answer(_kept(request, request.champion, f"the champion cannot be loaded: {exc}"))
    return answer(history, request, champion, settings)


def training_frame(history: History, *, at: int, settings: Settings) -> pd.DataFrame:
    """Return the labelled rows of the newest windows whose labels are known at window end `at`.

    Only windows that show a full `window_days` of the stream have rows here, at most `training_windows_max`
    of them. `label` is the spend over `horizon_days`, `label_short` over `monitor_horizon_days`.
    """
    horizon_s, short_s = settings.horizon_days * DAY_S, settings.monitor_horizon_days * DAY_S
    assert history.first_end is not None
    full_from = history.first_end + (settings.window_days - 7) * DAY_S
    ends = [end for end in history.matured(horizon_s=horizon_s, at=at) if end >= full_from]
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


def _kept(request: Request, parent: str | None, reason: str) -> Decision:
    return Decision(
        outcome=Outcome.KEPT,
        reason=reason,
        window_end=request.requested_at,
        request_id=request.request_id,
        parent=parent,
    )


def _published(card: Card) -> dict[str, object]:
    content: dict[str, object] = msgspec.to_builtins(card)
    del content["artefacts"]
    return content
