"""Training of a model on labelled snapshots: a function of its arguments alone."""

import json
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from models.estimators import COUNTRY, ESTIMATORS_VERSION, EstimatorSpec, make_estimator, spec_of
from models.explain import importance
from models.features import FEATURES_VERSION, NUMERIC_FEATURES
from models.fitted import (
    VERSION_HEX_DIGITS,
    FrameError,
    TrainedModel,
    TrainingFacts,
    library_versions,
    one_thread,
    predict,
)
from models.holdout import is_holdout
from models.intervals import calibrated
from models.metrics import performance
from models.selection import best_members

# Columns of a training frame, in the order in which they are hashed; `label_short` may be missing.
TEXT_COLUMNS = ("CustomerID", COUNTRY)
NUMBER_COLUMNS = (*NUMERIC_FEATURES, "SampleWeight", "label")
SHORT_LABEL = "label_short"


def train(frame: pd.DataFrame, estimator: str, seed: int) -> TrainedModel:
    """Fit `estimator` on the rows of `frame` whose customers are not held out.

    `frame` has one row a (CustomerID, window_end) with the features, `SampleWeight` and `label` (currency
    units); the order of rows does not matter, other columns are ignored. Raises FrameError on a frame that
    is empty, unlabelled, holds a pair twice or numbers that are not finite, or leaves nothing to learn from;
    UnknownEstimatorError on an unknown name.
    """
    spec = spec_of(estimator)
    checked = canonical_frame(frame)
    rows = checked[~is_holdout(checked["CustomerID"])]
    if rows.empty:
        raise FrameError(f"all {len(checked)} rows belong to hold-out customers: none is left to train on")
    members: tuple[str, ...] = ()
    if spec.candidates:
        members = best_members(rows, spec.candidates, lambda name, part: _fitted(spec_of(name), seed, part))
    pipeline = _fitted(spec, seed, rows, members)
    parameters = regressor_parameters(pipeline)
    identity = {**parameters, "features": spec.features, "pipeline": ESTIMATORS_VERSION, "seed": seed}
    model = TrainedModel(
        version=version_of(checked, estimator, identity),
        estimator=estimator,
        seed=seed,
        parameters=parameters,
        features=spec.features,
        features_version=FEATURES_VERSION,
        training=TrainingFacts(
            first_window_end=iso_utc(checked["window_end"].min()),
            last_window_end=iso_utc(checked["window_end"].max()),
            rows=len(rows),
            customers=rows["CustomerID"].nunique(),
        ),
        horizon_scale=horizon_scale(rows),
        libraries=library_versions(),
        pipeline=pipeline,
    )
    held_out = _newest_holdout(checked)
    # The fit learns nothing from the hold-out: these say how far it errs on customers it has not seen.
    return replace(
        model,
        intervals=calibrated(predict(model, held_out), held_out["label"].to_numpy(np.float64)),
        importance=tuple(importance(partial(predict, model), model.features, held_out)),
    )


def holdout_performance(model: TrainedModel, frame: pd.DataFrame) -> dict[str, float | None]:
    """Return the measures of `models.metrics` on the hold-out customers at the frame's newest window end.

    One window, so that each customer counts once; every measure is None where no customer is held out.
    """
    held_out = _newest_holdout(frame)
    return performance(held_out["label"], predict(model, held_out), held_out["SampleWeight"])


def horizon_scale(rows: pd.DataFrame) -> float | None:
    """Return weighted mean `label_short` / mean `label`, by which a prediction is read on the short horizon.

    None where the frame has no `label_short` or one of the means is not above zero.
    """
    if SHORT_LABEL not in rows.columns:
        return None
    weight = rows["SampleWeight"].to_numpy(np.float64)
    short = float(np.sum(weight * rows[SHORT_LABEL].to_numpy(np.float64)))
    served = float(np.sum(weight * rows["label"].to_numpy(np.float64)))
    return short / served if short > 0 and served > 0 else None


def canonical_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a training frame in fixed order and type, rows by (window_end, CustomerID).

    Raises FrameError where a column is missing, a value is not a finite number or a time without zone, or
    a customer stands twice in a window.
    """
    names = ("CustomerID", "window_end", COUNTRY, *NUMBER_COLUMNS)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise FrameError(f"the training frame lacks {', '.join(missing)}")
    if frame.empty:
        raise FrameError("the training frame has no rows")
    if not isinstance(frame["window_end"].dtype, pd.DatetimeTZDtype):
        raise FrameError(f"window_end is {frame['window_end'].dtype}, not a time in UTC")
    optional = (SHORT_LABEL,) if SHORT_LABEL in frame.columns else ()
    ordered = frame[[*names, *optional]].sort_values(["window_end", "CustomerID"], ignore_index=True)
    for name in (*NUMBER_COLUMNS, *optional):
        values = ordered[name].to_numpy(np.float64, na_value=np.nan)
        if not np.isfinite(values).all():
            bad = np.count_nonzero(~np.isfinite(values))
            raise FrameError(f"{bad} of {len(ordered)} rows have no finite {name}")
        ordered[name] = values + 0.0  # -0.0 becomes 0.0: equal numbers, equal bytes
    twice = int(ordered.duplicated(["window_end", "CustomerID"]).sum())
    if twice:
        raise FrameError(f"{twice} rows repeat a customer within a window")
    return ordered


def version_of(frame: pd.DataFrame, estimator: str, params: dict[str, Any]) -> str:
    """Return the version of the model that this frame, estimator and parameters give: 16 hex digits.

    A hash of the frame's content, whatever its order of rows, columns or integer types, the parameters
    and the versions of what computes the fit. The file of a model cannot serve: equal models differ in it.
    """
    ordered = canonical_frame(frame)
    digest = sha256()
    header = {
        "columns": list(ordered.columns),
        "estimator": estimator,
        "features_version": FEATURES_VERSION,
        "libraries": library_versions(),
        "params": params,
        "rows": len(ordered),
    }
    digest.update(json.dumps(header, sort_keys=True).encode())
    digest.update(ordered["window_end"].dt.as_unit("ns").astype("int64").to_numpy("<i8").tobytes())
    for name in ordered.columns:
        if name in TEXT_COLUMNS:
            digest.update(json.dumps(ordered[name].tolist()).encode())
        elif name != "window_end":
            digest.update(ordered[name].to_numpy("<f8").tobytes())
    return digest.hexdigest()[:VERSION_HEX_DIGITS]


def regressor_parameters(pipeline: Pipeline) -> dict[str, Any]:
    """Return the parameters of the pipeline's regressor as JSON values; what is none by its `repr`."""
    given = pipeline.named_steps["regressor"].get_params(deep=False)
    return {name: _json_value(value) for name, value in sorted(given.items())}


def iso_utc(moment: pd.Timestamp) -> str:
    """Return a time as ISO 8601 with `Z`, whole seconds.

    >>> iso_utc(pd.Timestamp("2011-06-06", tz="UTC"))
    '2011-06-06T00:00:00Z'
    """
    return moment.tz_convert("UTC").strftime("%Y-%m-%dT%H:%M:%SZ")


def _json_value(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | type(None)):
        return value
    if isinstance(value, list) and all(isinstance(item, tuple) for item in value):
        return {name: regressor_parameters(pipeline) for name, pipeline in value}  # members of a mean
    return repr(value)


def _newest_holdout(frame: pd.DataFrame) -> pd.DataFrame:
    newest: pd.DataFrame = frame[frame["window_end"] == frame["window_end"].max()]
    return newest[is_holdout(newest["CustomerID"])]


def _fitted(spec: EstimatorSpec, seed: int, rows: pd.DataFrame, members: tuple[str, ...] = ()) -> Pipeline:
    """Return the pipeline fitted to `rows`, by one thread, weighted where the regressor takes weights."""
    pipeline = make_estimator(spec.name, seed, members)
    labels = rows["label"].to_numpy(np.float64)
    if spec.labels_from_zero:
        labels = np.maximum(labels, 0.0)
    if not labels.any():
        raise FrameError(
            f"nobody in the {len(rows)} training rows spends anything: there is nothing to learn"
        )
    weights = rows["SampleWeight"].to_numpy(np.float64)
    # Equal weights are no weights: regressors that take none serve then too.
    weighted = {} if (weights == weights[0]).all() else {"regressor__sample_weight": weights}
    with one_thread():
        try:
            pipeline.fit(rows[list(spec.features)], labels, **weighted)
        except (ValueError, TypeError) as exc:
            raise FrameError(f"{spec.name} cannot be fitted on {len(rows)} rows: {exc}") from exc
    return pipeline
