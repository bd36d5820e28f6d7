"""A fitted model: what identifies it, and what it predicts.

Nothing here needs scikit-learn before there is a model: who has none starts in half the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version as installed_version
from platform import python_version_tuple
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import ThreadpoolController

from models.explain import Importance
from models.intervals import Intervals

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# Libraries whose code decides what a fit computes.
LIBRARIES = ("numpy", "scipy", "scikit-learn")
VERSION_HEX_DIGITS = 16


class FrameError(ValueError):
    """A frame that cannot be trained on or scored; the message says what is wrong with it."""


class TrainingFacts(msgspec.Struct, frozen=True):
    """What a model was fitted on; rows and customers without the hold-out, times in ISO 8601, UTC."""

    first_window_end: str
    last_window_end: str
    rows: int
    customers: int


@dataclass(frozen=True)
class TrainedModel:
    """A fitted pipeline with what identifies it."""

    version: str
    estimator: str
    seed: int
    parameters: dict[str, Any]  # of the regressor, JSON values
    features: tuple[str, ...]
    features_version: int
    training: TrainingFacts
    horizon_scale: float | None  # see `horizon_scale`
    libraries: dict[str, str]
    pipeline: "Pipeline"
    level: float = 1.0  # factor on every prediction, see `models.recalibration`
    intervals: Intervals | None = None  # of predictions at level 1; None where too few were held out
    importance: tuple[Importance, ...] = ()  # of the topics of features, on the hold-out


def predict(model: TrainedModel, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return each row's predicted spend over the model's horizon, 0 or more, currency units, shape (n,).

    One thread, so that sums are added in one order everywhere. Raises FrameError where a feature is missing
    or a prediction is not a finite number.
    """
    missing = [name for name in model.features if name not in rows.columns]
    if missing:
        raise FrameError(f"model {model.version} needs columns that the rows lack: {', '.join(missing)}")
    if rows.empty:
        return np.empty(0)
    with one_thread():
        predicted = np.asarray(model.pipeline.predict(rows[list(model.features)]), dtype=np.float64)
    if not np.isfinite(predicted).all():
        count = np.count_nonzero(~np.isfinite(predicted))
        raise FrameError(f"model {model.version} gives {count} of {len(rows)} rows no finite prediction")
    return model.level * np.maximum(predicted, 0.0)


def library_versions() -> dict[str, str]:
    """Return the versions of what a fit depends on; of Python major and minor."""
    versions = {name: installed_version(name) for name in LIBRARIES}
    return {**versions, "python": ".".join(python_version_tuple()[:2])}


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS and OpenMP use one thread."""
    with _threads().limit(limits=1):
        yield


@lru_cache(maxsize=1)
def _threads() -> ThreadpoolController:
    """Return the controller of the BLAS and OpenMP pools; looking for them takes milliseconds, so once."""
    return ThreadpoolController()
