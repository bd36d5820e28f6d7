"""What a statistic that moved says in words of the shop: feature, scale, segment, effect in its unit."""

import numpy as np

from models.lines import Floats
from streams.detectors.calibrated.calibration import Calibration
from streams.detectors.calibrated.contributions import ABSENT, BINS, FEATURE_MIN, OTHERS
from streams.detectors.calibrated.statistic import (
    DISTANCES,
    LONG,
    STATISTICS,
    SUMS,
    Kind,
    Statistic,
)
from streams.detectors.calibrated.window import Observer
from streams.detectors.interface import CATEGORICAL, Cause
from streams.history import PastWindow

CAUSES_MAX = 10
WEEK_S = 604_800


def ranked(
    observer: Observer,
    calibration: Calibration,
    window: PastWindow,
    strengths: Floats,
    values: Floats,
    counts: Floats,
) -> tuple[Cause, ...]:
    """Return what passed the threshold, strongest first; of each feature and segment only the strongest."""
    causes: dict[tuple[str, str], Cause] = {}
    for i in np.argsort(-np.abs(strengths), kind="stable"):
        if abs(strengths[i]) <= calibration.threshold:
            break
        statistic = STATISTICS[i]
        if (statistic.feature, statistic.segment) in causes:
            continue
        effect, segment = _effect(observer, calibration, window, int(i), values, counts)
        key = statistic.feature, segment
        if key not in causes:
            causes[key] = Cause(
                feature=statistic.feature,
                scale_weeks=observer.grid.scale[statistic.scale] * observer.grid.hop_s // WEEK_S,
                segment=segment,
                effect=effect,
                unit=statistic.unit,
            )
    return tuple(causes.values())[:CAUSES_MAX]


def _effect(
    observer: Observer,
    calibration: Calibration,
    window: PastWindow,
    i: int,
    values: Floats,
    counts: Floats,
) -> tuple[float, str]:
    """Return the effect of statistic `i`, current less reference in its own unit, and the segment."""
    statistic = STATISTICS[i]
    circle = calibration.circle
    if statistic.kind is Kind.MIX:
        return _country(observer, counts[i - len(SUMS)], circle.histograms[i - len(SUMS)])
    if statistic.kind is Kind.DISTRIBUTION:
        before = _median(circle.histograms[i - len(SUMS)], circle.yardsticks.grids[statistic])
        return _median_now(observer, window, statistic) - before, statistic.segment
    if statistic.kind is Kind.SHARE:
        return 100 * float(values[i]), statistic.segment
    if statistic.kind is Kind.COUNT:
        level = float(np.exp(calibration.reference_values[i]))
    else:
        level = _level(observer, calibration, statistic)
    return level * float(np.expm1(values[i])), statistic.segment


def _level(observer: Observer, calibration: Calibration, statistic: Statistic) -> float:
    """Return the geometric mean of a feature over the active customers of the reference."""
    for i, other in enumerate(SUMS):
        if (other.kind, other.feature, other.scale) == (Kind.MEAN_LOG, statistic.feature, statistic.scale):
            return float(np.exp(calibration.reference_values[i]))
    long_arc = observer.circle.bases[-1]
    active = long_arc.features[statistic.feature][long_arc.active]
    return float(np.exp(np.log(np.maximum(active, FEATURE_MIN)).mean())) if len(active) else 0.0


def _median(counts: Floats, grid: Floats) -> float:
    """Return the median of a histogram whose bins end at the values of `grid`."""
    below = np.cumsum(counts[:BINS])
    return float(grid[min(int(np.searchsorted(below, below[-1] / 2)), len(grid) - 1)])


def _median_now(observer: Observer, window: PastWindow, statistic: Statistic) -> float:
    """Return the median of a feature over the customers active in the window: it may lie outside the grid."""
    suffix = observer.grid.suffixes[statistic.scale]
    active = window.rows["Frequency" + suffix].to_numpy() > 0
    return float(np.median(window.rows[statistic.feature + suffix].to_numpy()[active]))


def _country(observer: Observer, now: Floats, before: Floats) -> tuple[float, str]:
    """Return the change of share, in percentage points, of the country that changed most, and its name."""
    gap = now[:ABSENT] / max(now[:ABSENT].sum(), 1) - before[:ABSENT] / max(before[:ABSENT].sum(), 1)
    most = int(np.argmax(np.abs(gap)))
    name = "others" if most == OTHERS else observer.history.country_name(most)
    return 100 * float(gap[most]), f"{CATEGORICAL}={name}"


def distances(values: Floats) -> dict[str, float]:
    """Return the distance of each feature's distribution over the long window, 0 to 1."""
    return {
        statistic.feature: float(value)
        for statistic, value in zip(DISTANCES, values[len(SUMS) :], strict=True)
        if statistic.scale == LONG
    }


def nearness(observer: Observer, calibration: Calibration, strengths: Floats) -> dict[str, dict[int, float]]:
    """Return the largest strength by feature and by weeks of the window, the threshold being 1."""
    weeks = [scale * observer.grid.hop_s // WEEK_S for scale in observer.grid.scale]
    found: dict[str, dict[int, float]] = {}
    for statistic, strength in zip(STATISTICS, np.abs(strengths).tolist(), strict=True):
        by_weeks = found.setdefault(statistic.feature, {})
        share = strength / calibration.threshold
        by_weeks[weeks[statistic.scale]] = max(share, by_weeks.get(weeks[statistic.scale], 0.0))
    return found
