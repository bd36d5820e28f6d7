"""The estimators a model may be: scikit-learn pipelines that take a frame of features as it is."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import isclass, signature
from typing import Any

from sklearn.base import RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import TweedieRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from models.boosting import RatioBoosting
from models.buying import BUYING_FEATURES, BuyingModel
from models.ensemble import LevelledMean
from models.features import NUMERIC_FEATURES, RFM_FEATURES
from models.transforms import CustomerLogs

COUNTRY = "Country"

# Raised whenever a pipeline below changes in what its regressor's parameters do not tell.
ESTIMATORS_VERSION = 2

GLM_ALPHA = 0.1

# Dotted names are taken from here only: a name in a settings file must not import arbitrary code.
DOTTED_ROOT = "sklearn"


class UnknownEstimatorError(ValueError):
    """A name that is neither one of ours nor a scikit-learn regressor."""


@dataclass(frozen=True)
class EstimatorSpec:
    """What an estimator reads and how it is built.

    Labels below zero become 0 before the fit where `labels_from_zero` is set. Where `candidates` are named,
    the estimator is a mean of two of them, and training has to choose which (`models.selection`).
    """

    name: str
    features: tuple[str, ...]
    labels_from_zero: bool
    steps: Callable[[int], list[tuple[str, Any]]]
    candidates: tuple[str, ...] = ()


def spec_of(name: str) -> EstimatorSpec:
    """Return the estimator called `name`: one of `NAMES` or a dotted scikit-learn regressor.

    Raises UnknownEstimatorError on any other name.
    """
    if name in _NAMED:
        return _NAMED[name]
    if name.startswith(f"{DOTTED_ROOT}."):
        regressor_class = _regressor_class(name)
        return EstimatorSpec(
            name=name,
            features=(*NUMERIC_FEATURES, COUNTRY),
            labels_from_zero=False,
            steps=lambda seed: [
                ("columns", ColumnTransformer([*_logs(), _countries()])),
                ("regressor", _single_threaded(regressor_class, seed)),
            ],
        )
    known = ", ".join(_NAMED)
    raise UnknownEstimatorError(
        f"no estimator is called {name!r}; known are {known} and regressors as sklearn.<module>.<Class>"
    )


def make_estimator(name: str, seed: int, members: tuple[str, ...] = ()) -> Pipeline:
    """Return the unfitted pipeline called `name`; equal seeds and rows give equal models.

    It is fitted on and predicts from frames that hold at least `spec_of(name).features`. `members` are the
    estimators that a mean is made of; raises ValueError where they are not given to one, or to another.
    """
    spec = spec_of(name)
    if bool(members) != bool(spec.candidates):
        raise ValueError(f"{name} is {'' if spec.candidates else 'not '}a mean of members; given {members}")
    if members:
        return Pipeline(
            [("regressor", LevelledMean([(member, make_estimator(member, seed)) for member in members]))]
        )
    return Pipeline(spec.steps(seed))


def _logs() -> list[tuple[str, Any, list[str]]]:
    logs = Pipeline([("log", CustomerLogs()), ("scale", StandardScaler())])
    return [("numerics", logs, list(NUMERIC_FEATURES))]


def _countries() -> tuple[str, Any, list[str]]:
    # A country the training never saw reads as none of the known ones.
    return ("country", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [COUNTRY])


def _random_forest(seed: int) -> list[tuple[str, Any]]:
    """Return the original system's forest on the original's features."""
    forest = RandomForestRegressor(
        n_estimators=100,
        max_depth=10,
        min_samples_split=10,
        min_samples_leaf=5,
        random_state=seed,
        n_jobs=1,
    )
    columns = [("numerics", StandardScaler(), list(RFM_FEATURES)), _countries()]
    return [("columns", ColumnTransformer(columns)), ("regressor", forest)]


def _tweedie_glm(seed: int) -> list[tuple[str, Any]]:  # noqa: ARG001  (the fit is deterministic)
    """Return a compound Poisson-gamma model: many customers spend nothing, the rest a skewed sum.

    The second-order solver needs some ten iterations where the default one needs hundreds. `alpha` matters
    because the features overlap (spend of 14, 30, 60 and 91 days).
    """
    glm = TweedieRegressor(power=1.5, link="log", alpha=GLM_ALPHA, solver="newton-cholesky", max_iter=200)
    return [("columns", ColumnTransformer(_logs())), ("regressor", glm)]


def _gradient_boosting(seed: int) -> list[tuple[str, Any]]:
    logs = ColumnTransformer([("numerics", CustomerLogs(), list(NUMERIC_FEATURES))])
    return [("columns", logs), ("regressor", RatioBoosting(random_state=seed))]


def _bg_nbd(seed: int) -> list[tuple[str, Any]]:  # noqa: ARG001  (the fit is deterministic)
    columns = ColumnTransformer([("history", "passthrough", list(BUYING_FEATURES))])
    return [("columns", columns), ("regressor", BuyingModel())]


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


def _no_steps(seed: int) -> list[tuple[str, Any]]:
    raise AssertionError(f"a mean has members, no steps of its own (seed {seed})")


_NAMED = {
    spec.name: spec
    for spec in (
        EstimatorSpec("random_forest", (*RFM_FEATURES, COUNTRY), False, _random_forest),
        EstimatorSpec("tweedie_glm", NUMERIC_FEATURES, True, _tweedie_glm),
        EstimatorSpec("gradient_boosting", NUMERIC_FEATURES, True, _gradient_boosting),
        EstimatorSpec("bg_nbd", BUYING_FEATURES, False, _bg_nbd),
        EstimatorSpec(
            "best_two", NUMERIC_FEATURES, True, _no_steps, ("tweedie_glm", "gradient_boosting", "bg_nbd")
        ),
    )
}
NAMES = tuple(_NAMED)
