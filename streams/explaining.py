"""A customer's prediction taken apart: from the newest snapshot, with the version that serves."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.explain import Explanation, explain
from models.fitted import FrameError, predict
from models.intervals import interval
from models.registry import Registry
from models.targets import original_target
from streams import cloudevents, manual_decisions
from streams.batch import registry_errors
from streams.errors import ExitCode, UserError
from streams.grid import iso
from streams.joining import Joiner
from streams.output import EVALUATIONS, MODELS, SNAPSHOTS
from streams.settings import Settings
from streams.snapshots import decode_chunk
from streams.topic_reader import read_all
from streams.topics import catalogue


@dataclass(frozen=True)
class Seen:
    """The rows of the newest window, the version that serves (None: none does), and where models are."""

    window_end: str
    rows: pd.DataFrame
    version: str | None
    registry: Registry


@dataclass(frozen=True)
class Told:
    """What there is to tell of a customer; the interval is None where the model has none.

    `original_value` is what the original system's formula makes of the row, shown for comparison alone.
    """

    customer: str
    window_end: str
    version: str
    horizon_days: int
    explanation: Explanation
    low: float | None
    high: float | None
    coverage: float | None
    original_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, flat."""
        content = {name: value for name, value in vars(self).items() if name != "explanation"}
        return {**content, **msgspec.to_builtins(self.explanation)}


def tell(seen: Seen, customer: str, version: str | None = None) -> Told:
    """Take apart what `version` (or the one that serves) predicts of `customer`, against all rows.

    Raises UserError: INPUT where the customer has no row, STATE where no version serves, MODEL where the
    version cannot be loaded or does not fit the rows.
    """
    chosen = version or seen.version
    if chosen is None:
        raise UserError(
            "no model serves yet", hint="--version takes one of `clv-drift model list`", code=ExitCode.STATE
        )
    with registry_errors():
        model, card = seen.registry.load(chosen)
    row = seen.rows[seen.rows["CustomerID"] == customer]
    if row.empty:
        raise UserError(
            f"customer {customer} is not among the {len(seen.rows):,} customers of the newest snapshot,"
            f" {seen.window_end}",
            hint="it holds who bought within the window, or of very many customers a sample",
            code=ExitCode.INPUT,
        )
    try:
        found = explain(partial(predict, model), model.features, row, seen.rows)
    except FrameError as exc:
        raise UserError(f"the snapshot cannot be scored: {exc}", code=ExitCode.MODEL) from exc
    low = high = None
    if model.intervals is not None:
        lows, highs = interval(model.intervals, [found.prediction], model.level)
        low, high = float(lows[0]), float(highs[0])
    return Told(
        customer=customer,
        window_end=seen.window_end,
        version=chosen,
        horizon_days=card.horizon_days,
        explanation=found,
        low=low,
        high=high,
        coverage=None if model.intervals is None else model.intervals.coverage,
        original_value=float(
            original_target(
                *(row[name].to_numpy(np.float64) for name in ("Monetary", "Frequency", "Recency"))
            )[0]
        ),
    )


def newest_in_topics(settings: Settings) -> Seen:
    """Return what the topics show now. Raises UserError: STATE before the first evaluation, BROKER."""
    serving = manual_decisions.service(settings)
    joiner = Joiner(settings.partitions, settings.sample_customers_max)
    newest = None
    for record in read_all(settings, catalogue(settings).snapshots.name):
        if record.value is None:
            continue
        try:
            joiner.add(decode_chunk(record.value))
        except ValueError as exc:
            raise UserError(
                f"a message in the topic of snapshots (offset {record.offset}) cannot be used: {exc}",
                hint="it was made with other settings or by another version of this program",
                code=ExitCode.STATE,
            ) from exc
        for snapshot in joiner.pop():
            newest = snapshot
    if newest is None:
        raise UserError("the topic of snapshots holds no whole window", code=ExitCode.STATE)
    return Seen(
        iso(newest.window_end), newest.rows.to_pandas(), serving.champion, Registry(settings.registry_dir)
    )


def newest_in_results(directory: Path) -> Seen:
    """Return what the results of a backfill show. Raises UserError (INPUT) where there are none."""
    path = directory / SNAPSHOTS
    try:
        table = pq.read_table(path)
        last = b""
        with (directory / EVALUATIONS).open("rb") as file:
            for line in file:
                last = line
        data = cloudevents.decode(last)["data"]
    except (OSError, pa.ArrowException, ValueError, KeyError) as exc:
        raise UserError(
            f"{directory} holds no results of a backfill: {exc}",
            hint="`clv-drift backfill --out` writes them",
            code=ExitCode.INPUT,
        ) from exc
    if table.num_rows == 0:
        raise UserError(f"{path} holds no customers", code=ExitCode.INPUT)
    end = pc.max(table["window_end"])
    rows = table.filter(pc.equal(table["window_end"], end)).to_pandas()
    return Seen(iso(int(end.as_py().timestamp())), rows, data["model_version"], Registry(directory / MODELS))
