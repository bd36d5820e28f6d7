"""Detectors: each judges a window against its reference; `make_detector` finds them by name."""

from streams.detectors.interface import Cause, DetectionContext, Detector, Verdict
from streams.detectors.plugins import judged, make_detector, make_detectors

__all__ = ["Cause", "DetectionContext", "Detector", "Verdict", "judged", "make_detector", "make_detectors"]
