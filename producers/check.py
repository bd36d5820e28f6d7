"""What a file would be to the stream: its columns, its lines, those that would be dead letters and why."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from models.features import DAY_S
from producers import feed
from producers.lines import Line, NumberedLine, event_time, numbered, time_text
from producers.source import column_places, missing_columns, read_lines
from producers.tables import readable, tables
from streams.errors import ExitCode
from streams.mapped_lines import CURRENCY
from streams.mapping import Mapping, near
from streams.partition import PartitionState
from streams.settings import Settings
from streams.state_config import Counters, StateConfig
from streams.transactions import FIELDS

WEEK_S = 7 * DAY_S
MONDAY_S = 4 * DAY_S  # 1970-01-01 was a Thursday: the first Monday of the epoch
CHUNK_RECORDS = 5_000
DISTINCT_MAX = 1_000_000  # of customers, orders and lines, told apart by hashes of 8 bytes
NAMES_MAX = 1_000  # countries and currencies that are counted one by one
REASONS_MAX = 50
EXAMPLES_MAX = 3
GAPS_MAX = 20

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_NUMBER = re.compile(r"(?<![\w$])-?\d[\d.]*")


class Columns(msgspec.Struct, frozen=True):
    """The columns of a file; `missing` are those that are needed and not there, with a near name if any."""

    found: list[str]
    mapped: dict[str, str]  # our field: the column, or the constant
    missing: dict[str, str]


class Reason(msgspec.Struct):
    """A kind of dead letter; examples are `row n: the reason in full`."""

    reason: str
    count: int = 0
    examples: list[str] = []


class Gap(msgspec.Struct, frozen=True):
    """Whole weeks, Monday to Monday, without a line."""

    start: str
    weeks: int


class Profile(msgspec.Struct, kw_only=True):
    """A file as `clv-drift check --json` writes it; counts are of rows unless said otherwise."""

    file: str
    fine: bool
    columns: Columns
    rows: int = 0
    first_time: str | None = None  # of the lines with a readable date, UTC
    last_time: str | None = None
    customers: int = 0
    orders: int = 0
    counted_to: int = DISTINCT_MAX  # customers and orders beyond so many are not told apart
    without_customer: int = 0
    returns: int = 0  # lines with a negative quantity
    prices_not_positive: int = 0
    duplicates: int = 0  # lines that say what an earlier one says; they count, as in the stream
    currencies: dict[str, int] = {}
    countries: dict[str, int] = {}
    gaps: list[Gap] = []
    weeks: int = 0  # whole weeks from the first Monday on
    weeks_needed: int = 0  # for the first reference, its warm-up included
    late: int = 0
    dead: int = 0
    dead_letters: list[Reason] = []

    @property
    def exit_code(self) -> ExitCode:
        """0 where the file can be replayed and no line of it would be refused."""
        return ExitCode.OK if self.fine else ExitCode.INPUT


def examine(path: Path, settings: Settings) -> Profile:
    """Read a file as a replay and a worker would, without Kafka; a file without the columns is told of too.

    Memory is bounded: by the state of one partition and `DISTINCT_MAX`. Raises UserError (INPUT) for a file
    that cannot be read at all.
    """
    mapping = settings.field_mapping
    columns = _columns(path, mapping)
    if columns.missing:
        return Profile(file=str(path), fine=False, columns=columns)
    tally = _Tally()
    counters, reasons = _stream(tally.watching(numbered(read_lines(path, mapping))), settings, tally)
    profile = Profile(
        file=str(path), fine=not reasons, columns=columns, weeks_needed=settings.reference_weeks
    )
    tally.fill(profile)
    profile.late, profile.dead = counters.late, counters.dead
    profile.dead_letters = sorted(reasons.values(), key=lambda reason: -reason.count)
    return profile


def _columns(path: Path, mapping: Mapping | None) -> Columns:
    """Return what the best table of a file has of the columns needed."""
    best: Columns | None = None
    dialect = None if mapping is None else mapping.csv
    with readable(path):
        for table in tables(path, dialect, typed=mapping is not None):
            found = [name.strip() for name in table.header]
            mapped: dict[str, str] = {}
            if mapping is None:
                mapped = {name: found[at] for name, at in column_places(table.header).items()}
                missing = [name for name in FIELDS if name not in mapped]
            else:
                missing = missing_columns(table.header, mapping)
                mapped = dict(_mapped(mapping))
            spare = [name for name in found if name not in mapped.values()]
            columns = Columns(found, mapped, {name: near(name, spare) for name in missing})
            if best is None or len(columns.missing) < len(best.missing):
                best = columns
    assert best is not None
    return best


def _mapped(mapping: Mapping) -> Iterator[tuple[str, str]]:
    for field in FIELDS:
        constant = getattr(mapping.constants, field, None)
        if constant is not None:
            yield field, f"always {constant}"
        elif names := mapping.columns_of(field):
            yield field, " + ".join(names)


def _stream(
    lines: Iterator[NumberedLine], settings: Settings, tally: "_Tally"
) -> tuple[Counters, dict[str, Reason]]:
    """Send lines through the state of one partition; return its counters and what it refused."""
    # In front of the border: who has the file reads in clear what is wrong with its ids.
    config = replace(StateConfig.of(settings, 1), rest_wanted=False, pseudonyms=None)
    state = PartitionState(0, config)
    reasons: dict[str, Reason] = {}
    offset = 0
    records = feed.records(
        lines,
        source="check",
        partitions=1,
        jump_max_days=settings.jump_max_days,
        jump_confirm_lines=settings.jump_confirm_lines,
    )
    for chunk in _chunks(records):
        values = [record.value for record in chunk]
        offsets = range(offset, offset := offset + len(chunk))
        applied = state.apply(offsets, values, [record.headers for record in chunk])
        for letter in applied.refused:
            _note(reasons, chunk[letter.position].seq, letter.reason)
        tally.see(record.value for record in chunk if record.control is None)
    return state.counters, reasons


def _chunks(records: Iterator[feed.Record]) -> Iterator[list[feed.Record]]:
    chunk: list[feed.Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == CHUNK_RECORDS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _note(reasons: dict[str, Reason], row: int, reason: str) -> None:
    """Count a dead letter under its kind: the reason without its values."""
    kind = _NUMBER.sub("N", _QUOTED.sub("'...'", reason))
    if kind not in reasons and len(reasons) >= REASONS_MAX:
        kind = "other reasons"
    found = reasons.setdefault(kind, Reason(kind, 0, []))
    found.count += 1
    if len(found.examples) < EXAMPLES_MAX:
        found.examples.append(f"row {row:,}: {reason}")


class _Tally:
    """Counts what passes; of texts only their hashes are kept, at most `DISTINCT_MAX` of a kind."""

    def __init__(self) -> None:
        self.rows = 0
        self.counts: Counter[str] = Counter()
        self.customers: set[int] = set()
        self.orders: set[int] = set()
        self.lines: set[int] = set()
        self.weeks: set[int] = set()
        self.countries: Counter[str] = Counter()
        self.currencies: Counter[str] = Counter()
        self.first: int | None = None
        self.last: int | None = None

    def watching(self, lines: Iterator[NumberedLine]) -> Iterator[NumberedLine]:
        """Yield the lines as they come, counted."""
        for item in lines:
            self.rows += 1
            self._add(item[1])
            yield item

    def see(self, values: Iterator[bytes]) -> None:
        """Look for lines that came before, given the bytes of their records."""
        for value in values:
            known = hash(value)
            if known in self.lines:
                self.counts["duplicates"] += 1
            elif len(self.lines) < DISTINCT_MAX:
                self.lines.add(known)

    def _add(self, line: Line) -> None:
        time = event_time(line)
        if time is not None:
            self.first = time if self.first is None else min(self.first, time)
            self.last = time if self.last is None else max(self.last, time)
            self.weeks.add((time - MONDAY_S) // WEEK_S)
        customer = line.get("CustomerID")
        if customer is None:
            self.counts["without_customer"] += 1
        elif len(self.customers) < DISTINCT_MAX:
            self.customers.add(hash(str(customer)))
        if len(self.orders) < DISTINCT_MAX:
            self.orders.add(hash(str(line.get("InvoiceNo"))))
        quantity, price = line.get("Quantity"), line.get("UnitPrice")
        self.counts["returns"] += isinstance(quantity, int) and quantity < 0
        self.counts["prices_not_positive"] += isinstance(price, float) and price <= 0
        _count(self.countries, line.get("Country"))
        if CURRENCY in line:
            _count(self.currencies, line[CURRENCY])

    def fill(self, profile: Profile) -> None:
        """Write what was counted into a profile."""
        profile.rows = self.rows
        profile.customers, profile.orders = len(self.customers), len(self.orders)
        profile.without_customer = self.counts["without_customer"]
        profile.returns = self.counts["returns"]
        profile.prices_not_positive = self.counts["prices_not_positive"]
        profile.duplicates = self.counts["duplicates"]
        profile.countries = dict(self.countries.most_common())
        profile.currencies = dict(self.currencies.most_common())
        if self.first is not None and self.last is not None:
            profile.first_time, profile.last_time = time_text(self.first), time_text(self.last)
            # The grid begins at the first Monday after the earliest line.
            begin = (self.first - MONDAY_S) // WEEK_S + 1
            profile.weeks = max(0, (self.last - MONDAY_S) // WEEK_S - begin)
            profile.gaps = list(_gaps(sorted(self.weeks)))[:GAPS_MAX]


def _count(names: Counter[str], name: Any) -> None:
    text = str(name)
    names[text if text in names or len(names) < NAMES_MAX else "(others)"] += 1


def _gaps(weeks: list[int]) -> Iterator[Gap]:
    for week, following in pairwise(weeks):
        if following - week > 1:
            yield Gap(time_text((week + 1) * WEEK_S + MONDAY_S)[:10], following - week - 1)
