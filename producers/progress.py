"""How a replay shows its way: a bar on a terminal, a line every few seconds elsewhere."""

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from producers.lines import time_text
from producers.replay import Outcome

PLAIN_EVERY_S = 5.0


class Display(Protocol):
    """Shows an outcome in the making; a context manager."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the screen in order."""

    def show(self, outcome: Outcome) -> None:
        """Show an outcome."""


def display(console: Console, title: str, rows: int | None) -> Display:
    """Return the display that fits the console; `rows` is about how many there are, None if unknown."""
    return _Bar(console, title, rows) if console.is_terminal else _Plain(console, title, rows)


def describe(outcome: Outcome) -> str:
    """Return rate, event time and lag in one line of text."""
    rate = outcome.sent / outcome.elapsed_s if outcome.elapsed_s > 0 else 0.0
    parts = [f"{rate:,.0f} lines/s"]
    if outcome.clock is not None:
        parts.append(f"at {time_text(outcome.clock)}")
    if outcome.lag_s >= 1:
        parts.append(f"{outcome.lag_s:,.0f} s behind schedule")
    return ", ".join(parts)


class _Plain:
    def __init__(self, console: Console, title: str, rows: int | None) -> None:
        self.console = console
        self.title = title
        self.of = f" of about {rows:,}" if rows is not None else ""
        self.due = time.monotonic() + PLAIN_EVERY_S

    def __enter__(self) -> Self:
        self.console.print(f"replaying {self.title}{self.of and f',{self.of[3:]} rows'}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, outcome: Outcome) -> None:
        if time.monotonic() >= self.due:
            self.console.print(f"row {outcome.last_seq:,}{self.of}, {describe(outcome)}")
            self.due = time.monotonic() + PLAIN_EVERY_S


class _Bar:
    def __init__(self, console: Console, title: str, rows: int | None) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self.task = self.progress.add_task(title, total=rows, text="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def show(self, outcome: Outcome) -> None:
        self.progress.update(self.task, completed=outcome.last_seq, text=describe(outcome))
