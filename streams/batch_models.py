"""Train a model on a file, compare a file with a model: the batch jobs of the original system."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from models.card import Card, card_of
from models.estimators import UnknownEstimatorError
from models.features import DAY_S
from models.fitted import FrameError
from models.registry import Registry
from models.training import holdout_performance
from streams.backfill import InputRecord, Windows
from streams.batch import registry_errors
from streams.comparisons import Wanted
from streams.detectors import DetectionContext, Verdict, judged, make_detectors
from streams.detectors.evidently import waits_for_comparison
from streams.errors import ExitCode, UserError
from streams.grid import from_iso, iso
from streams.history import History, PastWindow
from streams.inline_comparison import inline_comparisons
from streams.retraining import train_best, training_frame
from streams.settings import Settings


@dataclass(frozen=True)
class Trained:
    """A model that `train_on` stored; `known` where the same version stood in the registry before."""

    card: Card
    known: bool


@dataclass(frozen=True)
class Detection:
    """A window compared with the reference of a model; `drift` is what `acting_detector` says."""

    window: PastWindow
    reference: pd.DataFrame
    reference_window_end: int
    model_version: str
    acting_detector: str
    verdicts: dict[str, Verdict]

    @property
    def drift(self) -> bool | None:
        """Whether the window drifted; None where the acting detector cannot tell."""
        return self.verdicts[self.acting_detector].drift

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, under the names of an evaluation's fields."""
        return {
            "window_end": iso(self.window.window_end),
            "reference_end": iso(self.reference_window_end),
            "model_version": self.model_version,
            "lines": self.window.totals["lines"],
            "customers": self.window.totals["customers"],
            "acting_detector": self.acting_detector,
            "drift": self.drift,
            "verdicts": {name: verdict.to_dict() for name, verdict in self.verdicts.items()},
        }


def train_on(
    records: Iterable[InputRecord], settings: Settings, watch: Callable[[str], None] = lambda _: None
) -> Trained:
    """Train on the newest windows whose labels are known at the end of `records`; store version and card.

    The reference stored with it is the newest whole window. `watch` is told what begins. Raises UserError:
    INPUT where nothing can be trained on, USAGE for an unknown estimator, STORAGE or MODEL where the
    registry does not take it.
    """
    watch("reading")
    history = history_of(records, settings)
    at = _whole(history, settings)[-1]
    watch("looking up labels")
    frame = training_frame(history, at=at, settings=settings)
    if frame.empty:
        weeks = -(-(settings.window_days + settings.horizon_days) // 7)
        raise UserError(
            f"no window of the input has labels that are known at its end, {iso(at)}",
            hint=f"a full window and its labels ({settings.horizon_days} days) take {weeks} weeks of lines",
            code=ExitCode.INPUT,
        )
    watch(f"training {', '.join(settings.estimators)} on {len(frame):,} rows")
    try:
        model = train_best(frame, settings.estimators, settings.seed)
    except UnknownEstimatorError as exc:
        raise UserError(str(exc), hint="set CLV_DRIFT_ESTIMATORS", code=ExitCode.USAGE) from exc
    except FrameError as exc:
        raise UserError(f"the input cannot be trained on: {exc}", code=ExitCode.INPUT) from exc
    card = card_of(
        model,
        horizon_days=settings.horizon_days,
        metrics=holdout_performance(model, frame),
        requested_at=iso(at),
    )
    watch(f"storing model {model.version}")
    registry = Registry(settings.registry_dir)
    with registry_errors():
        known = model.version in registry.list_versions()
        return Trained(registry.save(model, card, history.windows[at].rows), known)


def detect_in(
    records: Iterable[InputRecord], settings: Settings, *, version: str, window_end: int | None = None
) -> Detection:
    """Compare a window of `records` with the reference of model `version`, by every configured detector.

    The window is the newest whole one, or the one that ends at `window_end` (epoch seconds). Raises
    UserError: MODEL where the version cannot be used, INPUT where there is no such window.
    """
    registry = Registry(settings.registry_dir)
    with registry_errors():
        _, card = registry.load(version)
        reference = registry.load_reference(version)
    if card.requested_at is None:
        raise UserError(f"the card of model {version} does not date its reference", code=ExitCode.MODEL)
    detectors = make_detectors(settings)
    history = history_of(records, settings)
    ends = _whole(history, settings)
    if window_end is not None and window_end not in ends:
        raise UserError(
            f"the input has no whole window that ends at {iso(window_end)}",
            hint=f"there is one every {settings.window_hop_days} days from {iso(ends[0])} to {iso(ends[-1])}",
            code=ExitCode.INPUT,
        )
    window = history.windows[ends[-1] if window_end is None else window_end]
    context = DetectionContext(
        window_end=window.window_end,
        current=window.rows,
        reference=reference,
        reference_window_end=from_iso(card.requested_at),
        partial=window.partial,
        history=history,
        reference_ends=_reference_ends(ends, from_iso(card.requested_at), settings),
    )
    if waits_for_comparison(settings):
        wanted = Wanted(window_end=window.window_end, reference_end=context.reference_window_end)
        with inline_comparisons(settings) as comparisons:
            context = replace(context, comparison=comparisons.compared(wanted, window.rows, reference))
    verdicts = {detector.name: judged(detector, context, None)[0] for detector in detectors}
    return Detection(
        window=window,
        reference=reference,
        reference_window_end=context.reference_window_end,
        model_version=version,
        acting_detector=_first_to_tell(verdicts, settings),
        verdicts=verdicts,
    )


def _reference_ends(ends: list[int], last: int, settings: Settings) -> tuple[int, ...]:
    """Return the windows of the reference that ends at `last`, as far as the input shows them."""
    if last not in ends:
        return ()
    return tuple(end for end in ends if end <= last)[-settings.reference_weeks :]


def _first_to_tell(verdicts: dict[str, Verdict], settings: Settings) -> str:
    """Return the acting detector, or where that is the default and cannot tell, the first that can.

    A file of the last weeks shows nothing of the reference besides the rows stored with the model: enough for
    some detectors, not for one that is calibrated on the reference's lines.
    """
    acting = settings.acting_detector
    if "acting_detector" in settings.model_fields_set:
        return acting
    telling = [name for name in (acting, *verdicts) if verdicts[name].drift is not None]
    return telling[0] if telling else acting


def evidently_summary(detection: Detection, settings: Settings, html: Path) -> dict[str, Any]:
    """Return Evidently's comparison of the same frames, and write its report; takes some ten seconds.

    Raises UserError where the report cannot be written or the frames cannot be compared.
    """
    from streams.evidently_report import compare  # noqa: PLC0415  (ten seconds that only this asks for)

    try:
        return compare(
            detection.window.rows,
            detection.reference,
            drift_share=settings.drift_share,
            regression=None,
            html=html,
        )
    except OSError as exc:
        raise UserError(f"{html} cannot be written: {exc.strerror or exc}", code=ExitCode.STORAGE) from exc
    except ValueError as exc:
        raise UserError(f"Evidently cannot compare the window: {exc}", code=ExitCode.INPUT) from exc


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write a result for programs, whole or not at all; raises UserError (STORAGE) where that fails."""
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise UserError(f"{path} cannot be written: {exc.strerror or exc}", code=ExitCode.STORAGE) from exc


def history_of(records: Iterable[InputRecord], settings: Settings) -> History:
    """Return the windows of `records`."""
    history = History()
    for snapshot in Windows(settings).feed(records):
        history.add(snapshot)
    return history


def _whole(history: History, settings: Settings) -> list[int]:
    """Return the ends of the windows that show all of `window_days`, oldest first; UserError if none does."""
    first = history.first_end or 0
    full_from = first + (settings.window_days - 7) * DAY_S
    ends = [end for end, window in history.windows.items() if end >= full_from and not window.partial]
    if not ends:
        raise UserError(
            f"the input shows {len(history.windows)} windows, none of them whole",
            hint=f"a whole window takes {settings.window_days} days of lines",
            code=ExitCode.INPUT,
        )
    return ends
