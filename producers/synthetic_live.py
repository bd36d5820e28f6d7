"""An endless synthetic feed whose event time is the clock's: a shop that is open now."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import numpy as np

from producers.lines import Line, time_text
from producers.synthetic import LINES_MEAN, PRODUCTS, RETURN_SHARE, UNKNOWN_SHARE, customer_id
from producers.synthetic_catalogue import Ints, ProductRange
from producers.synthetic_customers import COUNTRIES, Behaviour, Customers, order_values

BLOCK_ORDERS = 64


class _Order(NamedTuple):
    customer: str | None
    country: str
    lines: list[tuple[int, int]]  # product, quantity


def live_lines(seed: int, *, now: Callable[[], float], customers: int = 2_000) -> Iterator[Line]:
    """Yield lines for ever, as fast as they are asked for; an order's lines carry `now()` at its first.

    `now` gives epoch seconds. The customers are the same in each run with a seed; those who leave are
    replaced by new ones, so that a shop without drift stays one. The invoices are new in each run.
    """
    goods = ProductRange.draw(np.random.default_rng([seed, 0]), PRODUCTS)
    orders = _orders(seed, customers, goods)
    run = int(now())
    for number in count(1):
        order = next(orders)
        stamp = time_text(now())
        for product, quantity in order.lines:
            yield {
                "InvoiceNo": f"{'C' if quantity < 0 else ''}{run}-{number}",
                "StockCode": goods.codes[product],
                "Description": goods.descriptions[product],
                "Quantity": quantity,
                "InvoiceDate": stamp,
                "UnitPrice": float(goods.prices[product]),
                "CustomerID": order.customer,
                "Country": order.country,
            }


def _orders(seed: int, customers: int, goods: ProductRange) -> Iterator[_Order]:
    """Yield orders for ever, of customers by their rates; what comes back follows some orders later."""
    rng, behaviour = np.random.default_rng([seed, 1]), Behaviour()
    names = list(COUNTRIES)
    people = Customers.draw(rng, customers, behaviour)
    ids = np.arange(customers)
    while True:
        chosen = rng.choice(customers, BLOCK_ORDERS, p=people.rate / people.rate.sum())
        values = order_values(rng, people.value_rate[chosen], behaviour)
        basket = goods.baskets(rng, values, lines_mean=LINES_MEAN)
        unknown = rng.random(BLOCK_ORDERS) < UNKNOWN_SHARE
        back = rng.random(len(basket.order)) < RETURN_SHARE
        returns = []
        for place, slot in enumerate(chosen.tolist()):
            mine = basket.order == place
            customer = None if unknown[place] else customer_id(int(ids[slot]))
            country = names[people.country[slot]]
            pairs = list(zip(basket.product[mine].tolist(), basket.quantity[mine].tolist(), strict=True))
            yield _Order(customer, country, pairs)
            brought = [
                (product, -number) for (product, number), r in zip(pairs, back[mine], strict=True) if r
            ]
            if brought:
                returns.append(_Order(customer, country, brought))
        yield from returns
        gone = np.unique(chosen[rng.random(BLOCK_ORDERS) < people.leave[chosen]])
        ids[gone] = ids.max() + 1 + np.arange(len(gone))
        _replace(people, gone, Customers.draw(rng, len(gone), behaviour))


def _replace(people: Customers, slots: Ints, fresh: Customers) -> None:
    """Put fresh customers into the slots of those who left."""
    people.rate[slots] = fresh.rate
    people.leave[slots] = fresh.leave
    people.repeats_max[slots] = fresh.repeats_max
    people.value_rate[slots] = fresh.value_rate
    people.country[slots] = fresh.country
