"""The mean of several estimators, each brought to the level of the labels first."""

from typing import Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.pipeline import Pipeline

from models.lines import Floats


class LevelledMean(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The mean prediction of `members`, (name, pipeline) pairs; takes a frame of features.

    Estimators that are wrong in ways of their own err less together; but a member that promises too much in
    all would lend that to the mean, so each is scaled to the labels' total.
    """

    def __init__(self, members: list[tuple[str, Pipeline]]) -> None:
        self.members = members

    def fit(self, X: pd.DataFrame, y: Floats, sample_weight: Floats | None = None) -> Self:
        """Fit each member to labels `y`, 0 or more, currency units."""
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        weighted = {} if sample_weight is None else {"regressor__sample_weight": sample_weight}
        self.fitted_ = [clone(pipeline).fit(X, y, **weighted) for _, pipeline in self.members]
        totals = [float(weight @ np.maximum(pipeline.predict(X), 0.0)) for pipeline in self.fitted_]
        if not min(totals) > 0:
            raise ValueError("a member of the mean promises nothing to anyone")
        self.levels_ = [float(weight @ y) / total for total in totals]
        self.n_features_in_ = X.shape[1]
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        return self

    def predict(self, X: pd.DataFrame) -> Floats:
        """Return the mean of the members' levelled predictions, shape (n,)."""
        predictions = [
            level * np.maximum(pipeline.predict(X), 0.0)
            for level, pipeline in zip(self.levels_, self.fitted_, strict=True)
        ]
        return np.asarray(np.mean(predictions, axis=0))
