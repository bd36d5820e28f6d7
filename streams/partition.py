"""State of one input partition: a deterministic function of a prefix of that partition's log."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.features import DAY_S
from models.lines import Codes, Ints, distinct
from streams.closing import WindowPart
from streams.course import LONG_AGO, follow
from streams.decode import Decoded, Decoder
from streams.early_warnings import EarlyWarnings, Warned
from streams.lifetime import Lifetime
from streams.sources import RawHeaders, Sources
from streams.state_config import Counters, StateConfig
from streams.transactions import Control
from streams.vocabulary import Vocabulary
from streams.watermarks import JumpGuard
from streams.window_state import Closed, Segment, WindowState


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
    warned: list[Warned]
    segment: Segment | None
    lifetime: dict[str, Any] | None  # figures of the customers that changed, or of all
    lifetime_full: bool
    head: dict[str, Any]


@dataclass
class Applied:
    """What a batch led to, in the order of the log."""

    refused: list[Refused] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)


class PartitionState:
    """Applies batches of records; cuts segments and closes windows where that partition's log says so.

    Boundaries depend on the log alone: never on the clock, the size of the batches or another partition. A
    segment ends with the record that moves the watermark into another day, fills it up, or ends the input.
    """

    FULL_EVERY_CUTS = 13  # closing cuts from one full copy of the lifetime figures to the next

    def __init__(self, partition: int, config: StateConfig) -> None:
        self.partition = partition
        self.config = config
        self.words = Vocabulary()
        self.decoder = Decoder(self.words, config.field_mapping, config.pseudonyms)
        self.guard = JumpGuard(
            jump_max_s=config.jump_max_days * DAY_S, jump_confirm_lines=config.jump_confirm_lines
        )
        self.read_offset = -1
        self.counters = Counters()
        self.sources = Sources()
        self.windows = WindowState(partition, config, self.words)
        self.warnings = EarlyWarnings(partition)
        self.next_number = 0  # of the open segment
        self.open_records = 0  # read since the segment was opened
        self.segment_day = LONG_AGO // DAY_S
        self.closing_cuts = 0

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
        self.windows.compact_words()
        batch = self.decoder.decode(values, headers)
        if self.sources.hold(batch.origin.names):
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
        duplicate, rows_read = self.sources.repeated(batch.origin)
        positions, lines = batch.positions, batch.lines
        if duplicate.any():
            fresh = ~duplicate[positions]
            positions, lines = positions[fresh], lines.select(fresh)
        course = follow(self.guard, batch, positions, lines, self.words)
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
            cut = self._next_cut(start, batch.size, course.largest, ends)
            stop = batch.size if cut is None else cut + 1
            first, last = np.searchsorted(positions, [start, stop])
            late = self.windows.append(lines.select(slice(first, last)))
            self._count(tally[start:stop], late)
            course.leave(self.guard, stop - 1)
            self.sources.note(rows_read, offsets, stop)
            self.read_offset = offsets[stop - 1]
            self.open_records += stop - start
            if cut is not None:
                applied.cuts.append(self._cut(ends.get(cut)))
            start = stop
        return applied

    def _count(self, tally: NDArray[np.int8], late: int) -> None:
        accepted, duplicate, control, dead = np.bincount(tally, minlength=4).tolist()
        self.counters.read += len(tally)
        self.counters.on_time += accepted - late
        self.counters.late += late
        self.counters.duplicate += duplicate
        self.counters.control += control
        self.counters.dead += dead

    def _next_cut(self, start: int, size: int, largest: Ints, ends: dict[int, int]) -> int | None:
        """Return the first record from `start` on after which the segment ends."""
        day = (largest[start:] - self.config.lateness_s) // DAY_S
        later = np.flatnonzero(day > self.segment_day)
        found = [start + int(later[0])] if len(later) else []
        # Records of every kind fill a segment: garbage alone, too, must come to a checkpoint.
        full = start + self.config.segment_lines_max - self.open_records - 1
        if full < size:
            found.append(full)
        found += [position for position in ends if position >= start]
        return min(found, default=None)

    # -- cutting ------------------------------------------------------------

    def _cut(self, input_ends_at: int | None) -> Cut:
        """End the segment at the record just applied; close the windows that the watermark has passed."""
        segment = self.windows.seal(self.next_number)
        warned = self._judge_days() if self.guard.anchored else []
        closed = self._close(input_ends_at) if self.guard.anchored else []
        self.closing_cuts += bool(closed)
        full = bool(closed) and self.closing_cuts % self.FULL_EVERY_CUTS == 0
        lifetime = self.windows.lifetime
        changed = lifetime.codes() if full else _union([window.touched for window in closed])
        cut = Cut(
            number=self.next_number,
            offset=self.read_offset,
            parts=[window.part for window in closed],
            warned=warned,
            segment=segment,
            lifetime=lifetime.table(changed, self.words.customers.texts) if len(changed) else None,
            lifetime_full=full,
            head=self._head(),
        )
        self.next_number += 1
        self.open_records = 0
        return cut

    def _judge_days(self) -> list[Warned]:
        """Look at the days that the watermark has passed, before a close forgets their lines."""
        assert self.guard.largest is not None
        day = (self.guard.largest - self.config.lateness_s) // DAY_S
        return self.warnings.advance(day, self.windows.segments)

    def _close(self, input_ends_at: int | None) -> list[Closed]:
        """Move on to the watermark's day, closing windows; where the input ends, the current one too."""
        guard, lateness_s = self.guard, self.config.lateness_s
        assert guard.largest is not None
        assert guard.earliest is not None
        watermark = guard.largest - lateness_s
        self.segment_day = watermark // DAY_S
        self.windows.begin(guard.earliest - lateness_s)
        if input_ends_at is not None:
            watermark = max(guard.largest, input_ends_at)
        return list(
            self.windows.close_until(watermark, number=self.next_number, partial=input_ends_at is not None)
        )

    def _head(self) -> dict[str, Any]:
        """Return everything a checkpoint holds besides lines and lifetime figures."""
        windows = self.windows
        return {
            "config": self.config.as_stored,
            "read_offset": self.read_offset,
            "counters": asdict(self.counters),
            "seqs": self.sources.stored(),
            "guard": self.guard.state(),
            "earliest": windows.earliest,
            "closed_through": windows.closed_through,
            "last_close": windows.last_close,
            "segment_day": self.segment_day,
            "closing_cuts": self.closing_cuts,
            "lines_by_day": sorted(windows.lines_by_day.items()),
            "next_number": self.next_number + 1,
            "segments": [segment.number for segment in windows.segments],
            "warnings": self.warnings.stored(),
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
        state.words, state.decoder = words, Decoder(words, config.field_mapping, config.pseudonyms)
        state.windows = WindowState(partition, config, words)
        state.windows.restore(head, segments, lifetime)
        state.read_offset = head["read_offset"]
        state.counters = Counters(**head["counters"])
        state.sources.restore(head["seqs"])
        state.guard.restore(head["guard"])
        state.warnings.restore(head["warnings"])
        state.segment_day = head["segment_day"]
        state.closing_cuts = head["closing_cuts"]
        state.next_number = head["next_number"]
        return state


def _tally(batch: Decoded, duplicate: NDArray[np.bool_], refused: list[int]) -> NDArray[np.int8]:
    """Return what each record is: 0 an accepted line, 1 duplicate, 2 control, 3 dead."""
    tally = np.zeros(batch.size, np.int8)
    tally[duplicate] = 1
    tally[[control.position for control in batch.controls]] = 2
    tally[refused] = 3
    return tally


def _union(codes: list[Codes]) -> Codes:
    """Return the codes in any of `codes`, rising."""
    return distinct(np.concatenate(codes)) if codes else np.empty(0, np.int32)
