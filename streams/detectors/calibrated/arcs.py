"""What customers did in a span of weeks, as arrays of one entry a customer."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.features import purchases, rfm_columns
from models.lines import Codes, Floats, Ints, Lines
from streams.detectors.calibrated.norms import Deviations
from streams.detectors.calibrated.statistic import LINES_PER_ORDER
from streams.detectors.interface import NUMERIC_UNITS

NOBODY = -1  # the country of a customer who bought nothing

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Arc:
    """One span: `features` are zero and `country` is `NOBODY` where a customer bought nothing."""

    features: dict[str, Floats]  # those of `NUMERIC_UNITS` and lines an order
    country: Codes
    active: Flags
    deviations: Deviations

    @staticmethod
    def of_lines(sales: Lines, customers: int, end: int, deviations: Deviations) -> "Arc":
        """Return what `customers` customers did in `sales`, the sale lines of a span in order of time."""
        bought = purchases(sales)
        columns = rfm_columns(bought, end)
        features = {name: _spread(columns[name], bought.customer, customers) for name in NUMERIC_UNITS}
        country = np.full(customers, NOBODY, np.int32)
        country[sales.customer] = sales.country  # of several lines the last one stays
        return Arc._of(features, country, deviations)

    @staticmethod
    def of_rows(
        columns: Mapping[str, Floats],
        suffix: str,
        at: Codes,
        customers: int,
        country: Codes,
        deviations: Deviations,
    ) -> "Arc":
        """Return the arc that the columns of a snapshot whose names end in `suffix` describe.

        `at` says which customer each row is, `country` holds the code of each row.
        """
        features = {
            name: _spread(columns[name + suffix], at, customers)
            for name in NUMERIC_UNITS
            if name + suffix in columns
        }
        places = np.full(customers, NOBODY, np.int32)
        bought = features["Frequency"][at] > 0
        places[at[bought]] = country[bought]
        return Arc._of(features, places, deviations)

    @staticmethod
    def _of(features: dict[str, Floats], country: Codes, deviations: Deviations) -> "Arc":
        orders = np.maximum(features["NumOrders"], 1)
        features[LINES_PER_ORDER] = features["Frequency"] / orders
        return Arc(features, country, features["Frequency"] > 0, deviations)

    def among(self, customers: NDArray[np.intp], names: Collection[str]) -> "Arc":
        """Return the arc of some customers alone, with the features `names` as far as it has them."""
        features = {name: values[customers] for name, values in self.features.items() if name in names}
        deviations = self.deviations.among(customers)
        return Arc(features, self.country[customers], self.active[customers], deviations)

    def enlarged(self, at: Codes, customers: int, names: Collection[str]) -> "Arc":
        """Return the same arc among `customers` customers, of whom those here are the ones `at`.

        It has the features `names` alone.
        """
        country = np.full(customers, NOBODY, np.int32)
        country[at] = self.country
        active = np.zeros(customers, bool)
        active[at] = self.active
        features = {name: _spread(self.features[name], at, customers) for name in names}
        return Arc(features, country, active, self.deviations.enlarged(at, customers))


def _spread(values: NDArray[np.float64] | Ints, at: Codes, customers: int) -> Floats:
    spread = np.zeros(customers)
    spread[at] = values
    return spread
