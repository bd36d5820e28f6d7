"""The largest of many: a Gumbel distribution fitted to the maxima of runs."""

import math
from dataclasses import dataclass

from models.lines import Floats

EULER = 0.5772156649015329


@dataclass(frozen=True)
class Gumbel:
    """The distribution of maxima with location `mode` and `scale` (Gumbel 1935)."""

    mode: float
    scale: float

    @staticmethod
    def fitted(maxima: Floats) -> "Gumbel":
        """Return the fit by moments: some hundred maxima give a tail that their own quantiles do not."""
        scale = max(float(maxima.std()) * math.sqrt(6) / math.pi, 1e-9)
        return Gumbel(float(maxima.mean()) - EULER * scale, scale)

    def quantile(self, probability: float) -> float:
        """Return what the maximum stays below with `probability`, between 0 and 1.

        >>> round(Gumbel(0.0, 1.0).quantile(0.95), 4)
        2.9702
        """
        return self.mode - self.scale * math.log(-math.log(probability))

    def exceeded(self, value: float, runs: float = 1.0) -> float:
        """Return the probability that the largest of `runs` maxima is above `value`.

        >>> round(Gumbel(0.0, 1.0).exceeded(2.9702), 4)
        0.05
        """
        return -math.expm1(-runs * math.exp(min((self.mode - value) / self.scale, 700.0)))
