"""Replay identity: which row of which source a record is, and which rows were read before.

A replayed record names its source and its row there. Rows rise within a partition, so of each source the last
one read tells what repeats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from models.lines import Ints
from streams.transactions import HEADER_CONTROL, HEADER_SEQ, HEADER_SOURCE

SOURCES_MAX = 1_000  # replayed inputs whose position is remembered
SOURCE_BYTES_MAX = 128
SEQ_DIGITS_MAX = 18
_LINE_HEADERS = (HEADER_SOURCE, HEADER_SEQ)  # of a replayed line, in the order in which it carries them

RawHeaders = Sequence[tuple[str, bytes | None]]  # Kafka allows headers without a value


@dataclass(frozen=True)
class Identities:
    """The sources and rows of a batch, a record an entry."""

    source: NDArray[np.int32]  # index into `names`, -1 where a record names none
    seq: Ints  # meaningless where `source` is -1
    names: list[str]


@dataclass(frozen=True)
class RowsRead:
    """The records of one replayed source in a batch: where they stand, and the highest row up to each."""

    name: str
    at: NDArray[np.intp]
    highest: Ints


class Sources:
    """How far each source was read, as of one record of the log."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[int, int]] = {}  # by source: its last row, the offset that named it

    def hold(self, names: Sequence[str]) -> bool:
        """Return whether none will be forgotten once `names` are read too."""
        return len(self._rows.keys() | set(names)) <= SOURCES_MAX

    def repeated(self, batch: Identities) -> tuple[NDArray[np.bool_], list[RowsRead]]:
        """Return which records repeat a row that was read before, and how far each source got."""
        duplicate = np.zeros(len(batch.source), bool)
        rows_read = []
        for code, name in enumerate(batch.names):
            at = np.flatnonzero(batch.source == code)
            last, _ = self._rows.get(name, (0, 0))
            highest = np.maximum.accumulate(np.concatenate([[last], batch.seq[at]]))
            duplicate[at] = batch.seq[at] <= highest[:-1]
            rows_read.append(RowsRead(name, at, highest[1:]))
        return duplicate, rows_read

    def note(self, rows_read: list[RowsRead], offsets: Sequence[int], stop: int) -> None:
        """Remember how far each source was read in the records before `stop`."""
        for source in rows_read:
            count = int(np.searchsorted(source.at, stop))
            if count:
                self._rows[source.name] = (int(source.highest[count - 1]), offsets[source.at[count - 1]])

    def stored(self) -> list[list[Any]]:
        """Return what a checkpoint keeps, [source, row, offset] each; forget the sources longest unheard."""
        if len(self._rows) > SOURCES_MAX:
            newest = sorted(self._rows.items(), key=lambda item: item[1][1])[-SOURCES_MAX:]
            self._rows = dict(newest)
        return [[name, *rows] for name, rows in sorted(self._rows.items())]

    def restore(self, stored: list[list[Any]]) -> None:
        """Take up what `stored()` gave."""
        self._rows = {name: (seq, offset) for name, seq, offset in stored}


class IdentityReader:
    """Reads the identities of a batch from its headers, block by block."""

    def __init__(self) -> None:
        self._codes: dict[bytes, int] = {}
        self._blocks: list[tuple[NDArray[np.int32], Ints]] = []

    def read(self, headers: Sequence[RawHeaders]) -> list[int]:
        """Take the next block; return which of its records have other headers than a replayed line's."""
        others = [i for i, header in enumerate(headers) if len(header) != len(_LINE_HEADERS)]
        plain = [header for header in headers if len(header) == len(_LINE_HEADERS)] if others else headers
        found = _of_one_source(plain)
        special = [i for i in others if headers[i]]
        if found is None or not all(HEADER_CONTROL in dict(headers[i]) for i in special):
            return self._read_singly(headers)
        name, rows = found
        source = np.full(len(headers), _source_code(name, self._codes), np.int32)
        source[others] = -1
        seq = np.zeros(len(headers), np.int64)
        seq[source >= 0] = rows
        self._blocks.append((source, seq))
        return special

    def _read_singly(self, headers: Sequence[RawHeaders]) -> list[int]:
        """Do as `read`, a record at a time."""
        source, seq = np.full(len(headers), -1, np.int32), np.zeros(len(headers), np.int64)
        special: list[int] = []
        for i, header in enumerate(headers):
            found = dict(header)
            if HEADER_CONTROL not in found and _is_seq(number := found.get(HEADER_SEQ)):
                source[i], seq[i] = _source_code(found.get(HEADER_SOURCE), self._codes), int(number)
            if header and tuple(name for name, _ in header) != _LINE_HEADERS:
                special.append(i)
        self._blocks.append((source, seq))
        return special

    def identities(self) -> Identities:
        """Return the identities of all blocks read."""
        # Latin-1 tells any two names apart; one that is not UTF-8 is still a name.
        names = [name.decode("latin-1") for name in self._codes]
        sources, seqs = zip(*self._blocks, strict=True) if self._blocks else ((), ())
        return Identities(
            np.concatenate([np.empty(0, np.int32), *sources]),
            np.concatenate([np.empty(0, np.int64), *seqs]),
            names,
        )


def _of_one_source(headers: Sequence[RawHeaders]) -> tuple[bytes, Ints] | None:
    """Return the source and the rows where all records are replayed lines of one source: nearly always."""
    try:
        (_, name), _ = headers[0]
        numbers = [
            number
            for (first, source), (second, number) in headers
            if first == HEADER_SOURCE and second == HEADER_SEQ and source == name
        ]
        digits = b"".join(numbers)  # type: ignore[arg-type]
    except (IndexError, TypeError, ValueError):  # no record, a header without a value, other headers
        return None
    lengths = set(map(len, numbers))  # type: ignore[arg-type]
    if (
        name is None
        or len(name) > SOURCE_BYTES_MAX
        or len(numbers) != len(headers)
        or not digits.isdigit()
        or 0 in lengths
        or max(lengths) > SEQ_DIGITS_MAX
    ):
        return None
    return name, np.fromiter(map(int, numbers), np.int64, len(numbers))  # type: ignore[arg-type]


def _is_seq(number: bytes | None) -> TypeGuard[bytes]:
    """Return whether this is a row's number; if not, the line counts as often as the log holds it."""
    return number is not None and number.isdigit() and len(number) <= SEQ_DIGITS_MAX


def _source_code(name: bytes | None, codes: dict[bytes, int]) -> int:
    """Return the code of a source, a new one where needed; -1 where there is no name or no sensible one."""
    if name is None or len(name) > SOURCE_BYTES_MAX:
        return -1
    return codes.setdefault(name, len(codes))
