"""Features by hand, and what must hold of them whatever the lines are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import (
    DAY_S,
    SCALED_FEATURES,
    SortWords,
    latest_country,
    purchases,
    rfm_columns,
    scaled_columns,
    spend_since,
)
from models.lines import Lines
from models.targets import future_spend, original_target

END = 100 * DAY_S
WORDS = SortWords(["a", "b", "c", "d"], ["p", "q", "r"], ["Austria", "Belgium", "Cyprus"])


def lines(*rows):
    """Lines of (time, customer, invoice, product, country, quantity, price in thousandths)."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    kinds = (np.int64, np.int32, np.int32, np.int32, np.int32, np.int64, np.int64)
    return Lines(*(np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)))


BASKETS = lines(
    (END - 1, 4, 0, 0, 0, 3, 1_500),
    (END - DAY_S, 4, 0, 1, 0, 1, 999),
    (END - 30 * DAY_S - 1, 4, 1, 0, 0, 2, 2_000),
    (END - 5 * DAY_S, 7, 1, 2, 1, 10, 10),
)


def test_a_basket_by_hand():
    bought = purchases(BASKETS)
    assert bought.customer.tolist() == [4, 7]
    found = {name: column.tolist() for name, column in rfm_columns(bought, END).items()}
    assert found == {
        "Recency": [0, 5],
        "Frequency": [3, 1],
        "Monetary": [9.499, 0.1],
        "AvgQuantity": [2.0, 10.0],
        "TotalQuantity": [6, 10],
        "AvgUnitPrice": [pytest.approx(4.499 / 3), 0.01],
        "NumOrders": [2, 1],
        "NumProducts": [2, 1],
    }
    assert bought.max_order.tolist() == [5_499, 100]
    # Two customers may share the text of an invoice: it is an order of each.
    assert bought.orders.sum() == 3


def test_recency_counts_whole_days():
    for seconds, days in ((1, 0), (DAY_S - 1, 0), (DAY_S, 1), (2 * DAY_S - 1, 1)):
        bought = purchases(lines((END - seconds, 0, 0, 0, 0, 1, 1)))
        assert rfm_columns(bought, END)["Recency"].tolist() == [days]


def test_the_shorter_window_keeps_the_rows_of_the_longer():
    recent = BASKETS.select(BASKETS.time >= END - 2 * DAY_S)
    found = scaled_columns(purchases(recent), np.array([4, 7], np.int32), END, 2)
    assert sorted(found) == sorted(f"{name}_2d" for name in SCALED_FEATURES)
    assert found["Monetary_2d"].tolist() == [5.499, 0.0]
    assert found["AvgUnitPrice_2d"].tolist() == [pytest.approx(2.499 / 2), 0.0]
    assert spend_since(BASKETS, np.array([4, 7], np.int32), END - DAY_S).tolist() == [5_499, 0]


@pytest.mark.parametrize(
    ("rows", "country"),
    [
        pytest.param([(9, 0, 0, 2, 1, 1, 1), (8, 0, 3, 2, 2, 1, 1)], 1, id="the latest line"),
        pytest.param([(9, 0, 1, 0, 0, 1, 1), (9, 0, 0, 2, 2, 1, 1)], 0, id="at one time the larger invoice"),
        pytest.param(
            [(9, 0, 1, 0, 2, 1, 1), (9, 0, 1, 1, 1, 1, 1)], 1, id="in one invoice the larger product"
        ),
        pytest.param([(9, 0, 1, 1, 2, 1, 1), (9, 0, 1, 1, 0, 1, 1)], 2, id="then the larger country"),
    ],
)
def test_country(rows, country):
    for order in (rows, rows[::-1]):
        assert latest_country(lines(*order), np.array([0], np.int32), WORDS).tolist() == [country]


def test_no_lines_are_no_customers():
    bought = purchases(Lines.empty())
    assert len(bought) == 0
    assert all(len(column) == 0 for column in rfm_columns(bought, END).values())
    assert latest_country(Lines.empty(), bought.customer, WORDS).tolist() == []


ROWS = st.lists(
    st.tuples(
        st.integers(END - 91 * DAY_S, END - 1),
        st.integers(0, 4),
        st.integers(0, 3),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(1, 10**6),
        st.integers(1, 10**7),
    ),
    min_size=1,
    max_size=40,
)


@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_the_order_of_lines_says_nothing(rows, random):
    shuffled = rows.copy()
    random.shuffle(shuffled)
    first, second = purchases(lines(*rows)), purchases(lines(*shuffled))
    for name, column in rfm_columns(first, END).items():
        np.testing.assert_array_equal(column, rfm_columns(second, END)[name], err_msg=name)
    np.testing.assert_array_equal(first.max_order, second.max_order)
    np.testing.assert_array_equal(
        latest_country(lines(*rows), first.customer, WORDS),
        latest_country(lines(*shuffled), first.customer, WORDS),
    )


@given(ROWS)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_must_hold(rows):
    bought = purchases(lines(*rows))
    found = rfm_columns(bought, END)
    assert found["Frequency"].sum() == len(rows)
    assert bought.amount.sum() == sum(row[5] * row[6] for row in rows)
    assert (found["NumOrders"] <= found["Frequency"]).all()
    assert (found["NumProducts"] <= found["Frequency"]).all()
    assert (bought.max_order <= bought.amount).all()
    assert (bought.max_order * bought.orders >= bought.amount).all()
    assert (found["Recency"] >= 0).all()
    assert (found["Recency"] <= 91).all()  # 91 only at the very start of the window


@given(ROWS, st.integers(0, 50), st.integers(1, 50))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_labels_are_what_came_in_the_interval(rows, after_days, length_days):
    start = END - 91 * DAY_S + after_days * DAY_S
    stop = start + length_days * DAY_S
    found = lines(*rows)
    customers = np.array([3, 0, 9], np.int32)
    expected = [
        sum(row[5] * row[6] for row in rows if row[1] == who and start <= row[0] < stop) / 1000
        for who in (3, 0, 9)
    ]
    spent = future_spend(customers, found.customer, found.time, found.amount, start=start, end=stop)
    assert spent.tolist() == expected


def test_labels_are_net_of_returns_and_may_be_negative():
    codes, times = np.array([0, 0, 1], np.int32), np.array([1, 2, 2])
    amounts = np.array([5_000, -7_000, -1])
    spent = future_spend(np.array([0, 1], np.int32), codes, times, amounts, start=1, end=3)
    assert spent.tolist() == [-2.0, -0.001]


def test_labels_of_nobody():
    nobody, nothing = np.empty(0, np.int32), np.empty(0, np.int64)
    assert future_spend(nobody, nobody, nothing, nothing, start=0, end=1).tolist() == []


def test_the_original_formula():
    found = original_target(np.array([100.0]), np.array([4.0]), np.array([1.0]))
    assert found.tolist() == [100 * (4 / 2) * 365]
