"""One run of `clv-drift replay --follow`: a growing file or a pipe to Kafka, until it ends or is stopped."""

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from rich.console import Console

from producers import feed
from producers.feed import Place, Record
from producers.follow import STDIN, FollowedFile, FollowedPipe
from producers.followed_feed import Begun, FollowedFeed, Item
from producers.lines import NumberedLine
from producers.pacing import AtOnce
from producers.progress import display
from producers.replay import MESSAGE_BYTES_MAX, Outcome, replay
from producers.session import INTERRUPTED, NOTICE_RECORDS, Request, outcome_words, stop_on_signals
from producers.tables import readable, text_codec
from producers.topic_tail import last_places, partition_count
from streams.errors import ExitCode, UserError
from streams.settings import Settings

WAIT_S = 0.2

# By source: the last record of it in each partition.
Written = dict[str, dict[int, Place]]


def run_follow(settings: Settings, name: str, request: Request, console: Console) -> int:
    """Follow a file (`-`: standard input) and return the exit code; words go to `console`.

    Raises UserError for a request, an input, a broker or a topic that does not do.
    """
    _check(name, request)
    partitions = partition_count(settings)
    path = Path("standard input" if name == STDIN else name)
    mapping = settings.field_mapping
    codec = text_codec(None if mapping is None else mapping.csv)
    followed = FollowedPipe(sys.stdin.fileno(), *codec) if name == STDIN else FollowedFile(path, *codec)
    fed = FollowedFeed(path, followed, mapping, jump_max_days=settings.jump_max_days)
    items = _readable(path, fed.items())

    def refuse(record: Record) -> None:
        console.print(
            f"row {record.seq:,} refused: {len(record.value):,} bytes are more than"
            f" the topic's {MESSAGE_BYTES_MAX:,}"
        )

    try:
        with stop_on_signals() as stop, display(console, f"{path}, followed", None) as shown:
            begun = _first(items, stop)
            if begun is None:
                return _ended(Outcome(stopped=stop.is_set()), console)
            written = {begun.source: _written(settings, begun.source, request, console)}
            records = _records(settings, begun, items, partitions, written)
            outcome = asyncio.run(
                replay(settings, records, pace=AtOnce(), stop=stop, report=shown.show, refuse=refuse)
            )
    finally:
        followed.close()
    return _ended(outcome, console)


def _check(name: str, request: Request) -> None:
    """Raise UserError (USAGE) for what does not go with following."""
    if (
        request.path is not None
        or request.synthetic is not None
        or request.inject
        or request.speed is not None
        or request.limit is not None
        or request.live
    ):
        raise UserError(
            "--follow sends what comes, as it comes",
            hint="leave out the input, --synthetic, --inject, --speed, --limit and --live",
            code=ExitCode.USAGE,
        )
    if name == STDIN and request.resume:
        raise UserError(
            "what is piped in cannot be resumed: it has no beginning to find it by",
            hint="follow the file itself, or leave out --resume",
            code=ExitCode.USAGE,
        )


def _readable(path: Path, items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items, failures of reading put into words about the file."""
    with readable(path):
        yield from items


def _first(items: Iterator[Item], stop: Event) -> Begun | None:
    """Wait for the first row; None where there will be none."""
    for item in items:
        if isinstance(item, Begun):
            return item
        if stop.is_set():
            break
        time.sleep(WAIT_S)
    return None


def _written(settings: Settings, source: str, request: Request, console: Console) -> dict[int, Place]:
    """Return what of a file is passed over because the topic holds it, and say so."""
    written = asyncio.run(
        last_places(settings, source, records_max=None if request.resume else NOTICE_RECORDS)
    )
    if written:
        row = max(place.seq for place in written.values())
        console.print(
            f"resuming: the topic holds this file up to row {row:,}"
            if request.resume
            else f"note: the topic already holds this file up to row {row:,}; lines sent again are ignored by"
            " the worker as duplicates (--resume sends only what is missing)"
        )
    elif request.resume:
        console.print("note: nothing of this file is in the topic; it is sent from the start")
    return written if request.resume else {}


def _records(
    settings: Settings, begun: Begun, items: Iterator[Item], partitions: int, written: Written
) -> Iterator[Record | None]:
    """Yield the records of one file after the other; what was sent of a source is not sent again."""
    following: Begun | None = begun
    while following is not None:
        current, following = following, None
        lines = _Lines(items)
        passed = written.setdefault(current.source, {})
        for record in feed.live_records(
            lines.until_begun(),
            source=current.source,
            partitions=partitions,
            jump_max_days=settings.jump_max_days,
            jump_confirm_lines=settings.jump_confirm_lines,
            start=current.start,
            pseudonyms=settings.pseudonyms,
        ):
            if record is None:
                yield None
            elif record.place > passed.get(record.partition, Place(-1)):
                passed[record.partition] = record.place
                yield record
        following = lines.begun


class _Lines:
    """The lines of one file out of the items of all."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self.begun: Begun | None = None  # the next file, once it is there

    def until_begun(self) -> Iterator[NumberedLine | None]:
        """Yield the lines, None where nothing is there for now, up to the beginning of the next file."""
        for item in self._items:
            if isinstance(item, Begun):
                self.begun = item
                return
            yield item


def _ended(outcome: Outcome, console: Console) -> int:
    """Say how it ended; return the exit code. To be stopped is how following a file ends."""
    console.print(outcome_words(outcome))
    if outcome.stopped:
        console.print(f"stopped after row {outcome.last_seq:,}; for a file, --resume goes on from there")
        return INTERRUPTED
    return ExitCode.OK if outcome.complete else ExitCode.FAILURE
