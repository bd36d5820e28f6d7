"""How many customers there are besides those who were seen."""

import numpy as np

from models.lines import Ints


def customers_in_all(weeks_seen: Ints, weeks: int) -> float:
    """Return an estimate of all customers, given in how many of `weeks` weeks each one seen bought.

    Chao's (1987) lower bound for incidence data, in its form without bias: those seen once and twice tell of
    those never seen. Without it the number of active customers would seem to vary less than it does.

    >>> round(customers_in_all(np.array([1, 1, 1, 1, 2, 2, 3]), 10), 2)
    8.8
    """
    once, twice = (int(np.count_nonzero(weeks_seen == times)) for times in (1, 2))
    return len(weeks_seen) + (weeks - 1) / weeks * once * (once - 1) / (2 * (twice + 1))
