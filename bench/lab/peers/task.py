"""What a peer is given and what it hands back: a directory of arrays, a file of alarms.

A peer runs as `python PEER.py DIRECTORY OUTPUT` in an environment that does not have this project, so this
file needs numpy alone. The directory holds `task.json` and, for each stream, `STREAM.customers.npz` (a row an
active customer and window of 13 weeks; `week` names the window by the week at whose end it ends),
`STREAM.weeks.npz` (the same of windows of one week) and `STREAM.orders.npz` (a row an order, in the order of
time). The stream `quiet` has the reference in it; the others begin after the onset, before which they are
that one.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

QUIET = "quiet"
COUNTRY = "Country"
NUMBERS = (
    "Recency",
    "Frequency",
    "Monetary",
    "AvgQuantity",
    "TotalQuantity",
    "AvgUnitPrice",
    "NumOrders",
    "NumProducts",
)

Table = dict[str, np.ndarray]
Judge = Callable[[Table], Mapping[str, bool]]


class Task:
    """Streams to watch; what is said of their windows is noted and written at the end."""

    def __init__(self, directory: Path, output: Path) -> None:
        told = json.loads((directory / "task.json").read_text())
        self.directory = directory
        self.output = output
        self.reference_week: int = told["reference_week"]
        self.onset_week: int = told["onset_week"]
        self.watched: dict[str, list[int]] = told["watched"]  # by stream: the windows to judge
        self._methods: dict[str, dict[str, Any]] = defaultdict(dict)

    @classmethod
    def given(cls) -> "Task":
        """Return the task on the command line."""
        directory, output = sys.argv[1:]
        return cls(Path(directory), Path(output))

    def table(self, stream: str, kind: str) -> Table:
        """Return the arrays of a kind (`customers`, `weeks`, `orders`)."""
        with np.load(self.directory / f"{stream}.{kind}.npz") as arrays:
            return dict(arrays)

    def reference(self) -> Table:
        """Return the rows of the last window of the reference."""
        return rows(self.table(QUIET, "customers"), [self.reference_week])

    def note(self, method: str, stream: str, alarms: Mapping[int, bool], *, cpu_s: float) -> None:
        """Note which windows of a stream a method gave an alarm in, and what all of them cost."""
        weeks = self.watched[stream]
        assert list(alarms) == weeks, f"{method} judged {list(alarms)} of {stream}, not {weeks}"
        self._methods[method][stream] = {
            "windows": len(weeks),
            "cpu_s_a_window": cpu_s / len(weeks),
            "alarms": [{"week": week} for week, alarm in alarms.items() if alarm],
        }

    def judge(self, *judges: Judge) -> None:
        """Show each judge every window, one after another; one judge may speak for several methods."""
        for stream, weeks in self.watched.items():
            table = self.table(stream, "customers")
            windows = {week: rows(table, [week]) for week in weeks}
            for judge in judges:
                begun = time.process_time()
                answers = {week: judge(window) for week, window in windows.items()}
                cpu_s = time.process_time() - begun
                for method in answers[weeks[0]]:
                    alarms = {week: bool(answer[method]) for week, answer in answers.items()}
                    self.note(method, stream, alarms, cpu_s=cpu_s)

    def finish(self) -> None:
        """Write what was noted."""
        self.output.write_text(json.dumps({"methods": self._methods}))


def rows(table: Table, weeks: Sequence[int]) -> Table:
    """Return the rows of some windows."""
    chosen = np.isin(table["week"], weeks)
    return {name: column[chosen] for name, column in table.items()}


def matrix(table: Table) -> np.ndarray:
    """Return the numbers and the code of the country as columns."""
    return np.column_stack([table[name].astype(float) for name in (*NUMBERS, COUNTRY)])
