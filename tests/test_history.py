"""Labels of past windows: known from their time on, for customers whose lines are all there."""

import numpy as np
import pytest
from line_factory import DAY_S, MONDAY, WEEK_S, line, settings, shop, windows_of

from models.holdout import customer_hash
from streams.closing import SAMPLE_KEY
from streams.history import History


def history_of(snapshots):
    history = History()
    for snapshot in snapshots:
        history.add(snapshot)
    return history


@pytest.fixture(scope="module")
def lines():
    return shop(7, days=50, customers=60, orders_a_day=8)


@pytest.fixture(scope="module")
def snapshots(lines):
    return windows_of(lines, settings())


def net_spend(lines, start, end):
    """Thousandths by customer, from the lines as they were produced."""
    sums = {}
    for item in lines:
        time = np.datetime64(item["InvoiceDate"]).astype("int64")
        if item["CustomerID"] and start <= time < end:
            amount = item["Quantity"] * round(item["UnitPrice"] * 1000)
            sums[item["CustomerID"]] = sums.get(item["CustomerID"], 0) + amount
    return sums


@pytest.mark.parametrize("horizon_days", [7, 10, 14, 15])
def test_a_label_matures_at_the_first_window_end_that_covers_it(snapshots, lines, horizon_days):
    horizon_s = horizon_days * DAY_S
    ends = [snapshot.window_end for snapshot in snapshots]
    for count in range(1, len(snapshots) + 1):
        history, at = history_of(snapshots[:count]), ends[count - 1]
        known = max([end for end, s in zip(ends[:count], snapshots, strict=False) if not s.partial])
        assert history.matured(horizon_s=horizon_s, at=at) == [
            e for e in ends[:count] if e + horizon_s <= known
        ]
    for end in history.matured(horizon_s=horizon_s, at=at):
        labelled = history.labelled(end, horizon_s=horizon_s, at=at)
        sums = net_spend(lines, end, end + horizon_s)
        assert labelled["label"].tolist() == [sums.get(who, 0) / 1000 for who in labelled["CustomerID"]]


def test_a_partial_window_is_not_known_and_has_no_label(snapshots):
    history = history_of(snapshots)
    last = snapshots[-1]
    assert last.partial
    assert history.known_until(last.window_end) == snapshots[-2].window_end
    assert last.window_end not in history.matured(horizon_s=0, at=last.window_end)


def test_what_is_asked_at_an_earlier_time_is_answered_as_then(snapshots):
    whole, horizon_s = history_of(snapshots), 14 * DAY_S
    for count in range(3, len(snapshots)):
        then = history_of(snapshots[:count])
        at = snapshots[count - 1].window_end
        matured = then.matured(horizon_s=horizon_s, at=at)
        assert whole.matured(horizon_s=horizon_s, at=at) == matured
        for end in matured:
            first = then.labelled(end, horizon_s=horizon_s, at=at)
            assert whole.labelled(end, horizon_s=horizon_s, at=at).equals(first)


def test_a_return_that_comes_late_changes_the_label_from_then_on():
    first = [
        line(MONDAY + d * DAY_S, CustomerID="1", UnitPrice=10.0) for d in (1, 3, 8, 10, 15, 17, 22, 24, 29)
    ]
    late = line(MONDAY + 9 * DAY_S, CustomerID="1", Quantity=-1, UnitPrice=4.0, InvoiceNo="C1")
    snapshots = windows_of([*first[:7], late, *first[7:]], settings())
    history, end = history_of(snapshots), MONDAY + WEEK_S
    horizon = {"horizon_s": WEEK_S}
    assert history.labelled(end, **horizon, at=MONDAY + 2 * WEEK_S)["label"].tolist() == [20.0]
    assert history.labelled(end, **horizon, at=MONDAY + 4 * WEEK_S)["label"].tolist() == [16.0]


def test_only_customers_who_stayed_in_the_sample_have_a_label():
    # Ever more customers: the sample of 20 takes an ever smaller share of the hashes.
    lines = [
        line(MONDAY + day * DAY_S + 60 * who, CustomerID=str(who), InvoiceNo=f"{day}-{who}")
        for day in range(1, 43)
        for who in range(min(12 * day, 400))
    ]
    snapshots = windows_of(lines, settings(sample_customers_max=20))
    history, at = history_of(snapshots), snapshots[-1].window_end
    lost = 0
    for end in history.matured(horizon_s=14 * DAY_S, at=at):
        stayed, spend = history.label(end, horizon_s=14 * DAY_S, at=at)
        rows = history.windows[end].rows
        bounds = [s.sample_bound for s in snapshots if s.window_end > end and s.sample_bound is not None]
        hashes = customer_hash(rows["CustomerID"].tolist(), SAMPLE_KEY)
        assert stayed.tolist() == (hashes <= np.uint64(min(bounds))).tolist()
        sums = net_spend(lines, end, end + 14 * DAY_S)
        expected = [sums.get(who, 0) / 1000 for who in rows["CustomerID"]]
        assert spend[stayed].tolist() == [e for e, s in zip(expected, stayed, strict=True) if s]
        lost += int((~stayed).sum())
    assert lost > 0


def test_windows_come_in_the_order_of_time(snapshots):
    history = history_of(snapshots[:3])
    for again in (snapshots[2], snapshots[0]):
        with pytest.raises(ValueError, match="does not follow"):
            history.add(again)
    assert history.latest.window_end == snapshots[2].window_end


def test_forgetting_keeps_what_is_named(snapshots):
    history = history_of(snapshots)
    ends = [snapshot.window_end for snapshot in snapshots]
    history.forget(ends[4], keep={ends[1]})
    assert sorted(history.windows) == [ends[1], *ends[4:]]
