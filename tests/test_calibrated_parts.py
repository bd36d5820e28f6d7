"""The parts of the calibrated detector: tables worked by hand, and what must hold of any data."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from calibrated_shop import arc, lines_of, random_reference, reference_of, regular_reference, turned
from hypothesis import assume, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from models.lines import Lines
from streams.detectors.calibrated.arcs import NOBODY
from streams.detectors.calibrated.calibration import Calibration, calibrate
from streams.detectors.calibrated.circle import lay_out
from streams.detectors.calibrated.contributions import (
    ABSENT,
    BINS,
    OTHERS,
    Scene,
    Yardsticks,
    bins,
    contributions,
    distance_values,
    histograms,
    sum_values,
    sums,
)
from streams.detectors.calibrated.gumbel import Gumbel
from streams.detectors.calibrated.norms import LINES_MIN, LOG_RATIO_MAX, Deviations, Norms
from streams.detectors.calibrated.onset import onset
from streams.detectors.calibrated.runs import draw
from streams.detectors.calibrated.statistic import DISTANCES, STATISTICS, SUMS, TOP, Kind, Scale
from streams.detectors.calibrated.trend import Trend
from streams.detectors.calibrated.unseen import customers_in_all

SCALE = Scale(3, 2, 1)
HOPS = 12

# -- customers never seen


@pytest.mark.parametrize(
    ("seen", "weeks", "expected"),
    [
        ([], 10, 0.0),
        ([5, 9, 10], 10, 3.0),
        ([1, 5, 9], 10, 3.0),  # one seen once may be the only one
        ([1, 1, 2], 4, 3 + 3 / 4 * 2 / 4),
        ([1] * 10, 20, 10 + 19 / 20 * 90 / 2),
    ],
)
def test_customers_in_all(seen, weeks, expected):
    assert customers_in_all(np.array(seen, np.int64), weeks) == pytest.approx(expected)


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 60))
def test_there_are_at_least_those_who_were_seen(seen, weeks):
    assert customers_in_all(np.array(seen, np.int64), weeks) >= len(seen)


def test_customers_who_buy_alike_are_counted_although_half_were_not_seen():
    weeks_seen = np.random.default_rng(1).binomial(30, 0.7 / 30, 4_000)
    seen = weeks_seen[weeks_seen > 0]
    assert len(seen) < 2_200
    # The standard error of the estimate is near 110 here.
    assert customers_in_all(seen, 30) == pytest.approx(4_000, abs=400)


# -- the distribution of maxima

gumbels = st.builds(Gumbel, st.floats(-5, 5), st.floats(0.05, 5))


@given(gumbels, st.floats(0.01, 0.99))
def test_what_a_quantile_is_exceeded_with(gumbel, probability):
    assert gumbel.exceeded(gumbel.quantile(probability)) == pytest.approx(1 - probability)


@given(gumbels, st.floats(-10, 10), st.floats(0.1, 30))
def test_more_runs_exceed_more_often(gumbel, value, runs):
    once = gumbel.exceeded(value)
    assume(once < 0.999)  # of what is all but certain, too few digits are left below one to compare
    assert gumbel.exceeded(value, runs) == pytest.approx(1 - (1 - once) ** runs, abs=1e-6)


def test_a_fit_finds_the_distribution_it_was_drawn_from():
    found = Gumbel.fitted(np.random.default_rng(2).gumbel(3.0, 0.5, 4_000))
    assert (found.mode, found.scale) == (pytest.approx(3.0, abs=0.05), pytest.approx(0.5, rel=0.06))


def test_maxima_that_never_vary_are_no_division_by_zero():
    fitted = Gumbel.fitted(np.full(100, 2.0))
    assert fitted.exceeded(2.1) == 0.0
    assert fitted.exceeded(1.0) == 1.0


# -- growth


def test_growth_is_found_and_continued():
    noise = np.random.default_rng(3).normal(0, 0.02, 24)
    trend = Trend.of(5 + 0.03 * np.arange(24) + noise)
    assert trend.slope == pytest.approx(0.03, abs=0.003)
    grown, error = trend.over(np.array([0.0, 20.0, -20.0]))
    assert grown == pytest.approx([0, 0.6, -0.6], abs=0.06)
    # The least-squares error of a slope, twenty hops from the middle on either side.
    assert error == pytest.approx(np.array([0, 20, 20]) * 0.02 / np.sqrt(24 * (24**2 - 1) / 12), rel=0.4)


def test_noise_is_no_growth():
    rng = np.random.default_rng(4)
    found = sum(Trend.of(rng.normal(5, 0.1, 24)).slope != 0 for _ in range(500))
    assert found <= 3  # 0.3 are expected


def test_neither_a_constant_nor_a_slope_within_its_error_is_growth():
    hops = np.array([0.0, 100.0])
    for logs in (np.full(20, 4.0), 4 + 0.01 * np.arange(20) + 0.2 * (-1.0) ** np.arange(20)):
        grown, error = Trend.of(logs).over(hops)
        assert grown.tolist() == error.tolist() == [0.0, 0.0]


# -- since when


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([0.1, -0.3, 0.2, 0.0, 4.0, 3.8, 4.1, 4.4], 4),
        ([0.1, -0.3, 0.2, 0.0, -4.0, -3.8, -4.1, -4.4], 4),
        ([0.0] * 5 + [0.5, 1.5, 2.5, 3.5, 4.0, 4.0, 4.0], 5),
        ([0.0] * 4 + [0.25 * (2 * i + 1) for i in range(8)], 4),
        ([4.0] * 6, 0),
        ([0.2, 0.1, -0.4, 6.0], 3),
        ([0.0, 0.1, 5.0, 0.0, 0.1, -0.1], 2),
        ([3.0], 0),
    ],
    ids=["sudden", "downwards", "a month", "two months", "constant", "the last week", "one odd week", "one"],
)
def test_onset(series, expected):
    assert onset(series) == expected


def test_one_odd_week_does_not_outweigh_a_lasting_change():
    series = [0.0, 9.0, 0.0, 0.0, 0.0, 0.0, *[6.0] * 7]
    assert onset(series) == 6
    assert onset([1e6 if z == 9.0 else z for z in series]) == 6


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=16))
def test_an_onset_is_one_of_the_windows(series):
    found = onset(series)
    assert 0 <= found < len(series)
    assert onset([-z for z in series]) == found


# -- what is usual of products


def sales_of(rng, size, *, products=6, customers=5):
    return lines_of(
        time=np.arange(size),
        customer=rng.integers(0, customers, size),
        product=rng.integers(0, products, size),
        quantity=rng.integers(1, 9, size),
        price=rng.integers(800, 1_200, size),  # four times as much is not cut off yet
    )


@given(st.integers(0, 1_000), st.sampled_from([2, 3, 4]))
@examples(deadline=None, max_examples=30)
def test_a_price_change_of_all_lines_shows_exactly(seed, factor):
    sales = sales_of(np.random.default_rng(seed), 80)
    norms = Norms.of(sales)
    before = norms.deviations(sales, 5)
    after = norms.deviations(replace(sales, price=sales.price * factor), 5)
    assert after.price - before.price == pytest.approx(before.lines * np.log(factor))
    assert after.lines.tolist() == before.lines.tolist()
    assert after.quantity.tolist() == before.quantity.tolist()


def test_deviations_worked_by_hand():
    reference = lines_of(product=[0] * 5 + [1] * 4, price=[1_000] * 9, quantity=[2] * 9)
    sales = lines_of(
        customer=[0, 0, 1, 2, 2],
        product=[0, 0, 1, 0, 7],  # of 1 too little was seen, of 7 nothing
        price=[2_000, 500, 9_000, 100_000, 1_000],
        quantity=[2, 4, 2, 1, 2],
    )
    found = Norms.of(reference).deviations(sales, 4)
    assert LINES_MIN == 5
    assert found.lines.tolist() == [2, 0, 1, 0]
    assert found.price == pytest.approx([0, 0, LOG_RATIO_MAX, 0])
    assert found.quantity == pytest.approx([np.log(2), 0, -np.log(2), 0])


def test_without_a_reference_nothing_is_usual():
    found = Norms.of(Lines.empty()).deviations(lines_of(customer=[0, 1]), 2)
    assert found.lines.tolist() == found.price.tolist() == found.quantity.tolist() == [0, 0]


def test_deviations_gathered_are_their_sums():
    rng = np.random.default_rng(5)
    norms = Norms.of(sales_of(rng, 60))
    sales = sales_of(rng, 50, customers=7)
    weeks = [sales.select(slice(first, first + 10)) for first in range(0, 50, 10)]
    parts = []
    for week in weeks:
        codes = np.unique(week.customer)
        own = replace(week, customer=np.searchsorted(codes, week.customer).astype(np.int32))
        parts.append((codes, norms.deviations(own, len(codes))))
    whole = norms.deviations(sales, 7)
    for found in (
        Deviations.gathered(parts, 7),
        Deviations.total([part.enlarged(at, 7) for at, part in parts]),
    ):
        for name in ("price", "quantity", "lines"):
            assert getattr(found, name) == pytest.approx(getattr(whole, name)), name
    assert Deviations.gathered([], 3).lines.tolist() == [0, 0, 0]


# -- what each customer adds
#
# Windows of 4, 2 and 1 hops; the base has 3. Customer 0 was always there; 1 is new; 2 bought in the long
# window alone, but had been there before; 3 was there before and is lost.

HAND_SCALE = Scale(4, 2, 1)


@cache
def scene() -> Scene:
    long = arc(
        Monetary=[80, 20, 40, 0],
        Frequency=[8, 2, 3, 0],
        NumOrders=[4, 1, 1, 0],
        TotalQuantity=[80, 10, 4, 0],
        country=[0, 1, 2, NOBODY],
        price=[0.8, 0.2, -0.3, 0],
        quantity=[1.6, 0, 0.6, 0],
        lines=[8, 2, 3, 0],
    )
    mid = arc(
        Monetary=[50, 20, 0, 0],
        Frequency=[6, 2, 0, 0],
        NumOrders=[2, 1, 0, 0],
        TotalQuantity=[60, 10, 0, 0],
        country=[2, 1, NOBODY, NOBODY],
        price=[8.0, 0.1, 0, 0],
        quantity=[-4.0, 0.2, 0, 0],
        lines=[40, 2, 0, 0],
    )
    short = arc(
        Monetary=[10, 0, 0, 0],
        Frequency=[3, 0, 0, 0],
        NumOrders=[1, 0, 0, 0],
        TotalQuantity=[8, 0, 0, 0],
        country=[0, NOBODY, NOBODY, NOBODY],
        price=[0.3, 0, 0, 0],
        quantity=[0, 0, 0, 0],
        lines=[0, 0, 0, 0],  # of products that nothing is known of
    )
    base = arc(
        Monetary=[30, 0, 60, 9],
        Frequency=[3, 0, 6, 1],
        NumOrders=[3, 0, 3, 1],
        TotalQuantity=[30, 0, 3, 3],
        country=[0, NOBODY, 2, 1],
        price=[0.0, 0, 0.6, 0],
        quantity=[0.3, 0, 0, 0],
        lines=[3, 0, 6, 1],
    )
    before = np.array([True, False, True, True])
    return Scene((long, mid, short), ([base], [base], [base]), 3, before, before & (np.arange(4) != 2))


@cache
def yardsticks() -> Yardsticks:
    grids = {
        statistic: np.arange(BINS - 1) + 0.5 for statistic in DISTANCES if statistic.kind is Kind.DISTRIBUTION
    }
    return Yardsticks(grids, top_quantity=(20.0, 20.0, 20.0), countries=2)


log = np.log
# Numerator and denominator of each; the denominators of counts say nothing.
BY_HAND = {
    "count/customers/4": (3, None),
    "count/customers/2": (2, None),
    "count/customers/1": (1, None),
    "count/orders/2": (3, None),
    "count/orders/1": (1, None),
    "count/arrivals/4": (1, None),
    "count/arrivals/2": (1, None),
    "count/returning/2": (1, None),
    "share/retained/4": (2, 3),
    "mean_log/Monetary/4": (log(80) + log(20) + log(40), 3),
    "mean_log/Frequency/4": (log(8) + log(2) + log(3), 3),
    "mean_log/NumOrders/4": (log(4), 3),
    "mean_log/LinesPerOrder/4": (log(2) + log(2) + log(3), 3),
    "mean_log/Monetary/2": (log(50) + log(20), 2),
    "mean_log/Frequency/2": (log(6) + log(2), 2),
    "mean_log/NumOrders/2": (log(2), 2),
    "mean_log/LinesPerOrder/2": (log(3) + log(2), 2),
    "mean_log/Monetary/1": (log(10), 1),
    "mean_log/LinesPerOrder/1": (log(3), 1),
    # Of forty lines twenty count, each 0.2 above the usual; of two both, each 0.05 above it.
    "same_product/AvgUnitPrice/2/same products": (20 * 0.2 + 2 * 0.05, 22),
    "same_product/AvgQuantity/2/same products": (-20 * 0.1 + 2 * 0.1, 22),
    "same_product/AvgUnitPrice/1/same products": (0, 0),
    "same_product/AvgQuantity/1/same products": (0, 0),
    # A hop: 20 against 10, and 10 against 20; 25 against 10.
    "same_customer/Monetary/4/same customers": (log(2) - log(2), 2),
    "same_customer/NumOrders/4/same customers": (log(1) + log((1 / 4) / (3 / 3)), 2),
    "same_customer/Monetary/2/same customers": (log(2.5), 1),
    "same_customer/NumOrders/2/same customers": (log(1), 1),
    # A line: 0.1 against 0, and -0.1 against 0.1.
    "same_customer/AvgUnitPrice/4/same customers": (0.1 - 0.2, 2),
    "same_customer/AvgQuantity/4/same customers": ((0.2 - 0.1) + 0.2, 2),
    "same_customer/AvgUnitPrice/2/same customers": (0.2, 1),
    "same_customer/AvgQuantity/2/same customers": (-0.1 - 0.1, 1),
    "same_customer/AvgUnitPrice/1/same customers": (0, 0),
    "same_customer/AvgQuantity/1/same customers": (0, 0),
    # More than twenty pieces a hop in window and base together: customer 0, but for the last hop (8 + 10).
    "same_customer/AvgQuantity/4/top 5% of customers": (0.2 - 0.1, 1),
    "same_customer/AvgQuantity/2/top 5% of customers": (-0.1 - 0.1, 1),
    "same_customer/AvgQuantity/1/top 5% of customers": (0, 0),
    "same_customer/TotalQuantity/4/top 5% of customers": (log(20 / 10), 1),
    "same_customer/TotalQuantity/2/top 5% of customers": (log(30 / 10), 1),
    "share/Country/2/same customers": (1, 1),
    "share/Country/1/same customers": (0, 1),
}


@pytest.mark.parametrize("index", range(len(SUMS)), ids=[each.name(HAND_SCALE) for each in SUMS])
def test_numerator_and_denominator_worked_by_hand(index):
    numerator, denominator = BY_HAND[SUMS[index].name(HAND_SCALE)]
    table = contributions(scene(), HAND_SCALE, yardsticks()).sum(axis=0)
    total = sums(scene(), HAND_SCALE, yardsticks())
    for found in (table, total):
        assert found[2 * index] == pytest.approx(numerator, abs=1e-5)
        assert denominator is None or found[2 * index + 1] == denominator


def test_every_sum_was_worked_by_hand():
    assert set(BY_HAND) == {statistic.name(HAND_SCALE) for statistic in SUMS}
    assert len({statistic.name(HAND_SCALE) for statistic in STATISTICS}) == len(STATISTICS)


def test_values_are_logs_of_counts_and_means_else():
    total = sums(scene(), HAND_SCALE, yardsticks())
    values = dict(zip((each.name(HAND_SCALE) for each in SUMS), sum_values(total), strict=True))
    assert values["count/customers/4"] == pytest.approx(np.log(3))
    assert values["share/retained/4"] == pytest.approx(2 / 3)
    assert values["same_product/AvgUnitPrice/2/same products"] == pytest.approx(4.1 / 22)
    assert values["same_product/AvgUnitPrice/1/same products"] == 0
    nothing = sum_values(np.zeros(2 * len(SUMS)))
    assert np.isfinite(nothing).all()
    assert set(nothing.tolist()) == {0.0, np.log(0.5)}


def test_a_ratio_of_one_customer_is_cut_off():
    one = [1.0] * 4
    steady = arc(Monetary=one, Frequency=one, NumOrders=one, TotalQuantity=one, country=[0] * 4)
    rich = arc(Monetary=[1e9, 1, 1, 1], Frequency=one, NumOrders=one, TotalQuantity=one, country=[0] * 4)
    there = np.ones(4, bool)
    odd = Scene((rich,) * 3, ([steady],) * 3, 4, there, there)
    found = sums(odd, Scale(4, 4, 4), yardsticks())
    index = [(each.kind, each.feature) for each in SUMS].index((Kind.SAME_CUSTOMER, "Monetary"))
    assert found[2 * index] == pytest.approx(3.0)


# -- histograms


def tally(table):
    """Return how many customers are in each bin of each column of `table`."""
    return np.stack([np.bincount(column, minlength=BINS + 2) for column in table.T]).astype(float)


def test_histograms_count_the_bins_of_those_who_bought():
    table = bins(scene().arcs, yardsticks())
    counted = tally(table)
    assert counted[:, ABSENT].tolist() == [
        (~scene().arcs[statistic.scale].active).sum() for statistic in DISTANCES
    ]
    found = histograms(scene().arcs, yardsticks())
    assert found[:, :ABSENT].tolist() == counted[:, :ABSENT].tolist()
    names = [statistic.name(HAND_SCALE) for statistic in DISTANCES]
    # Bin b holds what is above b - 0.5 and at most b + 0.5.
    assert table[:, names.index("distribution/Monetary/4")].tolist() == [80, 20, 40, ABSENT]
    # Two countries have bins of their own.
    assert table[:, names.index("mix/Country/4")].tolist() == [0, 1, OTHERS, ABSENT]


@given(st.integers(0, 10_000))
@examples(deadline=None, max_examples=40)
def test_histograms_count_the_bins_of_any_values(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 60))
    # Small whole numbers: many values lie on a border of bins, and many borders lie on each other.
    frequency = rng.integers(0, 4, size)

    def one():
        some = {name: frequency * rng.integers(1, 4, size) for name in ("Monetary", "TotalQuantity")}
        return arc(
            **some,
            Frequency=frequency,
            NumOrders=np.minimum(frequency, 1),
            country=np.where(frequency > 0, rng.integers(0, 4, size), NOBODY),
        )

    arcs = (one(), one(), one())
    grids = {
        statistic: np.sort(rng.integers(0, 8, BINS - 1)).astype(float) for statistic in yardsticks().grids
    }
    own = Yardsticks(grids, (1.0, 1.0, 1.0), countries=3)
    expected = tally(bins(arcs, own))[:, :ABSENT]
    assert histograms(arcs, own)[:, :ABSENT].tolist() == expected.tolist()


def test_distances_worked_by_hand():
    counts, reference = np.zeros((2, len(DISTANCES), BINS + 2))
    counts[:, [0, 1]] = 10, 30
    reference[:, [0, 2]] = 50, 50
    counts[:, ABSENT] = 1_000  # counts for nothing
    found = distance_values(counts, reference)
    for statistic, value in zip(DISTANCES, found, strict=True):
        # Shares 1/4, 3/4, 0 against 1/2, 0, 1/2: cumulated -1/4, 1/2, 0; half of all differences is 3/4.
        assert value == pytest.approx(0.75 if statistic.kind is Kind.MIX else 0.5)
    assert distance_values(counts, counts).tolist() == [0.0] * len(DISTANCES)
    assert np.isfinite(distance_values(np.zeros_like(counts), reference)).all()


# -- the circle


@cache
def circle():
    return lay_out(random_reference(6, hops=HOPS), SCALE)


@pytest.mark.parametrize("weeks", [1, 5, 6, 11])
def test_turning_the_reference_permutes_the_windows(weeks):
    again = lay_out(turned(random_reference(6, hops=HOPS), weeks), SCALE)
    # The cut of top customers is taken from each third window, the grids of bins from each second.
    same = np.repeat([statistic.segment != TOP or weeks % 6 == 0 for statistic in SUMS], 2)
    before, after = (one.contributions[:, :, same] for one in (circle(), again))
    np.testing.assert_allclose(after, np.roll(before, weeks, axis=0), atol=1e-5)
    np.testing.assert_allclose(after.sum(axis=(0, 1)), before.sum(axis=(0, 1)), atol=1e-2)
    if weeks % 2 == 0:
        assert again.bins.tolist() == np.roll(circle().bins, weeks, axis=0).tolist()


def test_every_customer_has_a_row_in_every_window():
    reference = random_reference(6, hops=HOPS)
    assert circle().contributions.shape == (HOPS, reference.customers, 2 * len(SUMS))
    assert circle().bins.shape == (HOPS, reference.customers, len(DISTANCES))
    names = [statistic.name(SCALE) for statistic in SUMS]
    weekly = circle().contributions[:, :, 2 * names.index("count/customers/1")]
    assert weekly.sum(axis=0).tolist() == reference.hops_seen().tolist()
    week = (reference.sales.time - reference.start) // reference.hop_s
    for number in range(HOPS):
        buyers = np.unique(reference.sales.customer[week == number])
        # The window of number 0 is the week before the first one: the last.
        assert np.flatnonzero(weekly[(number + 1) % HOPS]).tolist() == buyers.tolist()
    long = circle().contributions[:, :, 2 * names.index("count/customers/3")]
    around = np.stack([np.roll(weekly, back, axis=0) for back in range(SCALE.long)]).max(axis=0)
    assert long.tolist() == around.tolist()


def test_the_histogram_counts_the_windows_that_lie_in_time():
    for i, statistic in enumerate(DISTANCES):
        ends = [end % HOPS for end in range(SCALE[statistic.scale], HOPS + 1)]
        counted = tally(circle().bins[ends, :, i].reshape(-1, 1))[0]
        assert circle().histograms[i].tolist() == counted.tolist()


def test_levels_are_those_of_weeks_that_follow_each_other():
    """Customers come for three weeks, a new one every week: none is seen on both sides of the seam."""
    weeks = np.arange(HOPS - 2)
    who, hop = np.repeat(weeks, 3), (weeks[:, None] + np.arange(3)).ravel()
    found = lay_out(reference_of(hop, who, HOPS), SCALE)
    values = sum_values(found.level(found.contributions.sum(axis=1, dtype=np.float64)))
    level = dict(zip((statistic.name(SCALE) for statistic in SUMS), values, strict=True))

    def buyers(first, stop):
        return set(who[(hop >= first) & (hop < stop)].tolist())

    def windows(length):
        return [(end - length, end) for end in range(length, HOPS + 1)]

    for scale, length in zip(("3", "2", "1"), SCALE, strict=True):
        counted = [len(buyers(*window)) for window in windows(length)]
        assert level[f"count/customers/{scale}"] == pytest.approx(np.log(np.mean(counted)))
    # With the base before it a long window takes six weeks, a middle one five.
    came = [len(buyers(end - 3, end) - buyers(end - 6, end - 3)) for end in range(6, HOPS + 1)]
    assert level["count/arrivals/3"] == pytest.approx(np.log(np.mean(came)))
    back = [len(buyers(end - 2, end) & buyers(end - 5, end - 2)) for end in range(5, HOPS + 1)]
    assert level["count/returning/2"] == pytest.approx(np.log(np.mean(back)))
    pairs = [(buyers(end - 6, end - 3), buyers(end - 3, end)) for end in range(6, HOPS + 1)]
    stayed = sum(len(before & now) for before, now in pairs) / sum(len(before) for before, _ in pairs)
    assert level["share/retained/3"] == pytest.approx(stayed)


def test_the_bases_are_the_first_and_the_last_span():
    reference = random_reference(6, hops=HOPS)
    length = reference.base_length(SCALE)
    week = (reference.sales.time - reference.start) // reference.hop_s
    for base, inside in zip(circle().bases, (week < length, week >= HOPS - length), strict=True):
        lines = np.bincount(reference.sales.customer[inside], minlength=reference.customers)
        assert base.features["Frequency"].tolist() == lines.tolist()


# -- runs


def test_runs_are_the_same_for_a_seed_and_others_for_another():
    one, again, other = (draw(circle(), 50.0, runs=5, seed=seed).values for seed in (1, 1, 2))
    assert one.shape == (5, HOPS, len(STATISTICS))
    assert np.isfinite(one).all()
    assert one.tolist() == again.tolist()
    assert (one != other).any()


def test_the_size_of_a_run_is_binomial():
    customers, runs = 40, 200
    regular = lay_out(regular_reference(customers, hops=HOPS), SCALE)
    names = [statistic.name(SCALE) for statistic in STATISTICS]
    number = names.index("count/customers/1")
    # Everybody buys each week: the only chance in the number of customers is who comes into a run.
    assert np.abs(draw(regular, customers, runs=10, seed=3).values[:, :, number]).max() == 0
    found = draw(regular, 2 * customers, runs=runs, seed=3).values[:, :, number]
    assert (found == found[:, :1]).all()
    # A binomial size out of 80 by 1/2 has the variance 20; a run and its reference are one each.
    expected = np.sqrt(2 * 20) / customers
    assert found[:, 0].std() == pytest.approx(expected, rel=0.2)


# -- calibration

RATE, HORIZON = 0.05, 52


def calibrated(reference, seed=1, rate=RATE) -> Calibration:
    return calibrate(reference, SCALE, false_alarm_rate=rate, horizon=HORIZON, seed=seed)


@cache
def usual() -> Calibration:
    return calibrated(random_reference(6, hops=HOPS))


@pytest.fixture
def calibration():
    return usual()


def test_the_published_id_depends_on_the_content(calibration):
    published = calibration.published
    reference = random_reference(6, hops=HOPS)
    assert calibrated(reference).published == published
    others = [
        calibrated(reference, seed=2),
        calibrated(reference, rate=0.1),
        calibrated(replace(reference, sales=reference.sales.select(slice(1, None)))),
    ]
    assert len({published["id"], *(other.published["id"] for other in others)}) == 4
    assert json.loads(json.dumps(published, allow_nan=False)) == published
    assert len(published["statistics"]) == len(STATISTICS)


def test_the_promise_is_the_probability_of_the_threshold(calibration):
    assert calibration.false_alarm_probability(calibration.threshold) == pytest.approx(RATE)
    stricter = calibrated(random_reference(6, hops=HOPS), rate=0.01)
    assert stricter.threshold > calibration.threshold
    assert stricter.false_alarm_probability(stricter.threshold) == pytest.approx(0.01)


def test_a_stronger_statistic_is_less_probable(calibration):
    strengths = np.linspace(0, 3 * calibration.threshold, 200)
    probabilities = np.array([calibration.false_alarm_probability(strength) for strength in strengths])
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (np.diff(probabilities) <= 0).all()
    assert probabilities[0] > 0.99
    assert probabilities[-1] < RATE / 10


@given(st.lists(st.floats(-5, 5), min_size=len(STATISTICS), max_size=len(STATISTICS)), st.integers(0, 200))
@examples(deadline=None, max_examples=50)
def test_strengths_of_one_sided_statistics_are_never_negative(moved, hop):
    calibration = usual()
    values = calibration.mean + np.array(moved)
    strengths = calibration.strengths(values, hop)
    one_sided = np.array([statistic.one_sided for statistic in STATISTICS])
    assert np.isfinite(strengths).all()
    assert (strengths[one_sided] >= 0).all()
    counts = np.array([statistic.kind is Kind.COUNT for statistic in STATISTICS])
    signed = ~one_sided & ~(counts & (calibration.trend.slope != 0))
    assert np.sign(strengths[signed]).tolist() == np.sign((values - calibration.mean)[signed]).tolist()


def test_the_mean_of_chance_has_no_strength(calibration):
    middle = int(calibration.circle.middles(STATISTICS).mean())
    strengths = calibration.strengths(calibration.mean, middle)
    steady = np.array([statistic.kind is not Kind.COUNT for statistic in STATISTICS])
    assert strengths[steady].tolist() == [0.0] * int(steady.sum())


def test_growth_is_expected_to_go_on():
    growing = calibrated(random_reference(7, hops=24, customers=200, growth=0.08))
    assert growing.trend.slope == pytest.approx(0.08, abs=0.03)
    number = [statistic.name(SCALE) for statistic in STATISTICS].index("count/customers/1")
    grown = growing.mean.copy()
    grown[number] += growing.trend.slope * 20
    hop = 32  # the last week of its window lies 20 hops after the middle of the reference, 11.5
    assert abs(growing.strengths(grown, hop)[number]) < 0.1
    assert growing.strengths(growing.mean, hop)[number] < -growing.threshold / 2


def test_growth_is_read_off_weeks_in_their_order():
    growing = calibrated(random_reference(7, hops=24, customers=2_000, growth=0.08))
    # Orders grow by 8% a week, customers by less, for some come twice; one week out of its place shows.
    assert 0.05 < growing.trend.slope < 0.08
    assert growing.trend.error < growing.trend.slope / 20


def test_levels_lie_in_the_middle_of_what_they_are_read_from():
    found = dict(zip((statistic.name(SCALE) for statistic in SUMS), circle().middles(SUMS), strict=True))
    # Windows of three weeks end after 3 to 12 of the 12 weeks; with the base before them after 6 to 12.
    assert found["count/customers/3"] == (3 + 12) / 2 - 2 == (HOPS - 1) / 2
    assert found["count/customers/1"] == (HOPS - 1) / 2
    assert found["count/arrivals/3"] == found["share/retained/3"] == (6 + 12) / 2 - 2
    assert found["count/arrivals/2"] == found["count/returning/2"] == (5 + 12) / 2 - 1.5
