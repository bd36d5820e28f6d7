"""Detectors: each judges a window against its reference; `make_detector` builds them by name."""

from streams.detectors.baseline import BaselineDetector
from streams.detectors.interface import Cause, DetectionContext, Detector, Verdict
from streams.errors import ExitCode, UserError
from streams.settings import Settings

__all__ = ["Cause", "DetectionContext", "Detector", "Verdict", "make_detector"]


def make_detector(name: str, settings: Settings) -> Detector:
    """Return the detector that `settings` call `name`; a name that no detector has raises UserError."""
    if name == BaselineDetector.name:
        return BaselineDetector(
            false_discovery_rate=settings.false_discovery_rate, scale_weeks=settings.window_days // 7
        )
    raise UserError(
        f"there is no detector {name!r}",
        hint=f"known detectors: {BaselineDetector.name}",
        code=ExitCode.USAGE,
    )
