"""A peer on a stream and on what became of it: what it is given, how it is run."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from .contestants import LAB, Family
from .frames import LONG_WEEKS, Columns, customer_columns, order_columns
from .ours import QUIET
from .results import Course
from .streams import AFTER_ONSET, ONSET_WEEK, REFERENCE_WEEKS, WATCHED, WEEKS, Stream

# One thread each, as jobs run side by side; no peer is to tell anybody that it was run.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DO_NOT_TRACK": "1",
    "NML_DISABLE_USAGE_LOGGING": "1",
}


class _Told(msgspec.Struct):
    methods: dict[str, dict[str, Course]]


def watch(
    family: Family, base: Stream, variants: Iterable[tuple[str, Stream]]
) -> dict[str, dict[str, Course]]:
    """Let a peer watch; return what it said, by method and stream. Raises SystemExit where it fails."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        write_task(home, base, variants)
        output = home / "alarms.json"
        ran = subprocess.run(
            [family.python, LAB / "peers" / family.program, home, output],
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise SystemExit(f"{family.name} failed:\n{ran.stderr[-4000:]}")
        return read_told(output)


def write_task(home: Path, base: Stream, variants: Iterable[tuple[str, Stream]]) -> None:
    """Write what `peers/task.py` reads: a stream with its reference; of variants what is their own."""
    watched = {QUIET: list(WATCHED)}
    _write(home, QUIET, base, first_week=LONG_WEEKS, begin_week=0, end_week=WEEKS)
    for name, stream in variants:
        watched[name] = list(AFTER_ONSET)
        first, last = AFTER_ONSET[0], AFTER_ONSET[-1]
        _write(home, name, stream, first_week=first, begin_week=ONSET_WEEK, end_week=last)
    task = {"reference_week": REFERENCE_WEEKS, "onset_week": ONSET_WEEK, "watched": watched}
    (home / "task.json").write_text(json.dumps(task))


def read_told(output: Path) -> dict[str, dict[str, Course]]:
    """Return what a peer wrote."""
    return msgspec.json.decode(output.read_bytes(), type=_Told).methods


def _write(home: Path, name: str, stream: Stream, *, first_week: int, begin_week: int, end_week: int) -> None:
    """Write a stream to `end_week`: long windows from `first_week`, weeks and orders after `begin_week`."""
    long_windows = _stacked(stream, range(first_week, end_week + 1), LONG_WEEKS)
    weeks = _stacked(stream, range(begin_week + 1, end_week + 1), 1)
    np.savez(home / f"{name}.customers.npz", **long_windows)
    np.savez(home / f"{name}.weeks.npz", **weeks)
    np.savez(home / f"{name}.orders.npz", **order_columns(stream, begin_week, end_week))


def _stacked(stream: Stream, ends: range, weeks: int) -> Columns:
    """Return the customers' features of windows one after another, with the `week` at whose end each ends."""
    tables = [(week, customer_columns(stream, week, weeks)) for week in ends]
    columns = {name: np.concatenate([table[name] for _, table in tables]) for name in tables[0][1]}
    return {"week": np.repeat(list(ends), [len(table["Country"]) for _, table in tables]), **columns}
