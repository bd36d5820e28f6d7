"""BG/NBD with Gamma-Gamma behind scikit-learn's interface: expected purchases times an order's value."""

from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from models import bg_nbd, gamma_gamma
from models.lines import Floats

#: Columns that `BuyingModel` takes, in this order.
BUYING_FEATURES = ("LifeOrders", "LifeSpend", "Recency", "Tenure")


class BuyingModel(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A buy-till-you-die model of each customer's purchases, brought to the level of the labels.

    Both parts are fitted by likelihood to the customers' past alone; the labels set the level, one factor:
    they hold the season, the returns and the customers' choice (only those active in the window have rows),
    none of which the two models know. `horizon_days` is the time ahead; as the level is set by the labels,
    it decides how much less those promise who may have left.
    """

    def __init__(self, horizon_days: float = 90.0) -> None:
        self.horizon_days = horizon_days

    def fit(self, X: Floats, y: Floats, sample_weight: Floats | None = None) -> Self:
        """Fit to rows of `BUYING_FEATURES` and labels in currency units.

        Raises `models.bg_nbd.FitError` where the rows tell nothing, or promise nothing.
        """
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        x, t_x, T, mean_order = _history(X)
        # Plain arrays, so that the artefact holds nothing of ours besides this class.
        self.bg_nbd_ = np.array(bg_nbd.fit(x, t_x, T, weight))
        self.gamma_gamma_ = np.array(gamma_gamma.fit(x + 1, mean_order, weight))
        self.level_ = 1.0
        promised = float(weight @ self.predict(X))
        if not (np.isfinite(promised) and promised > 0):
            raise bg_nbd.FitError(f"{len(y)} customers are expected to spend {promised} in all")
        self.level_ = float(weight @ y) / promised
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Floats) -> Floats:
        """Return the expected spend within the horizon, shape (n,)."""
        return self.level_ * self.expected_purchases(X) * self.expected_value(X)

    def expected_purchases(self, X: Floats) -> Floats:
        """Return how many purchases each customer is expected to make within the horizon, shape (n,)."""
        x, t_x, T, _ = _history(X)
        params = bg_nbd.BgNbd(*self.bg_nbd_.tolist())
        return bg_nbd.expected_purchases(params, x, t_x, T, horizon=self.horizon_days)

    def expected_value(self, X: Floats) -> Floats:
        """Return what each customer's next order is expected to be worth, currency units, shape (n,)."""
        x, _, _, mean_order = _history(X)
        return gamma_gamma.expected_value(
            gamma_gamma.GammaGamma(*self.gamma_gamma_.tolist()), x + 1, mean_order
        )


def _history(X: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return repeat purchases, age at the last purchase, age now (days), and the mean order."""
    orders, spend, recency, tenure = np.asarray(X, np.float64).T
    # An order that came too late to be counted (its spend was) leaves a customer with none.
    orders = np.maximum(orders, 1.0)
    return orders - 1, np.maximum(tenure - recency, 0.0), tenure, spend / orders
