"""The fields of a row: from the text of a file to JSON's types; what cannot be parsed stays text."""

import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from streams.transactions import canonical_customer_id

# Votes of so many rows settle how a file writes its dates; one odd row must not.
DATE_VOTES = 100

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}(?:\.0+)?")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
_CLOCK = r"[ T]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]+)?)?Z?"
_ISO_DATE = re.compile(r"([0-9]{4})[-/]([0-9]{1,2})[-/]([0-9]{1,2})" + _CLOCK)
_DATE = re.compile(r"([0-9]{1,2})([-./])([0-9]{1,2})\2([0-9]{4}|(?<=/)[0-9]{2})" + _CLOCK)


class DateOrder(StrEnum):
    """How a file writes a date that starts with neither the year nor a number above 12."""

    DAY_FIRST = "day first"
    MONTH_FIRST = "month first"
    AS_SEPARATED = "by separator"  # 01-12-2010 is day first; 1/12/2010 cannot be told and stays text


class AmbiguousDatesError(ValueError):
    """Dates with slashes, none of which shows whether the day or the month stands first."""


def quantity(text: str) -> int | str:
    """Return a whole number (`6`, `-6`, `6.0`), or the text where it is none."""
    stripped = text.strip()
    return int(stripped.partition(".")[0]) if _INTEGER.fullmatch(stripped) else text


def price(text: str) -> float | str:
    """Return a finite decimal number, or the text where it is none (`nan`, `2,55`)."""
    stripped = text.strip()
    return float(stripped) if _DECIMAL.fullmatch(stripped) else text


def customer(text: str) -> str | None:
    """Return the canonical customer id; None where the field is empty."""
    return canonical_customer_id(text)


def optional_text(text: str) -> str | None:
    """Return the text, None where the field is empty."""
    return text or None


def invoice_date(text: str, order: DateOrder) -> str:
    """Return a time as `2010-12-01T08:26:00`, or the text as it came where it is no time."""
    stripped = text.strip()
    if found := _ISO_DATE.fullmatch(stripped):
        year, month, day, hour, minute, second = found.groups()
    elif found := _DATE.fullmatch(stripped):
        first, separator, other, year, hour, minute, second = found.groups()
        if order is DateOrder.AS_SEPARATED and separator == "/":
            return text
        month_first = order is DateOrder.MONTH_FIRST
        day, month = (other, first) if month_first else (first, other)
        year = year if len(year) == 4 else f"20{year}"
    else:
        return text
    try:
        moment = datetime(  # noqa: DTZ001  (the text carries no zone; every time is taken as UTC)
            int(year), int(month), int(day), int(hour), int(minute), int(second or 0)
        )
    except ValueError:
        return text
    return moment.isoformat()


def date_order(texts: Iterable[str]) -> DateOrder:
    """Return how a file writes its dates, from the rows that show it (a number above 12 is a day).

    Reads on until `DATE_VOTES` rows have shown it or `texts` ends; the majority counts.
    Raises AmbiguousDatesError where dates with slashes are all that there is and none shows it.
    """
    votes: Counter[DateOrder] = Counter()
    slashes = ""
    for text in texts:
        if votes.total() >= DATE_VOTES:
            break
        stripped = text.strip()
        if _ISO_DATE.fullmatch(stripped):
            votes[DateOrder.AS_SEPARATED] += 1
        elif found := _DATE.fullmatch(stripped):
            first, other = int(found[1]), int(found[3])
            if 12 < first <= 31 and other <= 12:
                votes[DateOrder.DAY_FIRST] += 1
            elif 12 < other <= 31 and first <= 12:
                votes[DateOrder.MONTH_FIRST] += 1
            elif found[2] == "/":
                slashes = slashes or stripped
    if votes:
        return votes.most_common(1)[0][0]
    if slashes:
        raise AmbiguousDatesError(slashes)
    return DateOrder.AS_SEPARATED
