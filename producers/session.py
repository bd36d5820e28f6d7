"""One run of `clv-drift replay`: the input, the place to go on from, the feed, the ending."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from producers import feed, scenarios
from producers.feed import Place, Record
from producers.inputs import Input, find_input, live_input
from producers.pacing import AtOnce, ByEventTime, ByRate, Pace
from producers.progress import describe, display
from producers.replay import MESSAGE_BYTES_MAX, Outcome, replay
from producers.topic_tail import last_places, partition_count
from streams.errors import ExitCode, UserError
from streams.settings import Settings

# A replay that does not resume only looks whether its input was sent lately.
NOTICE_RECORDS = 10_000
INTERRUPTED = 130


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    path: Path | None = None
    synthetic: str | None = None
    inject: tuple[str, ...] = ()
    speed: float | None = None  # event seconds a second; None as fast as it goes
    resume: bool = False
    live: bool = False
    lines_per_s: float = 20.0
    limit: int | None = None
    end: bool = True


def run(settings: Settings, request: Request, console: Console) -> int:
    """Replay what was asked for and return the exit code; words go to `console`.

    Raises UserError for a request, an input, a broker or a topic that does not do.
    """
    source, note = _input(settings, request)
    if note:
        console.print(f"note: {escape(note)}")
    partitions = partition_count(settings)
    written = _written(settings, request, source, console)
    records = feed.records(
        _limited(source, request.limit),
        source=source.source,
        partitions=partitions,
        jump_max_days=settings.jump_max_days,
        jump_confirm_lines=settings.jump_confirm_lines,
        start=source.start,
        end=request.end and not source.endless,
        pseudonyms=settings.pseudonyms,
    )
    if request.resume:
        records = feed.unwritten(records, written)

    def refuse(record: Record) -> None:
        console.print(
            f"row {source.row_of(record.seq):,} refused: {len(record.value):,} bytes are more than"
            f" the topic's {MESSAGE_BYTES_MAX:,}"
        )

    rows = source.rows if request.limit is None else min(request.limit, source.rows or request.limit)
    with stop_on_signals() as stop, display(console, source.title, rows) as shown:
        outcome = asyncio.run(
            replay(settings, records, pace=_pace(request), stop=stop, report=shown.show, refuse=refuse)
        )
    return _conclude(source, outcome, console)


def _input(settings: Settings, request: Request) -> tuple[Input, str]:
    changes = [scenarios.parse(text) for text in request.inject]
    if not request.live:
        return find_input(request.path, request.synthetic, changes, settings.field_mapping)
    if (
        request.path is not None
        or request.synthetic is not None
        or request.resume
        or request.speed is not None
    ):
        raise UserError(
            "--live makes its own lines, at its own rate, and begins anew each time",
            hint="leave out the input, --synthetic, --speed and --resume; --lines-per-s sets the rate",
            code=ExitCode.USAGE,
        )
    return live_input(settings.seed, changes, now=time.time), ""


def _written(settings: Settings, request: Request, source: Input, console: Console) -> dict[int, Place]:
    """Return what the topic holds of the source, and say what that means."""
    if source.endless:
        return {}
    records_max = None if request.resume else NOTICE_RECORDS
    written = asyncio.run(last_places(settings, source.source, records_max=records_max))
    if written:
        row = source.row_of(max(place.seq for place in written.values()))
        console.print(
            f"resuming: the topic holds this input up to row {row:,}"
            if request.resume
            else f"note: the topic already holds this input up to row {row:,}; lines sent again are ignored"
            " by the worker as duplicates (--resume sends only what is missing)"
        )
    elif request.resume:
        console.print("note: nothing of this input is in the topic; it is sent from the start")
    return written


def _limited(source: Input, limit: int | None) -> Iterator[tuple[int, dict[str, object]]]:
    lines = source.lines()
    return lines if limit is None else takewhile(lambda item: source.row_of(item[0]) <= limit, lines)


def _pace(request: Request) -> Pace:
    if request.live:
        return ByRate(request.lines_per_s, clock=time.monotonic)
    return AtOnce() if request.speed is None else ByEventTime(request.speed, clock=time.monotonic)


def _conclude(source: Input, outcome: Outcome, console: Console) -> int:
    """Say how it ended; return the exit code."""
    console.print(outcome_words(outcome))
    if outcome.stopped:
        onwards = "" if source.endless else "; --resume goes on from there"
        console.print(f"stopped after row {source.row_of(outcome.last_seq):,}{onwards}")
        return INTERRUPTED
    return ExitCode.OK if outcome.complete else ExitCode.FAILURE


def outcome_words(outcome: Outcome) -> str:
    """Return what was sent, in one line of text."""
    return (
        f"sent {outcome.sent:,} lines, acknowledged {outcome.acknowledged:,}, refused {outcome.refused:,};"
        f" control records {outcome.controls:,}; {describe(outcome)}, {outcome.elapsed_s:.1f} s"
    )


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Turn the first interrupt or request to end into a flag; the second one ends the program at once."""
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt(number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
