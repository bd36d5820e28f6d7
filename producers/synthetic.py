"""A synthetic shop's transactions, from a seed, with the truth about its customers' future beside them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from models.features import DAY_S
from producers.lines import Line
from producers.synthetic_catalogue import Floats, Ints, ProductRange
from producers.synthetic_customers import COUNTRIES, Behaviour, Customers, expected_purchases, order_values
from streams.errors import ExitCode, UserError

CHUNK_LINES = 20_000
FIRST_CUSTOMER, FIRST_INVOICE = 12_346, 536_365
PRODUCTS = 3_000
LINES_MEAN = 20.0
UNKNOWN_SHARE = 0.15  # of the orders
RETURN_SHARE = 0.02  # of the lines, each in full, some days later
RETURN_DAYS_MAX = 7
# New customers come evenly and none stays longer than this; they have come for so long when the data begin.
# So the shop is stationary from its first day: what changes later is a `Change`.
TENURE_MAX_DAYS = 1_095
OPENS_MINUTE, CLOSES_MINUTE = 8 * 60, 20 * 60
FRIDAY, SATURDAY = 4, 5

_LIMITS = {"customers": (1, 5_000_000), "days": (1, 36_500), "seed": (0, 2**63)}


@dataclass(frozen=True)
class Change:
    """A true change of all customers from `day` on (days since the start): factors of their parameters."""

    day: int
    rate: float = 1.0  # of purchases
    value: float = 1.0  # of an order


@dataclass(frozen=True)
class Shop:
    """What to simulate. `customers` come evenly from `TENURE_MAX_DAYS` before `start` to the end."""

    customers: int = 4_000
    days: int = 373
    seed: int = 1
    start: date = date(2010, 12, 1)
    changes: tuple[Change, ...] = ()
    behaviour: Behaviour = field(default_factory=Behaviour)


def parse_shop(text: str) -> Shop:
    """Return the shop that a text such as `customers=4000,days=373,seed=1,start=2010-12-01` describes.

    Raises UserError (USAGE) saying what is accepted.
    """
    shop = Shop()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, value = part.partition("=")
        low, high = _LIMITS.get(name, (0, -1))
        if name == "start" and _is_date(value):
            shop = replace(shop, start=date.fromisoformat(value))
        elif name in _LIMITS and value.isdecimal() and low <= int(value) <= high:
            shop = replace(shop, **{name: int(value)})  # type: ignore[arg-type]
        else:
            limits = "; ".join(f"{key} from {least} to {most}" for key, (least, most) in _LIMITS.items())
            raise UserError(
                f"refused synthetic shop {text!r}: {part!r}",
                hint=f"accepted: customers=4000,days=373,seed=1,start=2010-12-01, each optional; {limits}",
                code=ExitCode.USAGE,
            )
    return shop


def _is_date(text: str) -> bool:
    try:
        return 1970 <= date.fromisoformat(text).year <= 2099
    except ValueError:
        return False


class _Orders(NamedTuple):
    """Orders as parallel arrays; the customer is -1 where the order does not tell."""

    customer: Ints
    days: Floats  # since the start
    value: Floats


class _Lines(NamedTuple):
    """Lines as parallel arrays, in the order of time."""

    time: Ints  # epoch seconds
    invoice: Ints
    product: Ints
    quantity: Ints  # negative for a return
    customer: Ints


class Synthetic:
    """One simulated year of a shop; everything is a function of the `Shop`."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.start = int(datetime(shop.start.year, shop.start.month, shop.start.day, tzinfo=UTC).timestamp())
        days = [change.day for change in shop.changes]
        if days != sorted(days) or any(day < 0 for day in days):
            raise ValueError("changes must be in the order of their days, none before the start")

    @property
    def change_points(self) -> list[int]:
        """Event times of the true changes, epoch seconds."""
        return [self.start + change.day * DAY_S for change in self.shop.changes]

    @cached_property
    def range(self) -> ProductRange:
        """What the shop sells."""
        return ProductRange.draw(self._rng(0), PRODUCTS)

    @cached_property
    def customers(self) -> Customers:
        """The customers' true parameters; their ids are `customer_id(0)`, `customer_id(1)`, ..."""
        return Customers.draw(self._rng(1), self.shop.customers, self.shop.behaviour)

    @cached_property
    def births(self) -> Floats:
        """Time of each customer's first purchase, days since the start (negative before it)."""
        return self._rng(2).uniform(-TENURE_MAX_DAYS, self.shop.days, self.shop.customers)

    def lines(self) -> Iterator[Line]:
        """Yield the lines in the order of time, in the form of `source.read_lines`."""
        lines = self._lines()
        goods, names = self.range, list(COUNTRIES)
        prices = goods.prices.tolist()
        countries = [names[index] for index in self.customers.country]
        for first in range(0, len(lines.time), CHUNK_LINES):
            chunk = _Lines(*(column[first : first + CHUNK_LINES] for column in lines))
            times = np.datetime_as_string(chunk.time.astype("datetime64[s]")).tolist()
            rows = zip(times, *(column.tolist() for column in chunk[1:]), strict=True)
            for time, invoice, product, quantity, customer in rows:
                yield {
                    "InvoiceNo": str(invoice) if quantity > 0 else f"C{invoice}",
                    "StockCode": goods.codes[product],
                    "Description": goods.descriptions[product],
                    "Quantity": quantity,
                    "InvoiceDate": time,
                    "UnitPrice": prices[product],
                    "CustomerID": customer_id(customer) if customer >= 0 else None,
                    "Country": countries[customer] if customer >= 0 else names[0],
                }

    def true_future_spend(self, time: int, horizon_days: float) -> dict[str, float]:
        """Return each customer's expected net spend in `[time, time + horizon)`, decimal units.

        The expectation given the true parameters and who has left by then, for all who came before `time`
        (epoch seconds). Exact for weeks from a Monday, as no order leaves its week, but for returns whose
        order lies on the other side of an edge (at most `RETURN_SHARE` of the spend of a week).
        """
        now = (time - self.start) / DAY_S
        people, behaviour = self.customers, self.shop.behaviour
        orders = self._repeats
        made = np.bincount(orders.customer[orders.days < now], minlength=self.shop.customers)
        active = (self.births < now) & (made < people.repeats_max)
        end = now + horizon_days
        # Between two changes an order's value is constant; purchases are those by its end less by its begin.
        edges = [now, *(change.day for change in self.shop.changes if now < change.day < end), end]
        begin = self._business_days(np.array([now]))
        spend = np.zeros(self.shop.customers)
        for low, high in pairwise(edges):
            factor = self._value_factor(np.array([low]))
            for edge, sign in ((low, -1), (high, 1)):
                until = self._business_days(np.clip(self.births + TENURE_MAX_DAYS, now, edge)) - begin
                spend += sign * factor * expected_purchases(people.rate, people.leave, until)
        spend *= people.mean_order(behaviour) * (1 - RETURN_SHARE) * active
        known = np.flatnonzero(self.births < now)
        return {customer_id(index): float(spend[index]) for index in known.tolist()}

    # -- the simulation ------------------------------------------------------------------------------------

    def _rng(self, purpose: int) -> np.random.Generator:
        # A generator a purpose: what one draws does not shift what the next one gets.
        return np.random.default_rng([self.shop.seed, purpose])

    def _business_days(self, days: Floats) -> Floats:
        """Return time as the customers' rates feel it: it runs faster by the factor of each change passed."""
        felt, factor = days, 1.0
        for change in self.shop.changes:
            felt = felt + np.maximum(days - change.day, 0.0) * factor * (change.rate - 1)
            factor *= change.rate
        return felt

    def _calendar_days(self, felt: Floats) -> Floats:
        """Invert `_business_days`."""
        edges = np.array(
            [-float(TENURE_MAX_DAYS), *(c.day for c in self.shop.changes), float(self.shop.days)]
        )
        days: Floats = np.interp(felt, self._business_days(edges), edges)
        return days

    def _value_factor(self, days: Floats) -> Floats:
        """Return the factor of order values in force at each time."""
        factor = np.ones(len(days))
        for change in self.shop.changes:
            factor[days >= change.day] *= change.value
        return factor

    @cached_property
    def _repeats(self) -> _Orders:
        """Repeat purchases of every customer from birth to the end, by customer and time."""
        rng, people = self._rng(3), self.customers
        born = self._business_days(self.births)
        left = self._business_days(np.minimum(self.births + TENURE_MAX_DAYS, self.shop.days)) - born
        count = rng.poisson(people.rate * left)
        customer = np.repeat(np.arange(len(count)), count)
        felt = born[customer] + rng.random(len(customer)) * left[customer]
        by_time = np.lexsort((felt, customer))
        customer, felt = customer[by_time], felt[by_time]
        rank = np.arange(len(customer)) - (np.cumsum(count) - count)[customer]
        stayed = rank < people.repeats_max[customer]
        customer, days = customer[stayed], self._calendar_days(felt[stayed])
        return _Orders(customer, days, order_values(rng, people.value_rate[customer], self.shop.behaviour))

    def _orders(self) -> _Orders:
        """Return every order of the period: first purchases, repeats, and those of unknown customers."""
        rng, repeats, behaviour = self._rng(4), self._repeats, self.shop.behaviour
        first_values = order_values(rng, self.customers.value_rate, behaviour)
        customer = np.concatenate([np.arange(self.shop.customers), repeats.customer])
        days = np.concatenate([self.births, repeats.days])
        value = np.concatenate([first_values, repeats.value])
        inside = days >= 0
        unknown = rng.poisson(inside.sum() * UNKNOWN_SHARE / (1 - UNKNOWN_SHARE))
        strangers = Customers.draw(rng, unknown, behaviour)
        customer = np.concatenate([customer[inside], np.full(unknown, -1)])
        days = np.concatenate([days[inside], rng.uniform(0, self.shop.days, unknown)])
        value = np.concatenate([value[inside], order_values(rng, strangers.value_rate, behaviour)])
        return _Orders(customer, days, value * self._value_factor(days))

    def _minutes(self, rng: np.random.Generator, days: Floats) -> Ints:
        """Return opening hours for points in time, minutes since the start; Saturday's go to a neighbour."""
        day = np.floor(days).astype(np.int64)
        day = np.minimum(day, self.shop.days - 1)
        saturday = (day + self.shop.start.weekday()) % 7 == SATURDAY
        move = rng.choice([-1, 1], len(day))
        move[day + move < 0] = 1
        move[day + move >= self.shop.days] = -1
        move[day + move < 0] = 0  # a shop of one day has no neighbour
        day += np.where(saturday, move, 0)
        opened = CLOSES_MINUTE - OPENS_MINUTE
        minute = OPENS_MINUTE + np.floor(rng.beta(2.2, 2.2, len(day)) * opened).astype(np.int64)
        return day * 24 * 60 + minute

    def _lines(self) -> _Lines:
        rng, orders = self._rng(5), self._orders()
        minutes = self._minutes(rng, orders.days)
        sold = self.range.baskets(rng, orders.value, lines_mean=LINES_MEAN)
        back = np.flatnonzero(rng.random(len(sold.order)) < RETURN_SHARE)
        # Lines of one order that come back after the same time are one cancellation.
        waits = rng.integers(1, RETURN_DAYS_MAX + 1, len(orders.days))[sold.order[back]]
        waits += (minutes[sold.order[back]] // 1440 + waits + self.shop.start.weekday()) % 7 == SATURDAY
        back_minutes = minutes[sold.order[back]] + waits * 1440
        in_time = back_minutes < self.shop.days * 1440
        back, back_minutes = back[in_time], back_minutes[in_time]

        order = np.concatenate([sold.order, sold.order[back]])
        minute = np.concatenate([minutes[sold.order], back_minutes])
        returned = np.concatenate([np.zeros(len(sold.order), bool), np.ones(len(back), bool)])
        product = np.concatenate([sold.product, sold.product[back]])
        quantity = np.concatenate([sold.quantity, -sold.quantity[back]])
        by_time = np.lexsort((returned, order, minute))
        order, minute, returned = order[by_time], minute[by_time], returned[by_time]
        new_invoice = np.ones(len(order), bool)
        new_invoice[1:] = (order[1:] != order[:-1]) | (returned[1:] != returned[:-1])
        return _Lines(
            time=self.start + minute * 60,
            invoice=FIRST_INVOICE + np.cumsum(new_invoice) - 1,
            product=product[by_time],
            quantity=quantity[by_time],
            customer=orders.customer[order],
        )


def customer_id(index: int) -> str:
    """Return the id of a synthetic customer."""
    return str(FIRST_CUSTOMER + index)
