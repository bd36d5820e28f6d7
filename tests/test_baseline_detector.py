"""The baseline detector: its statistics against scipy's, that it fires and that it does not."""

import json
import math
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from models.features import RFM_FEATURES
from streams.detectors import make_detector
from streams.detectors.baseline import CUSTOMERS_MIN, BaselineDetector
from streams.detectors.interface import COMPARED_COLUMNS, NUMERIC_UNITS, Cause, DetectionContext, Verdict
from streams.detectors.statistics import benjamini_hochberg, chi_square_homogeneity, kolmogorov_smirnov
from streams.errors import ExitCode, UserError
from streams.settings import Settings

COUNTRIES = ["United Kingdom", "Germany", "France", "EIRE", "Spain", "Bahrain"]
SHARES = [0.90, 0.03, 0.03, 0.02, 0.015, 0.005]


def customers(rng, n):
    """Draw customers that look like the real ones: ties, heavy tails, mostly one country."""
    orders = rng.geometric(0.4, n)
    lines = orders * rng.geometric(0.05, n)
    price = rng.lognormal(1.0, 0.5, n).round(2)
    pieces = rng.lognormal(2.0, 1.0, n).round(1)
    return pd.DataFrame(
        {
            "CustomerID": [str(number) for number in rng.integers(10_000, 99_999, n)],
            "Recency": rng.integers(0, 91, n),
            "Frequency": lines,
            "Monetary": lines * price * pieces,
            "AvgQuantity": pieces,
            "TotalQuantity": (lines * pieces).round(),
            "AvgUnitPrice": price,
            "NumOrders": orders,
            "NumProducts": np.ceil(lines * 0.8),
            "Country": rng.choice(COUNTRIES, n, p=SHARES),
        }
    )


def judge(current, reference, *, partial=False):
    detector = BaselineDetector(false_discovery_rate=0.05, scale_weeks=13)
    context = DetectionContext(
        window_end=1_310_342_400,
        current=current,
        reference=reference,
        reference_window_end=1_306_713_600,
        partial=partial,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict, carry = detector.judge(context, {"kept": 1})
    assert carry == {"kept": 1}
    json.dumps(verdict.to_dict(), allow_nan=False)
    return verdict


@pytest.fixture
def rng():
    return np.random.default_rng(7)


# -- statistics


@pytest.mark.parametrize(("m", "n"), [(30, 30), (35, 900), (400, 300), (4000, 2000)])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
def test_kolmogorov_smirnov_agrees_with_scipy(rng, m, n, shift):
    current, reference = rng.normal(shift, 1, m), rng.normal(0, 1, n)
    ours = kolmogorov_smirnov(current, reference)
    theirs = stats.ks_2samp(current, reference, method="exact" if m * n < 1e5 else "asymp")
    assert ours.distance == pytest.approx(theirs.statistic, abs=1e-12)
    # Never much too small, and not so large that a drift would be missed for it.
    assert ours.p_value >= 0.95 * theirs.pvalue
    assert ours.p_value <= 2 * theirs.pvalue + 1e-6
    if min(m, n) > 1000 and theirs.pvalue > 1e-6:
        assert ours.p_value == pytest.approx(theirs.pvalue, rel=0.1)


def test_kolmogorov_smirnov_counts_ties_once(rng):
    current, reference = rng.integers(0, 5, 500).astype(float), rng.integers(0, 6, 400).astype(float)
    ours = kolmogorov_smirnov(current, reference)
    assert ours.distance == pytest.approx(stats.ks_2samp(current, reference).statistic, abs=1e-12)
    assert kolmogorov_smirnov(current, np.tile(current, 3)).distance == 0.0


def test_chi_square_agrees_with_scipy_where_nothing_is_rare():
    current, reference = np.array([700.0, 210.0, 90.0]), np.array([1510.0, 380.0, 110.0])
    theirs = stats.chi2_contingency(np.stack((current, reference)), correction=False)
    ours = chi_square_homogeneity(current, reference)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.distance == pytest.approx(0.055)


def test_chi_square_pools_rare_categories():
    # Expected counts of the last three are below 5 alone; together they are not.
    current, reference = np.array([985.0, 7.0, 5.0, 3.0]), np.array([992.0, 2.0, 3.0, 3.0])
    pooled = np.array([[985.0, 15.0], [992.0, 8.0]])
    theirs = stats.chi2_contingency(pooled, correction=False)
    assert chi_square_homogeneity(current, reference).p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    # A pool that is still too small joins the smallest other category.
    current, reference = np.array([900.0, 98.0, 2.0]), np.array([900.0, 99.0, 1.0])
    assert chi_square_homogeneity(current, reference).p_value == pytest.approx(1.0)
    assert chi_square_homogeneity(np.array([50.0, 1.0]), np.array([50.0, 0.0])).p_value == 1.0


def test_benjamini_hochberg_agrees_with_scipy(rng):
    p_values = np.concatenate((rng.uniform(size=20), [1e-5, 1e-5, 0.0, 1.0]))
    np.testing.assert_allclose(benjamini_hochberg(p_values), stats.false_discovery_control(p_values))


def test_both_tests_keep_their_level_where_nothing_changed():
    rng = np.random.default_rng(11)
    draws = 400
    numeric = sum(
        kolmogorov_smirnov(rng.normal(size=300), rng.normal(size=200)).p_value <= 0.05 for _ in range(draws)
    )
    counts = sum(
        chi_square_homogeneity(
            rng.multinomial(300, SHARES).astype(float), rng.multinomial(200, SHARES).astype(float)
        ).p_value
        <= 0.05
        for _ in range(draws)
    )
    # 20 are expected; more than 35 have a chance below 1 in 1,000, fewer than 6 as well.
    assert 6 <= numeric <= 35
    assert 6 <= counts <= 35


# -- it fires and it does not


def test_silent_on_customers_drawn_alike():
    rng = np.random.default_rng(3)
    verdicts = [judge(customers(rng, 900), customers(rng, 700)) for _ in range(100)]
    # At most 5 of 100 are expected; more than 12 have a chance below 1 in 500.
    assert sum(verdict.drift for verdict in verdicts) <= 12
    assert all(verdict.columns == 9 for verdict in verdicts)


def test_higher_prices_are_named_with_their_effect(rng):
    current, reference = customers(rng, 1500), customers(rng, 1500)
    current["AvgUnitPrice"] *= 1.2
    current["Monetary"] *= 1.2
    verdict = judge(current, reference)
    assert verdict.drift is True
    assert verdict.statistic <= verdict.threshold == 0.05
    cause = verdict.causes[0]
    assert (cause.feature, cause.unit, cause.scale_weeks, cause.segment) == (
        "AvgUnitPrice",
        "currency",
        13,
        "",
    )
    assert cause.effect == pytest.approx(
        current["AvgUnitPrice"].median() - reference["AvgUnitPrice"].median()
    )
    assert verdict.scores["AvgUnitPrice"] == max(verdict.scores.values())
    assert verdict.drifted_columns == len(verdict.causes)
    assert verdict.false_alarm_probability is None


def test_customers_of_another_country_are_named(rng):
    current, reference = customers(rng, 1500), customers(rng, 1500)
    moved = rng.uniform(size=1500) < 0.1
    current["Country"] = current["Country"].where(~(moved & (current["Country"] == "United Kingdom")), "USA")
    verdict = judge(current, reference)
    (cause,) = verdict.causes
    assert (cause.feature, cause.unit) == ("Country", "percentage points")
    change = {
        name: 100 * ((current["Country"] == name).mean() - (reference["Country"] == name).mean())
        for name in ("USA", "United Kingdom")
    }
    most = max(change, key=lambda name: abs(change[name]))
    assert cause.segment == f"Country={most}"
    assert cause.effect == pytest.approx(change[most])


def test_causes_are_ranked_by_distance(rng):
    current, reference = customers(rng, 1000), customers(rng, 1000)
    current["Recency"] = current["Recency"] // 4
    current["NumOrders"] = current["NumOrders"] + rng.integers(0, 2, 1000)
    verdict = judge(current, reference)
    ranked = [verdict.scores[cause.feature] for cause in verdict.causes]
    assert [cause.feature for cause in verdict.causes] == ["Recency", "NumOrders"]
    assert ranked == sorted(ranked, reverse=True)


# -- data that cannot carry a verdict


@pytest.mark.parametrize("side", ["window", "reference"])
@pytest.mark.parametrize("rows", [0, CUSTOMERS_MIN - 1])
def test_too_few_customers_cannot_tell(rng, side, rows):
    frames = {"window": customers(rng, 500), "reference": customers(rng, 500)}
    frames[side] = frames[side].head(rows)
    verdict = judge(frames["window"], frames["reference"])
    assert verdict.drift is None
    assert verdict.reason == f"the {side} has {rows} customers, fewer than 30"
    assert (verdict.statistic, verdict.causes, verdict.columns) == (None, (), 0)


def test_frames_without_rows_or_columns_cannot_tell():
    assert judge(pd.DataFrame(), pd.DataFrame()).drift is None


def test_thirty_customers_are_enough(rng):
    assert judge(customers(rng, 30), customers(rng, 30)).drift is False


def test_a_partial_window_cannot_tell(rng):
    drifted = customers(rng, 500).assign(Recency=0)
    assert judge(drifted, customers(rng, 500), partial=True).drift is None
    assert judge(drifted, customers(rng, 500)).drift is True


def test_constant_features_are_no_drift_until_the_constant_changes(rng):
    current, reference = customers(rng, 500), customers(rng, 500)
    for frame in (current, reference):
        frame["NumOrders"] = 1
        frame["Country"] = "United Kingdom"
    verdict = judge(current, reference)
    assert verdict.drift is False
    assert verdict.scores["NumOrders"] == verdict.scores["Country"] == 0.0
    verdict = judge(current.assign(NumOrders=2, Country="France"), reference)
    assert {cause.feature for cause in verdict.causes} == {"NumOrders", "Country"}
    assert {cause.effect for cause in verdict.causes if cause.feature == "NumOrders"} == {1.0}


def test_a_country_never_seen_before_is_no_drift_by_itself(rng):
    reference = customers(rng, 1000)
    current = reference.copy()
    current.loc[:3, "Country"] = "Atlantis"
    assert judge(current, reference).drift is False


def test_values_that_are_not_finite_are_left_out(rng):
    current, reference = customers(rng, 500), customers(rng, 500)
    current["Monetary"] = np.where(np.arange(500) < 480, np.nan, np.inf)
    current.loc[:200, "AvgQuantity"] = np.nan
    reference["Country"] = None
    verdict = judge(current, reference)
    assert verdict.columns == 7
    assert set(verdict.scores) == set(COMPARED_COLUMNS) - {"Monetary", "Country"}
    nothing = current.assign(**dict.fromkeys(COMPARED_COLUMNS, np.nan))
    assert judge(nothing, reference).reason == "no feature has 30 values on both sides"


def test_a_missing_column_is_an_error_not_a_verdict(rng):
    with pytest.raises(ValueError, match="the rows of the reference lack Recency"):
        judge(customers(rng, 50), customers(rng, 50).drop(columns="Recency"))


def test_the_order_of_the_rows_decides_nothing(rng):
    current, reference = customers(rng, 700), customers(rng, 700)
    shuffled = judge(current.sample(frac=1, random_state=1), reference.sample(frac=1, random_state=2))
    assert shuffled.to_dict() == judge(current, reference).to_dict()


def test_a_window_takes_milliseconds(rng):
    current, reference = customers(rng, 4000), customers(rng, 4000)
    taken_s = []
    for _ in range(20):
        start = time.thread_time()
        judge(current, reference)
        taken_s.append(time.thread_time() - start)
    assert min(taken_s) < 0.010


# -- verdicts


def test_verdicts_refuse_figures_that_are_not_finite():
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="statistic of a verdict"):
            Verdict(drift=False, statistic=bad)
        with pytest.raises(ValueError, match="score of Recency"):
            Verdict(drift=False, scores={"Recency": bad})
        cause = Cause(feature="Recency", scale_weeks=13, segment="", effect=bad, unit="days")
        with pytest.raises(ValueError, match="effect of Recency"):
            Verdict(drift=True, causes=(cause,))


@pytest.mark.parametrize(("drift", "reason"), [(None, ""), (False, "no idea")])
def test_a_verdict_has_a_reason_exactly_where_it_cannot_tell(drift, reason):
    with pytest.raises(ValueError, match="reason"):
        Verdict(drift=drift, reason=reason)


def test_published_figures_are_rounded():
    verdict = Verdict(drift=False, statistic=0.1 + 0.2, threshold=0.05, scores={"b": -0.0, "a": 1 / 3})
    published = verdict.to_dict()
    assert published["statistic"] == 0.3
    assert json.dumps(published["scores"]) == '{"a": 0.333333333333, "b": 0.0}'


def test_detectors_are_made_by_name():
    detector = make_detector("baseline", Settings(false_discovery_rate=0.01, window_days=28))
    assert (detector.name, detector.false_discovery_rate, detector.scale_weeks) == ("baseline", 0.01, 4)
    with pytest.raises(UserError, match="crystal ball") as caught:
        make_detector("crystal ball", Settings())
    assert caught.value.code is ExitCode.USAGE


def test_the_compared_features_are_those_of_the_models():
    assert tuple(NUMERIC_UNITS) == RFM_FEATURES
