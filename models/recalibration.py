"""Recalibration: the fit of a model kept, its predictions brought to another level."""

import json
from dataclasses import replace
from hashlib import sha256
from math import isfinite

import numpy as np
import pandas as pd

from models.fitted import VERSION_HEX_DIGITS, FrameError, TrainedModel, predict
from models.holdout import is_holdout

LEVEL_DIGITS = 4


def recalibrated(model: TrainedModel, frame: pd.DataFrame, scale: float = 1.0) -> TrainedModel:
    """Return `model` at the level at which its predictions for `frame` add up to what came.

    The factor is sum w label / sum w prediction over the customers who are not held out, where `frame` is as
    for `models.training.train` and `scale` brings predictions to the horizon of its labels. It is rounded to
    four digits, so that it can be read, told and typed; the version is a hash of the model's version and the
    level alone. Raises FrameError where labels or predictions do not add up to more than zero.
    """
    rows = frame[~is_holdout(frame["CustomerID"])]
    weight = rows["SampleWeight"].to_numpy(np.float64)
    spent = float(weight @ rows["label"].to_numpy(np.float64))
    promised = scale * float(weight @ predict(model, rows)) if len(rows) else 0.0
    if not (spent > 0 and promised > 0 and isfinite(spent / promised)):
        raise FrameError(
            f"the level of model {model.version} cannot be set: {promised:.2f} were promised,"
            f" {spent:.2f} came of {len(rows)} rows"
        )
    level = float(f"{model.level * spent / promised:.{LEVEL_DIGITS}g}")
    return replace(model, version=level_version(model.version, level), level=level)


def level_version(version: str, level: float) -> str:
    """Return the version of the model `version` brought to `level`: 16 hex digits."""
    content = json.dumps({"recalibrates": version, "level": level}, sort_keys=True)
    return sha256(content.encode()).hexdigest()[:VERSION_HEX_DIGITS]
