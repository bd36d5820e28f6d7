"""Rows of another shop to lines, by a mapping: one rule for files, for a followed till and for a topic."""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Map
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import Any

from streams.mapping import Mapping
from streams.mapping_values import REMEMBERED_MAX, DateReader, NumberReader, UnreadableError, shown
from streams.transactions import FIELDS, canonical_customer_id

CURRENCY = (
    "Currency"  # the record's field of a line's currency; not one of `FIELDS`: nothing is computed from it
)
THOUSANDTH = Decimal("0.001")
DIGITS_MAX = 20  # before the point: no price has more, and decimals hold no more with their thousandths
INTEGER_BITS_MAX = 64  # of a number that is remembered

_NEVER_TEXT = frozenset({"Quantity", "InvoiceDate", "UnitPrice"})

Values = Sequence[object]  # of a row, in the order of `Mapping.names`: texts, or what a typed cell holds
Problem = tuple[str, str]  # our field, and why it cannot be read


class LineMapper:
    """Turns rows into lines by a mapping."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self._places = {
            field: [mapping.names.index(name) for name in mapping.columns_of(field)] for field in FIELDS
        }
        self._dates = DateReader(mapping.dates)
        self._numbers = NumberReader(mapping.numbers)
        # What a text becomes is remembered: quantities and prices repeat.
        self._whole = lru_cache(maxsize=REMEMBERED_MAX, typed=True)(self._numbers.read_whole)
        self._decimal = lru_cache(maxsize=REMEMBERED_MAX, typed=True)(self._numbers.read)
        currency, returns = mapping.currency, mapping.returns
        self._currency_at = self._place(None if currency is None else currency.column)
        self._return_at = self._place(returns.column)
        self._return_values = {value.strip().casefold() for value in returns.values}
        self._readers: tuple[tuple[str, Callable[[Values], Any]], ...] = (
            ("InvoiceNo", lambda values: self._text("InvoiceNo", values)),
            ("StockCode", lambda values: self._text("StockCode", values)),
            ("Description", lambda values: self._text("Description", values) or None),
            ("Quantity", self._quantity),
            (
                "InvoiceDate",
                lambda values: self._dates.read([values[i] for i in self._places["InvoiceDate"]]),
            ),
            ("UnitPrice", self._price),
            ("CustomerID", self._customer),
            ("Country", lambda values: self._text("Country", values)),
        )

    def line(self, values: Values) -> tuple[dict[str, Any], list[Problem]]:
        """Return a row's line, and what of it cannot be read.

        A field that cannot be read holds a text that the worker refuses as that field: nothing is guessed.
        """
        line: dict[str, Any] = {}
        problems: list[Problem] = []
        for field, read in self._readers:
            try:
                line[field] = read(values)
            except UnreadableError as exc:
                problems.append((field, str(exc)))
                # As a text it would be somebody's id, or a name.
                line[field] = str(exc) if field in _NEVER_TEXT else [str(exc)]
        if self.mapping.currency is not None:
            # One that cannot be read has failed the price already.
            line[CURRENCY] = None if "UnitPrice" in dict(problems) else self._currency(values)
        return line, problems

    def _place(self, name: str | None) -> int | None:
        return None if name is None else self.mapping.names.index(name)

    def _raw(self, field: str, values: Values) -> object:
        """Return what stands for a field: its column's value, else its constant."""
        if places := self._places[field]:
            return values[places[0]]
        return getattr(self.mapping.constants, field, None)

    def _text(self, field: str, values: Values) -> str:
        return _as_text(self._raw(field, values))

    def _customer(self, values: Values) -> str | None:
        try:
            return canonical_customer_id(self._raw("CustomerID", values))
        except ValueError as exc:
            raise UnreadableError(str(exc)) from exc

    def _quantity(self, values: Values) -> int:
        count = _hashable(self._raw("Quantity", values))
        quantity = self._numbers.read_whole(count) if _is_long(count) else self._whole(count)
        returns = self.mapping.returns
        prefix = returns.invoice_prefix
        told = (prefix is not None and self._text("InvoiceNo", values).startswith(prefix)) or (
            self._return_at is not None
            and _as_text(values[self._return_at]).strip().casefold() in self._return_values
        )
        if told:
            return -abs(quantity)
        if quantity < 0 and not returns.negative_quantity:
            raise UnreadableError(f"{quantity} is negative, and nothing says that it is a return")
        return quantity

    def _currency(self, values: Values) -> str:
        assert self.mapping.currency is not None
        if self._currency_at is None:
            return self.mapping.currency.code
        return _as_text(values[self._currency_at]).strip().upper()

    def _price(self, values: Values) -> float:
        told = _hashable(self._raw("UnitPrice", values))
        price = self._numbers.read(told) if _is_long(told) else self._decimal(told)
        currency = self.mapping.currency
        if currency is None or (code := self._currency(values)) == currency.code:
            return float(price)
        factor = currency.factors.get(code)
        if factor is None:
            known = ", ".join([currency.code, *currency.factors])
            raise UnreadableError(f"a price in {shown(code)}; the mapping knows {known}")
        if price.adjusted() > DIGITS_MAX:
            raise UnreadableError(f"{shown(price)} is no price")
        scaled = price * factor
        if scaled.adjusted() > DIGITS_MAX:
            raise UnreadableError(f"{shown(price)} is no price")
        return float(scaled.quantize(THOUSANDTH, ROUND_HALF_EVEN))


def nested(record: Map[str, object], name: str) -> object:
    """Return a field of a JSON object, `order.id` where there is no such name also of an object within it.

    None where it is missing.
    """
    if name in record:
        return record[name]
    found: object = record
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return found


def _hashable(value: object) -> object:
    """Return a value that can be looked up; an array or object of JSON is no number."""
    if isinstance(value, list | dict):
        raise UnreadableError(f"a {'list' if isinstance(value, list) else 'JSON object'} is no number")
    return value


def _is_long(value: object) -> bool:
    """Return whether a number is too long to be remembered: one of JSON may have thousands of digits."""
    return isinstance(value, int) and value.bit_length() > INTEGER_BITS_MAX


def _as_text(value: object) -> str:
    """Return a value as text, as a CSV file would hold it: 536365.0 is 536365, nothing is empty."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | dict):
        raise UnreadableError(f"a {'list' if isinstance(value, list) else 'JSON object'} is no text")
    return str(value)
