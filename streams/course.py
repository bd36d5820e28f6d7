"""The trusted event time of a partition, followed through a batch of its records."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.features import DAY_S
from models.lines import Ints, Lines
from streams.decode import ControlRecord, Decoded
from streams.vocabulary import UNKNOWN, Vocabulary
from streams.watermarks import JumpGuard

LONG_AGO = np.iinfo(np.int64).min // 4  # a time before every other, far enough from overflow


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


def follow(guard: JumpGuard, batch: Decoded, positions: Ints, lines: Lines, words: Vocabulary) -> Course:
    """Return the course of `batch` from where `guard` stands, which is not changed.

    `lines` are those of the batch that are no repetition, `positions` says which record each of them was.
    """
    if guard.settled():
        assert guard.largest is not None
        # One place more than there are records: what the time was before the first.
        times = np.full(batch.size + 1, LONG_AGO)
        times[0] = guard.largest
        times[positions + 1] = lines.time
        for control in batch.controls:
            times[control.position + 1] = control.event_time
        largest = np.maximum.accumulate(times)
        if not (lines.time > largest[positions] + guard.jump_max_s).any():
            return Course(largest[1:])
    return _follow_singly(guard, batch, positions, lines, words)


def _follow_singly(
    guard: JumpGuard, batch: Decoded, positions: Ints, lines: Lines, words: Vocabulary
) -> Course:
    """Do as `follow`, a record at a time: at the start of a feed, and where a line jumps ahead."""
    ahead = JumpGuard(jump_max_s=guard.jump_max_s, jump_confirm_lines=guard.jump_confirm_lines)
    ahead.restore(guard.state())
    line_at = {int(position): i for i, position in enumerate(positions)}
    control_at: dict[int, ControlRecord] = {control.position: control for control in batch.controls}
    guards: list[dict[str, Any]] = []
    course = Course(np.full(batch.size, LONG_AGO), guards)
    for position in range(batch.size):
        if position in control_at:
            ahead.advance(control_at[position].event_time)
        elif position in line_at:
            i = line_at[position]
            time = int(lines.time[i])
            if not ahead.admits(time, _buyer(lines, i, words)):
                assert ahead.largest is not None
                days = (time - ahead.largest) / DAY_S
                course.jumped[position] = f"InvoiceDate lies {days:.0f} days ahead of the partition's time"
        if ahead.anchored:
            assert ahead.largest is not None
            course.largest[position] = ahead.largest
        guards.append(ahead.state())
    return course


def _buyer(lines: Lines, i: int, words: Vocabulary) -> str:
    """Return the customer of a line, or its invoice where the customer is unknown."""
    code = int(lines.customer[i])
    return words.customers.texts[code] if code != UNKNOWN else words.invoices.texts[lines.invoice[i]]
