"""What changed in a feature, and by how much: causes from the rows of a window and of its reference."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from streams.detectors.interface import CATEGORICAL, NUMERIC_UNITS, Cause
from streams.detectors.statistics import Floats


def numeric_cause(name: str, current: Floats, reference: Floats, *, scale_weeks: int) -> Cause:
    """Return the change of a number: the difference of medians of two samples of finite values."""
    effect = float(np.median(current) - np.median(reference))
    return Cause(feature=name, scale_weeks=scale_weeks, segment="", effect=effect, unit=NUMERIC_UNITS[name])


def country_cause(
    names: NDArray[np.object_], current: Floats, reference: Floats, *, scale_weeks: int
) -> Cause:
    """Return the change of the country whose share changed most, from the counts of `country_counts`."""
    change = current / current.sum() - reference / reference.sum()
    most = int(np.argmax(np.abs(change)))
    return Cause(
        feature=CATEGORICAL,
        scale_weeks=scale_weeks,
        segment=f"{CATEGORICAL}={names[most]}",
        effect=100 * float(change[most]),
        unit="percentage points",
    )


def country_counts(
    current: pd.DataFrame, reference: pd.DataFrame
) -> tuple[NDArray[np.object_], Floats, Floats]:
    """Return all countries in the order of their names, and how many customers each has on both sides."""
    # Sorted by name, so that the order of the rows decides nothing. A missing name has the code -1.
    codes, names = pd.factorize(pd.concat([current[CATEGORICAL], reference[CATEGORICAL]]), sort=True)
    sides = codes[: len(current)], codes[len(current) :]
    now, before = (np.bincount(side[side >= 0], minlength=len(names)).astype(np.float64) for side in sides)
    return np.asarray(names, dtype=object), now, before


def finite(values: "pd.Series[float]") -> Floats:
    """Return the finite values of a column."""
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers)]
