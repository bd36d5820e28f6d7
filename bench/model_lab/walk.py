"""The walk through a year: at each window end train on what is known, predict, be judged when labels come."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.features import DAY_S
from models.fitted import predict
from models.intervals import interval
from models.metrics import performance
from models.training import train
from producers.batch_input import batch_records
from producers.inputs import file_input
from streams.batch_models import history_of
from streams.grid import iso
from streams.history import History
from streams.retraining import training_frame
from streams.settings import Settings

Floats = NDArray[np.float64]
DECILES = 10


@dataclass(frozen=True)
class Forecast:
    """Predictions for the rows of a window; intervals where there are some; CPU seconds of the fit."""

    predicted: Floats
    low: Floats | None = None
    high: Floats | None = None
    fit_s: float = 0.0


@dataclass(frozen=True)
class Judged:
    """A window, its forecasts by name, and what the customers went on to spend."""

    window_end: int
    labels: Floats
    weights: Floats
    forecasts: dict[str, Forecast]


Forecaster = Callable[[pd.DataFrame, pd.DataFrame], Forecast]


def read_year(path: Path, settings: Settings) -> History:
    """Return the windows of a file, as the stream would have shown them."""
    return history_of(batch_records(settings, file_input(path)), settings)


def walk(history: History, settings: Settings, forecasters: dict[str, Forecaster]) -> Iterator[Judged]:
    """Yield each window at which labels to train on are known and whose own labels are, by the file's end.

    A forecaster is given the labelled rows known at the window's end, and the window's rows without labels.
    """
    horizon_s = settings.horizon_days * DAY_S
    last = max(history.windows)
    for end in history.matured(horizon_s=horizon_s, at=last):
        frame = training_frame(history, at=end, settings=settings)
        if frame.empty:
            continue
        rows = history.labelled(end, horizon_s=horizon_s, at=last)
        shown = rows.drop(columns="label")
        print(f"\r{iso(end)[:10]}", end="", flush=True)
        yield Judged(
            window_end=end,
            labels=rows["label"].to_numpy(np.float64),
            weights=rows["SampleWeight"].to_numpy(np.float64),
            forecasts={name: forecast(frame, shown) for name, forecast in forecasters.items()},
        )
    print("\r", end="")


def estimator(name: str, seed: int) -> Forecaster:
    """Return the forecaster that trains the estimator called `name`."""

    def forecast(frame: pd.DataFrame, rows: pd.DataFrame) -> Forecast:
        begun = time.process_time()
        model = train(frame, name, seed)
        fit_s = time.process_time() - begun
        predicted = predict(model, rows)
        if model.intervals is None:
            return Forecast(predicted, fit_s=fit_s)
        return Forecast(predicted, *interval(model.intervals, predicted), fit_s)

    return forecast


def last_quarter(frame: pd.DataFrame, rows: pd.DataFrame) -> Forecast:  # noqa: ARG001  (nothing is learnt)
    """Everyone spends what they spent in the window."""
    return Forecast(rows["Monetary"].to_numpy(np.float64))


def last_quarter_levelled(frame: pd.DataFrame, rows: pd.DataFrame) -> Forecast:
    """Everyone spends what they spent in the window, times one factor that was right for the past."""
    factor = frame["label"].sum() / frame["Monetary"].sum()
    return Forecast(factor * rows["Monetary"].to_numpy(np.float64))


def measures(judged: Judged, name: str) -> dict[str, float]:
    """Return the figures of one forecast of one window; NaN for what it does not have."""
    forecast = judged.forecasts[name]
    y, p, w = judged.labels, forecast.predicted, judged.weights
    found = performance(y, p, w)
    level = float(w @ y) / float(w @ p)
    figures = {key: np.nan if value is None else value for key, value in found.items()}
    figures["nmae_levelled"] = performance(y, level * p, w)["nmae"] or np.nan
    figures["decile_error"] = decile_error(y, p)
    figures["fit_s"] = forecast.fit_s
    if forecast.low is not None and forecast.high is not None:
        inside = (np.maximum(y, 0.0) >= forecast.low) & (np.maximum(y, 0.0) <= forecast.high)
        figures["coverage"] = float(np.mean(inside))
        figures["width"] = float(np.mean(forecast.high - forecast.low) / np.mean(y))
    return figures


def decile_error(y: Floats, p: Floats) -> float:
    """Return how far the promised sums of the prediction's deciles are from what came, of all that came."""
    order = np.argsort(p, kind="stable")
    parts = np.array_split(order, DECILES)
    return float(sum(abs(p[part].sum() - y[part].sum()) for part in parts) / y.sum())


def table(walked: list[Judged]) -> pd.DataFrame:
    """Return each forecaster's figures, the mean over the windows, a row each."""
    rows = {
        name: pd.DataFrame([measures(judged, name) for judged in walked]).mean()
        for name in walked[0].forecasts
    }
    return pd.DataFrame(rows).T
