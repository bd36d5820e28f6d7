"""The rival: a model that runs beside the champion, scored on the same windows, until a review settles it.

Either the model that a promotion replaced, which comes back if it proves better after all, or one that the
gate let through into a shadow period.
"""

from typing import Any

import pandas as pd

from models.card import Card
from models.features import DAY_S
from models.fitted import TrainedModel, predict
from models.metrics import performance
from streams.carry import Purpose, Rival
from streams.detectors.interface import rounded
from streams.grid import iso
from streams.history import History
from streams.performance import ModelLoader
from streams.retention import retained_s
from streams.settings import Settings


def review_horizon(rival: Rival, settings: Settings) -> int:
    """Return the horizon in days on whose labels the next review decides."""
    return settings.horizon_days if rival.reviews else settings.monitor_horizon_days


def review_windows(rival: Rival, settings: Settings) -> int:
    """Return how many windows must have matured for the next review."""
    return max(
        1, settings.shadow_windows if rival.purpose is Purpose.SHADOW else settings.min_matured_windows
    )


def reviews_max(rival: Rival) -> int:
    """Return after how many reviews a rival that was kept out is let go.

    One that was replaced has a second chance, on the labels of the horizon that counts.
    """
    return 1 if rival.purpose is Purpose.SHADOW else 2


def matured_since(history: History, since: int, settings: Settings, *, days: int, at: int) -> list[int]:
    """Return the windows from `since` on whose labels over `days` are known at window end `at`.

    None that may have been forgotten by then, so that it is the same for whoever asks.
    """
    since = max(since, at - retained_s(settings))
    return [end for end in history.matured(horizon_s=days * DAY_S, at=at) if end >= since]


def review_due(rival: Rival, history: History, settings: Settings, *, at: int) -> bool:
    """Return whether enough labels have matured at window end `at` to settle a rival."""
    days = review_horizon(rival, settings)
    return len(matured_since(history, rival.since, settings, days=days, at=at)) >= review_windows(
        rival, settings
    )


def scale_of(card: Card, days: int) -> float | None:
    """Return the factor that brings a model's predictions to the horizon `days`, None where it has none."""
    return 1.0 if card.horizon_days == days else card.horizon_scale


def scored(model: TrainedModel, card: Card, rows: pd.DataFrame, days: int) -> Any:
    """Return a model's predictions for `rows` over the horizon `days`, None where it cannot give them."""
    scale = scale_of(card, days)
    return None if scale is None else predict(model, rows) * scale


def beside(
    rival: Rival, champion: str, history: History, load: ModelLoader, settings: Settings, *, at: int
) -> dict[str, Any]:
    """Return the measures of both models on the newest window since the rival ran beside, by horizon.

    Raises RegistryError where one of them cannot be loaded.
    """
    found: dict[str, Any] = {}
    for days in (settings.monitor_horizon_days, settings.horizon_days):
        ends = matured_since(history, rival.since, settings, days=days, at=at)
        if not ends:
            continue
        rows = history.labelled(ends[-1], horizon_s=days * DAY_S, at=at)
        both = {
            name: scored(*load(version), rows, days)
            for name, version in (("champion", champion), ("rival", rival.version))
        }
        if rows.empty or any(prediction is None for prediction in both.values()):
            continue
        found[str(days)] = {"window_end": iso(ends[-1])} | {
            name: _measures(rows, prediction) for name, prediction in both.items()
        }
    return {
        "version": rival.version,
        "purpose": rival.purpose.value,
        "since": iso(rival.since),
        "reviews": rival.reviews,
        "performance": found,
    }


def _measures(rows: pd.DataFrame, prediction: Any) -> dict[str, float | None]:
    measures = performance(rows["label"], prediction, rows["SampleWeight"])
    return {name: rounded(value) for name, value in measures.items()}
