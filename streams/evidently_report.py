"""Evidently's verdict on a window: two frames in, a summary and an HTML report out.

Written for evidently 0.7. Its import takes some ten seconds and 300 MB, and some of its tests (none that the
presets choose by themselves) seed numpy's global generator: a service runs this in a process of its own
(`streams.evidently_child`).
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import evidently
import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Regression, Report
from evidently.core.report import ReferenceMetricNotFound
from evidently.presets import DataDriftPreset, RegressionPreset

from streams.detectors.interface import CATEGORICAL, COMPARED_COLUMNS, NUMERIC_UNITS
from streams.detectors.statistics import Floats

ROWS_MAX = 20_000
TARGET, PREDICTION = "target", "prediction"

_DRIFT_COUNT = "evidently:metric_v2:DriftedColumnsCount"
_COLUMN_DRIFT = "evidently:metric_v2:ValueDrift"
# Evidently's measures of a regression and the names we give them. Some have a mean and a deviation; the mean
# is what counts.
_REGRESSION = {
    "evidently:metric_v2:MeanError": "mean_error",
    "evidently:metric_v2:MAE": "mae",
    "evidently:metric_v2:RMSE": "rmse",
    "evidently:metric_v2:MAPE": "mape_percent",
    "evidently:metric_v2:R2Score": "r2",
}

# The marks of which a tag is made, and others that read the same: Evidently's plots take some tags in a label
# (links among them) for tags.
_READ_AS = str.maketrans("<>", "‹›")
# What Evidently's template is made of: two lines of data, each a JSON text, and four scripts.
_DATA_LINE = re.compile(r"^( *var (?:additional_graphs_)?metric_[0-9a-f]{32} = )(.*);$", re.MULTILINE)
_DATA_LINES, _SCRIPTS = 2, 4
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_CHARSET = '<meta charset="UTF-8">'
# In a JSON text these stand in strings alone: escaped, they say the same to JavaScript and nothing to HTML.
_ESCAPED = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"})


class RegressionPairs(NamedTuple):
    """Matured labels and what was predicted for them, in currency, on both sides; two or more a side."""

    current_target: Floats
    current_prediction: Floats
    reference_target: Floats
    reference_prediction: Floats


class UnexpectedReportError(Exception):
    """Evidently's output is not of the form this module reads: a change of its API, never "no drift"."""


def compare(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    drift_share: float,
    regression: RegressionPairs | None,
    html: Path | None,
    rows_max: int = ROWS_MAX,
    on_snapshot: Callable[[Any], None] = lambda _: None,
) -> dict[str, Any]:
    """Return Evidently's comparison of two frames (one row a customer, at least `COMPARED_COLUMNS`) as JSON.

    `dataset_drift` is true where a share of columns >= `drift_share` drifted. A column's `method` is
    Evidently's choice by the size of the reference: with a p-value, drift lies below `threshold`, with a
    distance above it. A score that is not finite is None, and so is that column's `drift`. `regression` adds
    measures of both sides. Of more than `rows_max` rows or pairs a side, evenly spaced ones are taken. Texts
    of the data reach Evidently with ‹ and › for < and >: texts that differ in nothing else are one category.

    `on_snapshot` is given Evidently's own result. `html` is written whole or not at all. Raises ValueError on
    frames that cannot be compared (empty, or a column missing or without values), OSError where the report
    cannot be written, UnexpectedReportError where Evidently answers in another form than expected.
    """
    sides = _with_pairs(_thinned(current, rows_max), _thinned(reference, rows_max), regression, rows_max)
    presets = [DataDriftPreset(columns=list(COMPARED_COLUMNS), drift_share=drift_share)]
    if regression is not None:
        presets.append(RegressionPreset())
    definition = DataDefinition(
        numerical_columns=list(NUMERIC_UNITS) + ([] if regression is None else [TARGET, PREDICTION]),
        categorical_columns=[CATEGORICAL],
        regression=None if regression is None else [Regression(target=TARGET, prediction=PREDICTION)],
    )
    datasets = [Dataset.from_pandas(side, data_definition=definition) for side in sides]
    # A test a column carries Evidently's own yes or no, which the score alone does not.
    snapshot = Report(presets, include_tests=True).run(*datasets)
    summary = {
        "evidently_version": evidently.__version__,
        "rows": {"current": min(len(current), rows_max), "reference": min(len(reference), rows_max)},
        "drift_share": drift_share,
        **summarise_drift(snapshot.dict()),
        "regression": None if regression is None else _summarise_regression(snapshot),
    }
    on_snapshot(snapshot)
    if html is not None:
        _write_whole(html, guarded(snapshot.get_html_str(as_iframe=False)))
    return summary


def guarded(page: str) -> str:
    """Return Evidently's HTML such that no text of its data is markup, and no script runs but its own.

    The page's own policy names the digest of each script it was written with, and no host: it holds where no
    server sends one, as in a file that is opened. Raises UnexpectedReportError where the page is not of the
    form that is known, as then nobody knows what in it is data.
    """
    page, lines = _DATA_LINE.subn(_escaped, page)
    scripts = _SCRIPT.findall(page)
    if (lines, len(scripts), page.count(_CHARSET)) != (_DATA_LINES, _SCRIPTS, 1):
        raise UnexpectedReportError(f"the HTML has {lines} lines of data and {len(scripts)} scripts")
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "font-src data:; base-uri 'none'; form-action 'none'"
    )
    # Right behind the charset, which stands first of all in the head and loads nothing.
    return page.replace(_CHARSET, f'{_CHARSET}<meta http-equiv="Content-Security-Policy" content="{policy}">')


def _escaped(line: re.Match[str]) -> str:
    name, data = line.groups()
    try:
        json.loads(data)
    except ValueError as exc:
        raise UnexpectedReportError(f"the data in the HTML is no JSON: {exc}") from exc
    return f"{name}{data.translate(_ESCAPED)};"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def summarise_drift(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the drift part of `Snapshot.dict()`; raises UnexpectedReportError on anything not understood."""
    try:
        drifted = {test["metric_config"]["metric_id"]: _failed(test) for test in report["tests"]}
        metrics = [metric for metric in report["metrics"] if metric["config"]["type"] == _COLUMN_DRIFT]
        columns = {
            metric["config"]["column"]: {
                "method": str(metric["config"]["method"]),
                "score": _finite_or_none(metric["value"]),
                "threshold": float(metric["config"]["threshold"]),
                "drift": drifted[metric["id"]] if math.isfinite(metric["value"]) else None,
            }
            for metric in metrics
        }
        (total,) = (metric for metric in report["metrics"] if metric["config"]["type"] == _DRIFT_COUNT)
        count, share = total["value"]["count"], total["value"]["share"]
        dataset_drift = drifted[total["id"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise UnexpectedReportError(f"the drift report cannot be read: {exc!r}") from exc
    if set(columns) != set(COMPARED_COLUMNS):
        raise UnexpectedReportError(f"the drift report is on the columns {sorted(columns)}")
    if count != sum(drifted[metric["id"]] for metric in metrics):
        raise UnexpectedReportError(f"the drift report counts {count} columns, which their tests deny")
    return {
        "dataset_drift": dataset_drift,
        "drifted_columns": int(count),
        "share": float(share),
        "columns": columns,
    }


def _summarise_regression(snapshot: Any) -> dict[str, Any]:
    current: dict[str, float | None] = {}
    reference: dict[str, float | None] = {}
    try:
        for metric_id, result in snapshot.metric_results.items():
            metric = result.to_dict()
            name = _REGRESSION.get(metric["config"]["type"])
            if name is not None:
                # The dictionary of a snapshot leaves the reference out; its context has it.
                other = snapshot.context.get_reference_metric_result(metric_id).to_dict()
                current[name], reference[name] = _mean(metric), _mean(other)
    except (AttributeError, KeyError, TypeError, ValueError, ReferenceMetricNotFound) as exc:
        raise UnexpectedReportError(f"the regression report cannot be read: {exc!r}") from exc
    missing = set(_REGRESSION.values()) - set(current)
    if missing:
        raise UnexpectedReportError(f"the regression report lacks {', '.join(sorted(missing))}")
    return {"current": current, "reference": reference}


def _failed(test: Mapping[str, Any]) -> bool:
    status = str(getattr(test["status"], "value", test["status"]))
    if status not in {"SUCCESS", "FAIL"}:
        raise ValueError(f"a test has the status {status}")
    return status == "FAIL"


def _mean(metric: Mapping[str, Any]) -> float | None:
    value = metric["value"]
    return _finite_or_none(value["mean"] if isinstance(value, Mapping) else value)


def _finite_or_none(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _with_pairs(
    current: pd.DataFrame, reference: pd.DataFrame, pairs: RegressionPairs | None, rows_max: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both frames with the columns Evidently needs, the pairs beside the features.

    The pairs are of other customers than the rows, and of another number, but a report takes one frame a
    side: the shorter part is filled with missing values, which Evidently leaves out column by column.
    """
    frames = [_legible(frame[list(COMPARED_COLUMNS)]) for frame in (current, reference)]
    if pairs is None:
        return frames[0], frames[1]
    for side, (target, prediction) in enumerate((pairs[:2], pairs[2:])):
        if len(target) != len(prediction) or len(target) < 2:
            raise ValueError(f"{len(target)} targets and {len(prediction)} predictions cannot be compared")
        columns = {TARGET: np.asarray(target, np.float64), PREDICTION: np.asarray(prediction, np.float64)}
        frames[side] = pd.concat([frames[side], _thinned(pd.DataFrame(columns), rows_max)], axis=1)
    return frames[0], frames[1]


def _legible(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame, numbered anew, with texts that read as before and in which no HTML can stand."""
    texts = frame[CATEGORICAL].map(lambda text: str(text).translate(_READ_AS), na_action="ignore")
    return frame.assign(**{CATEGORICAL: texts}).reset_index(drop=True)


def _thinned(frame: pd.DataFrame, rows_max: int) -> pd.DataFrame:
    if len(frame) <= rows_max:
        return frame
    rows = np.linspace(0, len(frame) - 1, rows_max).astype(np.int64)
    return frame.iloc[rows].reset_index(drop=True)


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
