"""A file on its way into a batch job: its records, and how far it has been read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from producers import feed
from producers.feed import Record
from producers.inputs import Input
from streams.settings import Settings

SHOWN_EVERY_RECORDS = 2_000


def batch_records(
    settings: Settings, source: Input, *, partitions: int = 1, limit: int | None = None
) -> Iterator[Record]:
    """Return the records that a replay of `source` sends, of its first `limit` rows only if given."""
    lines = source.lines()
    if limit is not None:
        lines = takewhile(lambda item: source.row_of(item[0]) <= limit, lines)
    return feed.records(
        lines,
        source=source.source,
        partitions=partitions,
        jump_max_days=settings.jump_max_days,
        jump_confirm_lines=settings.jump_confirm_lines,
        start=source.start,
        pseudonyms=settings.pseudonyms,
    )


class Shown:
    """Records that pass by a progress bar, and the note beside it."""

    def __init__(self, progress: Progress, source: Input, limit: int | None) -> None:
        rows = source.rows if limit is None else min(limit, source.rows or limit)
        self._progress = progress
        self._row_of: Callable[[int], int] = source.row_of
        self._task = progress.add_task(source.title, total=rows, note="")

    def passing(self, records: Iterator[Record]) -> Iterator[Record]:
        """Yield the records as they come."""
        for count, record in enumerate(records):
            if count % SHOWN_EVERY_RECORDS == 0:
                self._progress.update(self._task, completed=self._row_of(record.seq))
            yield record

    def note(self, window_end: str) -> None:
        """Show the window that was just finished."""
        self.stage(f"window {window_end[:10]}")

    def stage(self, words: str) -> None:
        """Show what is being done."""
        self._progress.update(self._task, note=words)


@contextmanager
def shown(console: Console, source: Input, limit: int | None = None) -> Iterator[Shown]:
    """Show how far `source` is read while the block runs: on a terminal only."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        yield Shown(bar, source, limit)
