"""Drift scenarios: what they change, from when, and what they leave alone."""

import pytest

from producers import scenarios
from producers.lines import event_time, numbered
from producers.scenarios import Kind, Scenario, apply, fingerprint, parse, scaled, stride
from producers.synthetic import Shop, Synthetic
from streams.errors import ExitCode, UserError

ONSET = 1_307_318_400  # 2011-06-06
DAY_S = 86_400


@pytest.fixture(scope="module")
def lines():
    return list(Synthetic(Shop(customers=1_200, days=373, seed=5)).lines())


def split(items):
    """Numbered lines before and after the onset."""
    items = list(items)
    before = [(n, line) for n, line in items if event_time(line) < ONSET]
    after = [(n, line) for n, line in items if event_time(line) >= ONSET]
    return before, after


def injected(lines, *texts):
    return list(apply([parse(text) for text in texts], numbered(lines)))


def customers(items):
    return {line["CustomerID"] for _, line in items} - {None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price:+20%@2011-06-06", Scenario(Kind.PRICE, 200_000, ONSET)),
        ("price:-12.5%@2011-06-06~8w", Scenario(Kind.PRICE, -125_000, ONSET, 56 * DAY_S)),
        ("price:1.2x@2011-06-06", Scenario(Kind.PRICE, 200_000, ONSET)),
        ("churn:30%@2011-06-06:over 10d", Scenario(Kind.CHURN, 300_000, ONSET, 10 * DAY_S)),
        ("newcomers:25%@2011-06-06", Scenario(Kind.NEWCOMERS, 250_000, ONSET)),
        ("whales:3x@2011-06-06", Scenario(Kind.WHALES, 2_000_000, ONSET)),
        ("country:10%@2011-06-06", Scenario(Kind.COUNTRY, 100_000, ONSET)),
        ("basket:-30%@2011-06-06", Scenario(Kind.BASKET, 300_000, ONSET)),
        ("orders:-40%@2011-06-06", Scenario(Kind.ORDERS, 400_000, ONSET)),
        (
            "price:+900%@2011-06-06..2011-07-04",
            Scenario(Kind.PRICE, 9_000_000, ONSET, until=ONSET + 28 * DAY_S),
        ),
        (
            "orders:-40%@2011-06-06..2011-07-04~1w",
            Scenario(Kind.ORDERS, 400_000, ONSET, 7 * DAY_S, until=ONSET + 28 * DAY_S),
        ),
    ],
)
def test_specifications(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "price",
        "price:+20%",
        "prices:+20%@2011-06-06",
        "price:+20%@2011-13-06",
        "price:-100%@2011-06-06",
        "price:0%@2011-06-06",
        "price:+20%@2011-06-06~8y",
        "churn:130%@2011-06-06",
        "churn:-30%@2011-06-06",
        "basket:30%@2011-06-06",
        "orders:30%@2011-06-06",
        "price:+20%@2011-06-06..2011-06-06",
        "price:+20%@2011-06-06..2011-06-31",
        "country:2x@2011-06-06",
    ],
)
def test_a_wrong_specification_says_what_is_accepted(text):
    with pytest.raises(UserError) as caught:
        parse(text)
    assert caught.value.code is ExitCode.USAGE
    assert "price:+20%@2011-06-06" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "change_ppm", "expected"),
    # 2.5 and 3.5 lie between two integers: the even one; so too below zero.
    [(5, -500_000, 2), (7, -500_000, 4), (-5, -500_000, -2), (2550, 200_000, 3060), (1, 200_000, 1)],
)
def test_rounding_is_half_to_even(value, change_ppm, expected):
    assert scaled(value, change_ppm) == expected


@pytest.mark.parametrize(
    "kind",
    ["price:+20%", "churn:30%", "newcomers:25%", "whales:3x", "country:10%", "basket:-30%", "orders:-40%"],
)
def test_nothing_changes_before_the_onset_and_much_after_it(lines, kind):
    result = injected(lines, f"{kind}@2011-06-06")
    scale = stride([parse(f"{kind}@2011-06-06")])
    before, after = split(numbered(lines))
    new_before, new_after = split(result)
    assert [(n // scale, line) for n, line in new_before] == before
    assert [line for _, line in new_after] != [line for _, line in after]
    assert [n for n, _ in result] == sorted({n for n, _ in result})  # rising, none twice
    assert result == injected(lines, f"{kind}@2011-06-06")


def test_prices_rise_by_the_factor(lines):
    _, after = split(injected(lines, "price:+20%@2011-06-06"))
    by_number = dict(numbered(lines))
    for number, line in after:
        assert line["UnitPrice"] == pytest.approx(1.2 * by_number[number]["UnitPrice"], abs=0.0005 + 1e-9)
        assert round(line["UnitPrice"] * 1000) / 1000 == line["UnitPrice"]


def test_a_price_that_is_no_positive_number_is_left_alone():
    base = {"InvoiceDate": "2011-06-07T00:00:00"}
    lines = [base | {"UnitPrice": price} for price in (-11062.06, 0.0, "2,55", None, 1.23456)]
    assert [line for _, line in injected(lines, "price:+20%@2011-06-06")] == lines
    unreadable = [{"UnitPrice": 1.0, "InvoiceDate": "yesterday"}]
    assert [line for _, line in injected(unreadable, "price:+20%@2011-06-06")] == unreadable


def test_a_gradual_change_grows_linearly():
    scenario = parse("price:+20%@2011-06-06~8w")
    levels = [
        scenario.level_ppm({"InvoiceDate": date})
        for date in (
            "2011-06-05T23:59:59",
            "2011-06-06T00:00:00",
            "2011-07-04T00:00:00",
            "2011-08-01T00:00:00",
        )
    ]
    assert levels == [0, 0, 100_000, 200_000]


def test_churn_takes_customers_whole_and_leaves_unknown_ones(lines):
    _, after = split(numbered(lines))
    _, left = split(injected(lines, "churn:30%@2011-06-06"))
    gone = customers(after) - customers(left)
    assert len(gone) / len(customers(after)) == pytest.approx(0.3, abs=0.06)
    assert [item for item in after if item[1]["CustomerID"] not in gone] == left


def test_newcomers_are_new_customers_who_buy_like_the_others(lines):
    before, after = split(numbered(lines))
    _, more = split(injected(lines, "newcomers:25%@2011-06-06"))
    new = customers(more) - customers(after)
    assert len(new) / len(customers(after)) == pytest.approx(0.25, abs=0.06)
    assert not new & customers(before)
    originals = [(n // 2, line) for n, line in more if n % 2 == 0]
    assert originals == after
    invoices = {line["InvoiceNo"] for _, line in after}
    assert not invoices & {line["InvoiceNo"] for n, line in more if n % 2}


def test_whales_are_the_top_customers_by_quantity_before_the_onset(lines):
    [scenario] = scenarios.prepared([parse("whales:3x@2011-06-06")], lambda: lines)
    before, _ = split(numbered(lines))
    bought = dict.fromkeys(customers(before), 0)
    for _, line in before:
        if line["CustomerID"] and line["Quantity"] > 0:
            bought[line["CustomerID"]] += line["Quantity"]
    assert len(scenario.customers) == -(-len(bought) // 50)
    assert min(bought[who] for who in scenario.customers) >= max(
        number for who, number in bought.items() if who not in scenario.customers
    )
    for (_, old), (_, new) in zip(numbered(lines), apply([scenario], numbered(lines)), strict=True):
        grows = old["CustomerID"] in scenario.customers and event_time(old) >= ONSET and old["Quantity"] > 0
        assert new["Quantity"] == old["Quantity"] * (3 if grows else 1)


def test_a_share_of_the_customers_moves_abroad_each_to_one_country(lines):
    _, after = split(injected(lines, "country:10%@2011-06-06"))
    was = {line["CustomerID"]: line["Country"] for line in lines}
    homes = {who for who in customers(after) if was[who] == "United Kingdom"}
    seen = {who: {line["Country"] for _, line in after if line["CustomerID"] == who} for who in homes}
    assert all(len(countries) == 1 for countries in seen.values())
    moved = [who for who, countries in seen.items() if countries != {"United Kingdom"}]
    assert len(moved) / len(homes) == pytest.approx(0.1, abs=0.05)


def test_baskets_lose_lines_and_the_numbers_of_the_others_stay(lines):
    _, after = split(numbered(lines))
    _, left = split(injected(lines, "basket:-30%@2011-06-06"))
    assert len(left) / len(after) == pytest.approx(0.7, abs=0.01)
    assert {n for n, _ in left} < {n for n, _ in after}


def test_orders_come_whole_or_not_at_all(lines):
    _, after = split(numbered(lines))
    _, left = split(injected(lines, "orders:-40%@2011-06-06"))
    orders, kept = ({line["InvoiceNo"] for _, line in items} for items in (after, left))
    assert len(kept) / len(orders) == pytest.approx(0.6, abs=0.03)
    assert left == [item for item in after if item[1]["InvoiceNo"] in kept]


def test_a_change_with_an_end_is_gone_from_that_day_on(lines):
    result = injected(lines, "price:+900%@2011-06-06..2011-07-04")
    changed = [
        event_time(new) for (_, old), (_, new) in zip(numbered(lines), result, strict=True) if old != new
    ]
    assert min(changed) >= ONSET
    assert ONSET + 27 * DAY_S <= max(changed) < ONSET + 28 * DAY_S
    assert fingerprint([parse("price:+900%@2011-06-06..2011-07-04")]) != fingerprint(
        [parse("price:+900%@2011-06-06")]
    )


def test_scenarios_combine_and_choose_different_customers(lines):
    both = injected(lines, "churn:30%@2011-06-06", "churn:30%@2011-06-07")
    _, left = split(both)
    late = customers([item for item in left if event_time(item[1]) >= ONSET + DAY_S])
    _, after = split(numbered(lines))
    base = customers([item for item in after if event_time(item[1]) >= ONSET + DAY_S])
    assert len(late) / len(base) == pytest.approx(0.49, abs=0.06)
    assert stride([parse("newcomers:5%@2011-06-06")] * 2) == 4


def test_fingerprints_tell_scenarios_apart():
    texts = [
        "price:+20%@2011-06-06",
        "price:+20%@2011-06-06~8w",
        "price:+21%@2011-06-06",
        "churn:20%@2011-06-06",
    ]
    assert len({fingerprint([parse(text)]) for text in texts}) == len(texts)
    assert fingerprint([]) == ""
    assert fingerprint([parse("price:1.2x@2011-06-06")]) == fingerprint([parse(texts[0])])
