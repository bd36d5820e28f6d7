"""The test of the served model's errors: that it fires when it should, stays silent else, what it carries."""

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from streams.detectors.error_sums import ABSOLUTE_ERROR, ALL, BIAS, BOUGHT, TOP_BOUGHT, MaturedWindow
from streams.detectors.grouped_means import (
    GROUPS,
    GroupSums,
    customer_groups,
    difference,
    group_sums,
    normal_score,
    p_value,
)
from streams.detectors.performance_drift import CUSTOMERS_MIN, PerformanceDrift

CUSTOMERS = 1500
LABEL_WEEKS = 4  # neighbouring labels share three of their four weeks
BASELINE = 4
ONSET_WEEK = 20  # of the harm; the first label that holds all of it is that of window 20


class Shop:
    """Weeks of spend of customers who never change, and a model that half knows how large each one is."""

    def __init__(self, seed, weeks, customers=CUSTOMERS):
        rng = np.random.default_rng([seed, 77])
        size = rng.normal(3.5, 1.2, customers)  # of an order: some customers are far larger than others
        buys = rng.random((customers, weeks)) < rng.beta(1, 9, customers)[:, None]
        self.spend = buys * np.exp(size[:, None] + rng.normal(0, 0.7, (customers, weeks)))
        # What the model does not know of a customer never changes: errors of different windows are dependent.
        self.prediction = np.exp(size + rng.normal(-1, 0.5, customers))
        self.names = [f"{10_000 + number}" for number in range(customers)]
        self.rng = rng

    def window(self, week, version="v1"):
        label = self.spend[:, week : week + LABEL_WEEKS].sum(axis=1)
        return MaturedWindow(week, version, self.names, label, self.prediction, np.ones(len(label)))


def harmed(seed, harm, weeks=44):
    shop = Shop(seed, weeks)
    after = shop.spend[:, ONSET_WEEK:]
    if harm == "prices +30%":
        after *= 1.3
    elif harm == "top customers buy 3x":
        after[shop.prediction >= np.quantile(shop.prediction, 0.9)] *= 3
    elif harm == "churn 40%":
        after[shop.rng.random(len(after)) < 0.4] = 0
    elif harm == "erratic orders":  # as much as before in geometric mean, much less regular
        after *= np.exp(shop.rng.normal(0, 1.5, after.shape))
    elif harm == "regular orders":
        bought = after > 0
        after[bought] = np.repeat(shop.prediction[:, None] * math.e, after.shape[1], axis=1)[bought]
    return shop


def watch(shop, windows, detector=None):
    detector, carry, verdicts = (
        detector or PerformanceDrift(horizon_days=28, baseline_windows=BASELINE),
        None,
        [],
    )
    for week in windows:
        verdict, carry = detector.judge(shop.window(week), carry)
        verdicts.append(verdict)
    return verdicts


# -- that it does not fire, and that it does -------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_year_without_drift_is_silent(seed):
    verdicts = watch(Shop(seed, 60), range(BASELINE + 52))
    assert [verdict.drift for verdict in verdicts] == [None] * BASELINE + [False] * 52


@pytest.mark.slow
def test_about_one_year_in_twenty_has_an_alarm_at_the_most():
    runs = [watch(Shop(seed, 60), range(BASELINE + 52)) for seed in range(100, 180)]
    alarmed = sum(any(verdict.drift for verdict in run) for run in runs)
    # Were the promise broken and every tenth year had one, more would be seen in 19 of 20 trials.
    assert alarmed <= stats.binom.ppf(0.05, len(runs), 0.10)


@pytest.mark.parametrize(
    ("harm", "first", "feature", "segment", "sign"),
    [
        ("prices +30%", 18, BIAS, BOUGHT, 1),
        ("top customers buy 3x", 19, BIAS, TOP_BOUGHT, 1),
        ("churn 40%", 18, BIAS, ALL, -1),
        ("erratic orders", 18, ABSOLUTE_ERROR, BOUGHT, 1),
    ],
)
def test_harm_is_found_once_labels_show_it(harm, first, feature, segment, sign):
    verdicts = watch(harmed(5, harm), range(30))
    alarms = [week for week, verdict in enumerate(verdicts) if verdict.drift]
    assert alarms[0] == first
    assert set(range(ONSET_WEEK, 30)) <= set(alarms)  # from the first label that holds nothing else, always
    cause = verdicts[ONSET_WEEK].causes[0]
    assert (cause.feature, cause.segment, cause.unit, cause.scale_weeks) == (feature, segment, "percent", 4)
    assert math.copysign(1, cause.effect) == sign


def test_the_effect_is_the_growth_of_what_buyers_spend():
    effects = []
    for seed in range(3, 9):
        causes = watch(harmed(seed, "prices +30%"), range(ONSET_WEEK + 1))[-1].causes
        effects += [cause.effect for cause in causes if (cause.feature, cause.segment) == (BIAS, BOUGHT)]
    assert len(effects) == 6
    assert np.mean(effects) == pytest.approx(30, abs=4)


def test_smaller_errors_are_no_drift_but_a_change_of_bias_is():
    verdict = watch(harmed(3, "regular orders"), range(ONSET_WEEK + 1))[-1]
    assert ABSOLUTE_ERROR not in {cause.feature for cause in verdict.causes}


def test_the_threshold_keeps_the_promise_over_the_run():
    detector = PerformanceDrift(horizon_days=30)
    assert 2 * stats.norm.sf(detector.threshold) * 52 * 6 == pytest.approx(0.05)
    longer = PerformanceDrift(horizon_days=30, false_alarm_horizon_windows=520)
    assert longer.threshold > detector.threshold


def test_statistic_and_run_probability_agree_on_the_alarm():
    for verdict in watch(harmed(3, "churn 40%"), range(30))[BASELINE:]:
        assert (
            (verdict.false_alarm_probability <= 0.05)
            == verdict.drift
            == (verdict.statistic >= verdict.threshold)
        )


# -- the statistic ---------------------------------------------------------------------------------


def test_the_error_is_right_for_the_same_customers_in_both_windows():
    """Of t values 5% lie beyond the 5% points; the error for independent rows is far too wide."""
    clustered, independent = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        lasting = rng.normal(0, 2, 500)
        before, after = lasting + rng.normal(0, 1, 500), lasting + rng.normal(0, 1, 500)
        group = customer_groups(str(number) for number in range(500))
        ones = np.ones(500)
        found = difference(group_sums(group, ones, after), group_sums(group, ones, before))
        clustered.append(p_value(found, two_sided=True) < 0.05)
        independent.append(stats.ttest_ind(after, before).pvalue < 0.05)
    assert 0.03 < np.mean(clustered) < 0.08
    assert np.mean(independent) < 0.005


def test_one_customer_a_group_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    before, after = rng.normal(0, 1, GROUPS), rng.normal(0.3, 1, GROUPS)
    ones = np.ones(GROUPS)
    found = difference(GroupSums(ones, after), GroupSums(ones, before))
    expected = stats.ttest_rel(after, before)
    assert found.t == pytest.approx(expected.statistic)
    assert p_value(found, two_sided=True) == pytest.approx(expected.pvalue)
    assert p_value(found, two_sided=False) == pytest.approx(expected.pvalue / 2 if found.t > 0 else 1)


def test_scores_stay_finite_far_out():
    ones = np.ones(GROUPS)
    wobble = np.linspace(0, 1e-3, GROUPS)
    found = difference(GroupSums(ones, 1e9 + wobble * 1e9), GroupSums(ones, wobble))
    assert math.isfinite(normal_score(p_value(found, two_sided=True)))


# -- when it cannot tell ---------------------------------------------------------------------------


def of(label, prediction, week=1, weight=None, version="v1"):
    names = [str(number) for number in range(len(label))]
    weight = np.ones(len(label)) if weight is None else np.asarray(weight, float)
    return MaturedWindow(
        week, version, names, np.asarray(label, float), np.asarray(prediction, float), weight
    )


@pytest.mark.parametrize(
    ("windows", "reason"),
    [
        ([None], "no labels have matured under the served model"),
        ([of([1, 2, 3], [1, 1, 1])], "3 customers have matured labels, fewer than 30"),
        ([of([], [])], "0 customers have matured labels, fewer than 30"),
        ([of([1.0] * 40, [np.nan] * 40)], "0 customers have matured labels, fewer than 30"),
        ([of([1.0] * 40, [1.0] * 40, weight=[0] * 40)], "0 customers have matured labels, fewer than 30"),
        ([of(range(40), range(40))], "the baseline has 1 of 1 windows"),
        ([of(range(40), [9] * 40), of(range(40), [9] * 40)], "no further labels have matured"),
        ([of(range(40), [9] * 40, 2), of(range(40), [9] * 40, 1)], "no further labels have matured"),
        ([of([5] * 40, [9] * 40, 1), of([5] * 40, [9] * 40, 2)], "errors do not differ between customers"),
        ([of([0] * 40, [9] * 40, 1), of([0] * 40, [9] * 40, 2)], "errors do not differ between customers"),
        (
            [of(range(40), [9] * 40, 1), of(range(9), [9] * 9, 2)],
            "9 customers have matured labels, fewer than 30",
        ),
    ],
)
def test_it_says_why_it_cannot_tell(windows, reason):
    detector, carry = PerformanceDrift(horizon_days=30, baseline_windows=1), None
    for window in windows:
        verdict, carry = detector.judge(window, carry)
    assert (verdict.drift, verdict.reason) == (None, reason)


def test_nobody_buying_any_more_is_drift_though_no_buyer_is_left_to_compare():
    detector, carry = PerformanceDrift(horizon_days=30, baseline_windows=1), None
    shop = Shop(5, 8)
    _, carry = detector.judge(shop.window(0), carry)
    verdict, _ = detector.judge(of([0] * CUSTOMERS, shop.prediction, 1), carry)
    assert verdict.drift
    assert {cause.segment for cause in verdict.causes} == {ALL}


def test_a_window_too_small_does_not_enter_the_baseline():
    detector = PerformanceDrift(horizon_days=30, baseline_windows=2)
    shop = Shop(5, 12)
    _, carry = detector.judge(of([1, 2], [1, 1], 0), None)
    for week in (1, 2):
        _, carry = detector.judge(shop.window(week), carry)
    assert list(carry["window_ends"]) == [1, 2]


@pytest.mark.parametrize("wrong", [0, -1])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match="1 or more"):
        PerformanceDrift(horizon_days=30, baseline_windows=wrong)
    with pytest.raises(ValueError, match="between 0 and 1"):
        PerformanceDrift(horizon_days=30, false_alarm_probability=wrong)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"different lengths: \[1, 2\]"):
        MaturedWindow(1, "v1", ["1"], np.ones(2), np.ones(2), np.ones(2))


# -- what is carried -------------------------------------------------------------------------------


def test_another_model_begins_anew():
    detector, carry = PerformanceDrift(horizon_days=28, baseline_windows=BASELINE), None
    shop = harmed(3, "churn 40%")
    told = []
    for week in range(34):
        version = "v1" if week < 24 else "v2"
        verdict, carry = detector.judge(shop.window(week, version), carry)
        told.append(verdict.drift)
    assert told[20:24] == [True] * 4
    assert told[24:] == [None] * BASELINE + [False] * (10 - BASELINE)
    assert list(carry["window_ends"]) == [24, 25, 26, 27]


def test_a_carry_read_from_json_gives_the_same_verdicts():
    detector, shop = PerformanceDrift(horizon_days=28), harmed(3, "churn 40%")
    carry = text = None
    for week in range(24):
        window = shop.window(week)
        verdict, carry = detector.judge(window, carry)
        again, other = detector.judge(window, None if text is None else json.loads(text))
        text = json.dumps(other, allow_nan=False)
        assert again.to_dict() == verdict.to_dict()
        assert json.loads(text) == json.loads(json.dumps(carry))


def test_the_size_of_the_carry_does_not_grow_with_the_customers():
    detector, sizes = PerformanceDrift(horizon_days=28), []
    for customers in (1_000, 10_000):
        shop, carry = Shop(1, 12, customers), None
        for week in range(6):
            _, carry = detector.judge(shop.window(week), carry)
        sizes.append(len(json.dumps(carry, separators=(",", ":"))))
    assert max(sizes) < 10_000


def test_the_order_of_customers_and_the_unit_of_weight_decide_nothing():
    detector, shop, carries = PerformanceDrift(horizon_days=28), harmed(3, "churn 40%"), [None, None]
    for week in range(24):
        window = shop.window(week)
        order = np.random.default_rng(week).permutation(CUSTOMERS)
        shuffled = MaturedWindow(
            week,
            window.version,
            [window.customers[i] for i in order],
            window.label[order],
            window.prediction[order],
            np.full(CUSTOMERS, 17.0),
        )
        first, carries[0] = detector.judge(window, carries[0])
        second, carries[1] = detector.judge(shuffled, carries[1])
        assert (first.drift, [c.segment for c in first.causes]) == (
            second.drift,
            [c.segment for c in second.causes],
        )
        assert (first.statistic or 0) == pytest.approx(second.statistic or 0, rel=1e-6)


def test_a_carry_that_is_none_is_refused():
    with pytest.raises(msgspec.ValidationError):
        PerformanceDrift(horizon_days=28).judge(Shop(1, 8).window(0), {"version": 1})


# -- whatever comes --------------------------------------------------------------------------------

ODD = [0.0, -0.0, -5.0, 1e-9, 1.0, 1e12, math.nan, math.inf, -math.inf]
amounts = st.one_of(st.sampled_from(ODD), st.floats(-1e6, 1e6))
weights = st.one_of(st.sampled_from([0.0, -1.0, math.nan, math.inf]), st.floats(1e-3, 1e6))


@st.composite
def matured_windows(draw, week):
    size = draw(st.sampled_from([0, 1, 3, CUSTOMERS_MIN, 45, 80]))
    if draw(st.booleans()):
        columns = [np.full(size, draw(kind)) for kind in (amounts, amounts, weights)]
    else:
        columns = [
            np.array(draw(st.lists(kind, min_size=size, max_size=size)), float)
            for kind in (amounts, amounts, weights)
        ]
    same = draw(st.booleans())  # whether an id occurs again and again
    names = ["1" if same else str(number) for number in range(size)]
    return MaturedWindow(week, draw(st.sampled_from(["v1", "v1", "v2"])), names, *columns)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), baseline_windows=st.integers(1, 2))
def test_odd_windows_neither_raise_nor_yield_what_json_cannot_hold(data, baseline_windows):
    detector, carry = PerformanceDrift(horizon_days=30, baseline_windows=baseline_windows), None
    for week in range(4):
        verdict, carry = detector.judge(data.draw(matured_windows(week)), carry)
        json.dumps([verdict.to_dict(), carry], allow_nan=False)
        assert verdict.statistic is None or verdict.statistic >= 0
