"""What customers did in a span of weeks, as arrays of one entry a customer."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
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
        rows: pd.DataFrame, suffix: str, at: Codes, customers: int, country: Codes, deviations: Deviations
    ) -> "Arc":
        """Return the arc that the rows of a snapshot describe in the columns that end in `suffix`.

        `at` says which customer each row is, `country` holds the code of each row.
        """
        features = {
            name: _spread(rows[name + suffix].to_numpy(np.float64), at, customers)
            for name in NUMERIC_UNITS
            if name + suffix in rows
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

    def among(self, customers: NDArray[np.intp]) -> "Arc":
        """Return the arc of some customers alone."""
        features = {name: values[customers] for name, values in self.features.items()}
        deviations = self.deviations.among(customers)
        return Arc(features, self.country[customers], self.active[customers], deviations)

    def enlarged(self, at: Codes, customers: int) -> "Arc":
        """Return the same arc among `customers` customers, of whom those here are the ones `at`."""
        country = np.full(customers, NOBODY, np.int32)
        country[at] = self.country
        features = {name: _spread(values, at, customers) for name, values in self.features.items()}
        return Arc(features, country, features["Frequency"] > 0, self.deviations.enlarged(at, customers))


def _spread(values: NDArray[np.float64] | Ints, at: Codes, customers: int) -> Floats:
    spread = np.zeros(customers)
    spread[at] = values
    return spread
