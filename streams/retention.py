"""How far back a window's evaluation, and the answer to its request, may look: the same for both."""

from streams.detectors.interface import LOOK_BACK_HOPS
from streams.settings import Settings

# Matured windows that an evaluation or an answer may look at, whatever the settings.
MATURED_WINDOWS_MIN = 8


def retained_s(settings: Settings) -> int:
    """Return the distance from a window to the oldest one that its evaluation may look at, seconds.

    The windows of the reference and those that a retrain is trained on come besides.
    """
    longest_days = max(settings.horizon_days, settings.monitor_horizon_days, settings.window_days)
    matured = max(MATURED_WINDOWS_MIN, settings.min_matured_windows, settings.shadow_windows)
    hops = max(-(-longest_days // settings.window_hop_days) + matured, LOOK_BACK_HOPS)
    return hops * settings.hop_s
