"""What chance alone does to the statistics, and from where on it is no longer believed."""

from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np

from models.lines import Floats
from streams.detectors.calibrated.circle import Circle, Reference, lay_out
from streams.detectors.calibrated.contributions import sum_values
from streams.detectors.calibrated.gumbel import Gumbel
from streams.detectors.calibrated.runs import draw
from streams.detectors.calibrated.statistic import (
    CUSTOMERS,
    SHORT,
    STATISTICS,
    SUMS,
    Kind,
    Scale,
    Statistic,
)
from streams.detectors.calibrated.trend import Trend
from streams.detectors.calibrated.unseen import customers_in_all
from streams.detectors.interface import rounded

RUNS = 100
TAIL_DEVIATIONS = 4.0  # above the mean of its run maxima a statistic is as rare as the rarest of all may be
SCALE_MIN = 3.3  # standard deviations, below which no statistic is taken for an alarm
VARIED_LEVEL = 0.9  # a reference that varied more than this share of the runs did widens its statistics
DEVIATION_MIN = 1e-3  # of a statistic that never varied: a tenth of a percent


@dataclass(frozen=True)
class Calibration:
    """The null of every statistic: mean and standard deviation by `STATISTICS`, and the run's threshold.

    A statistic's strength is its distance from the mean in standard deviations, by what is `rare` for it; the
    largest strength of a window is compared with `threshold`.
    """

    circle: Circle
    reference_values: Floats  # of `SUMS`, over the whole circle
    mean: Floats
    deviation: Floats
    rare: Floats
    maxima: Gumbel  # of the largest strength in a run of `hops` windows
    hops: int
    horizon: int
    threshold: float
    trend: Trend
    seed: int
    customers: int
    customers_in_all: float

    def strengths(self, values: Floats, hop: int) -> Floats:
        """Return the strengths of a window that ends `hop` hops after the reference began.

        Signed: negative where a statistic is smaller than expected. One-sided ones are never negative.
        """
        expected, error = self.trend.over(hop - self._level_hops)
        shift, spread = _COUNTED * expected, _COUNTED * error
        z = (values - self.mean - shift) / np.hypot(self.deviation, spread)
        return np.where(_ONE_SIDED, np.maximum(z, 0.0), z) / self.rare

    @cached_property
    def _level_hops(self) -> Floats:
        """After how many hops a window would have the middle of those that its level was read from."""
        lengths = np.array([self.circle.scale[statistic.scale] for statistic in STATISTICS])
        return self.circle.middles(STATISTICS) + (lengths + 1) / 2

    def false_alarm_probability(self, strength: float) -> float:
        """Return how probable it is that `horizon` windows without drift reach `strength` at least once."""
        return self.maxima.exceeded(strength, self.horizon / self.hops)

    @cached_property
    def published(self) -> dict[str, Any]:
        """What anybody needs to check a verdict, as JSON values, with an id made of the rest."""
        content: dict[str, Any] = {
            "seed": self.seed,
            "runs": RUNS,
            "hops": self.hops,
            "horizon": self.horizon,
            "customers": self.customers,
            "customers_in_all": rounded(self.customers_in_all),
            "threshold": rounded(self.threshold),
            "trend_per_hop": rounded(self.trend.slope),
            "statistics": {
                statistic.name(self.circle.scale): {
                    "mean": rounded(float(mean)),
                    "standard_deviation": rounded(float(deviation)),
                    "rare": rounded(float(rare)),
                }
                for statistic, mean, deviation, rare in zip(
                    STATISTICS, self.mean, self.deviation, self.rare, strict=True
                )
            },
        }
        digest = blake2b(msgspec.json.encode(content), digest_size=8).hexdigest()
        return {"id": digest, **content}


def calibrate(
    reference: Reference, scale: Scale, *, false_alarm_rate: float, horizon: int, seed: int
) -> Calibration:
    """Return the calibration: `horizon` windows without drift raise any alarm at the `false_alarm_rate`.

    Each statistic is measured in units of what is rare for it, so that all of them spend equal shares of
    the rate; the threshold is a quantile of the largest over all statistics and windows of a run (the max-T
    of Westfall and Young 1993), extrapolated from the circle's length to the horizon.
    """
    circle = lay_out(reference, scale)
    in_all = customers_in_all(reference.hops_seen(), reference.hops)
    values = draw(circle, in_all, runs=RUNS, seed=seed).values
    own = circle.contributions.sum(axis=1, dtype=np.float64)
    mean = values.mean(axis=(0, 1))
    deviation = np.maximum(values.std(axis=(0, 1)), _deviation_min(own))
    z = (values - mean) / deviation
    maxima = np.where(_ONE_SIDED, z, np.abs(z)).max(axis=1)
    rare = np.maximum(maxima.mean(axis=0) + TAIL_DEVIATIONS * maxima.std(axis=0), SCALE_MIN)
    largest = Gumbel.fitted((maxima / rare).max(axis=1))
    series = sum_values(own)
    return Calibration(
        circle=circle,
        reference_values=sum_values(circle.level(own)),
        mean=mean,
        deviation=deviation * _widened(circle, series, values),
        rare=rare,
        maxima=largest,
        hops=reference.hops,
        horizon=horizon,
        threshold=largest.quantile((1 - false_alarm_rate) ** (reference.hops / horizon)),
        # The first window of the circle ends with the last week.
        trend=Trend.of(np.roll(series[:, SUMS.index(Statistic(Kind.COUNT, CUSTOMERS, SHORT))], -1)),
        seed=seed,
        customers=reference.customers,
        customers_in_all=in_all,
    )


_ONE_SIDED = np.array([statistic.one_sided for statistic in STATISTICS])
_COUNTED = np.array([float(statistic.kind is Kind.COUNT) for statistic in STATISTICS])


def _deviation_min(own: Floats) -> Floats:
    """Return the least standard deviation of each statistic, from the sums of the circle's own windows.

    A share that was never anything but zero still owes one customer to chance, and a count a quarter of
    what independent customers would give.
    """
    least = np.full(len(STATISTICS), DEVIATION_MIN)
    numerator, denominator = own[:, 0::2].mean(axis=0), own[:, 1::2].mean(axis=0)
    for i, statistic in enumerate(SUMS):
        if statistic.kind is Kind.SHARE:
            least[i] = 1 / max(denominator[i], 1)
        elif statistic.kind is Kind.COUNT:
            least[i] = 0.25 / np.sqrt(max(numerator[i], 1))
    return least


def _widened(circle: Circle, series: Floats, values: Floats) -> Floats:
    """Return by how much each statistic of the reference itself varied more than chance explains.

    Holidays and campaigns move all customers at once, which no drawing of customers shows. The spread between
    quartiles is compared, so that a single odd week does not make the detector deaf.
    """
    widened = np.ones(values.shape[2])
    in_time = circle.in_time([replace(statistic, feature="") for statistic in SUMS])
    for i, windows in enumerate(in_time.T):
        spread = _quartile_spread(series[windows, i])
        usual = np.quantile(_quartile_spread(values[:, windows, i].T), VARIED_LEVEL)
        if usual > 0:
            widened[i] = max(1.0, float(spread / usual))
    return widened


def _quartile_spread(values: Floats) -> Floats:
    low, high = np.quantile(values, (0.25, 0.75), axis=0)
    return high - low  # type: ignore[no-any-return]
