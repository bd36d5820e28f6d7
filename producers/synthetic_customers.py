"""Synthetic customers: their rates, loyalty and spending, drawn as BG/NBD and Gamma-Gamma have it."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Shares of customers: a mail-order shop in the United Kingdom with some trade abroad.
COUNTRIES = {
    "United Kingdom": 0.90,
    "Germany": 0.022,
    "France": 0.020,
    "Spain": 0.008,
    "Belgium": 0.007,
    "Switzerland": 0.006,
    "Portugal": 0.006,
    "Italy": 0.006,
    "Netherlands": 0.005,
    "EIRE": 0.005,
    "Australia": 0.005,
    "Norway": 0.005,
    "Finland": 0.005,
}


@dataclass(frozen=True)
class Behaviour:
    """Parameters of the population; the defaults give orders much like those of Online Retail.

    Purchases (Fader, Hardie, Lee, 2005, "Counting Your Customers the Easy Way: An Alternative to the
    Pareto/NBD Model"): a customer buys at a Poisson rate a day, rate ~ Gamma(`rate_shape`, rate
    `rate_days`), and leaves after each repeat purchase with probability p ~ Beta(`leave_a`, `leave_b`).
    Spending (Fader, Hardie, 2013, "The Gamma-Gamma Model of Monetary Value"): an order's value ~
    Gamma(`order_shape`, rate v), v ~ Gamma(`value_shape`, rate `value_scale`) a customer.
    """

    rate_shape: float = 0.8
    rate_days: float = 50.0
    leave_a: float = 0.6
    leave_b: float = 5.0
    order_shape: float = 3.0
    value_shape: float = 3.5
    value_scale: float = 320.0


@dataclass(frozen=True)
class Customers:
    """Customers' own parameters as parallel arrays."""

    rate: Floats  # purchases a day while a customer
    leave: Floats  # probability of leaving after a repeat purchase
    repeats_max: Ints  # repeat purchases after which the customer has left
    value_rate: Floats  # rate of the Gamma distribution of order values
    country: Ints  # index into `COUNTRIES`

    @classmethod
    def draw(cls, rng: np.random.Generator, customers: int, behaviour: Behaviour) -> Self:
        """Draw customers."""
        leave = rng.beta(behaviour.leave_a, behaviour.leave_b, customers)
        shares = np.array(list(COUNTRIES.values()))
        return cls(
            rate=rng.gamma(behaviour.rate_shape, 1 / behaviour.rate_days, customers),
            # A probability of nought would mean a customer for ever, and no geometric distribution.
            leave=np.maximum(leave, 1e-9),
            repeats_max=rng.geometric(np.maximum(leave, 1e-9)),
            value_rate=rng.gamma(behaviour.value_shape, 1 / behaviour.value_scale, customers),
            country=rng.choice(len(shares), size=customers, p=shares / shares.sum()),
        )

    def mean_order(self, behaviour: Behaviour) -> Floats:
        """Return each customer's mean order value, decimal units."""
        return behaviour.order_shape / self.value_rate


def order_values(rng: np.random.Generator, value_rate: Floats, behaviour: Behaviour) -> Floats:
    """Draw an order value (decimal units) for each given rate."""
    return rng.gamma(behaviour.order_shape, 1.0, len(value_rate)) / value_rate


def expected_purchases(rate: Floats, leave: Floats, days: Floats) -> Floats:
    """Return the expected repeat purchases in the next `days` of customers who have not left.

    The rate at which customers leave is rate * leave, so the rate of purchases decays as exp(-rate leave t):
    its integral is (1 - exp(-rate leave days)) / leave.
    """
    return -np.expm1(-rate * leave * days) / leave
