"""Boosted trees on the ratio of what a customer will spend to what they spent."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import HistGradientBoostingRegressor

from models.features import NUMERIC_FEATURES

MONETARY = NUMERIC_FEATURES.index("Monetary")


class RatioBoosting(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Histogram gradient boosting of spend relative to an exposure, with Poisson deviance.

    Trees cannot promise more than the largest label of a leaf, while spend spans five decades; so they are
    given the ratio of the label to the window's spend (plus half its median, for those near 0), which is
    between 0 and a few for everyone. A weight of exposure^(1/2) is that of a Tweedie family of power 1.5,
    which this scikit-learn does not offer to trees: the variance of a ratio falls with what it is a ratio of.
    Takes what `models.transforms.CustomerLogs` gives; predicts at the level of the labels.
    """

    def __init__(
        self,
        max_iter: int = 100,
        learning_rate: float = 0.05,
        max_leaf_nodes: int = 8,
        min_samples_leaf: int = 40,
        max_bins: int = 63,
        random_state: int = 0,
    ) -> None:
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.max_leaf_nodes = max_leaf_nodes
        self.min_samples_leaf = min_samples_leaf
        self.max_bins = max_bins
        self.random_state = random_state

    def fit(
        self,
        X: npt.NDArray[np.float64],
        y: npt.NDArray[np.float64],
        sample_weight: npt.NDArray[np.float64] | None = None,
    ) -> Self:
        """Fit to labels `y`, 0 or more, currency units."""
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        self.offset_ = float(np.median(np.expm1(X[:, MONETARY]))) / 2
        exposure = self._exposure(X)
        self.trees_ = HistGradientBoostingRegressor(
            loss="poisson", early_stopping=False, **self.get_params(deep=False)
        )
        self.trees_.fit(X, y / exposure, sample_weight=weight * np.sqrt(exposure))
        self.level_ = 1.0
        promised = float(weight @ self.predict(X))
        self.level_ = float(weight @ y) / promised
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the expected spend, shape (n,)."""
        ratio: Any = self.trees_.predict(X)
        return np.asarray(self.level_ * ratio * self._exposure(X))

    def _exposure(self, X: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(np.expm1(X[:, MONETARY]) + self.offset_)
