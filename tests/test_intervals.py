"""Prediction intervals: they hold what they promise, in every group, and say nothing where they cannot."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from test_estimators import living_frame

from models.card import card_json, card_of, read_card
from models.fitted import predict
from models.holdout import is_holdout
from models.intervals import GROUP_CUSTOMERS_MIN, Intervals, _quantiles, calibrated, interval
from models.training import train


def customers(n, seed):
    """Predictions over four decades and what came: skewed, a fifth nothing, worse known the larger it is."""
    rng = np.random.default_rng(seed)
    predicted = rng.lognormal(5, 1.5, n)
    came = predicted * rng.gamma(0.8, 1.25, n) * (rng.random(n) > 0.2)
    return predicted, came


def inside(intervals, predicted, came, level=1.0):
    low, high = interval(intervals, predicted, level)
    return (came >= low) & (came <= high)


def test_as_many_lie_inside_as_was_promised():
    covered = []
    for seed in range(40):
        intervals = calibrated(*customers(600, seed))
        covered.append(inside(intervals, *customers(4_000, 1_000 + seed)).mean())
    # Exactly 90% or a little more over all calibrations; one of them may be off by chance.
    assert 0.89 < np.mean(covered) < 0.93
    assert min(covered) > 0.8


def test_as_many_in_every_group_not_only_in_all():
    rng = np.random.default_rng(1)
    predicted = rng.lognormal(5, 1.5, 8_000)
    # The small customers are as good as known, the large ones are not known at all.
    noise = np.where(predicted < np.median(predicted), 0.01, 2.0)
    came = predicted * np.exp(noise * rng.standard_normal(8_000))
    intervals = calibrated(predicted[:4_000], came[:4_000])
    hit = inside(intervals, predicted[4_000:], came[4_000:])
    order = np.argsort(predicted[4_000:])
    for decile in np.array_split(order, 10):
        assert 0.84 < hit[decile].mean() < 0.96
    low, high = interval(intervals, predicted[4_000:])
    width = (high - low) / predicted[4_000:]
    assert np.median(width[order[:1_000]]) < 0.2
    assert np.median(width[order[-1_000:]]) > 5


def test_ranks_of_the_new_one_among_n_plus_one():
    errors = np.arange(1.0, 20.0)  # 19 customers: the 20th lies outside of all of them once in ten times
    assert _quantiles(errors, 0.1) == (1.0, 19.0)
    assert _quantiles(np.arange(1.0, 40.0), 0.1) == (2.0, 38.0)
    assert _quantiles(errors[:-1], 0.1) == (-np.inf, np.inf)


def test_too_few_customers_give_no_intervals():
    assert calibrated(*customers(GROUP_CUSTOMERS_MIN - 1, 1)) is None
    assert calibrated(np.empty(0), np.empty(0)) is None
    assert calibrated(np.zeros(100), np.ones(100)) is None
    one = calibrated(*customers(GROUP_CUSTOMERS_MIN, 1))
    assert one is not None
    assert (one.upto, len(one.low)) == ((), 1)


def test_equal_predictions_are_one_group():
    predicted = np.repeat([10.0, 500.0], 300)
    intervals = calibrated(predicted, predicted * np.random.default_rng(1).uniform(0.5, 1.5, 600))
    assert len(intervals.low) <= 3
    low, high = interval(intervals, [10.0, 500.0])
    assert (low < [10, 500]).all()
    assert (high > [10, 500]).all()


def test_another_level_scales_the_interval():
    predicted, came = customers(600, 3)
    intervals = calibrated(predicted, came)
    low, high = interval(intervals, predicted)
    doubled_low, doubled_high = interval(intervals, 2 * predicted, level=2.0)
    assert doubled_low == pytest.approx(2 * low)
    assert doubled_high == pytest.approx(2 * high)


def test_nothing_below_zero_and_returns_count_as_zero():
    predicted, came = customers(600, 4)
    less = np.where(came == 0, -50.0, came)
    assert calibrated(predicted, less) == calibrated(predicted, came)
    low, high = interval(calibrated(predicted, less), predicted)
    assert (low >= 0).all()
    assert (high >= low).all()


@pytest.fixture(scope="module")
def model():
    return train(living_frame(customers=2_500), "tweedie_glm", seed=1)


def test_a_model_brings_its_intervals_made_of_its_hold_out(model):
    frame = living_frame(customers=2_500)
    newest = frame[frame["window_end"] == frame["window_end"].max()]
    held_out = newest[is_holdout(newest["CustomerID"])]
    assert model.intervals.customers == len(held_out)
    assert model.intervals == calibrated(predict(model, held_out), held_out["label"].to_numpy())
    # Customers of the same kind whom neither the fit nor the intervals have seen.
    fresh = living_frame(customers=2_500, windows=1, seed=9)
    hit = inside(model.intervals, predict(model, fresh), fresh["label"].to_numpy())
    assert 0.86 < hit.mean() < 0.95


def test_intervals_go_with_the_card(model):
    card = card_of(model, horizon_days=90, metrics={})
    assert read_card(card_json(card)).intervals == model.intervals
    assert msgspec.convert(msgspec.to_builtins(model.intervals), Intervals) == model.intervals
    assert card_of(replace(model, intervals=None), horizon_days=90, metrics={}).intervals is None
