"""The detectors of this distribution, as their entry points make them from the settings."""

from streams.detectors.baseline import BaselineDetector
from streams.detectors.calibrated import CalibratedDetector
from streams.detectors.calibrated.statistic import Scale
from streams.detectors.calibrated.window import Grid
from streams.detectors.evidently import EvidentlyAny, EvidentlyDataset
from streams.errors import ExitCode, UserError
from streams.settings import Settings


def baseline(settings: Settings) -> BaselineDetector:
    """Return the baseline detector."""
    return BaselineDetector(
        false_discovery_rate=settings.false_discovery_rate, scale_weeks=settings.window_days // 7
    )


def calibrated(settings: Settings) -> CalibratedDetector:
    """Return the calibrated detector; raises UserError where the windows are not whole numbers of hops."""
    hop = settings.window_hop_days
    lengths = settings.window_days, settings.mid_window_days, settings.short_window_days
    if any(days % hop for days in lengths) or lengths[2] != hop:
        raise UserError(
            f"window_days ({lengths[0]}) and mid_window_days ({lengths[1]}) must be multiples of"
            f" window_hop_days ({hop}), and short_window_days ({lengths[2]}) equal to it",
            hint="change them, or name other `detectors`",
            code=ExitCode.USAGE,
        )
    scale = Scale(*(days // hop for days in lengths))
    return CalibratedDetector(
        grid=Grid(scale, settings.hop_s, ("", f"_{lengths[1]}d", f"_{lengths[2]}d")),
        hops_min=settings.reference_hops_min,
        false_alarm_rate=settings.false_alarm_rate,
        horizon=settings.false_alarm_horizon_hops,
        seed=settings.seed,
    )


def evidently_dataset(settings: Settings) -> EvidentlyDataset:
    """Return the detector that gives Evidently's verdict on all columns."""
    return EvidentlyDataset(scale_weeks=settings.window_days // 7)


def evidently_any(settings: Settings) -> EvidentlyAny:
    """Return the detector that calls any column's drift a drift."""
    return EvidentlyAny(scale_weeks=settings.window_days // 7)
