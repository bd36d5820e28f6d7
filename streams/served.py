"""The served model under watch: measures, verdicts on them, and what is estimated until labels mature."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from models.features import DAY_S
from models.fitted import predict
from models.holdout import is_holdout
from models.metrics import performance
from models.registry import RegistryError
from streams.carry import Carry
from streams.detectors.error_estimate import error_classes, estimated_error, measured_error
from streams.detectors.error_sums import MaturedWindow
from streams.detectors.interface import Verdict, rounded
from streams.detectors.performance_drift import PerformanceDrift
from streams.detectors.track_record import TrackRecord
from streams.grid import from_iso, iso
from streams.history import History
from streams.performance import ModelLoader, r2_drop
from streams.rivals import matured_since
from streams.settings import Settings

R2_DROP = "r2_drop"
ESTIMATE_WINDOWS_MAX = 4  # matured windows, the newest, whose errors an estimate is made from
BASELINE_WINDOWS_MAX = 4  # those that tell what a model's errors were when it was trained


@dataclass
class Watched:
    """What was seen: `performance` by horizon in days, verdicts by name, and what to carry on."""

    carry: Carry
    performance: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    estimates: dict[str, dict[str, Any] | None] = field(default_factory=dict)  # of the error, by horizon
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)  # the model that a verdict is about, by name
    refused: str | None = None  # why a model was not loaded


def watch_model(history: History, carry: Carry, load: ModelLoader, settings: Settings, *, at: int) -> Watched:
    """Watch the champion over both horizons at window end `at`; nothing is seen where none serves."""
    watched = Watched(carry)
    for days in (settings.monitor_horizon_days, settings.horizon_days):
        try:
            _watch_horizon(history, watched, load, settings, at=at, days=days)
        except RegistryError as exc:  # of a retired version, perhaps: the champion can still score
            watched.refused = str(exc)
    if carry.champion is not None:
        verdict, reference = r2_drop(
            watched.performance.get(str(settings.monitor_horizon_days)),
            carry.r2_reference,
            at=at,
            drop_max=settings.r2_drop_threshold,
        )
        watched.verdicts[R2_DROP] = verdict
        figures = watched.performance.get(str(settings.monitor_horizon_days)) or {}
        watched.versions[R2_DROP] = str(figures.get("model_version", carry.champion))
        watched.carry = msgspec.structs.replace(watched.carry, r2_reference=reference)
    return watched


def acting_verdict(watched: Watched, settings: Settings) -> tuple[str, Verdict | None]:
    """Return the verdict on the model that the policy follows, with its name.

    Of the two horizons the one that sees drift speaks, the short one first; else the first that can tell.
    Labels that mature under a model that no longer serves ask nothing of the one that does.
    """
    names = [performance_name(days) for days in (settings.monitor_horizon_days, settings.horizon_days)]
    if settings.acting_model_detector == R2_DROP:
        names = [R2_DROP]
    champion = watched.carry.champion
    found = [
        (name, watched.verdicts[name])
        for name in names
        if name in watched.verdicts and watched.versions.get(name, champion) == champion
    ]
    if not found:
        return names[0], None
    order = {True: 0, False: 1, None: 2}
    return min(found, key=lambda item: order[item[1].drift])


def performance_name(days: int) -> str:
    """Return the name of the performance verdict over a horizon."""
    return f"performance_{days}d"


def _watch_horizon(
    history: History, watched: Watched, load: ModelLoader, settings: Settings, *, at: int, days: int
) -> None:
    carry = watched.carry
    if carry.champion is None:
        return
    ends = history.matured(horizon_s=days * DAY_S, at=at)
    served = [end for end in ends if carry.served_at(end) is not None]
    matured = _scored(history, carry, load, served[-1], at=at, days=days) if served else None
    figures = _figures(matured) if served else _promised(carry, load, days)
    watched.estimates[str(days)] = _estimate(history, watched, load, ends, matured, at=at, days=days)
    watched.performance[str(days)] = figures
    detector = PerformanceDrift(
        horizon_days=days,
        # Two horizons share the promise.
        false_alarm_probability=settings.false_alarm_rate / 2,
        false_alarm_horizon_windows=settings.false_alarm_horizon_hops,
    )
    left = watched.carry.errors
    verdict, left_now = detector.judge(
        matured,
        left.get(str(days)),
        lambda: _held_out(history, load, settings, matured, at=at, days=days),
    )
    watched.verdicts[performance_name(days)] = verdict
    if matured is not None:
        watched.versions[performance_name(days)] = matured.version
    # As it will come back from the log: a tuple would come back as a list.
    left_now = msgspec.json.decode(msgspec.json.encode(left_now))
    watched.carry = msgspec.structs.replace(watched.carry, errors={**left, str(days): left_now})


def _held_out(
    history: History,
    load: ModelLoader,
    settings: Settings,
    matured: MaturedWindow | None,
    *,
    at: int,
    days: int,
) -> list[MaturedWindow]:
    """Return the newest windows whose labels were known when the model of `matured` was trained.

    Of customers it was not trained on, and from the onset on where it was trained after a drift.
    """
    assert matured is not None
    _, card = load(matured.version)
    if card.requested_at is None:
        return []
    since = 0 if card.onset is None else from_iso(card.onset)
    trained_at = from_iso(card.requested_at)
    known = matured_since(history, since, settings, days=days, at=at)
    ends = [end for end in known if end + days * DAY_S <= trained_at][-BASELINE_WINDOWS_MAX:]
    found = []
    for end in ends:
        window = _scored_with(matured.version, history, load, end, at=at, days=days)
        if window is not None:
            found.append(window.of(is_holdout(window.customers)))
    return found


def _scored(
    history: History, carry: Carry, load: ModelLoader, end: int, *, at: int, days: int
) -> MaturedWindow | None:
    """Return a matured window scored with the model that served it; None if that cannot tell this horizon."""
    version = carry.served_at(end)
    assert version is not None
    return _scored_with(version, history, load, end, at=at, days=days)


def _scored_with(
    version: str, history: History, load: ModelLoader, end: int, *, at: int, days: int
) -> MaturedWindow | None:
    model, card = load(version)
    scale = 1.0 if card.horizon_days == days else card.horizon_scale
    if scale is None:  # the model was trained where the short horizon could not be read off
        return None
    rows = history.labelled(end, horizon_s=days * DAY_S, at=at)
    return MaturedWindow(
        window_end=end,
        version=version,
        customers=rows["CustomerID"].tolist(),
        label=rows["label"].to_numpy(np.float64),
        prediction=predict(model, rows) * scale if len(rows) else np.empty(0),
        weight=rows["SampleWeight"].to_numpy(np.float64),
    )


def _figures(matured: MaturedWindow | None) -> dict[str, Any] | None:
    if matured is None:
        return None
    measures = performance(matured.label, matured.prediction, matured.weight)
    return {
        "status": "matured",
        "window_end": iso(matured.window_end),
        "model_version": matured.version,
        **{name: rounded(value) for name, value in measures.items()},
    }


def _promised(carry: Carry, load: ModelLoader, days: int) -> dict[str, Any]:
    """Return the hold-out figures of the champion's card: until labels mature they have to do."""
    assert carry.champion is not None
    _, card = load(carry.champion)
    metrics = card.metrics if card.horizon_days == days else {}
    return {
        "status": "estimated",
        "window_end": None,
        "model_version": carry.champion,
        **{name: rounded(value) for name, value in metrics.items()},
    }


def _estimate(
    history: History,
    watched: Watched,
    load: ModelLoader,
    ends: list[int],
    matured: MaturedWindow | None,
    *,
    at: int,
    days: int,
) -> dict[str, Any] | None:
    """Return the error to expect of the champion in the window `at`, with the estimates' track record."""
    carry = watched.carry
    assert carry.champion is not None
    record = carry.track_records.get(str(days), TrackRecord())
    if matured is not None:
        truth = measured_error(matured.label, matured.prediction, matured.weight)
        record = record if truth is None else record.known(matured.window_end, truth)
    recent = []
    for end in ends[-ESTIMATE_WINDOWS_MAX:]:
        if matured is not None and (end, carry.champion) == (matured.window_end, matured.version):
            recent.append(matured)
        elif (scored := _scored_with(carry.champion, history, load, end, at=at, days=days)) is not None:
            recent.append(scored)
    rows = history.windows[at].rows
    found = None
    if recent and len(rows):
        classes = error_classes(*_joined(recent))
        naive = measured_error(*_joined(recent[-1:]))
        if classes is not None and naive is not None:
            model, card = load(carry.champion)
            scale = 1.0 if card.horizon_days == days else card.horizon_scale or 1.0
            weight = rows["SampleWeight"].to_numpy(np.float64)
            found = estimated_error(classes, predict(model, rows) * scale, weight)
            record = record if found is None else record.said(at, found, naive)
    records = {**carry.track_records, str(days): record}
    watched.carry = msgspec.structs.replace(carry, track_records=records)
    if found is None:
        return None
    return {
        "status": found.status,
        "absolute_log_error": rounded(found.absolute_log_error),
        "mae": rounded(found.mae),
        "track_record": record.summary(),
    }


def _joined(windows: list[MaturedWindow]) -> tuple[Any, Any, Any]:
    return (
        np.concatenate([window.label for window in windows]),
        np.concatenate([window.prediction for window in windows]),
        np.concatenate([window.weight for window in windows]),
    )
