"""The card of a model version: what it is, what it learned from, why it was promoted or kept."""

from hashlib import sha256
from typing import Any

import msgspec

from models.explain import Importance
from models.fitted import TrainedModel, TrainingFacts
from models.intervals import Intervals


class CardError(ValueError):
    """A card that cannot be read, or whose content is not what was written."""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a version but its weights. It carries no wall-clock time: equal runs, equal cards.

    Times are window ends in ISO 8601 (UTC), money is in currency units. `artefacts` maps each file beside the
    card to its sha256; empty until the registry wrote them.
    """

    version: str
    estimator: str
    seed: int
    parameters: dict[str, Any]
    features: tuple[str, ...]
    features_version: int
    training: TrainingFacts
    horizon_days: int
    horizon_scale: float | None
    requested_at: str | None  # window end of the request, or as of which it was trained by hand
    parent: str | None  # version that served when this one was trained
    metrics: dict[str, float | None]  # on the hold-out, see `models.metrics`
    gate: dict[str, Any] | None  # `GateVerdict.to_json()`; None before the gate
    libraries: dict[str, str]
    level: float = 1.0  # factor on every prediction, set by a recalibration
    recalibrates: str | None = None  # version whose fit this is, at another level
    onset: str | None = None  # of the drift that it answers: end of the first window
    intervals: Intervals | None = None  # of predictions at level 1, see `models.intervals`
    importance: tuple[Importance, ...] = ()  # on the hold-out, see `models.explain`
    artefacts: dict[str, str] = {}


def card_of(
    model: TrainedModel,
    *,
    horizon_days: int,
    metrics: dict[str, float | None],
    requested_at: str | None = None,
    parent: str | None = None,
    gate: dict[str, Any] | None = None,
    recalibrates: str | None = None,
    onset: str | None = None,
) -> Card:
    """Return the card of a model that was just trained."""
    return Card(
        version=model.version,
        estimator=model.estimator,
        seed=model.seed,
        parameters=model.parameters,
        features=model.features,
        features_version=model.features_version,
        training=model.training,
        horizon_days=horizon_days,
        horizon_scale=model.horizon_scale,
        requested_at=requested_at,
        parent=parent,
        metrics=metrics,
        gate=gate,
        libraries=model.libraries,
        level=model.level,
        intervals=model.intervals,
        importance=model.importance,
        recalibrates=recalibrates,
        onset=onset,
    )


def card_json(card: Card) -> bytes:
    """Return the card as JSON for people: keys sorted, indented, with the sha256 of its own content."""
    content = msgspec.to_builtins(card)
    signed = {**content, "sha256": _content_hash(content)}
    return msgspec.json.format(msgspec.json.encode(signed, order="deterministic"), indent=2) + b"\n"


def read_card(data: bytes) -> Card:
    """Return the card that `card_json` wrote. Raises CardError where it is not whole or was altered."""
    try:
        content = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise CardError(f"it is not a JSON object ({exc})") from exc
    stated = content.pop("sha256", None)
    if stated != _content_hash(content):
        raise CardError("its content does not have the sha256 that it states")
    try:
        return msgspec.convert(content, Card)
    except msgspec.ValidationError as exc:
        raise CardError(f"it is not a card of this program's version ({exc})") from exc


def _content_hash(content: dict[str, Any]) -> str:
    return sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()
