"""The features as an estimator is given them: as logarithms, and none that grows with the stream's age."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from models.features import NUMERIC_FEATURES

# A life's rates are drawn towards everyone's as if so many days had been seen of everyone's.
PRIOR_DAYS = 14.0
# Rates are told for a quarter, so that they read like the spend of the window.
RATE_DAYS = 91.0

#: Of two features: days from the first purchase to the last. A customer who came once has none.
SPAN = "Span"


def signed_log1p(values: Any) -> npt.NDArray[np.float64]:
    """Return sign(x) log(1 + |x|): money spans five decades, and returns can make it negative.

    >>> signed_log1p([0.0, -9.0]).round(3).tolist()
    [0.0, -2.303]
    """
    numbers = np.asarray(values, dtype=np.float64)
    return np.sign(numbers) * np.log1p(np.abs(numbers))


class CustomerLogs(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The numeric features and `SPAN` as logarithms, shape (n, 20).

    LifeSpend, LifeOrders and Tenure grow as long as the stream does, whatever customers do. A model that took
    them as they are would promise more from week to week to customers who have not changed. So the first two
    become rates over the life so far, and Tenure and the span are cut at the longest that the training saw:
    of a customer who has been there longer than that nothing was learnt. A short life tells little of its
    rates; they are drawn towards those of all training rows (a gamma prior's mean, worth `PRIOR_DAYS`).
    """

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:  # noqa: ARG002  (scikit-learn's signature)
        """Learn the rates of everyone, and the longest life and span."""
        days = float(np.maximum(X["Tenure"], 1).sum())
        self.spend_a_day_ = float(X["LifeSpend"].sum()) / days
        self.orders_a_day_ = float(X["LifeOrders"].sum()) / days
        self.tenure_max_ = float(X["Tenure"].max())
        self.span_max_ = float((X["Tenure"] - X["Recency"]).max())
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Return the columns in the order of `get_feature_names_out`."""
        check_is_fitted(self, "tenure_max_")
        tenure = X["Tenure"].to_numpy(np.float64)
        seen = (tenure + PRIOR_DAYS) / RATE_DAYS
        columns = {name: X[name].to_numpy(np.float64) for name in NUMERIC_FEATURES}
        columns["LifeSpend"] = (columns["LifeSpend"] + PRIOR_DAYS * self.spend_a_day_) / seen
        columns["LifeOrders"] = (columns["LifeOrders"] + PRIOR_DAYS * self.orders_a_day_) / seen
        columns["Tenure"] = np.minimum(tenure, self.tenure_max_)
        columns[SPAN] = np.clip(tenure - columns["Recency"], 0.0, self.span_max_)
        return signed_log1p(np.column_stack(list(columns.values())))

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:  # noqa: ARG002
        """Return the names of the columns."""
        return np.array([*NUMERIC_FEATURES, SPAN], dtype=object)
