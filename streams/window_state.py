"""What a partition keeps of its lines, and the windows that it closes over them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.features import DAY_S
from models.lines import Codes, Lines
from streams.closing import Scales, WindowPart, sampled_lines, window_rows
from streams.grid import ends_between, floor_end
from streams.lifetime import Lifetime
from streams.state_config import StateConfig
from streams.vocabulary import UNKNOWN, Interner, Vocabulary

INVOICES_MIN = 10_000  # fewer than these are never worth forgetting


@dataclass(frozen=True)
class Segment:
    """Known customers' lines that arrived between two checkpoints."""

    number: int
    lines: Lines
    max_time: int


@dataclass(frozen=True)
class Closed:
    """A window closed: what to publish, and the customers whose lifetime figures changed."""

    part: WindowPart
    touched: Codes


class WindowState:
    """Segments, the open one, lines a day, lifetime figures: all as of one record of the partition's log."""

    def __init__(self, partition: int, config: StateConfig, words: Vocabulary) -> None:
        self.partition = partition
        self.config = config
        self.words = words
        self.segments: list[Segment] = []
        self.lifetime = Lifetime.empty()
        self.lines_by_day: dict[int, int] = {}  # of every accepted line, whoever bought
        self.earliest: int | None = None
        self.closed_through: int | None = None
        self.last_close = -1  # number of the last segment that a close has folded
        self.open_lines = 0
        self._open: list[Lines] = []

    # -- lines come ---------------------------------------------------------

    def append(self, lines: Lines) -> int:
        """Take accepted lines into the open segment; return how many of them are late."""
        if not len(lines):
            return 0
        days = lines.time // DAY_S
        first = int(days.min())
        for day, count in enumerate(np.bincount(days - first).tolist(), first):
            if count:
                self.lines_by_day[day] = self.lines_by_day.get(day, 0) + count
        earliest = int(lines.time.min())
        self.earliest = earliest if self.earliest is None else min(self.earliest, earliest)
        self.open_lines += len(lines)
        named = lines.select(lines.customer != UNKNOWN)
        if len(named):
            self._open.append(named)
        if self.closed_through is None or earliest >= self.closed_through:
            return 0
        return int(np.count_nonzero(lines.time < self.closed_through))

    def seal(self, number: int) -> Segment | None:
        """End the open segment under `number`; None if it holds no line of a known customer."""
        segment = None
        if self._open:
            lines = Lines.concat(self._open)
            segment = Segment(number, lines, int(lines.time.max()))
            self.segments.append(segment)
        self._open, self.open_lines = [], 0
        return segment

    # -- windows close ------------------------------------------------------

    def begin(self, time: int) -> None:
        """Let the grid begin at the last window end at or before `time`, unless it has begun."""
        if self.closed_through is None:
            self.closed_through = floor_end(time, self.config.hop_s)

    def close_until(self, watermark: int, *, number: int, partial: bool) -> Iterator[Closed]:
        """Close every window that ends at or before `watermark`, and the current one if it is `partial`.

        `number` is that of the segment just sealed, whose lines the first close folds in.
        """
        assert self.closed_through is not None
        hop_s = self.config.hop_s
        last = floor_end(watermark, hop_s)
        for end in ends_between(self.closed_through, last, hop_s):
            if end == last or not self._is_void(end):
                yield self._close(end, number, partial=False)
        if partial and watermark >= self.closed_through:
            yield self._close(self.closed_through + hop_s, number, partial=True)

    def _is_void(self, end: int) -> bool:
        """Return whether no line falls into the window that ends at `end`: after a long gap many are so."""
        assert self.closed_through is not None
        waiting = any(s.number > self.last_close or s.max_time >= self.closed_through for s in self.segments)
        start = end - self.config.window_s
        return not waiting and all(day * DAY_S + DAY_S <= start for day in self.lines_by_day)

    def _close(self, end: int, number: int, *, partial: bool) -> Closed:
        """Close the window that ends at `end`."""
        assert self.closed_through is not None
        config = self.config
        start = end - config.window_s
        lines = Lines.concat([segment.lines for segment in self.segments])
        folded = self._folded(lines, self.closed_through)
        is_sale = lines.is_sale & (lines.time >= start)
        fresh = lines.select(~folded & (lines.time < end))
        counted = lines.select(folded & is_sale & _among(lines.invoice, fresh.invoice))
        touched = self.lifetime.fold(fresh, counted, orders_since=start)
        scales = Scales(config.window_days, config.mid_window_days, config.short_window_days)
        rows = window_rows(
            lines.select(is_sale & (lines.time < end)),
            end,
            scales,
            self.lifetime,
            self.words,
            config.sample_customers_max,
            rest_wanted=config.rest_wanted and not partial,
        )
        totals = rows.totals
        totals["lines"] = self._lines_since(start, end)
        totals["lines_week"] = self._lines_since(end - config.short_window_days * DAY_S, end)
        week, texts = sampled_lines(fresh, self.words, rows.bound)
        part = WindowPart(
            window_end=end,
            partition=self.partition,
            partial=partial,
            after=None if self.last_close < 0 else self.closed_through,
            earliest=self.earliest,
            totals=totals,
            sample_bound=rows.bound,
            columns=rows.columns,
            lines=week,
            line_ids=texts,
            rest=rows.rest,
        )
        self.closed_through = end
        self.last_close = number
        self._forget(end + config.hop_s - config.window_s)
        return Closed(part, touched)

    def _folded(self, lines: Lines, closed_through: int) -> NDArray[np.bool_]:
        """Return which of `lines`, those of all segments, an earlier close has folded."""
        known = sum(len(segment.lines) for segment in self.segments if segment.number <= self.last_close)
        folded = lines.time < closed_through
        folded[known:] = False  # segments stand in the order of their numbers
        return folded

    def _lines_since(self, start: int, end: int) -> int:
        """Return how many accepted lines, of any customer or none, lie in [start, end); both midnights."""
        return sum(n for day, n in self.lines_by_day.items() if start <= day * DAY_S < end)

    # -- what is no longer needed -------------------------------------------

    def _forget(self, horizon: int) -> None:
        """Drop what no later window can need: everything before `horizon`."""
        self.segments = [segment for segment in self.segments if segment.max_time >= horizon]
        self.lines_by_day = {day: count for day, count in self.lines_by_day.items() if day * DAY_S >= horizon}

    def compact_words(self) -> None:
        """Forget the invoices that no retained line names, once they are the greater part."""
        texts = self.words.invoices.texts
        retained = sum(len(segment.lines) for segment in self.segments) + self.open_lines
        if len(texts) < INVOICES_MIN or len(texts) < 2 * retained:
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

    def restore(self, head: dict[str, Any], segments: list[Segment], lifetime: Lifetime) -> None:
        """Take up what was stored with `head`; `segments` in the order of their numbers."""
        self.segments, self.lifetime = segments, lifetime
        self.earliest = head["earliest"]
        self.closed_through = head["closed_through"]
        self.last_close = head["last_close"]
        self.lines_by_day = dict(head["lines_by_day"])


def _among(codes: Codes, chosen: Codes) -> NDArray[np.bool_]:
    """Return which of `codes` are among `chosen`."""
    table = np.zeros(int(codes.max(initial=-1)) + 1, bool)
    table[chosen] = True
    return table[codes]
