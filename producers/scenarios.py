"""Drift scenarios: what happens to customers, prices and baskets from a date on, applied to lines."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b

from models.features import DAY_S
from producers.lines import Line, NumberedLine, event_time
from streams.errors import ExitCode, UserError

MILLION = 1_000_000
WHALE_SHARE_PPM = 20_000  # the top 2% of customers
HOME_COUNTRY = "United Kingdom"
OTHER_COUNTRIES = ("Germany", "France", "EIRE", "Spain", "Netherlands", "Belgium")

ACCEPTED = (
    "price:+20%@2011-06-06, churn:30%@DATE, newcomers:25%@DATE, whales:3x@DATE, country:10%@DATE,"
    " basket:-30%@DATE, orders:-30%@DATE; growing over 8 weeks with ~8w (or ~56d) after the date;"
    " over after a date (that day the old course again): price:+900%@2011-06-06..2011-07-04"
)

_SPEC = re.compile(
    r"(?P<kind>[a-z]+):(?P<amount>[+-]?\d{1,4}(?:\.\d{1,4})?)(?P<unit>%|x)"
    r"@(?P<date>\d{4}-\d{2}-\d{2})(?:\.\.(?P<until>\d{4}-\d{2}-\d{2}))?"
    r"(?:(?:~|:over )(?P<length>\d{1,4})(?P<step>[dw]))?"
)


class Kind(StrEnum):
    """What a scenario changes."""

    PRICE = "price"  # every positive price, by a factor
    CHURN = "churn"  # a share of the customers buys no more
    NEWCOMERS = "newcomers"  # new customers, as many as a share of the known ones, who buy as those do
    WHALES = "whales"  # the top 2% of customers buy larger quantities
    COUNTRY = "country"  # a share of the customers of the United Kingdom moves abroad
    BASKET = "basket"  # a share of the lines is not bought
    ORDERS = "orders"  # a share of the orders is not placed


@dataclass(frozen=True)
class Scenario:
    """One change, full from `onset` on, or growing linearly over `ramp_s` seconds; gone from `until` on.

    `change_ppm` is a relative change (price, whales) or a share (the others), in millionths. `customers` are
    those whom `whales` means; None takes 2% of all by a hash of their id, for a feed not known beforehand.
    """

    kind: Kind
    change_ppm: int
    onset: int  # event time, epoch seconds
    ramp_s: int = 0
    customers: frozenset[str] | None = None
    until: int | None = None  # event time, epoch seconds; None: for good

    def level_ppm(self, line: Line) -> int:
        """Return how much of the change is in force at a line's event time: 0 to `change_ppm`."""
        time = event_time(line)
        if time is None or time < self.onset or (self.until is not None and time >= self.until):
            return 0
        elapsed_s = time - self.onset
        return self.change_ppm if elapsed_s >= self.ramp_s else self.change_ppm * elapsed_s // self.ramp_s

    @property
    def salt(self) -> str:
        """What makes this scenario choose other customers than the next one."""
        return f"{self.kind}@{self.onset}"


def parse(text: str) -> Scenario:
    """Return the scenario that a text such as `price:+20%@2011-06-06~8w` describes.

    Raises UserError (USAGE) saying what is accepted.
    """
    found = _SPEC.fullmatch(text.strip())
    if found is None or found["kind"] not in set(Kind):
        raise _refused(text, "it has none of the accepted forms")
    kind = Kind(found["kind"])
    onset = _date(text, found["date"])
    until = None if found["until"] is None else _date(text, found["until"])
    if until is not None and until <= onset:
        raise _refused(text, "it ends before it begins")
    number = float(found["amount"])
    change = number - 1 if found["unit"] == "x" else number / 100
    if kind in {Kind.PRICE, Kind.WHALES}:
        if change <= -1 or change == 0:
            raise _refused(text, "the change must be above -100% and not zero")
    else:
        change = -change if kind in {Kind.BASKET, Kind.ORDERS} else change
        if found["unit"] == "x" or not 0 < change <= 1:
            raise _refused(
                text, "the share must be above 0% and at most 100%, and below zero for basket, orders"
            )
    ramp_s = int(found["length"] or 0) * DAY_S * (7 if found["step"] == "w" else 1)
    return Scenario(kind, round(change * MILLION), onset, ramp_s, until=until)


def _date(text: str, day: str) -> int:
    try:
        return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise _refused(text, f"{day} is not a date") from None


def prepared(scenarios: Iterable[Scenario], read: Callable[[], Iterable[Line]]) -> tuple[Scenario, ...]:
    """Return the scenarios with their customers chosen; reads the lines once for each that needs them."""
    return tuple(
        replace(scenario, customers=top_customers(read(), before=scenario.onset))
        if scenario.kind is Kind.WHALES and scenario.customers is None
        else scenario
        for scenario in scenarios
    )


def top_customers(lines: Iterable[Line], *, before: int) -> frozenset[str]:
    """Return the 2% of customers (at least one) with the largest quantity bought before an event time."""
    bought: Counter[str] = Counter()
    for line in lines:
        customer, quantity, time = line.get("CustomerID"), line.get("Quantity"), event_time(line)
        if customer and isinstance(quantity, int) and quantity > 0 and time is not None and time < before:
            bought[customer] += quantity
    # Ties are broken by the id, so that the choice does not hang on the order of lines.
    ranked = sorted(bought, key=lambda customer: (-bought[customer], customer))
    return frozenset(ranked[: -(-len(ranked) * WHALE_SHARE_PPM // MILLION)])


def fingerprint(scenarios: Sequence[Scenario]) -> str:
    """Return the scenarios in a canonical text; empty for none. Part of a source's identity."""
    parts = []
    for scenario in scenarios:
        chosen = ",".join(sorted(scenario.customers or ()))
        digest = blake2b(chosen.encode(), digest_size=4).hexdigest() if chosen else ""
        until = "" if scenario.until is None else f"..{scenario.until}"
        parts.append(
            f"{scenario.kind}:{scenario.change_ppm}@{scenario.onset}{until}~{scenario.ramp_s}{digest}"
        )
    return ";".join(parts)


def stride(scenarios: Iterable[Scenario]) -> int:
    """Return how many numbers `apply` gives a row: its copies stand between it and the next one.

    The number of the row itself is `number // stride(scenarios)`.
    """
    copies: int = 2 ** sum(scenario.kind is Kind.NEWCOMERS for scenario in scenarios)
    return copies


def apply(scenarios: Iterable[Scenario], lines: Iterable[NumberedLine]) -> Iterator[NumberedLine]:
    """Apply scenarios one after the other, in the order given.

    Deterministic: the same lines and scenarios give the same result. Numbers stay rising; those of dropped
    lines are missing. Lines whose time cannot be read pass unchanged. The lines given are not modified.
    """
    result = iter(lines)
    for scenario in scenarios:
        result = _STEPS[scenario.kind](scenario, result)
    return result


def hash_ppm(salt: str, text: str) -> int:
    """Return a number in [0, 1,000,000) that looks uniform, the same on every machine."""
    digest = blake2b(f"{salt}|{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * MILLION >> 64


def scaled(value: int, change_ppm: int) -> int:
    """Return `value * (1 + change)`, rounded half to even; exact for integers of any size."""
    quotient, rest = divmod(value * (MILLION + change_ppm), MILLION)
    return quotient + (2 * rest > MILLION or (2 * rest == MILLION and quotient % 2 == 1))


def _refused(text: str, why: str) -> UserError:
    return UserError(f"refused scenario {text!r}: {why}", hint=f"accepted: {ACCEPTED}", code=ExitCode.USAGE)


# -- one function a kind ----------------------------------------------------------------------------------

_customer_ppm = lru_cache(maxsize=100_000)(hash_ppm)


def _chosen(scenario: Scenario, line: Line) -> bool:
    """Return whether a line's customer is of the share that the scenario has reached."""
    customer, level = line.get("CustomerID"), scenario.level_ppm(line)
    return bool(level and isinstance(customer, str) and _customer_ppm(scenario.salt, customer) < level)


def _price(scenario: Scenario, lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
    for number, line in lines:
        price, level = line.get("UnitPrice"), scenario.level_ppm(line)
        if not level or not isinstance(price, int | float) or price <= 0:
            yield number, line
            continue
        thousandths = round(price * 1000)
        # A price with more than three decimals is refused by the worker; it must stay one.
        exact = thousandths / 1000 == price
        yield number, line | {"UnitPrice": scaled(thousandths, level) / 1000} if exact else line


def _churn(scenario: Scenario, lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
    return ((number, line) for number, line in lines if not _chosen(scenario, line))


def _newcomers(scenario: Scenario, lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
    # A newcomer buys what a chosen customer buys, under an id and invoices of its own.
    suffix = str(scenario.onset // DAY_S)
    for number, line in lines:
        yield 2 * number, line
        if _chosen(scenario, line) and line.get("InvoiceNo"):
            identity = {
                "InvoiceNo": f"{line['InvoiceNo']}-{suffix}",
                "CustomerID": f"{line['CustomerID']}{suffix}",
            }
            yield 2 * number + 1, line | identity


def _whales(scenario: Scenario, lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
    for number, line in lines:
        customer, quantity, level = line.get("CustomerID"), line.get("Quantity"), scenario.level_ppm(line)
        if not level or not isinstance(customer, str) or not isinstance(quantity, int) or quantity <= 0:
            yield number, line
        elif (
            _customer_ppm(scenario.salt, customer) < WHALE_SHARE_PPM
            if scenario.customers is None
            else customer in scenario.customers
        ):
            yield number, line | {"Quantity": scaled(quantity, level)}
        else:
            yield number, line


def _country(scenario: Scenario, lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
    for number, line in lines:
        if line.get("Country") == HOME_COUNTRY and _chosen(scenario, line):
            place = _customer_ppm("abroad", line["CustomerID"]) * len(OTHER_COUNTRIES) // MILLION
            yield number, line | {"Country": OTHER_COUNTRIES[place]}
        else:
            yield number, line


def _basket(scenario: Scenario, lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
    # By the line's number: two equal lines of a basket are two decisions.
    for number, line in lines:
        level = scenario.level_ppm(line)
        if not level or hash_ppm(scenario.salt, str(number)) >= level:
            yield number, line


def _orders(scenario: Scenario, lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
    # By the invoice, so that an order comes whole or not at all.
    for number, line in lines:
        level, invoice = scenario.level_ppm(line), line.get("InvoiceNo")
        if not level or not isinstance(invoice, str) or hash_ppm(scenario.salt, invoice) >= level:
            yield number, line


_STEPS: dict[Kind, Callable[[Scenario, Iterator[NumberedLine]], Iterator[NumberedLine]]] = {
    Kind.PRICE: _price,
    Kind.CHURN: _churn,
    Kind.NEWCOMERS: _newcomers,
    Kind.WHALES: _whales,
    Kind.COUNTRY: _country,
    Kind.BASKET: _basket,
    Kind.ORDERS: _orders,
}
