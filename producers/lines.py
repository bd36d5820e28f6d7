"""A line on its way to Kafka: a plain dict under the names of the record, and its event time."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

# The fields of a record in JSON's types. A field that could not be parsed holds its raw text.
Line = dict[str, Any]

# A line with its number in the source, rising; a number is missing where a scenario dropped the line.
NumberedLine = tuple[int, Line]

# Values of a row beyond the header's columns go under this name: the row is malformed, and nothing is lost.
SURPLUS = "Surplus"

# A time outside of these years is none: the worker refuses such a line.
YEAR_MIN, YEAR_MAX = 1970, 2199

MEMO_MAX = 200_000
MEMO_CHARS_MAX = 64  # of a text that is remembered; those that repeat are short
_TIME_LENGTH = len("2010-12-01T08:26:00")

Value = TypeVar("Value")


class Memo(dict[str, Value], Generic[Value]):
    """A pure function of a text, remembered: the fields of a line repeat, and a lookup costs 30 ns.

    Forgets everything after `MEMO_MAX` texts and remembers no long one, so that a feed that never ends does
    not fill the memory.
    """

    def __init__(self, convert: Callable[[str], Value]) -> None:
        super().__init__()
        self.convert = convert

    def __missing__(self, text: str) -> Value:
        value = self.convert(text)
        if len(text) <= MEMO_CHARS_MAX:
            if len(self) >= MEMO_MAX:
                self.clear()
            self[text] = value
        return value


def numbered(lines: Iterable[Line]) -> Iterator[NumberedLine]:
    """Return lines with their numbers in the source, from 1."""
    return enumerate(lines, 1)


def _parse_time(text: str) -> int | None:
    if len(text) != _TIME_LENGTH:
        return None
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) if YEAR_MIN <= moment.year <= YEAR_MAX else None


_event_times = Memo(_parse_time)


def event_time(line: Line) -> int | None:
    """Return a line's event time, epoch seconds (its text is taken as UTC); None where it is not a time."""
    text = line.get("InvoiceDate")
    return _event_times[text] if isinstance(text, str) else None


def time_text(epoch_s: float) -> str:
    """Return an event time as a record carries it, `2010-12-01T08:26:00`; fractions are cut."""
    return datetime.fromtimestamp(int(epoch_s), UTC).strftime("%Y-%m-%dT%H:%M:%S")
