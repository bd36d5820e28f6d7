"""Targets: what customers went on to spend, net of returns, once enough time has passed to know."""

import numpy as np

from models.features import MONEY_SCALE
from models.lines import Codes, Floats, Ints


def future_spend(
    customer: Codes, line_customer: Codes, line_time: Ints, line_amount: Ints, *, start: int, end: int
) -> Floats:
    """Return each of `customer`'s net spend in [start, end), currency units; 0 where there are no lines.

    `customer` are unique codes, shape (n,); lines are parallel arrays with amounts in thousandths, returns
    below zero; lines of other customers (any code) are left out. Times are epoch seconds.

    >>> codes, times = np.array([0, 1, 0], np.int32), np.array([5, 6, 9])
    >>> future_spend(np.array([1, 0], np.int32), codes, times, np.array([1000, 2500, 9]), start=5, end=9)
    array([2.5, 1. ])
    """
    size = int(max(customer.max(initial=-1), line_customer.max(initial=-1))) + 1
    row = np.full(size, -1)
    row[customer] = np.arange(len(customer))
    inside = (line_time >= start) & (line_time < end)
    index = row[line_customer[inside]]
    wanted = index >= 0
    sums = np.zeros(len(customer), np.int64)
    np.add.at(sums, index[wanted], line_amount[inside][wanted])
    return sums / MONEY_SCALE


def original_target(monetary: Floats, frequency: Floats, recency: Floats) -> Floats:
    """Return the original system's lifetime value: Monetary x (Frequency / (Recency + 1)) x 365.

    A function of the features, so nothing can be learned from it; computed for comparison only.
    """
    return monetary * (frequency / (recency + 1)) * 365
