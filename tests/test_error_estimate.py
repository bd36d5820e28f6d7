"""The error estimate without labels: by hand, where it helps, where it is blind, and its track record."""

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.detectors.error_estimate import (
    ENTRIES_MIN,
    ErrorEstimate,
    error_classes,
    estimated_error,
    measured_error,
)
from streams.detectors.track_record import PENDING_MAX, TrackRecord


def shop(seed, customers, large_share):
    """Return spend and predictions of small and large customers; the large ones are missed by more money."""
    rng = np.random.default_rng(seed)
    prediction = np.where(rng.random(customers) < large_share, 1000.0, 10.0) * rng.uniform(
        0.8, 1.2, customers
    )
    buys = rng.random(customers) < np.where(prediction > 100, 0.9, 0.3)
    return buys * prediction * rng.lognormal(0, 0.5, customers), prediction


def test_measured_error_by_hand():
    label = np.repeat([0.0, math.e - 1], [30, 10])
    found = measured_error(label, np.zeros(40), np.repeat([1.0, 3.0], [30, 10]))
    assert found == ErrorEstimate(0.5, pytest.approx((math.e - 1) / 2), "matured")


def test_classes_are_weighed_with_those_of_the_new_window():
    classes = error_classes(np.repeat([0.0, 90.0], 50), np.repeat([5.0, 80.0], 50), np.ones(100))
    found = estimated_error(classes, np.repeat([4.0, 70.0, 500.0], [10, 10, 20]), np.ones(40))
    # 4 and 70 lie in the lower class (off by 5), 500 in the upper (off by 10).
    assert found.mae == pytest.approx(7.5)
    assert found.absolute_log_error == pytest.approx((math.log(6) + math.log(91) - math.log(81)) / 2)
    assert found.status == "estimated"


def test_on_the_window_it_was_measured_on_the_estimate_is_the_truth():
    label, prediction = shop(1, 999, 0.2)
    weight = np.random.default_rng(1).uniform(1, 5, 999)
    found = estimated_error(error_classes(label, prediction, weight), prediction, weight)
    truth = measured_error(label, prediction, weight)
    assert (found.mae, found.absolute_log_error) == pytest.approx((truth.mae, truth.absolute_log_error))


def test_it_sees_other_customers_coming():
    ones = np.ones(20_000)
    before, after = shop(2, 20_000, 0.1), shop(3, 20_000, 0.4)
    estimate = estimated_error(error_classes(*before, ones), after[1], ones)
    truth, naive = measured_error(*after, ones), measured_error(*before, ones)
    assert estimate.mae == pytest.approx(truth.mae, rel=0.05)
    assert naive.mae < 0.4 * truth.mae
    assert abs(estimate.absolute_log_error - truth.absolute_log_error) < 0.05
    assert abs(naive.absolute_log_error - truth.absolute_log_error) > 0.1


def test_it_is_blind_where_equal_customers_behave_otherwise():
    ones = np.ones(20_000)
    before, (label, prediction) = shop(2, 20_000, 0.1), shop(3, 20_000, 0.1)
    estimate = estimated_error(error_classes(*before, ones), prediction, ones)
    assert measured_error(label * 3, prediction, ones).mae > 1.5 * estimate.mae


@pytest.mark.parametrize("size", [0, 1, ENTRIES_MIN - 1])
def test_too_few_customers_have_no_estimate(size):
    few, many = np.ones(size), np.arange(100.0)
    assert measured_error(few, few, few) is None
    assert error_classes(few, few, few) is None
    assert estimated_error(error_classes(many, many, np.ones(100)), few, few) is None


amounts = st.one_of(
    st.sampled_from([0.0, -5.0, 1.0, 1e12, math.nan, math.inf, -math.inf]), st.floats(-1e6, 1e6)
)
weights = st.one_of(st.sampled_from([0.0, -1.0, math.nan, math.inf]), st.floats(1e-3, 1e6))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), size=st.sampled_from([0, 1, ENTRIES_MIN, 60]))
def test_odd_windows_yield_a_figure_or_none(data, size):
    def column(kind):
        return np.array(data.draw(st.lists(kind, min_size=size, max_size=size)), float)

    label, prediction, weight = column(amounts), column(amounts), column(weights)
    classes = error_classes(label, prediction, weight)
    measured = measured_error(label, prediction, weight)
    assert (classes is None) == (measured is None)
    found = [measured] if classes is None else [measured, estimated_error(classes, column(amounts), weight)]
    for item in found:
        assert item is None or (math.isfinite(item.mae) and math.isfinite(item.absolute_log_error))
        assert item is None or min(item.mae, item.absolute_log_error) >= 0
    if classes is not None:
        assert sorted(set(classes.edges)) == list(classes.edges)
        assert len(classes.edges) + 1 == len(classes.mae) == len(classes.absolute_log_error)


# -- the track record ---------------------------------------------------------------------------------


def said(value):
    return ErrorEstimate(value, 10 * value, "estimated")


def truth(value):
    return ErrorEstimate(value, 10 * value, "matured")


def test_gaps_are_those_of_the_windows_whose_truth_is_known():
    record = TrackRecord()
    for week, (estimate, naive) in enumerate([(3.0, 2.0), (3.5, 2.5), (4.0, 4.0)]):
        record = record.said(week, said(estimate), truth(naive))
    record = record.known(0, truth(3.1)).known(1, truth(3.2))
    assert record.summary() == {
        "windows": 2,
        "mean_gap": 0.2,
        "mean_gap_naive": 0.9,
        "last": {"window_end": 1, "estimated": 3.5, "naive": 2.5, "measured": 3.2},
    }
    assert [item.window_end for item in record.pending] == [2]


def test_before_the_first_truth_there_are_no_gaps():
    record = TrackRecord().said(5, said(3.0), truth(3.0)).known(4, truth(9.0))
    assert record.summary() == {"windows": 0, "mean_gap": None, "mean_gap_naive": None, "last": None}
    assert [item.window_end for item in record.pending] == [5]


def test_a_truth_is_counted_once_and_what_was_passed_over_is_dropped():
    record = TrackRecord().said(1, said(3.0), truth(3.0)).said(2, said(3.0), truth(3.0))
    record = record.known(2, truth(4.0)).known(2, truth(4.0)).known(1, truth(4.0))
    assert (record.windows, record.pending) == (1, ())


def test_an_estimate_made_again_replaces_the_first():
    record = TrackRecord().said(1, said(3.0), truth(3.0)).said(1, said(5.0), truth(3.0)).known(1, truth(5.0))
    assert record.summary()["mean_gap"] == 0


def test_the_record_is_bounded_and_reads_back_from_json():
    record = TrackRecord()
    for week in range(200):
        record = record.said(week, said(week / 7), truth(3.0))
    assert [item.window_end for item in record.pending] == list(range(200 - PENDING_MAX, 200))
    record = record.known(180, truth(1.0))
    text = json.dumps(msgspec.to_builtins(record), allow_nan=False)
    assert msgspec.convert(json.loads(text), TrackRecord) == record
