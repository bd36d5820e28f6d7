"""The synthetic shop: reproducible, shaped like a shop, and its truth is true."""

from collections import Counter
from datetime import UTC, date, datetime
from itertools import islice

import numpy as np
import pytest

from producers.lines import event_time
from producers.synthetic import Change, Shop, Synthetic, parse_shop
from producers.synthetic_live import live_lines
from streams.decode import Decoder
from streams.errors import ExitCode, UserError
from streams.transactions import FIELDS, encode_line
from streams.vocabulary import Vocabulary

DAY_S = 86_400
MONDAY = date(2010, 11, 29)


@pytest.fixture(scope="module")
def lines():
    return list(Synthetic(Shop(customers=2_000, days=200, seed=3)).lines())


def net(lines, since, until):
    """Net spend by known customer in [since, until)."""
    spend = Counter()
    for line in lines:
        if line["CustomerID"] and since <= event_time(line) < until:
            spend[line["CustomerID"]] += line["Quantity"] * line["UnitPrice"]
    return spend


def test_the_same_seed_gives_the_same_lines_and_another_seed_others(lines):
    assert list(Synthetic(Shop(customers=2_000, days=200, seed=3)).lines()) == lines
    assert list(Synthetic(Shop(customers=2_000, days=200, seed=4)).lines()) != lines


def test_the_worker_accepts_every_line(lines):
    decoded = Decoder(Vocabulary()).decode([encode_line(line) for line in lines], [()] * len(lines))
    assert decoded.dead == []
    assert len(decoded.lines) == len(lines)


def test_lines_are_those_of_a_shop(lines):
    times = [event_time(line) for line in lines]
    assert times == sorted(times)
    assert all(tuple(line) == FIELDS for line in lines)
    moments = [datetime.fromtimestamp(time, UTC) for time in times]
    assert {moment.weekday() for moment in moments} == {0, 1, 2, 3, 4, 6}  # closed on Saturdays
    assert all(8 <= moment.hour < 20 for moment in moments)
    assert moments[0].date() == date(2010, 12, 1)
    assert moments[-1].date() <= date(2011, 6, 18)
    assert all(round(line["UnitPrice"], 2) == line["UnitPrice"] > 0 for line in lines)


def test_returns_are_cancellations_of_something_bought_before(lines):
    bought = Counter()
    returns = 0
    for line in lines:
        what = (line["CustomerID"], line["StockCode"])
        assert (line["Quantity"] < 0) == line["InvoiceNo"].startswith("C")
        if line["Quantity"] < 0:
            returns += 1
            assert bought[what] >= -line["Quantity"]
        else:
            bought[what] += line["Quantity"]
    assert returns / len(lines) == pytest.approx(0.02, abs=0.005)


def test_an_invoice_has_one_customer_and_one_time(lines):
    seen = {}
    for line in lines:
        of = (line["CustomerID"], line["InvoiceDate"], line["Country"])
        assert seen.setdefault(line["InvoiceNo"], of) == of
    unknown = [customer is None for customer, _, _ in seen.values()]
    assert np.mean(unknown) == pytest.approx(0.15, abs=0.03)
    at_home = [country == "United Kingdom" for _, _, country in seen.values()]
    assert 0.8 < np.mean(at_home) < 0.97


def test_without_changes_the_shop_is_stationary():
    halves = []
    for seed in range(8):
        world = Synthetic(Shop(customers=3_000, days=364, seed=seed, start=MONDAY))
        days = np.array([(event_time(line) - world.start) // DAY_S for line in world.lines()])
        halves.append((np.sum(days < 182), np.sum(days >= 182)))
    first, second = np.sum(halves, axis=0)
    assert second / first == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize(
    "changes", [(), (Change(203, rate=0.5), Change(238, value=2.0))], ids=["no change", "two changes"]
)
def test_the_true_future_spend_is_what_is_spent_on_average(changes):
    truth, spent, of_the_best = 0.0, 0.0, []
    for seed in range(15):
        world = Synthetic(Shop(customers=2_000, days=300, seed=seed, start=MONDAY, changes=changes))
        now = world.start + 182 * DAY_S
        expected = world.true_future_spend(now, 91)
        actual = net(world.lines(), now, now + 91 * DAY_S)
        truth += sum(expected.values())
        spent += sum(actual[who] for who in expected)
        best = sorted(expected, key=expected.get)[-200:]
        of_the_best.append(sum(actual[who] for who in best) / sum(expected[who] for who in best))
    # The standard error of each, over the seeds, is some 2%.
    assert spent / truth == pytest.approx(1.0, abs=0.06)
    assert np.mean(of_the_best) == pytest.approx(1.0, abs=0.09)


def test_change_points_are_the_changes():
    world = Synthetic(Shop(start=MONDAY, changes=(Change(70, rate=0.5),)))
    assert world.change_points == [int(datetime(2011, 2, 7, tzinfo=UTC).timestamp())]
    assert Synthetic(Shop()).change_points == []


def test_a_change_shows_from_its_day_on():
    base = Synthetic(Shop(customers=2_000, days=140, seed=1, start=MONDAY))
    changed = Synthetic(
        Shop(customers=2_000, days=140, seed=1, start=MONDAY, changes=(Change(70, value=2.0),))
    )
    edge = base.start + 70 * DAY_S
    after = edge + 70 * DAY_S
    ratio = sum(net(changed.lines(), edge, after).values()) / sum(net(base.lines(), edge, after).values())
    assert ratio == pytest.approx(2.0, abs=0.1)
    old = net(base.lines(), base.start, edge)
    assert sum(net(changed.lines(), base.start, edge).values()) == pytest.approx(sum(old.values()), rel=0.02)


def test_changes_out_of_order_are_refused():
    with pytest.raises(ValueError, match="order"):
        Synthetic(Shop(changes=(Change(70), Change(30))))


@pytest.mark.parametrize("days", [1, 2, 8])
def test_short_shops_stay_inside_their_days(days):
    for start in (date(2010, 12, 3), date(2010, 12, 4), date(2010, 12, 5)):  # Friday to Sunday
        world = Synthetic(Shop(customers=3_000, days=days, start=start))
        for line in world.lines():
            assert 0 <= event_time(line) - world.start < days * DAY_S


def test_parsing_a_shop():
    assert parse_shop("customers=10,days=20,seed=3,start=2020-02-29") == Shop(10, 20, 3, date(2020, 2, 29))
    assert parse_shop("") == Shop()


@pytest.mark.parametrize(
    "text", ["customers=0", "days=x", "colour=red", "start=2020-02-30", "seed=-1", "customers"]
)
def test_a_wrong_shop_is_refused(text):
    with pytest.raises(UserError, match=text) as caught:
        parse_shop(text)
    assert caught.value.code is ExitCode.USAGE
    assert "customers=4000" in caught.value.hint


# -- the endless feed ---------------------------------------------------------------------------------------


def test_the_live_feed_follows_the_clock():
    clock = iter(range(1_800_000_000, 1_900_000_000))
    lines = list(islice(live_lines(7, now=lambda: next(clock)), 5_000))
    times = [event_time(line) for line in lines]
    assert times == sorted(times)
    assert times[0] >= 1_800_000_000
    # One reading of the clock an order: all lines of an invoice share it, each invoice has its own.
    assert len(set(times)) == len({line["InvoiceNo"] for line in lines})
    decoded = Decoder(Vocabulary()).decode([encode_line(line) for line in lines], [()] * len(lines))
    assert decoded.dead == []


def test_the_live_feed_is_reproducible_and_its_customers_come_and_go():
    first, again = (
        [line["CustomerID"] for line in islice(live_lines(7, now=lambda: 1.8e9), 30_000)] for _ in range(2)
    )
    assert first == again
    assert set(first[20_000:]) - set(first[:10_000])
    assert any(line["Quantity"] < 0 for line in islice(live_lines(7, now=lambda: 1.8e9), 5_000))
