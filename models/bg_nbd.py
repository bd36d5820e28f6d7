"""BG/NBD: how often a customer will buy, told from how often and when last they bought.

Fader, Hardie and Lee (2005), "Counting Your Customers" the Easy Way, Marketing Science 24(2). A customer buys
at a rate of their own, gamma(r, alpha) over customers, and after each purchase leaves for good with a
probability of their own, beta(a, b) over customers. Of a customer it needs x repeat purchases, the last of
them at t_x, in a life of T so far; times are counted from the first purchase, in any one unit.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, digamma, gammaln, hyp2f1

from models.lines import Floats

# Bounds of the search: r, a and b as they are, alpha in mean lives. Beyond them a distribution is so narrow,
# or so wide, that customers no longer differ by it, and the formulas lose their digits.
SHAPE_MIN, SHAPE_MAX = 1e-3, 1e2
TOLERANCE = 1e-9
# The expectation is 0/0 at a = 1, which is a regular point: it is taken this far beside it.
SINGULAR = 1e-6


class FitError(ValueError):
    """A likelihood that has no maximum to be found; the message says why."""


class BgNbd(NamedTuple):
    """The four parameters; `alpha` is a time, in the unit of the customers' times."""

    r: float
    alpha: float
    a: float
    b: float


def log_likelihood(params: BgNbd, x: Floats, t_x: Floats, T: Floats) -> Floats:
    """Return each customer's log-likelihood, shape (n,): equation 6 of the paper, summed in logarithms.

    >>> published = BgNbd(0.243, 4.414, 0.793, 2.426)
    >>> log_likelihood(published, np.array([2.0]), np.array([30.43]), np.array([38.86])).round(4).tolist()
    [-9.4586]
    """
    terms, _ = _terms(params, x, t_x, T)
    return terms


def _terms(params: BgNbd, x: Floats, t_x: Floats, T: Floats) -> tuple[Floats, Floats]:
    """Return the log-likelihoods, and the probability that a customer has left, given all that is known."""
    r, alpha, a, b = params
    common = gammaln(r + x) - gammaln(r) + r * np.log(alpha) + betaln(a, b + x) - betaln(a, b)
    stayed = -(r + x) * np.log(alpha + T)
    # B(a + 1, b + x - 1) / B(a, b + x) = a / (b + x - 1); nobody leaves before the first repeat purchase.
    left = np.log(a) - np.log(b + np.maximum(x, 1) - 1) - (r + x) * np.log(alpha + t_x)
    left = np.where(x > 0, left, -np.inf)
    either = np.logaddexp(stayed, left)
    return common + either, np.exp(left - either)


def _gradient(params: BgNbd, gone: Floats, x: Floats, t_x: Floats, T: Floats) -> Floats:
    """Return the derivatives of each log-likelihood by the four parameters, shape (4, n)."""
    r, alpha, a, b = params
    here = 1 - gone
    both = digamma(a + b) - digamma(a + b + x)
    by_r = digamma(r + x) - digamma(r) + np.log(alpha)
    by_r -= here * np.log(alpha + T) + gone * np.log(alpha + t_x)
    by_alpha = r / alpha - (r + x) * (here / (alpha + T) + gone / (alpha + t_x))
    by_a = both + gone / a
    by_b = both + digamma(b + x) - digamma(b) - gone / (b + np.maximum(x, 1) - 1)
    return np.stack([by_r, by_alpha, by_a, by_b])


def fit(x: Floats, t_x: Floats, T: Floats, weight: Floats | None = None) -> BgNbd:
    """Return the parameters of greatest likelihood for customers of shape (n,), each `weight` times.

    Raises FitError where nobody bought twice, nobody lives longer than an instant, or the search fails.
    """
    w = np.ones(len(x)) if weight is None else weight
    if not (len(x) and x.max() > 0):
        raise FitError(f"none of {len(x)} customers bought again: nothing tells how often they do")
    unit = float(np.average(T, weights=w))
    if unit <= 0:
        raise FitError(f"{len(x)} customers were all seen at their first purchase only")
    last, life, total = t_x / unit, T / unit, float(w.sum())

    def loss(logs: Floats) -> tuple[float, Floats]:
        params = BgNbd(*np.exp(logs).tolist())
        values, gone = _terms(params, x, last, life)
        slope = _gradient(params, gone, x, last, life) @ w * np.array(params)
        return -float(w @ values) / total, -slope / total

    bounds = [(np.log(SHAPE_MIN), np.log(SHAPE_MAX))] * 4
    options = {"ftol": TOLERANCE, "gtol": TOLERANCE, "maxiter": 500}
    found = minimize(loss, np.zeros(4), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    if not (np.isfinite(found.fun) and np.isfinite(found.x).all()):
        raise FitError(f"the likelihood of {len(x)} customers has no maximum that could be found")
    r, alpha, a, b = np.exp(found.x).tolist()
    return BgNbd(r, alpha * unit, a, b)


def expected_purchases(params: BgNbd, x: Floats, t_x: Floats, T: Floats, *, horizon: float) -> Floats:
    """Return how many purchases each customer is expected to make within `horizon` from now on, shape (n,).

    Equation 10 of the paper after Euler's transformation of the hypergeometric function (Abramowitz and
    Stegun 1964, 15.3.3): the powers of r + x cancel, so nothing overflows for the most frequent buyers.

    >>> published = BgNbd(0.243, 4.414, 0.793, 2.426)
    >>> x, t_x, T = np.array([2.0]), np.array([30.43]), np.array([38.86])
    >>> expected_purchases(published, x, t_x, T, horizon=39.0).round(3).tolist()
    [1.226]
    """
    r, alpha, a, b = params
    if abs(a - 1) < SINGULAR:
        a = 1 + SINGULAR
    share = horizon / (alpha + T + horizon)
    series = hyp2f1(a + b - 1 - r, a - 1, a + b + x - 1, share)
    if_alive = (a + b + x - 1) / (a - 1) * (1 - (1 - share) ** (a - 1) * series)
    return np.asarray(if_alive * alive(params, x, t_x, T))


def alive(params: BgNbd, x: Floats, t_x: Floats, T: Floats) -> Floats:
    """Return the probability that each customer has not left, shape (n,); 1 for those who bought once only.

    Fader, Hardie and Lee (2008), Computing P(alive) Using the BG/NBD Model.
    """
    return 1 - _terms(params, x, t_x, T)[1]
