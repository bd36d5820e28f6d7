"""The detection lab: quiet streams are quiet, drifts begin at their onset, counting is right."""

import numpy as np
import pytest

from bench.lab.drifts import DRIFTS, GROWING, ONSET, SUDDEN, Dose, Variant, drifted
from bench.lab.frames import customer_columns, customer_frame, order_columns
from bench.lab.others import read_told, write_task
from bench.lab.ours import QUIET, watch_baseline
from bench.lab.peers.task import Task
from bench.lab.results import Alarm
from bench.lab.streams import (
    AFTER_ONSET,
    ONSET_WEEK,
    POPULATIONS,
    START,
    WATCHED,
    WEEK_S,
    WEEKS,
    Year,
    real_year,
)
from models.lines import pair_keys
from producers.inputs import synthetic_input
from streams.detectors.interface import COMPARED_COLUMNS

COLUMNS = ("time", "customer", "invoice", "product", "country", "quantity", "price")
SHOP = "customers=700,days=371,seed=5,start=2010-11-29"


@pytest.fixture(scope="module")
def year():
    return Year.read(synthetic_input(SHOP))


@pytest.fixture(scope="module")
def stream(year):
    return year.shuffled(3)


def columns(lines):
    return {name: getattr(lines, name) for name in COLUMNS}


def same(left, right):
    return all(np.array_equal(columns(left)[name], columns(right)[name]) for name in COLUMNS)


def before_onset(lines):
    return lines.select(lines.time < ONSET)


def after_onset(lines):
    return lines.select(lines.time >= ONSET)


# -- quiet streams -----------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_bytes(year):
    first, second, other = year.shuffled(3), year.shuffled(3), year.shuffled(4)
    assert same(first.lines, second.lines)
    assert not np.array_equal(first.lines.time, other.lines.time)


def test_every_history_is_one_of_the_year_turned_by_whole_weeks(year, stream):
    def history(lines, customer, turn_weeks):
        mine = lines.customer == customer
        time = (lines.time[mine] - START + turn_weeks * WEEK_S) % (WEEKS * WEEK_S)
        rows = np.stack(
            [time, lines.invoice[mine], lines.product[mine], lines.quantity[mine], lines.price[mine]]
        )
        return {tuple(row) for row in rows.T.tolist()}

    owner = dict(zip(year.lines.invoice.tolist(), year.lines.customer.tolist(), strict=True))
    turned = 0
    for customer in range(40):
        mine = stream.lines.customer == customer
        (original,) = {owner[invoice] for invoice in stream.lines.invoice[mine].tolist()}
        found = history(stream.lines, customer, 0)
        turns = [turn for turn in range(WEEKS) if history(year.lines, original, turn) == found]
        assert len(turns) == 1
        turned += turns != [0]
    assert turned > 30


def test_a_shuffled_year_keeps_lines_within_the_weeks_and_in_order(year, stream):
    time = stream.lines.time
    assert np.all(np.diff(time) >= 0)
    assert time.min() >= START
    assert time.max() < START + WEEKS * WEEK_S
    assert stream.customers == len(np.unique(year.lines.customer))


def test_the_season_is_gone():
    """A year in which all is bought in its first half is even after shuffling, within what chance allows."""
    year = Year.read(synthetic_input("customers=300,days=180,seed=5,start=2010-11-29"))
    assert (year.lines.time.max() - START) // WEEK_S < 26
    weeks = np.array(
        [
            np.bincount((year.shuffled(seed).lines.time - START) // WEEK_S, minlength=WEEKS)
            for seed in range(200)
        ]
    )
    errors = weeks.std(axis=0, ddof=1) / np.sqrt(len(weeks))
    assert np.abs((weeks.mean(axis=0) - weeks.mean()) / errors).max() < 4


@pytest.mark.parametrize("name", [name for name in POPULATIONS if name not in {"real", "many"}])
def test_simulated_shops_are_reproducible(name):
    make = POPULATIONS[name].make
    first = make(7)
    assert same(first.lines, make(7).lines)
    assert np.all(np.diff(first.lines.time) >= 0)
    assert first.lines.is_sale.all()
    assert (first.lines.time.min() - START) // WEEK_S == 0
    assert (first.lines.time.max() - START) // WEEK_S == WEEKS - 1


def test_traits_of_the_simulated_shops():
    def buyers(name, week):
        return len(customer_columns(POPULATIONS[name].make(1), week)["Country"])

    plain = POPULATIONS["plain"].make(1)
    busy = POPULATIONS["busy"].make(1).lines
    days = np.bincount((busy.time - START) % WEEK_S // 86_400, minlength=7) / len(busy)
    assert days.max() > 0.6
    assert 3_900 < len(np.unique(plain.lines.customer)) < 4_700
    assert 150 < len(np.unique(POPULATIONS["few"].make(1).lines.customer)) < 250
    assert len(POPULATIONS["rare"].make(1).lines) < 0.6 * len(plain.lines)
    assert buyers("growing", WEEKS) > 1.3 * buyers("growing", 13)
    assert 0.85 < buyers("plain", WEEKS) / buyers("plain", 13) < 1.15


@pytest.mark.real_data
@pytest.mark.slow
def test_the_real_year(online_retail, monkeypatch):
    monkeypatch.setenv("ONLINE_RETAIL", str(online_retail))
    year = real_year()
    assert len(np.unique(year.lines.customer)) == 4_338
    assert len(year.lines) == 397_884
    assert year.lines.amount.sum() == 8_911_407_904
    assert year.shuffled(1).customers == 4_338


# -- drifts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", [SUDDEN, GROWING])
@pytest.mark.parametrize("drift", DRIFTS)
def test_nothing_changes_before_the_onset_and_something_after(stream, drift, pace):
    changed = drifted(stream, Variant(drift, "full", pace), 3)
    assert same(before_onset(changed.lines), before_onset(stream.lines))
    assert not same(after_onset(changed.lines), after_onset(stream.lines))
    assert same(changed.lines, drifted(stream, Variant(drift, "full", pace), 3).lines)
    assert np.all(np.diff(changed.lines.time) >= 0)
    assert changed.lines.is_sale.all()


def test_a_growing_dose_grows_evenly_over_eight_weeks():
    dose = Dose(0.5, 8)
    weeks = np.array([-1, 0, 2, 4, 8, 20])
    assert dose.at(ONSET + weeks * WEEK_S).tolist() == [0, 0, 0.125, 0.25, 0.5, 0.5]
    assert Dose(0.5, 0).at(np.array([ONSET - 1, ONSET])).tolist() == [0, 0.5]


def full(stream, drift, strength="full", pace=SUDDEN):
    return after_onset(drifted(stream, Variant(drift, strength, pace), 3).lines)


@pytest.mark.parametrize(("strength", "factor"), [("full", 1.2), ("half", 1.1), ("quarter", 1.05)])
def test_prices_rise(stream, strength, factor):
    lines, quiet = full(stream, "price", strength), after_onset(stream.lines)
    assert np.abs(lines.price - quiet.price * factor).max() <= 0.5
    assert np.array_equal(lines.quantity, quiet.quantity)


def test_the_top_two_percent_buy_three_times_as_much(stream):
    lines, quiet = full(stream, "whales"), after_onset(stream.lines)
    before = before_onset(stream.lines)
    pieces = np.bincount(before.customer, before.quantity, minlength=stream.customers)
    tripled = np.unique(quiet.customer[lines.quantity == 3 * quiet.quantity])
    rest = np.isin(quiet.customer, tripled, invert=True)
    assert np.array_equal(lines.quantity[rest], quiet.quantity[rest])
    assert len(tripled) <= np.count_nonzero(pieces) // 50
    assert pieces[tripled].min() >= np.quantile(pieces[pieces > 0], 0.975)


def test_a_tenth_of_the_customers_at_home_moves_abroad(stream):
    lines, quiet = full(stream, "country"), after_onset(stream.lines)
    home = stream.country("United Kingdom")
    at_home, moved = np.unique(quiet.customer[quiet.country == home]), lines.country != quiet.country
    assert set(quiet.country[moved].tolist()) == {home}
    assert 0.05 < len(np.unique(lines.customer[moved])) / len(at_home) < 0.16
    assert not np.isin(lines.customer[~moved & (quiet.country == home)], lines.customer[moved]).any()


def test_some_customers_leave_for_good(stream):
    lines, quiet = full(stream, "churn"), after_onset(stream.lines)
    stayed = np.isin(quiet.customer, lines.customer)
    assert same(lines, quiet.select(stayed))
    assert 0.24 < 1 - len(np.unique(lines.customer)) / len(np.unique(quiet.customer)) < 0.36
    kept_at_half = set(full(stream, "churn", "half").customer.tolist())
    assert set(lines.customer.tolist()) < kept_at_half


@pytest.mark.parametrize(("pace", "by_week"), [(SUDDEN, [4, 8, 12]), (GROWING, [1, 4, 8])])
def test_newcomers_come_and_everybody_else_goes_on(stream, pace, by_week):
    """A quarter of the active customers in 13 weeks; growing over eight weeks, by week 4, 8, 12 as listed."""
    changed = drifted(stream, Variant("newcomers", "full", pace), 3)
    new = changed.lines.customer >= stream.customers
    assert same(changed.lines.select(~new), stream.lines)
    first_week = np.full(changed.customers, WEEKS)
    np.minimum.at(first_week, changed.lines.customer, (changed.lines.time - START) // WEEK_S)
    arrived = np.bincount(first_week[stream.customers :], minlength=WEEKS)[ONSET_WEEK:]
    a_week = len(np.unique(stream.between(ONSET_WEEK - 13, ONSET_WEEK).customer)) / 4 / 13
    expected = np.array(by_week) * a_week
    assert np.abs(np.cumsum(arrived)[[3, 7, 11]] - expected).max() < 3 * np.sqrt(expected.max())
    assert arrived.sum() == pytest.approx(
        a_week * (WEEKS - ONSET_WEEK - (4 if pace == GROWING else 0)), abs=1
    )


@pytest.mark.parametrize("drift", ["basket", "rarer"])
def test_lines_or_orders_are_left_out(stream, drift):
    lines, quiet = full(stream, drift), after_onset(stream.lines)
    assert 0.6 < len(lines) / len(quiet) < 0.8
    left, all_orders = (pair_keys(some.customer, some.invoice) for some in (lines, quiet))
    counts, all_counts = (
        dict(zip(*np.unique(keys, return_counts=True), strict=True)) for keys in (left, all_orders)
    )
    whole = np.mean([all_counts[order] == count for order, count in counts.items()])
    if drift == "rarer":
        assert whole == 1
        assert 0.6 < len(counts) / len(all_counts) < 0.8
    else:
        assert whole < 0.5


def test_packs_keep_every_amount(stream):
    lines, quiet = full(stream, "packs"), after_onset(stream.lines)
    assert np.array_equal(lines.amount, quiet.amount)
    packed = lines.price != quiet.price
    assert np.array_equal(lines.quantity[packed] * 6, quiet.quantity[packed])
    could = quiet.quantity % 6 == 0
    share = len(np.unique(quiet.product[packed])) / len(np.unique(quiet.product[could]))
    assert 0.25 < share < 0.35


# -- what detectors read -----------------------------------------------------------------------------------


def test_customer_columns_are_those_of_the_detectors(stream):
    frame = customer_frame(stream, 30)
    lines = stream.between(17, 30)
    assert set(COMPARED_COLUMNS) <= set(frame.columns)
    assert len(frame) == len(np.unique(lines.customer))
    assert frame["Monetary"].sum() == pytest.approx(lines.amount.sum() / 1000)
    assert frame["Recency"].between(0, 90).all()
    assert set(frame["Country"]) <= set(stream.words.countries)


def test_order_columns_hold_every_order_once(stream):
    orders = order_columns(stream, 0, WEEKS)
    keys = pair_keys(stream.lines.customer, stream.lines.invoice)
    assert len(orders["week"]) == len(np.unique(keys))
    assert orders["amount"].sum() == pytest.approx(stream.lines.amount.sum() / 1000)
    assert orders["lines"].sum() == len(stream.lines)
    assert np.all(np.diff(orders["week"]) >= 0)
    late = order_columns(stream, 40, WEEKS)
    assert late["week"].min() == 41
    assert all(np.array_equal(late[name], orders[name][orders["week"] > 40]) for name in orders)


def test_the_baseline_watches_every_window(stream):
    dearer = drifted(stream, Variant("price", "full", SUDDEN), 3)
    watched = watch_baseline(stream, [("price-full-sudden", dearer)])
    assert [window.week for window in watched.judged[QUIET]] == list(WATCHED)
    assert [window.week for window in watched.judged["price-full-sudden"]] == list(AFTER_ONSET)
    assert any(window.drift for window in watched.judged["price-full-sudden"])


def test_a_peer_gets_the_streams_and_its_alarms_come_back(stream, tmp_path):
    dearer = drifted(stream, Variant("price", "full", SUDDEN), 3)
    write_task(tmp_path, stream, [("price-full-sudden", dearer)])
    task = Task(tmp_path, tmp_path / "told.json")
    reference = task.reference()
    assert len(reference["Country"]) == len(customer_frame(stream, 26))
    weeks = task.table("price-full-sudden", "weeks")
    assert sorted(set(weeks["week"].tolist())) == list(AFTER_ONSET)
    assert set(task.table(QUIET, "customers")["week"].tolist()) == set(range(13, WEEKS + 1))
    assert set(task.table("price-full-sudden", "orders")["week"].tolist()) == set(AFTER_ONSET)

    def judge(window):
        ratio = window["AvgUnitPrice"].mean() / reference["AvgUnitPrice"].mean()
        return {"dearer": ratio > 1.15, "cheaper": ratio < 0.85}

    task.judge(judge)
    task.finish()
    told = read_told(tmp_path / "told.json")
    assert told["dearer"][QUIET].windows == len(WATCHED)
    assert not told["dearer"][QUIET].alarms
    # By the thirteenth week no line of the window is older than the onset.
    assert told["dearer"]["price-full-sudden"].alarms[-1] == Alarm(AFTER_ONSET[-1])
    assert not told["cheaper"]["price-full-sudden"].alarms
