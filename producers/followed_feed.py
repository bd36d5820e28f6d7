"""A followed file as lines with their numbers: each file that takes its place is an input of its own."""

import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from models.features import DAY_S
from producers import feed, fields
from producers.follow import FollowedFile, FollowedPipe
from producers.follow_rows import RowAssembler
from producers.lines import Line, NumberedLine
from producers.source import (
    MappedRowReader,
    RowReader,
    ambiguous_dates,
    column_places,
    lacks_columns,
    lacks_fields,
    missing_columns,
)
from producers.tables import reader_options, unusable
from streams.mapping import Mapping
from streams.transactions import FIELDS

FIRST_ROWS_MAX = 10_000  # looked at for how dates are written and where the event time begins


class Begun(NamedTuple):
    """The lines that follow are those of another file: its name as an input, where its event time begins."""

    source: str
    start: int | None  # epoch seconds; None where its first lines have no readable date


Item = Begun | NumberedLine | None


class FollowedFeed:
    """Gives the lines of a followed file as they come, None where there is nothing for now."""

    def __init__(
        self,
        path: Path,
        followed: FollowedFile | FollowedPipe,
        mapping: Mapping | None,
        *,
        jump_max_days: int,
    ) -> None:
        self._path = path
        self._followed = followed
        self._mapping = mapping
        self._jump_max_s = jump_max_days * DAY_S
        self._ended = False  # of the whole feed
        self._over = False  # of the file at hand

    def items(self) -> Iterator[Item]:
        """Yield what comes; ends where a pipe does. Raises UserError (INPUT) for what cannot be used."""
        while not self._ended:
            self._over = False
            yield from self._one_file()

    def _one_file(self) -> Iterator[Item]:
        """Yield the lines of one file, from its header to its end or to the file that takes its place."""
        lines: list[str] = []
        while not lines and not self._over:
            lines, waiting = self._look()
            if waiting:
                yield None
        if lines:
            yield from self._rows_of(lines)
        elif self._ended:
            raise unusable(self._path, "brought nothing, not even a header of columns")

    def _rows_of(self, lines: list[str]) -> Iterator[Item]:
        """Yield the lines of a file of which the first `lines` are read."""
        head, *lines = lines
        options = reader_options(self._path, head, None if self._mapping is None else self._mapping.csv)
        header = next(csv.reader([head], **options), [])
        self._check(header)
        assembler = RowAssembler(options)
        rows = list(assembler.rows(lines, final=self._over))
        waiting = False
        while not self._over and len(rows) < FIRST_ROWS_MAX and not (waiting and any(rows)):
            if waiting:
                yield None
            lines, waiting = self._look()
            rows += assembler.rows(lines, final=self._over)
        if not any(rows):
            return
        convert = self._reader(header, rows)
        first = list(convert(rows))
        yield self._begun(head, next(filter(None, rows)), first)
        yield from enumerate(first, 1)
        count = len(first)
        while not self._over:
            lines, waiting = self._look()
            for line in convert(list(assembler.rows(lines, final=self._over))):
                count += 1
                yield count, line
            if waiting:
                yield None

    def _look(self) -> tuple[list[str], bool]:
        """Return the lines that are new, and whether nothing more is there for now."""
        news = self._followed.look()
        self._ended = news.ended
        self._over = news.ended or news.begun_anew
        return news.lines, news.waiting

    def _check(self, header: list[str]) -> None:
        if self._mapping is not None:
            if missing_columns(header, self._mapping):
                raise lacks_columns(self._path, header, self._mapping)
        elif len(column_places(header)) < len(FIELDS):
            raise lacks_fields(self._path, header)

    def _reader(
        self, header: list[str], rows: list[list[str]]
    ) -> Callable[[list[list[str]]], Iterator[Line]]:
        """Return what turns rows into lines; how dates are written must show in the first rows."""
        if self._mapping is not None:
            return MappedRowReader(header, self._mapping).lines
        place = column_places(header)["InvoiceDate"]
        try:
            order = fields.date_order(row[place] for row in rows if place < len(row))
        except fields.AmbiguousDatesError as exc:
            raise ambiguous_dates(self._path, exc) from exc
        return RowReader(header, order).lines

    def _begun(self, head: str, row: list[str], first: list[Line]) -> Begun:
        ahead = feed.look_ahead(enumerate(first, 1))
        return Begun(self._identity(head, row), feed.start_time(ahead, jump_max_s=self._jump_max_s))

    def _identity(self, head: str, row: list[str]) -> str:
        """Return the name of a file that grows, by its header and first row; of a pipe one of its own."""
        if isinstance(self._followed, FollowedPipe):
            return token_hex(10)
        made = "" if self._mapping is None else self._mapping.fingerprint
        told = "\x1e".join([head.strip(), *row, made])
        return hashlib.sha256(f"follow {told}".encode()).hexdigest()[:20]
