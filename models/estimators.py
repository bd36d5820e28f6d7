"""The estimators a model may be: scikit-learn pipelines that take a frame of features as it is."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import isclass, signature
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import TweedieRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from models.features import NUMERIC_FEATURES, RFM_FEATURES

COUNTRY = "Country"

# Dotted names are taken from here only: a name in a settings file must not import arbitrary code.
DOTTED_ROOT = "sklearn"


class UnknownEstimatorError(ValueError):
    """A name that is neither one of ours nor a scikit-learn regressor."""


@dataclass(frozen=True)
class EstimatorSpec:
    """What an estimator reads and how it is built.

    `numerics` are scaled as they are, or after `signed_log1p` where `logs` is set; `with_country` adds one
    column a country. Labels below zero become 0 before the fit where `labels_from_zero` is set.
    """

    name: str
    numerics: tuple[str, ...]
    with_country: bool
    logs: bool
    labels_from_zero: bool
    regressor: Callable[[int], Any]

    @property
    def features(self) -> tuple[str, ...]:
        """Columns that the estimator reads, in a fixed order."""
        return (*self.numerics, COUNTRY) if self.with_country else self.numerics


def signed_log1p(values: Any) -> npt.NDArray[np.float64]:
    """Return sign(x) log(1 + |x|): money spans five decades, and returns can make it negative.

    >>> signed_log1p([0.0, -9.0]).round(3).tolist()
    [0.0, -2.303]
    """
    numbers = np.asarray(values, dtype=np.float64)
    return np.sign(numbers) * np.log1p(np.abs(numbers))


def spec_of(name: str) -> EstimatorSpec:
    """Return the estimator called `name`: `random_forest`, `tweedie_glm` or a dotted scikit-learn regressor.

    Raises UnknownEstimatorError on any other name.
    """
    if name in _NAMED:
        return _NAMED[name]
    if name.startswith(f"{DOTTED_ROOT}."):
        regressor_class = _regressor_class(name)
        return EstimatorSpec(
            name=name,
            numerics=NUMERIC_FEATURES,
            with_country=True,
            logs=True,
            labels_from_zero=False,
            regressor=lambda seed: _single_threaded(regressor_class, seed),
        )
    known = ", ".join(_NAMED)
    raise UnknownEstimatorError(
        f"no estimator is called {name!r}; known are {known} and regressors as sklearn.<module>.<Class>"
    )


def make_estimator(name: str, seed: int) -> Pipeline:
    """Return the unfitted pipeline called `name`; equal seeds and rows give equal models.

    It is fitted on and predicts from frames that hold at least `spec_of(name).features`.
    """
    spec = spec_of(name)
    scale: Any = StandardScaler()
    if spec.logs:
        scale = Pipeline([("log", FunctionTransformer(signed_log1p)), ("scale", scale)])
    columns: list[tuple[str, Any, list[str]]] = [("numerics", scale, list(spec.numerics))]
    if spec.with_country:
        # A country the training never saw reads as none of the known ones.
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        columns.append(("country", encoder, [COUNTRY]))
    return Pipeline([("columns", ColumnTransformer(columns)), ("regressor", spec.regressor(seed))])


def _random_forest(seed: int) -> RandomForestRegressor:
    return RandomForestRegressor(
        n_estimators=100,
        max_depth=10,
        min_samples_split=10,
        min_samples_leaf=5,
        random_state=seed,
        n_jobs=1,
    )


def _tweedie_glm(seed: int) -> TweedieRegressor:  # noqa: ARG001  (the fit is deterministic)
    """Return a compound Poisson-gamma model: many customers spend nothing, the rest a skewed sum.

    The second-order solver needs some ten iterations where the default one needs hundreds. `alpha` is
    scikit-learn's default; it matters because the features overlap (spend of 14, 30, 60 and 91 days).
    """
    return TweedieRegressor(power=1.5, link="log", alpha=1.0, solver="newton-cholesky", max_iter=200)


def _regressor_class(dotted: str) -> type:
    module_name, _, class_name = dotted.rpartition(".")
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as exc:
        raise UnknownEstimatorError(f"scikit-learn has no {dotted!r}") from exc
    if not (isclass(found) and issubclass(found, RegressorMixin)):
        raise UnknownEstimatorError(f"{dotted} is not a scikit-learn regressor")
    return found


def _single_threaded(regressor_class: type, seed: int) -> Any:
    """Return a regressor with the seed and one thread, as far as its constructor knows them."""
    wanted = {"random_state": seed, "n_jobs": 1}
    known = signature(regressor_class).parameters
    try:
        return regressor_class(**{name: value for name, value in wanted.items() if name in known})
    except TypeError as exc:
        raise UnknownEstimatorError(
            f"{regressor_class.__name__} cannot be built without further arguments"
        ) from exc


_NAMED = {
    "random_forest": EstimatorSpec(
        name="random_forest",
        numerics=RFM_FEATURES,
        with_country=True,
        logs=False,
        labels_from_zero=False,
        regressor=_random_forest,
    ),
    "tweedie_glm": EstimatorSpec(
        name="tweedie_glm",
        numerics=NUMERIC_FEATURES,
        with_country=False,
        logs=True,
        labels_from_zero=True,
        regressor=_tweedie_glm,
    ),
}
