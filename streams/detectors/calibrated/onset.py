"""Since when: the change point that explains a series of weekly deviations best."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from models.lines import Floats
from streams.detectors.interface import LOOK_BACK_HOPS

RAMPS_HOPS = (0, 4, 8)  # a change at once, or one that grows over a month or two
SPAN_HOPS_MAX = LOOK_BACK_HOPS - 1  # how far back the change is looked for
Z_MAX = 8.0  # a single odd week must not outweigh all others


def onset(z: Sequence[float]) -> int:
    """Return the index in `z` of the first window that a change reached.

    `z` are standardised deviations of consecutive windows, oldest first, their mean 0 before the change. Of
    changes that begin at each window, at once or growing linearly, the one with the largest likelihood
    ratio is taken (Hinkley 1970, for a known mean before the change): the squared projection
    of `z` on the shape of the change.

    >>> onset([0.3, -0.5, 0.1, 3.2, 2.8, 3.5])
    3
    >>> onset([0.2, -0.1, 0.4, 1.1, 2.1, 2.9, 4.2])
    3
    """
    series = np.clip(np.asarray(z, np.float64), -Z_MAX, Z_MAX)
    best, found = -1.0, len(series) - 1
    for ramp in RAMPS_HOPS:
        for first in range(len(series)):
            shape, size = _shape(len(series), first, ramp)
            gain = float(shape @ series) ** 2 / size
            # A growing change has one more freedom than one at once, and must earn it.
            gain -= 2.0 * (ramp > 0)
            if gain > best:
                best, found = gain, first
    return found


@lru_cache(maxsize=len(RAMPS_HOPS) * (LOOK_BACK_HOPS + 1) ** 2)
def _shape(length: int, first: int, ramp: int) -> tuple[Floats, float]:
    """Return the shape of a change that begins in window `first` and is whole `ramp` windows later.

    With it comes its square, the sum of those of its entries.
    """
    since = np.arange(length) - first + 1.0
    # A window that a growing change begins in has the mean of its beginning and end.
    grown = np.clip((since - 0.5) / ramp, 0.0, 1.0) if ramp else np.ones(length)
    shape = grown * (since > 0)
    return shape, float(shape @ shape)
