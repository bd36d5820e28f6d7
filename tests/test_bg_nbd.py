"""BG/NBD and Gamma-Gamma: formulas against other forms of them, parameters recovered, what is refused."""

import doctest

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.special import beta as beta_function
from scipy.special import gammaln, hyp2f1
from scipy.stats import gamma as gamma_distribution

from models import bg_nbd, gamma_gamma
from models.bg_nbd import BgNbd, FitError
from models.gamma_gamma import GammaGamma

PUBLISHED = BgNbd(r=0.243, alpha=4.414, a=0.793, b=2.426)  # of the CDNOW customers, times in weeks
# Customers as they come: x repeat purchases, the last at t_x, observed until T.
CUSTOMERS = [
    (0, 0.0, 38.86),
    (0, 0.0, 0.0),
    (1, 1.71, 38.86),
    (2, 30.43, 38.86),
    (29, 35.0, 36.0),
    (3, 0.0, 9.0),
]
X, T_X, T = (np.array(column, float) for column in zip(*CUSTOMERS, strict=True))


@pytest.mark.parametrize("module", [bg_nbd, gamma_gamma])
def test_examples_in_the_docstrings(module):
    assert doctest.testmod(module).failed == 0


def plain_likelihood(params, x, t_x, T):
    """Equation 6 as it is printed, with gammas and betas as they are: for small numbers only."""
    r, alpha, a, b = params
    rate = np.exp(gammaln(r + x) - gammaln(r)) * alpha**r
    here = beta_function(a, b + x) / beta_function(a, b) / (alpha + T) ** (r + x)
    left = beta_function(a + 1, b + x - 1) / beta_function(a, b) / (alpha + t_x) ** (r + x) if x else 0.0
    return rate * (here + left)


def mixed_likelihood(params, x, t_x, T):
    """The likelihood in the model's own words: of a customer with a given rate, averaged over rates."""
    r, alpha, a, b = params
    stays = beta_function(a, b + x) / beta_function(a, b)
    leaves = beta_function(a + 1, b + x - 1) / beta_function(a, b) if x else 0.0

    def one(rate):
        seen = rate**x * (stays * np.exp(-rate * T) + leaves * np.exp(-rate * t_x))
        return seen * gamma_distribution.pdf(rate, r, scale=1 / alpha)

    return quad(one, 0, 20, limit=500, points=[0.1, 1.0])[0]


def test_the_likelihood_is_that_of_the_paper():
    found = bg_nbd.log_likelihood(PUBLISHED, X, T_X, T)
    expected = [plain_likelihood(PUBLISHED, *customer) for customer in CUSTOMERS]
    assert np.exp(found) == pytest.approx(expected, rel=1e-10)


def test_the_likelihood_is_that_of_the_customers_it_describes():
    params = BgNbd(r=1.5, alpha=6.0, a=1.4, b=2.5)
    for customer in [(0, 0.0, 8.0), (1, 2.0, 8.0), (4, 7.5, 8.0)]:
        found = bg_nbd.log_likelihood(params, *(np.array([value], float) for value in customer))
        assert np.exp(found[0]) == pytest.approx(mixed_likelihood(params, *customer), rel=1e-4)


def test_expected_purchases_are_those_of_the_paper():
    r, alpha, a, b = PUBLISHED
    for t in (1.0, 39.0, 200.0):
        series = hyp2f1(r + X, b + X, a + b + X - 1, t / (alpha + T + t))
        above = (a + b + X - 1) / (a - 1) * (1 - ((alpha + T) / (alpha + T + t)) ** (r + X) * series)
        below = 1 + np.where(X > 0, a / (b + np.maximum(X, 1) - 1), 0) * ((alpha + T) / (alpha + T_X)) ** (
            r + X
        )
        found = bg_nbd.expected_purchases(PUBLISHED, X, T_X, T, horizon=t)
        assert found == pytest.approx(above / below, rel=1e-8)


def test_hundreds_of_purchases_do_not_overflow():
    x, t_x, T = np.array([400.0, 400.0, 4000.0]), np.array([364.0, 100.0, 364.0]), np.full(3, 365.0)
    found = bg_nbd.expected_purchases(PUBLISHED, x, t_x, T, horizon=90.0)
    assert np.isfinite(found).all()
    # Whoever buys daily and did so yesterday goes on; whoever did and stopped has left.
    assert 50 < found[0] < 100
    assert found[1] < 1e-6


def test_the_point_at_a_equal_to_one_is_a_point_like_others():
    beside = [bg_nbd.expected_purchases(BgNbd(0.5, 9, a, 2), X, T_X, T, horizon=30) for a in (0.999, 1.001)]
    at = bg_nbd.expected_purchases(BgNbd(0.5, 9, 1.0, 2), X, T_X, T, horizon=30)
    assert at == pytest.approx(np.mean(beside, axis=0), rel=1e-5)


def test_alive_falls_with_silence_and_is_one_before_the_second_purchase():
    silent = np.array([0.0, 10.0, 100.0])
    found = bg_nbd.alive(PUBLISHED, np.full(3, 4.0), np.full(3, 20.0), 20 + silent)
    assert (np.diff(found) < 0).all()
    assert bg_nbd.alive(PUBLISHED, X[:2], T_X[:2], T[:2]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("params", [PUBLISHED, BgNbd(2.0, 30.0, 1.5, 0.7)])
def test_derivatives(params):
    _, gone = bg_nbd._terms(params, X, T_X, T)
    found = bg_nbd._gradient(params, gone, X, T_X, T).sum(axis=1)
    slope = approx_fprime(
        np.array(params), lambda v: bg_nbd.log_likelihood(BgNbd(*v), X, T_X, T).sum(), epsilon=1e-7
    )
    assert found == pytest.approx(slope, rel=1e-4, abs=1e-4)


def simulated(params, customers, weeks, seed):
    """Purchases drawn as the model says: waits between purchases, and after each perhaps no more."""
    rng = np.random.default_rng(seed)
    r, alpha, a, b = params
    rate, leaving = rng.gamma(r, 1 / alpha, customers), rng.beta(a, b, customers)
    T = rng.uniform(weeks / 2, weeks, customers)
    x, t_x = np.zeros(customers), np.zeros(customers)
    for i in range(customers):
        now = rng.exponential(1 / rate[i])
        while now <= T[i]:
            x[i], t_x[i] = x[i] + 1, now
            if rng.random() < leaving[i]:
                break
            now += rng.exponential(1 / rate[i])
    return x, t_x, T


def test_parameters_are_recovered():
    true = BgNbd(r=0.8, alpha=6.0, a=0.8, b=2.5)
    x, t_x, T = simulated(true, 20_000, 60, seed=3)
    fitted = bg_nbd.fit(x, t_x, T)
    assert np.array(fitted) == pytest.approx(np.array(true), rel=0.12)
    best = bg_nbd.log_likelihood(fitted, x, t_x, T).sum()
    assert best >= bg_nbd.log_likelihood(true, x, t_x, T).sum()


def test_expectations_come_true():
    true = BgNbd(r=0.8, alpha=6.0, a=0.8, b=2.5)
    rng = np.random.default_rng(5)
    rate, leaving = rng.gamma(true.r, 1 / true.alpha, 5_000), rng.beta(true.a, true.b, 5_000)
    seen, last, later = np.zeros(5_000), np.zeros(5_000), np.zeros(5_000)
    for i in range(5_000):
        now = rng.exponential(1 / rate[i])
        while now <= 60:
            if now <= 40:
                seen[i], last[i] = seen[i] + 1, now
            else:
                later[i] += 1
            if rng.random() < leaving[i]:
                break
            now += rng.exponential(1 / rate[i])
    expected = bg_nbd.expected_purchases(true, seen, last, np.full(5_000, 40.0), horizon=20.0)
    assert expected.sum() == pytest.approx(later.sum(), rel=0.05)
    for count in (0, 1, 2):
        asked = seen == count
        assert expected[asked].mean() == pytest.approx(later[asked].mean(), rel=0.25)


def test_times_may_be_in_any_unit():
    x, t_x, T = simulated(BgNbd(0.8, 6.0, 0.8, 2.5), 2_000, 60, seed=6)
    weeks, days = bg_nbd.fit(x, t_x, T), bg_nbd.fit(x, 7 * t_x, 7 * T)
    assert days == pytest.approx(weeks._replace(alpha=7 * weeks.alpha), rel=1e-6)


def test_a_weight_is_so_many_customers():
    x, t_x, T = simulated(BgNbd(0.8, 6.0, 0.8, 2.5), 500, 60, seed=7)
    weights = np.arange(500) % 3 + 1.0
    repeated = [np.repeat(column, weights.astype(int)) for column in (x, t_x, T)]
    assert bg_nbd.fit(x, t_x, T, weights) == pytest.approx(bg_nbd.fit(*repeated), rel=1e-3)


@pytest.mark.parametrize(
    ("x", "T", "message"),
    [([], [], "none of 0"), ([0, 0], [9, 9], "none of 2 customers bought again"), ([1, 2], [0, 0], "first")],
)
def test_customers_that_tell_nothing_are_refused(x, T, message):
    with pytest.raises(FitError, match=message):
        bg_nbd.fit(np.array(x, float), np.zeros(len(x)), np.array(T, float))


# -- the value of an order -----------------------------------------------------

VALUE = GammaGamma(p=6.25, q=3.74, gamma=15.44)  # published for the CDNOW customers, dollars


def test_the_likelihood_of_a_mean_is_a_mixture_of_gammas():
    for orders, mean_order in [(1, 20.0), (3, 35.5), (12, 8.0)]:

        def one(nu, orders=orders, mean_order=mean_order):
            # The mean of n gamma(p, nu) orders is gamma(pn, nu n).
            mean = gamma_distribution.pdf(mean_order, VALUE.p * orders, scale=1 / (nu * orders))
            return mean * gamma_distribution.pdf(nu, VALUE.q, scale=1 / VALUE.gamma)

        found = gamma_gamma.log_likelihood(VALUE, np.array([float(orders)]), np.array([mean_order]))
        assert np.exp(found[0]) == pytest.approx(quad(one, 0, 5, limit=200)[0], rel=1e-6)


def test_value_parameters_are_recovered_and_returns_left_out():
    rng = np.random.default_rng(8)
    orders = 1.0 + rng.poisson(2, 20_000)
    scale = rng.gamma(VALUE.q, 1 / VALUE.gamma, 20_000)
    mean_order = rng.gamma(VALUE.p * orders, 1 / (scale * orders))
    fitted = gamma_gamma.fit(orders, mean_order)
    # p and gamma are hard to tell from one another by means alone; their product sets everyone's value.
    assert np.array(fitted) == pytest.approx(np.array(VALUE), rel=0.2)
    assert fitted.p * fitted.gamma == pytest.approx(VALUE.p * VALUE.gamma, rel=0.05)
    more = gamma_gamma.fit(np.append(orders, [3.0, 1.0]), np.append(mean_order, [0.0, -50.0]))
    assert more == pytest.approx(fitted, rel=1e-6)


def test_value_derivatives():
    orders, mean_order = np.array([1.0, 2.0, 7.0]), np.array([3.0, 50.0, 22.0])
    slope = approx_fprime(
        np.array(VALUE),
        lambda v: gamma_gamma.log_likelihood(GammaGamma(*v), orders, mean_order).sum(),
        epsilon=1e-7,
    )
    found = gamma_gamma._gradient(VALUE, orders, mean_order).sum(axis=1)
    assert found == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_few_orders_are_drawn_to_the_mean_of_all():
    everyone = VALUE.p * VALUE.gamma / (VALUE.q - 1)
    orders = np.array([1.0, 10.0, 1e6])
    found = gamma_gamma.expected_value(VALUE, orders, np.full(3, 100.0))
    assert everyone < found[0] < found[1] < found[2] == pytest.approx(100.0, rel=1e-4)
    assert gamma_gamma.expected_value(VALUE, orders[:1], np.array([-5.0]))[0] > 0


def test_returns_alone_are_refused():
    with pytest.raises(FitError, match="none of 2 customers"):
        gamma_gamma.fit(np.array([1.0, 2.0]), np.array([0.0, -3.0]))
