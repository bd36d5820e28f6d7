"""Values of another shop to those of a line: dates, numbers; a value that cannot be read says why."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

from streams.mapping import Dates, Numbers

YEAR_MIN, YEAR_MAX = 1970, 2199
REMEMBERED_MAX = 200_000  # texts of dates; those of one invoice are the same
REMEMBERED_CHARS_MAX = 64  # of a date that is remembered
NUMBER_CHARS_MAX = 40
SHOWN_CHARS_MAX = 80

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Spelled out, because what `fromisoformat` accepts grows with Python's versions.
_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?", re.ASCII)
_EPOCH_TEXT = re.compile(r"-?\d{1,17}(?:\.\d{1,9})?", re.ASCII)


class UnreadableError(ValueError):
    """A value that the mapping cannot read; the words say what it is and what was expected."""


def shown(value: object) -> str:
    """Return a value as a reason names it: quoted, cut where it is long."""
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}...")


class DateReader:
    """Reads dates by the rules of a mapping; gives `2010-12-01T08:26:00`, in UTC, fractions cut."""

    def __init__(self, rules: Dates) -> None:
        self._rules = rules
        self._zone = ZoneInfo(rules.time_zone)
        self._read_text = lru_cache(maxsize=REMEMBERED_MAX)(self._parse)

    def read(self, values: Sequence[object]) -> str:
        """Read one date from the values of its columns; raises UnreadableError."""
        if len(values) == 1:
            value = values[0]
        elif len(values) == 2 and isinstance(values[0], date) and isinstance(values[1], time):
            value = datetime.combine(values[0], values[1])
        else:
            value = " ".join("" if part is None else str(part).strip() for part in values)
        if isinstance(value, str):
            text = value.strip()
            return self._read_text(text) if len(text) <= REMEMBERED_CHARS_MAX else self._parse(text)
        if isinstance(value, datetime):
            return self._in_utc(value, shown(value))
        if isinstance(value, date):
            return self._in_utc(datetime(value.year, value.month, value.day), shown(value))  # noqa: DTZ001
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            return self._read_text(str(value))
        raise UnreadableError(f"{shown(value)} is no date")

    def _parse(self, text: str) -> str:
        for form in self._rules.formats:
            moment = _moment(text, form)
            if moment is not None:
                return self._in_utc(moment, shown(text))
        raise UnreadableError(f"{shown(text)} is no date as {' or '.join(self._rules.formats)} has it")

    def _in_utc(self, moment: datetime, words: str) -> str:
        if moment.tzinfo is None:
            moment = self._placed(moment, words)
        try:
            there = moment.astimezone(UTC)
        except OverflowError:
            there = None
        if there is None or not YEAR_MIN <= there.year <= YEAR_MAX:
            raise UnreadableError(f"{words} is outside of the years {YEAR_MIN} to {YEAR_MAX}")
        return there.strftime("%Y-%m-%dT%H:%M:%S")

    def _placed(self, moment: datetime, words: str) -> datetime:
        """Return a local time with its offset; what a change of the clock makes of it is ruled here."""
        first, second = (moment.replace(tzinfo=self._zone, fold=fold) for fold in (0, 1))
        before, after = first.utcoffset(), second.utcoffset()
        if before == after or before is None or after is None:
            return first
        if before > after:  # set back: the time comes twice
            if self._rules.ambiguous == "refuse":
                raise UnreadableError(f"{words} comes twice in {self._rules.time_zone}")
            return second if self._rules.ambiguous == "second" else first
        if self._rules.nonexistent == "refuse":
            raise UnreadableError(f"{words} does not exist in {self._rules.time_zone}")
        # As a clock shows it that was not set forward: the offset of before.
        return moment.replace(tzinfo=timezone(before))


def _moment(text: str, form: str) -> datetime | None:
    """Return a text's moment by one format, None where it does not fit."""
    try:
        if form == "iso":
            return datetime.fromisoformat(text) if _ISO.fullmatch(text) else None
        if form in {"epoch_s", "epoch_ms"}:
            if not _EPOCH_TEXT.fullmatch(text):
                return None
            return _EPOCH + timedelta(seconds=int(Decimal(text) / (1 if form == "epoch_s" else 1000)))
        return datetime.strptime(text, form)  # noqa: DTZ007  (the zone is the mapping's)
    except (ValueError, OverflowError):
        return None


class NumberReader:
    """Reads numbers as a mapping says that they are written."""

    def __init__(self, rules: Numbers) -> None:
        decimal, thousands = re.escape(rules.decimal), re.escape(rules.thousands)
        grouped = rf"[0-9]{{1,3}}(?:{thousands}[0-9]{{3}})+|" if rules.thousands else ""
        self._form = re.compile(rf"([+-]?)({grouped}[0-9]+)(?:{decimal}([0-9]*))?")
        self._thousands = rules.thousands

    def read(self, value: object) -> Decimal:
        """Return a number from its text, or as a typed cell holds it; raises UnreadableError."""
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            number = Decimal(str(value))
            if number.is_finite():
                return number
        elif isinstance(value, str) and len(value) <= NUMBER_CHARS_MAX:
            found = self._form.fullmatch(value.strip())
            if found:
                sign, whole, fraction = found.groups()
                if self._thousands:
                    whole = whole.replace(self._thousands, "")
                return Decimal(f"{sign}{whole}.{fraction or '0'}")
        raise UnreadableError(f"{shown(value)} is no number as the mapping writes them")

    def read_whole(self, value: object) -> int:
        """Return a whole number; raises UnreadableError for a fraction too."""
        number = self.read(value)
        # The exponent of a JSON number is bounded first: 1e999999999 as an integer would fill the memory.
        if number.adjusted() > NUMBER_CHARS_MAX or number != number.to_integral_value():
            raise UnreadableError(f"{shown(value)} is no whole number")
        return int(number)
