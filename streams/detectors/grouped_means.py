"""The difference of two means over customers, with an error that knows that the same customers come again.

A customer stands in many windows, and labels of neighbouring windows overlap, so rows are not independent and
the two means are not either. Customers are. They are dealt into a fixed number of groups by a hash of their
id, always the same ones together: what a customer adds to either mean stays in one group, and the spread
between groups holds every dependence within them, at a cost that does not grow with the customers.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from models.holdout import customer_hash

Floats = NDArray[np.float64]

GROUPS = 64
GROUP_KEY = b"clv-drift/performance/1"  # of its own: the hold-out and the sample must not fall into groups

# A standard error below this share of the means is the rounding of sums, not a spread between customers.
SPREAD_MIN = 1e-6

# Smaller tail probabilities are held to be this one: a normal score stays finite.
TAIL_MIN = 1e-300


class GroupSums(NamedTuple):
    """Sums over the rows of each group, shape (groups,): of the weights, and of weight times value."""

    weight: Floats
    total: Floats


class Difference(NamedTuple):
    """Current mean less reference mean, in the values' unit; its t statistic and its degrees of freedom."""

    effect: float
    t: float
    degrees: int


def customer_groups(customers: Iterable[str]) -> NDArray[np.intp]:
    """Return the group of each customer, 0 to `GROUPS` - 1; the same in every window and process."""
    return (customer_hash(customers, GROUP_KEY) % np.uint64(GROUPS)).astype(np.intp)


def group_sums(group: NDArray[np.intp], weight: Floats, value: Floats) -> GroupSums:
    """Return the sums of each group over rows; the three arrays are parallel."""
    weights: Floats = np.bincount(group, weight, minlength=GROUPS).astype(np.float64)
    totals: Floats = np.bincount(group, weight * value, minlength=GROUPS).astype(np.float64)
    return GroupSums(weights, totals)


def difference(current: GroupSums, reference: GroupSums) -> Difference | None:
    """Compare two weighted means of the same grouped population; None where the spread is nil.

    Each mean is a ratio of sums; its error is that of the ratio's linearisation, the two taken together a
    group: the cluster-robust variance of Liang and Zeger (1986) with its factor G / (G - 1). With G groups
    that hold anybody, t has close to Student's distribution with G - 1 degrees (Bester, Conley and
    Hansen 2011).

    >>> ones = np.ones(4)
    >>> before = GroupSums(10 * ones, np.array([10.0, 11.0, 9.0, 10.0]))
    >>> after = GroupSums(10 * ones, np.array([15.0, 16.0, 14.0, 17.0]))
    >>> round(difference(after, before).effect, 3), round(difference(after, before).t, 1)
    (0.55, 11.0)
    """
    weight, weight_before = current.weight.sum(), reference.weight.sum()
    if not (weight > 0 and weight_before > 0):
        return None
    mean, mean_before = current.total.sum() / weight, reference.total.sum() / weight_before
    influence = (current.total - mean * current.weight) / weight
    influence -= (reference.total - mean_before * reference.weight) / weight_before
    groups = int(np.count_nonzero(current.weight + reference.weight))
    if groups < 2:
        return None
    error = float(np.sqrt(groups / (groups - 1) * np.sum(influence**2)))
    if error <= SPREAD_MIN * max(abs(mean), abs(mean_before)):
        return None
    effect = float(mean - mean_before)
    return Difference(effect, effect / error, groups - 1)


def p_value(found: Difference, *, two_sided: bool) -> float:
    """Return the probability, in (0, 1], of so large a t where nothing differs; one-sided: of such a rise."""
    tail = float(special.stdtr(found.degrees, -abs(found.t) if two_sided else -found.t))
    return min(max(2 * tail if two_sided else tail, TAIL_MIN), 1.0)


def normal_score(probability: float) -> float:
    """Return how far out a normal deviate lies whose two tails hold `probability`: 1.96 for 0.05."""
    return float(-special.ndtri(probability / 2)) + 0.0
