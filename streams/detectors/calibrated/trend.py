"""Growth: a shop that gains customers all along has not drifted when it gains some more."""

from dataclasses import dataclass

import numpy as np

from models.lines import Floats

SIGNIFICANT_ERRORS = 4.0  # standard errors that a slope must have to be believed


@dataclass(frozen=True)
class Trend:
    """The slope of a straight line through the logs of weekly counts: growth a hop, its standard error."""

    slope: float
    error: float

    @staticmethod
    def of(logs: Floats) -> "Trend":
        """Return the least-squares line through `logs`, one a hop in order; none where it may be chance.

        >>> trend = Trend.of(np.log(100 * 1.02 ** np.arange(20)))
        >>> trend.over(np.array([20.5]))[0].round(3).tolist()
        [0.406]
        """
        hops = np.arange(len(logs), dtype=np.float64)
        centred = hops - hops.mean()
        squares = float(centred @ centred)
        slope = float(centred @ logs) / squares
        rest = logs - logs.mean() - slope * centred
        error = float(np.sqrt(rest @ rest / (len(logs) - 2) / squares))
        if abs(slope) <= SIGNIFICANT_ERRORS * error:
            return Trend(0.0, 0.0)
        return Trend(slope, error)

    def over(self, hops: Floats) -> tuple[Floats, Floats]:
        """Return growth in logs over numbers of hops, and its standard error."""
        return self.slope * hops, self.error * np.abs(hops)
