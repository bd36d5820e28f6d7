"""Lines of text to rows of CSV as they come: a quoted field may go over several lines, within bounds."""

import csv
from collections.abc import Iterator
from typing import Any

ROW_LINES_MAX = 100
ROW_CHARS_MAX = 1 << 20


class RowAssembler:
    """Puts rows together; how the lines are portioned makes no difference to the rows.

    A row of more than `ROW_LINES_MAX` lines or `ROW_CHARS_MAX` characters has a quote that is never closed,
    or closed by another stray one: the line in which it opens becomes a row of one field, which is refused
    as such, and reading goes on with the line after it. So does a line that is no CSV.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._pending: list[str] = []
        csv.field_size_limit(max(csv.field_size_limit(), ROW_CHARS_MAX))

    def rows(self, lines: list[str], *, final: bool = False) -> Iterator[list[str]]:
        """Yield the rows that `lines` complete; with `final` nothing is waited for."""
        pending = self._pending + lines
        while pending:
            used, broken = 0, False
            for row, used, broken in self._whole(pending):  # noqa: B007  (the last ones count)
                if row is not None:
                    yield row
            pending = pending[used:]
            if pending and (broken or final or _too_long(pending)):
                yield [pending[0].rstrip("\r\n")]
                pending = pending[1:]
            else:
                break
        self._pending = pending

    def _whole(self, pending: list[str]) -> Iterator[tuple[list[str] | None, int, bool]]:
        """Yield each whole row of `pending`, and how many lines are used up with it.

        Ends before a row that is not whole, or with None and True before one that is none.
        """
        wanted_more = False

        def source() -> Iterator[str]:
            nonlocal wanted_more
            yield from pending
            wanted_more = True

        reader = csv.reader(source(), **self._options)
        used = 0
        while used < len(pending):
            try:
                row = next(reader)
            except csv.Error:
                yield None, used, True
                return
            if wanted_more:
                return
            if _too_long(pending[used : reader.line_num]):
                yield None, used, True
                return
            used = reader.line_num
            yield row, used, False


def _too_long(lines: list[str]) -> bool:
    return len(lines) > ROW_LINES_MAX or (len(lines) > 1 and sum(map(len, lines)) > ROW_CHARS_MAX)
