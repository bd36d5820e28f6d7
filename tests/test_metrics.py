"""Measures of predictions: values worked out by hand, agreement with others' code, invariances."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from models import metrics
from models.metrics import METRICS, performance

WHOLE = st.integers(-50, 1000).map(float)
ROWS = st.lists(st.tuples(WHOLE, WHOLE, st.integers(1, 3)), min_size=1, max_size=30)


def test_examples_in_the_docstrings():
    assert doctest.testmod(metrics).failed == 0


def test_measures_of_ten_customers_worked_out_by_hand():
    y = [0.0] * 8 + [40.0, 60.0]
    p = [0.0] * 8 + [60.0, 40.0]
    assert performance(y, p) == pytest.approx(
        {
            "nmae": 0.4,
            "mae": 4.0,
            "rmse": np.sqrt(80),
            "r2": 1 - 800 / 4200,
            # Areas under the curves of spend: ideal (40 / 2 + 40 + 60 / 2) / 1000, with the last two swapped
            # (60 / 2 + 60 + 40 / 2) / 1000; Gini 1 - 2 x area each.
            "gini": (1 - 0.22) / (1 - 0.18),
            "bias": 0.0,
            # Mid-ranks: eight of 4, then 8.5 and 9.5, in the order of one column swapped in the other.
            "spearman": (8 * 1.0**2 + 2 * 3.5 * 4.5) / (8 * 1.0**2 + 3.5**2 + 4.5**2),
            "top_decile_capture": 0.4,
        }
    )


def test_agrees_with_scipy_and_scikit_learn():
    rng = np.random.default_rng(0)
    y, p = rng.gamma(0.5, 100, 500).round(), rng.gamma(0.5, 100, 500).round()
    measured = performance(y, p)
    assert measured["mae"] == pytest.approx(mean_absolute_error(y, p))
    assert measured["rmse"] == pytest.approx(root_mean_squared_error(y, p))
    assert measured["r2"] == pytest.approx(r2_score(y, p))
    assert measured["spearman"] == pytest.approx(spearmanr(y, p).statistic)


@pytest.mark.parametrize(
    ("predictions", "gini"), [([1.0, 2.0, 3.0], 1.0), ([3.0, 2.0, 1.0], -1.0), ([2.0, 2.0, 2.0], 0.0)]
)
def test_gini_of_the_best_the_worst_and_no_ranking(predictions, gini):
    assert performance([10.0, 20.0, 60.0], predictions)["gini"] == pytest.approx(gini, abs=1e-12)


@pytest.mark.parametrize(
    ("y", "p", "undefined"),
    [
        ([], [], set(METRICS)),
        ([0.0, 0.0], [1.0, 2.0], {"nmae", "r2", "gini", "bias", "spearman", "top_decile_capture"}),
        ([5.0, 5.0], [1.0, 2.0], {"r2", "gini", "spearman"}),
        ([1.0, 2.0], [5.0, 5.0], {"spearman"}),
        ([-3.0, 1.0], [0.0, 1.0], {"gini", "bias", "top_decile_capture"}),
    ],
)
def test_what_the_rows_do_not_define_is_none(y, p, undefined):
    measured = performance(y, p)
    assert {name for name, value in measured.items() if value is None} == undefined


@given(ROWS)
@settings(max_examples=150)
def test_never_nan_and_the_order_of_rows_shows_nowhere(rows):
    y, p, w = map(np.array, zip(*rows, strict=True))
    measured = performance(y, p, w)
    assert all(value is None or np.isfinite(value) for value in measured.values())
    assert performance(y[::-1], p[::-1], w[::-1]) == measured


@given(ROWS)
@settings(max_examples=150)
def test_a_weight_counts_as_that_many_equal_rows(rows):
    y, p, w = map(np.array, zip(*rows, strict=True))
    weighted, repeated = performance(y, p, w), performance(np.repeat(y, w), np.repeat(p, w))
    for name in METRICS:
        if repeated[name] is None:
            assert weighted[name] is None
        else:
            assert weighted[name] == pytest.approx(repeated[name], abs=1e-6, rel=1e-6)


def test_ranks_ignore_the_scale_and_relative_errors_the_currency():
    rng = np.random.default_rng(2)
    y, p = rng.gamma(1, 50, 200), rng.gamma(1, 50, 200)
    plain, stretched, pennies = performance(y, p), performance(y, p**3), performance(100 * y, 100 * p)
    for name in ("gini", "spearman", "top_decile_capture"):
        assert stretched[name] == pytest.approx(plain[name])
    for name in ("nmae", "bias", "r2"):
        assert pennies[name] == pytest.approx(plain[name])
    assert pennies["mae"] == pytest.approx(100 * plain["mae"])


@pytest.mark.parametrize(
    ("y", "p", "weight", "message"),
    [
        ([1.0], [1.0, 2.0], None, "differ in shape"),
        ([np.nan], [1.0], None, "1 labels are not finite"),
        ([1.0], [np.inf], None, "1 predictions are not finite"),
        ([1.0], [1.0], [0.0], "above zero"),
    ],
)
def test_unusable_rows_are_refused(y, p, weight, message):
    with pytest.raises(ValueError, match=message):
        performance(y, p, weight)
