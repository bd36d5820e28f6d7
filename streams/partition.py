"""State of one input partition: a deterministic function of a prefix of that partition's log."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.features import DAY_S, FEATURES_VERSION, Ints, Lines
from streams.closing import Scales, WindowPart, line_texts, sampled_lines, window_rows
from streams.decode import Decoded, Decoder, RawHeaders
from streams.grid import ends_between, floor_end
from streams.lifetime import Lifetime
from streams.settings import Settings
from streams.transactions import Control
from streams.vocabulary import UNKNOWN, Interner, Vocabulary
from streams.watermarks import JumpGuard

LONG_AGO = np.iinfo(np.int64).min // 4  # a time before every other, far enough from overflow
NOBODY = np.empty(0, np.int32)
SOURCES_MAX = 1_000  # replayed inputs whose position is remembered
STATE_FORMAT = 1


@dataclass(frozen=True)
class StateConfig:
    """The settings that shape the state; a checkpoint made under others cannot be continued."""

    partitions: int
    window_days: int
    mid_window_days: int
    short_window_days: int
    window_hop_days: int
    lateness_s: int
    jump_max_days: int
    jump_confirm_lines: int
    segment_lines_max: int
    sample_customers_max: int
    state_format: int = STATE_FORMAT
    features_version: int = FEATURES_VERSION

    @classmethod
    def of(cls, settings: Settings, partitions: int | None = None) -> "StateConfig":
        """Take them from the settings; `partitions` where the topic at hand has another count."""
        return cls(
            partitions=partitions or settings.partitions,
            window_days=settings.window_days,
            mid_window_days=settings.mid_window_days,
            short_window_days=settings.short_window_days,
            window_hop_days=settings.window_hop_days,
            lateness_s=settings.lateness_s,
            jump_max_days=settings.jump_max_days,
            jump_confirm_lines=settings.jump_confirm_lines,
            segment_lines_max=settings.segment_lines_max,
            sample_customers_max=settings.sample_customers_max,
        )

    @property
    def window_s(self) -> int:
        """Length of the long window, seconds."""
        return self.window_days * DAY_S

    @property
    def hop_s(self) -> int:
        """Distance of window ends, seconds."""
        return self.window_hop_days * DAY_S


@dataclass
class Counters:
    """Records by what became of them: `read` is always the sum of the others."""

    read: int = 0
    on_time: int = 0
    late: int = 0
    duplicate: int = 0
    control: int = 0
    dead: int = 0


@dataclass(frozen=True)
class Segment:
    """Known customers' lines that arrived between two checkpoints."""

    number: int
    lines: Lines
    max_time: int


@dataclass(frozen=True)
class Refused:
    """A record for the dead-letter topic."""

    offset: int
    position: int
    reason: str


@dataclass(frozen=True)
class Cut:
    """The end of a segment: what must be published before its checkpoint, and the checkpoint's content.

    `segment` and `lifetime` are what this checkpoint adds to the stored state; `head` is everything else.
    """

    number: int
    offset: int  # the last offset that the checkpoint covers
    parts: list[WindowPart]
    segment: Segment | None
    lifetime: dict[str, Any] | None  # figures of the customers that changed, or of all
    lifetime_full: bool
    head: dict[str, Any]


@dataclass
class Applied:
    """What a batch led to, in the order of the log."""

    refused: list[Refused] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)


@dataclass(frozen=True)
class RowsRead:
    """The records of one replayed source in a batch: where they stand, and the highest row up to each."""

    name: str
    at: NDArray[np.intp]
    highest: Ints


@dataclass
class Course:
    """The trusted event time after each record of a batch, and the lines refused as jumps.

    `guards` holds the guard's state after each record where records were followed one by one.
    """

    largest: Ints  # epoch seconds; `LONG_AGO` until the time is anchored
    guards: list[dict[str, Any]] | None = None
    jumped: dict[int, str] = field(default_factory=dict)

    def leave(self, guard: JumpGuard, position: int) -> None:
        """Bring `guard` to where it is after the record at `position`."""
        if self.guards is None:
            guard.largest = int(self.largest[position])
        else:
            guard.restore(self.guards[position])


class PartitionState:
    """Applies batches of records; cuts segments and closes windows where that partition's log says so.

    Boundaries depend on the log alone: never on the clock, the size of the batches or another partition. A
    segment ends with the record that moves the watermark into another day, fills it, or ends the input.
    """

    FULL_EVERY_CUTS = 13  # closing cuts from one full copy of the lifetime figures to the next

    def __init__(self, partition: int, config: StateConfig) -> None:
        self.partition = partition
        self.config = config
        self.words = Vocabulary()
        self.decoder = Decoder(self.words)
        self.guard = JumpGuard(
            jump_max_s=config.jump_max_days * DAY_S, jump_confirm_lines=config.jump_confirm_lines
        )
        self.read_offset = -1
        self.counters = Counters()
        self.seqs: dict[str, tuple[int, int]] = {}  # by source: its last row, the offset that named it
        self.segments: list[Segment] = []
        self.lifetime = Lifetime.empty()
        self.lines_by_day: dict[int, int] = {}
        self.earliest: int | None = None
        self.closed_through: int | None = None
        self.last_close = -1  # number of the last segment that a close has folded
        self.next_number = 0
        self.segment_day = LONG_AGO // DAY_S
        self.closing_cuts = 0
        self._open: list[Lines] = []
        self._open_lines = 0

    # -- reading ------------------------------------------------------------

    def apply(
        self,
        offsets: Sequence[int],
        values: Sequence[bytes | None],
        headers: Sequence[RawHeaders],
    ) -> Applied:
        """Apply records that follow the last one applied, in the order of the log.

        On an exception the state is half changed: drop it and restore.
        """
        self._compact_words()
        batch = self.decoder.decode(values, headers)
        if len(self.seqs.keys() | set(batch.sources)) <= SOURCES_MAX:
            return self._apply(batch, offsets)
        # A cut will forget a source, which decides what repeats after it: no batch may reach across.
        applied = Applied()
        for i in range(batch.size):
            one = self._apply(self.decoder.decode(values[i : i + 1], headers[i : i + 1]), offsets[i : i + 1])
            applied.refused += [replace(letter, position=i) for letter in one.refused]
            applied.cuts += one.cuts
        return applied

    def _apply(self, batch: Decoded, offsets: Sequence[int]) -> Applied:
        """Apply a batch that forgets no source, or a single record."""
        duplicate, rows_read = self._duplicates(batch)
        fresh = ~duplicate[batch.positions]
        positions, lines = batch.positions[fresh], batch.lines.select(fresh)
        course = self._course(batch, positions, lines)
        refused = [(d.position, d.reason) for d in batch.dead if not duplicate[d.position]]
        if course.jumped:
            refused = sorted([*refused, *course.jumped.items()])
            stays = ~np.isin(positions, list(course.jumped))
            positions, lines = positions[stays], lines.select(stays)
        applied = Applied([Refused(offsets[i], i, reason) for i, reason in refused])
        tally = _tally(batch, duplicate, [i for i, _ in refused])
        ends = {c.position: c.event_time for c in batch.controls if c.kind is Control.END_OF_INPUT}
        start = 0
        while start < batch.size:
            cut = self._next_cut(start, positions, course.largest, ends)
            stop = batch.size if cut is None else cut + 1
            first, last = np.searchsorted(positions, [start, stop])
            self._append(lines.select(slice(first, last)))
            self._count(tally[start:stop])
            course.leave(self.guard, stop - 1)
            self._note_rows(rows_read, offsets, stop)
            self.read_offset = offsets[stop - 1]
            if cut is not None:
                applied.cuts.append(self._cut(ends.get(cut)))
            start = stop
        return applied

    def _duplicates(self, batch: Decoded) -> tuple[NDArray[np.bool_], list["RowsRead"]]:
        """Return which records repeat a row of a replayed source that was read before; how far each got."""
        duplicate = np.zeros(batch.size, bool)
        rows_read = []
        for code, name in enumerate(batch.sources):
            at = np.flatnonzero(batch.source == code)
            last, _ = self.seqs.get(name, (0, 0))
            highest = np.maximum.accumulate(np.concatenate([[last], batch.seq[at]]))
            duplicate[at] = batch.seq[at] <= highest[:-1]
            rows_read.append(RowsRead(name, at, highest[1:]))
        return duplicate, rows_read

    def _note_rows(self, rows_read: list["RowsRead"], offsets: Sequence[int], stop: int) -> None:
        """Remember how far each source was read in the records before `stop`."""
        for source in rows_read:
            count = int(np.searchsorted(source.at, stop))
            if count:
                self.seqs[source.name] = (int(source.highest[count - 1]), offsets[source.at[count - 1]])

    def _course(self, batch: Decoded, positions: Ints, lines: Lines) -> "Course":
        """Follow the trusted event time through the batch, without changing the guard."""
        times = np.full(batch.size, LONG_AGO)
        times[positions] = lines.time
        for control in batch.controls:
            times[control.position] = control.event_time
        if self.guard.settled():
            assert self.guard.largest is not None
            largest = np.maximum.accumulate(np.concatenate([[self.guard.largest], times]))
            if not (lines.time > largest[:-1][positions] + self.guard.jump_max_s).any():
                return Course(largest[1:])
        return self._course_singly(batch, positions, lines)

    def _course_singly(self, batch: Decoded, positions: Ints, lines: Lines) -> "Course":
        """Do as `_course`, a record at a time: at the start of a feed, and where a line jumps ahead."""
        words = self.words
        guard = JumpGuard(jump_max_s=self.guard.jump_max_s, jump_confirm_lines=self.guard.jump_confirm_lines)
        guard.restore(self.guard.state())
        line_at = {int(position): i for i, position in enumerate(positions)}
        control_at = {control.position: control for control in batch.controls}
        guards: list[dict[str, Any]] = []
        course = Course(np.full(batch.size, LONG_AGO), guards)
        for position in range(batch.size):
            if position in control_at:
                guard.advance(control_at[position].event_time)
            elif position in line_at:
                i = line_at[position]
                code, time = int(lines.customer[i]), int(lines.time[i])
                who = (
                    words.customers.texts[code] if code != UNKNOWN else words.invoices.texts[lines.invoice[i]]
                )
                if not guard.admits(time, who):
                    assert guard.largest is not None
                    days = (time - guard.largest) / DAY_S
                    course.jumped[position] = (
                        f"InvoiceDate lies {days:.0f} days ahead of the partition's time"
                    )
            if guard.anchored:
                assert guard.largest is not None
                course.largest[position] = guard.largest
            guards.append(guard.state())
        return course

    def _count(self, tally: NDArray[np.int8]) -> None:
        _, duplicate, control, dead = np.bincount(tally, minlength=4).tolist()
        self.counters.read += len(tally)
        self.counters.duplicate += duplicate
        self.counters.control += control
        self.counters.dead += dead

    def _next_cut(self, start: int, positions: Ints, largest: Ints, ends: dict[int, int]) -> int | None:
        """Return the first record from `start` on after which the segment ends."""
        day = (largest[start:] - self.config.lateness_s) // DAY_S
        later = np.flatnonzero(day > self.segment_day)
        found = [start + int(later[0])] if len(later) else []
        # Without a trusted time nothing may close, so a segment can only fill up.
        full = int(np.searchsorted(positions, start)) + self.config.segment_lines_max - self._open_lines - 1
        if full < len(positions):
            found.append(int(positions[full]))
        found += [position for position in ends if position >= start]
        return min(found, default=None)

    def _append(self, lines: Lines) -> None:
        """Take accepted lines into the open segment."""
        if not len(lines):
            return
        days, counts = np.unique(lines.time // DAY_S, return_counts=True)
        for day, count in zip(days.tolist(), counts.tolist(), strict=True):
            self.lines_by_day[day] = self.lines_by_day.get(day, 0) + count
        late = 0 if self.closed_through is None else int((lines.time < self.closed_through).sum())
        self.counters.late += late
        self.counters.on_time += len(lines) - late
        earliest = int(lines.time.min())
        self.earliest = earliest if self.earliest is None else min(self.earliest, earliest)
        self._open_lines += len(lines)
        named = lines.select(lines.customer != UNKNOWN)
        if len(named):
            self._open.append(named)

    # -- cutting ------------------------------------------------------------

    def _cut(self, input_ends_at: int | None) -> Cut:
        """End the segment at the record just applied; close the windows that the watermark has passed."""
        segment = None
        if self._open:
            lines = Lines.concat(self._open)
            segment = Segment(self.next_number, lines, int(lines.time.max()))
            self.segments.append(segment)
        self._open, self._open_lines = [], 0
        parts: list[WindowPart] = []
        touched: list[NDArray[np.int32]] = []
        if self.guard.anchored:
            assert self.guard.largest is not None
            watermark = self.guard.largest - self.config.lateness_s
            self.segment_day = watermark // DAY_S
            if self.closed_through is None:
                assert self.guard.earliest is not None
                self.closed_through = floor_end(
                    self.guard.earliest - self.config.lateness_s, self.config.hop_s
                )
            if input_ends_at is not None:
                watermark = max(self.guard.largest, input_ends_at)
            parts, touched = self._close_until(watermark, partial=input_ends_at is not None)
        self.closing_cuts += bool(parts)
        full = bool(parts) and self.closing_cuts % self.FULL_EVERY_CUTS == 0
        changed = (
            np.flatnonzero(self.lifetime.known) if full else np.unique(np.concatenate([NOBODY, *touched]))
        )
        texts = self.words.customers.texts
        cut = Cut(
            number=self.next_number,
            offset=self.read_offset,
            parts=parts,
            segment=segment,
            lifetime=self.lifetime.table(changed.astype(np.int32), texts) if len(changed) else None,
            lifetime_full=full,
            head=self._head(),
        )
        self.next_number += 1
        return cut

    def _close_until(
        self, watermark: int, *, partial: bool
    ) -> tuple[list[WindowPart], list[NDArray[np.int32]]]:
        """Close every window that ends at or before `watermark`, and the current one if it is `partial`."""
        assert self.closed_through is not None
        hop_s = self.config.hop_s
        last = floor_end(watermark, hop_s)
        parts: list[WindowPart] = []
        touched: list[NDArray[np.int32]] = []
        for end in ends_between(self.closed_through, last, hop_s):
            if end != last and self._is_void(end):
                continue
            part, customers = self._close(end, partial=False)
            parts.append(part)
            touched.append(customers)
        if partial and watermark >= self.closed_through:
            part, customers = self._close(self.closed_through + hop_s, partial=True)
            parts.append(part)
            touched.append(customers)
        return parts, touched

    def _is_void(self, end: int) -> bool:
        """Return whether no line falls into the window that ends at `end`: after a long gap many are so."""
        newest = max(self.lines_by_day, default=LONG_AGO)
        assert self.closed_through is not None
        waiting = any(s.number > self.last_close or s.max_time >= self.closed_through for s in self.segments)
        return not waiting and newest * DAY_S + DAY_S <= end - self.config.window_s

    def _close(self, end: int, *, partial: bool) -> tuple[WindowPart, NDArray[np.int32]]:
        """Close the window that ends at `end`; return its part and the customers whose figures changed."""
        config = self.config
        start = end - config.window_s
        lines = Lines.concat([segment.lines for segment in self.segments])
        numbers = np.repeat(
            [segment.number for segment in self.segments], [len(segment.lines) for segment in self.segments]
        ).astype(np.int64)
        assert self.closed_through is not None
        folded = (numbers <= self.last_close) & (lines.time < self.closed_through)
        due = ~folded & (lines.time < end)
        fresh = lines.select(due)
        counted = lines.select(folded & lines.is_sale & (lines.time >= start))
        touched = self.lifetime.fold(fresh, counted, orders_since=start)
        inside = lines.select((lines.time >= start) & (lines.time < end))
        scales = Scales(config.window_days, config.mid_window_days, config.short_window_days)
        columns, totals, bound = window_rows(
            inside, end, scales, self.lifetime, self.words, config.sample_customers_max
        )
        totals["lines"] = self._lines_since(start, end)
        totals["lines_week"] = self._lines_since(end - config.short_window_days * DAY_S, end)
        part = WindowPart(
            window_end=end,
            partition=self.partition,
            partial=partial,
            earliest=self.earliest,
            totals=totals,
            sample_bound=bound,
            columns=columns,
            lines=sampled_lines(fresh, self.words, bound),
            line_ids=line_texts(self.words),
        )
        self.closed_through = end
        self.last_close = self.next_number
        self._forget(end + config.hop_s - config.window_s)
        return part, touched

    def _lines_since(self, start: int, end: int) -> int:
        """Return how many accepted lines, of any customer or none, lie in [start, end); both midnights."""
        return sum(n for day, n in self.lines_by_day.items() if start <= day * DAY_S < end)

    def _forget(self, horizon: int) -> None:
        """Drop what no later window can need: everything before `horizon`."""
        self.segments = [segment for segment in self.segments if segment.max_time >= horizon]
        self.lines_by_day = {day: count for day, count in self.lines_by_day.items() if day * DAY_S >= horizon}

    def _compact_words(self) -> None:
        """Forget the invoices that no retained line names, once they are the greater part."""
        texts = self.words.invoices.texts
        retained = sum(len(segment.lines) for segment in self.segments) + self._open_lines
        if len(texts) < 10_000 or len(texts) < 2 * retained:
            return
        blocks = [segment.lines for segment in self.segments] + self._open
        if not blocks:
            self.words.invoices = Interner()
            return
        used, recoded = np.unique(Lines.concat(blocks).invoice, return_inverse=True)
        self.words.invoices = Interner(texts[code] for code in used.tolist())
        bounds = np.cumsum([len(block) for block in blocks])[:-1]
        blocks = [
            replace(block, invoice=codes.astype(np.int32))
            for block, codes in zip(blocks, np.split(recoded, bounds), strict=True)
        ]
        self.segments = [
            replace(segment, lines=block) for segment, block in zip(self.segments, blocks, strict=False)
        ]
        self._open = blocks[len(self.segments) :]

    def _head(self) -> dict[str, Any]:
        """Return everything a checkpoint holds besides lines and lifetime figures."""
        if len(self.seqs) > SOURCES_MAX:
            newest = sorted(self.seqs.items(), key=lambda item: item[1][1])[-SOURCES_MAX:]
            self.seqs = dict(newest)
        return {
            "config": asdict(self.config),
            "read_offset": self.read_offset,
            "counters": asdict(self.counters),
            "seqs": [[name, *rows] for name, rows in sorted(self.seqs.items())],
            "guard": self.guard.state(),
            "earliest": self.earliest,
            "closed_through": self.closed_through,
            "last_close": self.last_close,
            "segment_day": self.segment_day,
            "closing_cuts": self.closing_cuts,
            "lines_by_day": sorted(self.lines_by_day.items()),
            "next_number": self.next_number + 1,
            "segments": [segment.number for segment in self.segments],
        }

    @classmethod
    def restored(
        cls,
        partition: int,
        config: StateConfig,
        head: dict[str, Any],
        words: Vocabulary,
        segments: list[Segment],
        lifetime: Lifetime,
    ) -> "PartitionState":
        """Return the state as it was right after the cut that gave `head`."""
        state = cls(partition, config)
        state.words, state.decoder = words, Decoder(words)
        state.segments, state.lifetime = segments, lifetime
        state.read_offset = head["read_offset"]
        state.counters = Counters(**head["counters"])
        state.seqs = {name: (seq, offset) for name, seq, offset in head["seqs"]}
        state.guard.restore(head["guard"])
        state.earliest = head["earliest"]
        state.closed_through = head["closed_through"]
        state.last_close = head["last_close"]
        state.segment_day = head["segment_day"]
        state.closing_cuts = head["closing_cuts"]
        state.lines_by_day = dict(head["lines_by_day"])
        state.next_number = head["next_number"]
        return state


def _tally(batch: Decoded, duplicate: NDArray[np.bool_], refused: list[int]) -> NDArray[np.int8]:
    """Return what each record is: 0 an accepted line, 1 duplicate, 2 control, 3 dead."""
    tally = np.zeros(batch.size, np.int8)
    tally[duplicate] = 1
    tally[[control.position for control in batch.controls]] = 2
    tally[refused] = 3
    return tally


def config_differences(stored: dict[str, Any], config: StateConfig) -> list[str]:
    """Return in words how a stored configuration differs from `config`, a setting an entry."""
    return [
        f"{item.name} was {stored.get(item.name)!r} and is now {getattr(config, item.name)!r}"
        for item in fields(config)
        if stored.get(item.name) != getattr(config, item.name)
    ]
