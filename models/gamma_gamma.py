"""Gamma-Gamma: what a customer's order is worth, told from the mean of those they made.

Fader and Hardie (2013), The Gamma-Gamma Model of Monetary Value. Orders of a customer are gamma(p, nu) with a
scale of their own, nu being gamma(q, gamma) over customers. A mean over few orders says little of the
customer, so it is drawn towards everyone's.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln

from models.bg_nbd import FitError
from models.lines import Floats

# Bounds of the search; gamma in mean orders. The expectation exists for q above 1 only.
SHAPE_MIN, SHAPE_MAX = 1e-3, 1e3
Q_MIN = 1.01
TOLERANCE = 1e-9


class GammaGamma(NamedTuple):
    """The three parameters; `gamma` is money, in the unit of the orders."""

    p: float
    q: float
    gamma: float


def log_likelihood(params: GammaGamma, orders: Floats, mean_order: Floats) -> Floats:
    """Return each customer's log-likelihood, shape (n,), of the mean of `orders` orders: equation 1a.

    Both above zero.
    """
    p, q, gamma = params
    pieces = p * orders
    return np.asarray(
        gammaln(pieces + q)
        - gammaln(pieces)
        - gammaln(q)
        + q * np.log(gamma)
        + (pieces - 1) * np.log(mean_order)
        + pieces * np.log(orders)
        - (pieces + q) * np.log(gamma + orders * mean_order)
    )


def _gradient(params: GammaGamma, orders: Floats, mean_order: Floats) -> Floats:
    """Return the derivatives of each log-likelihood by the three parameters, shape (3, n)."""
    p, q, gamma = params
    pieces, spend = p * orders, orders * mean_order
    level = np.log(gamma + spend)
    by_p = orders * (digamma(pieces + q) - digamma(pieces) + np.log(spend) - level)
    by_q = digamma(pieces + q) - digamma(q) + np.log(gamma) - level
    by_gamma = q / gamma - (pieces + q) / (gamma + spend)
    return np.stack([by_p, by_q, by_gamma])


def fit(orders: Floats, mean_order: Floats, weight: Floats | None = None) -> GammaGamma:
    """Return the parameters of greatest likelihood for customers of shape (n,), each `weight` times.

    Customers whose mean is not above zero (returns outweighed what they bought) tell nothing of an order's
    value and are left out. Raises FitError where nobody else is there or the search fails.
    """
    told = (orders > 0) & (mean_order > 0)
    if not told.any():
        raise FitError(f"none of {len(orders)} customers has orders that are worth more than their returns")
    n, w = orders[told], np.ones(told.sum()) if weight is None else weight[told]
    unit = float(np.average(mean_order[told], weights=w))
    value, total = mean_order[told] / unit, float(w.sum())

    def loss(logs: Floats) -> tuple[float, Floats]:
        params = GammaGamma(*np.exp(logs).tolist())
        slope = _gradient(params, n, value) @ w * np.array(params)
        return -float(w @ log_likelihood(params, n, value)) / total, -slope / total

    shape = (np.log(SHAPE_MIN), np.log(SHAPE_MAX))
    bounds = [shape, (np.log(Q_MIN), np.log(SHAPE_MAX)), shape]
    options = {"ftol": TOLERANCE, "gtol": TOLERANCE, "maxiter": 500}
    start = np.log([1.0, 2.0, 1.0])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    if not (np.isfinite(found.fun) and np.isfinite(found.x).all()):
        raise FitError(f"the likelihood of {len(orders)} customers has no maximum that could be found")
    p, q, gamma = np.exp(found.x).tolist()
    return GammaGamma(p, q, gamma * unit)


def expected_value(params: GammaGamma, orders: Floats, mean_order: Floats) -> Floats:
    """Return the expected value of each customer's next order, shape (n,): equation 5.

    A mean below zero counts as 0.

    >>> expected_value(GammaGamma(6.25, 3.74, 15.44), np.array([2.0]), np.array([22.35])).round(2).tolist()
    [24.66]
    """
    p, q, gamma = params
    return p * (gamma + orders * np.maximum(mean_order, 0.0)) / (p * orders + q - 1)
