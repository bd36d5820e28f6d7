"""The calibrated detector, one idea a file; `detector` puts them together."""

from streams.detectors.calibrated.detector import CalibratedDetector

__all__ = ["CalibratedDetector"]
