"""The files of a backfill: a directory that appears whole or not at all, and what is written into it."""

import base64
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.lines import Lines
from streams import cloudevents
from streams.backfill import DeadRecord, Step
from streams.closing import Scales, window_rows
from streams.errors import ExitCode, UserError
from streams.lifetime import Lifetime
from streams.settings import Settings
from streams.vocabulary import Vocabulary

SNAPSHOTS, MODELS = "snapshots.parquet", "models"
EVALUATIONS, EVENTS, DECISIONS = "evaluations.jsonl", "events.jsonl", "decisions.jsonl"
DEAD_LETTERS, SCORES, WARNINGS = "dead_letters.jsonl", "scores.jsonl", "warnings.jsonl"
NAMES = (SNAPSHOTS, EVALUATIONS, EVENTS, DECISIONS, DEAD_LETTERS, SCORES, WARNINGS, MODELS)


@contextmanager
def whole_directory(directory: Path, *, force: bool) -> Iterator[Path]:
    """Give a new directory beside `directory`, which takes its place if the block ends well.

    A `directory` that holds anything is refused (UserError, USAGE); with `force` the results of an earlier
    backfill are replaced, other files never. Raises UserError (STORAGE) where nothing can be written. A
    process that is killed leaves `.<name>.part-*` beside it, which may be deleted.
    """
    final = directory.resolve()
    _check_target(final, force=force)
    part = final.with_name(f".{final.name}.part-{secrets.token_hex(4)}")
    try:
        try:
            part.mkdir(parents=True)
            yield part
            _install(part, final, force=force)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as exc:
        raise UserError(
            f"the results cannot be written to {directory}: {exc.strerror or exc}",
            hint="look at the space and the permissions there, or choose another --out",
            code=ExitCode.STORAGE,
        ) from exc


def snapshot_schema(settings: Settings) -> pa.Schema:
    """Return the columns of `snapshots.parquet`; the names of the shorter windows' depend on the settings."""
    scales = Scales(settings.window_days, settings.mid_window_days, settings.short_window_days)
    rows = window_rows(Lines.empty(), 0, scales, Lifetime.empty(), Vocabulary(), 1)
    fields = [pa.field("window_end", pa.timestamp("ms", "UTC"))]
    for name, column in rows.columns.items():
        kind = pa.from_numpy_dtype(column.dtype) if isinstance(column, np.ndarray) else pa.string()
        fields.append(pa.field(name, kind))
    return pa.schema([*fields, pa.field("SampleWeight", pa.float64())])


class ResultFiles:
    """A sink of `streams.backfill.run_into` that writes the files, window by window; a context manager."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.schema = snapshot_schema(settings)
        self._files = ExitStack()
        with ExitStack() as opened:
            self._parquet = opened.enter_context(
                pq.ParquetWriter(directory / SNAPSHOTS, self.schema, compression="zstd")
            )

            def lines(name: str) -> BinaryIO:
                return opened.enter_context((directory / name).open("wb"))

            self._evaluations, self._events = lines(EVALUATIONS), lines(EVENTS)
            self._decisions, self._dead = lines(DECISIONS), lines(DEAD_LETTERS)
            self._scores, self._warnings = lines(SCORES), lines(WARNINGS)
            self._files = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, value, trace)

    def window(self, step: Step) -> None:
        """Write a window's rows as a row group, and its messages as lines."""
        rows = step.snapshot.rows
        if rows.num_rows:
            ends = pa.array(np.full(rows.num_rows, step.snapshot.window_end * 1_000))
            table = rows.add_column(0, "window_end", ends.cast(self.schema.field("window_end").type))
            self._parquet.write_table(table.select(self.schema.names))
        for event in step.decisions:
            self.decision(event)
        for event in step.events:
            _write_event(self._events, event)
        _write_event(self._evaluations, step.evaluation)

    def decision(self, event: dict[str, Any]) -> None:
        """Write a decision that was not made here, such as one that is followed."""
        _write_event(self._decisions, event)

    def warning(self, event: dict[str, Any]) -> None:
        """Write an early warning."""
        _write_event(self._warnings, event)

    def score(self, customer: str, message: bytes) -> None:  # noqa: ARG002  (it is in the message)
        """Write a customer's score, as the bytes of its message."""
        self._scores.write(message + b"\n")

    def dead(self, record: DeadRecord) -> None:
        """Write a refused record: place, reason, its bytes as `value` or, if no text, as `value_base64`."""
        letter: dict[str, Any] = {
            "partition": record.partition,
            "offset": record.offset,
            "reason": record.reason,
        }
        try:
            letter["value"] = record.value.decode()
        except UnicodeDecodeError:
            letter["value_base64"] = base64.b64encode(record.value).decode()
        self._dead.write(msgspec.json.encode(letter) + b"\n")


def _write_event(file: BinaryIO, event: dict[str, Any]) -> None:
    """Write a CloudEvent as the bytes of its message; JSON of ours has no line breaks."""
    file.write(cloudevents.encode(event) + b"\n")


def _check_target(final: Path, *, force: bool) -> None:
    """Raise UserError (USAGE) where the results may not go to `final`."""
    if final.exists() and not final.is_dir():
        raise UserError(f"{final} is not a directory", hint="choose another --out", code=ExitCode.USAGE)
    found = {path.name for path in final.iterdir()} if final.exists() else set()
    foreign = sorted(found - set(NAMES))
    if foreign:
        raise UserError(
            f"{final} holds {', '.join(foreign[:3])}, which is no result of a backfill",
            hint="choose a new directory for --out",
            code=ExitCode.USAGE,
        )
    if found and not force:
        raise UserError(
            f"{final} holds the results of an earlier backfill",
            hint="--force replaces them; or choose a new directory for --out",
            code=ExitCode.USAGE,
        )


def _install(part: Path, final: Path, *, force: bool) -> None:
    """Put `part` in the place of `final`: absent, empty, or (with `force`) replaced."""
    old = part.with_name(part.name.replace(".part-", ".old-"))
    if force and final.exists():
        final.rename(old)
    try:
        part.rename(final)
    except OSError:
        if old.exists():
            old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
