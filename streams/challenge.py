"""A challenger held against the champion: the gate, and two questions about the time since its labels."""

from typing import Any

import numpy as np
import pandas as pd

from models.features import DAY_S
from models.fitted import TrainedModel, predict
from models.gate import GateVerdict, compare_level, decide
from streams.history import History
from streams.retention import MATURED_WINDOWS_MIN
from streams.rivals import matured_since
from streams.settings import Settings

FRESH_DAYS = 14


def challenge(frame: pd.DataFrame, champion: Any, challenger: Any, settings: Settings) -> GateVerdict:
    """Return the gate's verdict on two predictions, shape (n,), of the labels in `frame`.

    `champion` is None where no model serves.
    """
    return decide(
        frame["label"],
        champion,
        challenger,
        frame["CustomerID"].tolist(),
        seed=settings.seed,
        resamples=settings.gate_resamples,
        probability=settings.gate_probability,
        segments=segments(frame, settings),
    )


def segments(frame: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    """Return the segments whose level the gate guards, as masks of the rows of `frame`, shape (n,).

    The country of most customers and the others; customers whose first purchase lies within the window,
    and those known for longer.
    """
    if frame.empty:
        return {}
    countries = frame["Country"].to_numpy()
    names, counts = np.unique(countries, return_counts=True)
    largest = names[np.argmax(counts)]
    new = frame["Tenure"].to_numpy() < settings.window_days
    return {
        f"customers of {largest}": countries == largest,
        "customers of other countries": countries != largest,
        "new customers": new,
        "old customers": ~new,
    }


def objection(
    history: History, champion: TrainedModel, challenger: TrainedModel, settings: Settings, *, at: int
) -> str | None:
    """Return what speaks against a challenger that the gate let through, None if nothing does.

    The labels that the gate saw are a horizon old. A level that is far from the champion's is for a person to
    decide on: broken data look like that. And the newest `FRESH_DAYS` must not be clearly nearer to the
    champion's level: then what the labels saw has passed.
    """
    rows = history.windows[at].rows
    if rows.empty:
        return None
    weight = rows["SampleWeight"].to_numpy(np.float64)
    before, after = (float(weight @ predict(model, rows)) for model in (champion, challenger))
    most = settings.level_change_max
    if before > 0 and not 1 / most <= after / before <= most:
        return (
            f"kept: the sum of all predictions would be {after / before:.2f} times the champion's, beyond"
            f" level_change_max ({most:g}); `clv-drift model promote` takes it"
        )
    return _stale(history, champion, challenger, settings, at=at)


def _stale(
    history: History, champion: TrainedModel, challenger: TrainedModel, settings: Settings, *, at: int
) -> str | None:
    share = _fresh_share(history, settings, at=at)
    ends = matured_since(history, 0, settings, days=FRESH_DAYS, at=at)
    if share is None or not ends:
        return None
    rows = history.labelled(ends[-1], horizon_s=FRESH_DAYS * DAY_S, at=at)
    level = compare_level(
        rows["label"],
        predict(champion, rows) * share,
        predict(challenger, rows) * share,
        rows["CustomerID"].tolist(),
        seed=settings.seed,
        resamples=settings.gate_resamples,
    )
    if level is None or not level.clearly_worse(settings.gate_probability):
        return None
    return (
        f"kept: over the newest {FRESH_DAYS} days the challenger is off in level by {level.challenger:+.1%},"
        f" the champion by {level.champion:+.1%}"
    )


def _fresh_share(history: History, settings: Settings, *, at: int) -> float | None:
    """Return which part of the spend over `horizon_days` comes in its first `FRESH_DAYS`, None if unknown."""
    ends = matured_since(history, 0, settings, days=settings.horizon_days, at=at)[-MATURED_WINDOWS_MIN:]
    sums = np.zeros(2)
    for end in ends:
        weight = history.windows[end].rows["SampleWeight"].to_numpy(np.float64)
        for index, days in enumerate((FRESH_DAYS, settings.horizon_days)):
            stayed, spend = history.label(end, horizon_s=days * DAY_S, at=at)
            sums[index] += float(weight[stayed] @ spend[stayed])
    return float(sums[0] / sums[1]) if (sums > 0).all() else None
