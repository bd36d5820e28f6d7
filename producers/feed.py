"""Lines to records: key, partition, headers, and the control records that carry the event time."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple

import msgspec

from models.features import DAY_S
from producers.lines import SURPLUS, Line, Memo, NumberedLine, event_time
from producers.partitions import partition_of
from streams.pseudonyms import Pseudonyms
from streams.transactions import (
    FIELDS,
    ID_CHARS_MAX,
    REQUIRED_FIELDS,
    Control,
    Headers,
    canonical_customer_id,
    control_headers,
    control_value,
    encode_line,
    record_headers,
    record_key,
)
from streams.watermarks import JumpGuard

WATERMARK_EVERY_S = 6 * 3600
PAUSE_WATERMARK_S = 900

# The start of the data is looked for among so many lines with a time, in at most so many rows.
START_LINES = 100
START_ROWS_MAX = 10_000

# In a partition a row stands before the control records that follow it.
_RANK = {None: 0, Control.WATERMARK: 1, Control.END_OF_INPUT: 2}

WITHHELD = "withheld"

_encode_complete = msgspec.json.Encoder().encode


class Record(NamedTuple):
    """One record of the input topic: a line, or a control record (`control` tells)."""

    key: bytes | None
    value: bytes
    headers: Headers
    partition: int
    seq: int  # of the line, or of the last line before a control record
    event_time: int | None  # of a line, epoch seconds; None where it has no readable one
    clock: int | None  # event time of the whole feed so far; None before the first readable one
    control: Control | None = None

    @property
    def place(self) -> "Place":
        """Where the record stands in its partition, as far as its source goes."""
        return Place(self.seq, _RANK[self.control])


class Place(NamedTuple):
    """A position in the records of one source; compares in the order in which they are written."""

    seq: int
    rank: int = 0


def place(seq: int, control: str | None) -> Place:
    """Return the place of a record found in a topic, from its headers."""
    return Place(seq, _RANK[Control(control) if control else None])


def records(
    lines: Iterable[NumberedLine],
    *,
    source: str,
    partitions: int,
    jump_max_days: int,
    jump_confirm_lines: int,
    watermark_every_s: int = WATERMARK_EVERY_S,
    start: int | None = None,
    end: bool = True,
    pseudonyms: Pseudonyms | None = None,
) -> Iterator[Record]:
    """Return the records of a feed, control records included; the same lines give the same records.

    A watermark goes to every partition before the first line and each time the feed's event time has gone on
    by `watermark_every_s`; `end_of_input` follows the last line if `end`. A line more than `jump_max_days`
    ahead does not move the event time unless `jump_confirm_lines` others agree. The event time begins at
    `start` (epoch seconds), or else at the first lines' (see `start_time`), which takes a look ahead. With
    `pseudonyms` no record holds a customer id as the line had it (see `renamed`).
    """
    guard = JumpGuard(jump_max_s=jump_max_days * DAY_S, jump_confirm_lines=jump_confirm_lines)
    feed = _Feed(source, partitions, guard, watermark_every_s, pseudonyms)
    rest = iter(lines)
    ahead: list[NumberedLine] = []
    while start is None and (ahead := look_ahead(rest)):
        start = start_time(ahead, jump_max_s=guard.jump_max_s)
        if start is None:
            yield from feed.lines(ahead)
            ahead = []
    if start is not None:
        guard.advance(start)
        yield from feed.marks(Control.WATERMARK)
    yield from feed.lines(chain(ahead, rest))
    if end and guard.largest is not None:
        yield from feed.marks(Control.END_OF_INPUT)


def live_records(
    lines: Iterable[NumberedLine | None],
    *,
    source: str,
    partitions: int,
    jump_max_days: int,
    jump_confirm_lines: int,
    start: int | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> Iterator[Record | None]:
    """Return the records of a feed that grows as they come; None stands where nothing is there for now.

    The event time begins at `start`, or else with the first line that has one. Watermarks are those of
    `records`, and besides one wherever the feed pauses after `PAUSE_WATERMARK_S` of event time and where it
    ends, for what closes a window must not wait for the next line. No `end_of_input`: more is to follow.
    """
    guard = JumpGuard(jump_max_s=jump_max_days * DAY_S, jump_confirm_lines=jump_confirm_lines)
    feed = _Feed(source, partitions, guard, WATERMARK_EVERY_S, pseudonyms)
    if start is not None:
        guard.advance(start)
        yield from feed.marks(Control.WATERMARK)
    for item in lines:
        if item is not None:
            yield from feed.lines((item,))
            continue
        if feed.unmarked_s() >= PAUSE_WATERMARK_S:
            yield from feed.marks(Control.WATERMARK)
        yield None
    if feed.unmarked_s() > 0:
        yield from feed.marks(Control.WATERMARK)


def unwritten(feed: Iterable[Record], written: Mapping[int, Place]) -> Iterator[Record]:
    """Return the records that are not in the topic, given each partition's last one of this source.

    Right because a partition's records are written in order: what stands before the last one is there.
    """
    nothing = Place(-1)
    return (record for record in feed if record.place > written.get(record.partition, nothing))


def look_ahead(lines: Iterator[NumberedLine]) -> list[NumberedLine]:
    """Take lines until `START_LINES` of them have a time, at most `START_ROWS_MAX`."""
    taken: list[NumberedLine] = []
    timed = 0
    for item in islice(lines, START_ROWS_MAX):
        taken.append(item)
        timed += event_time(item[1]) is not None
        if timed == START_LINES:
            break
    return taken


def start_time(lines: Iterable[NumberedLine], *, jump_max_s: int) -> int | None:
    """Return where the event time of a feed begins: the earliest time near the median of its first lines.

    Near is at most `jump_max_s` before it, so that a first line with a wrong year misleads nobody.
    None where no line has a time.
    """
    times = sorted(time for _, line in lines if (time := event_time(line)) is not None)
    if not times:
        return None
    median = times[(len(times) - 1) // 2]
    return next(time for time in times if time >= median - jump_max_s)


def key_of(line: Line) -> bytes:
    """Return the key of a line; of a bad one whatever text stands where the id or the invoice should."""
    raw = line.get("CustomerID")
    try:
        customer = canonical_customer_id(raw)
    except ValueError:
        customer = str(raw)
    invoice = line.get("InvoiceNo")
    return record_key(customer, "" if invoice is None else str(invoice))


def renamed(line: Line, pseudonyms: Pseudonyms) -> Line:
    """Return a line with the customer's other name; what is no id is withheld, and stays refused.

    Where a row has too many fields or too few, the id may stand in any of them: all are withheld.
    """
    changed = dict(line)
    if SURPLUS in changed:
        changed[SURPLUS] = WITHHELD
    shifted = SURPLUS in line and not isinstance(line.get("Quantity"), int | float)
    if shifted or not all(field in line for field in REQUIRED_FIELDS):
        return {name: [WITHHELD] for name in (*line, *REQUIRED_FIELDS)}
    try:
        customer = canonical_customer_id(line.get("CustomerID"))
    except ValueError:
        return changed | {"CustomerID": [WITHHELD]}
    if customer is not None:
        long = len(customer) > ID_CHARS_MAX
        changed["CustomerID"] = [WITHHELD] if long else pseudonyms.of(customer)
    return changed


def encode(line: Line) -> bytes:
    """Return a line's bytes: those of `encode_line`, five times faster for an ordinary line."""
    price = line.get("UnitPrice")
    # The two encoders differ in numbers that take an exponent, and in NaN.
    plain = type(price) is float and (price == 0 or 1e-3 <= abs(price) <= 1e12)
    return _encode_complete(line) if plain and tuple(line) == FIELDS else encode_line(line)


class _Feed:
    """Turns lines into records one by one; `guard` holds the feed's event time."""

    def __init__(
        self,
        source: str,
        partitions: int,
        guard: JumpGuard,
        watermark_every_s: int,
        pseudonyms: Pseudonyms | None,
    ) -> None:
        self.source = source
        self.pseudonyms = pseudonyms
        self.partitions = partitions
        self.guard = guard
        self.watermark_every_s = watermark_every_s
        self.last_seq = 0
        self.marked: int | None = None
        self.partition_by_key = Memo(lambda key: partition_of(key.encode(), partitions))

    def lines(self, lines: Iterable[NumberedLine]) -> Iterator[Record]:
        """Yield the record of each line, and watermarks where they are due."""
        guard, pseudonyms = self.guard, self.pseudonyms
        for seq, read in lines:
            line = read if pseudonyms is None else renamed(read, pseudonyms)
            key = key_of(line)
            name = key.decode()
            time = event_time(line)
            # A line that will be refused for its numbers must not move the time either.
            if (
                time is not None
                and type(line.get("Quantity")) is int
                and type(line.get("UnitPrice")) is float
            ):
                guard.admits(time, name)
            # Before the line: where it ends a long gap, every partition must know before lines come.
            if self._due():
                yield from self.marks(Control.WATERMARK)
            self.last_seq = seq
            yield Record(
                key,
                encode(line),
                record_headers(self.source, seq),
                self.partition_by_key[name],
                seq,
                time,
                guard.largest,
            )

    def unmarked_s(self) -> int:
        """How far the event time has gone on since the last control record, seconds."""
        now = self.guard.largest
        return 0 if now is None else now - (self.marked or 0)

    def _due(self) -> bool:
        now = self.guard.largest
        return now is not None and (self.marked is None or now - self.marked >= self.watermark_every_s)

    def marks(self, kind: Control) -> Iterator[Record]:
        """Yield a control record for every partition; the event time must be known."""
        now = self.guard.largest
        assert now is not None
        self.marked = now
        headers, value = control_headers(kind, self.source, self.last_seq), control_value(now)
        for partition in range(self.partitions):
            yield Record(None, value, headers, partition, self.last_seq, None, now, kind)
