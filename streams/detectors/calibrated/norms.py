"""What is usual of each product: how far prices and quantities of lines lie from it.

Customers differ in what they buy, and so their average prices and quantities do. Set against what the same
product usually costs, and is usually bought in, a change of all prices shows at a tenth of the size at which
averages show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.lines import Codes, Floats, Lines

LINES_MIN = 5  # of a product in the reference, below which nothing is usual of it
LOG_RATIO_MAX = 2.0  # a line counts as no further from the usual than e^2 = 7.4 times


@dataclass(frozen=True)
class Deviations:
    """Sums over a customer's lines of the log ratios to the usual; `lines` are those of known products."""

    price: Floats
    quantity: Floats
    lines: Floats

    @staticmethod
    def total(parts: Sequence["Deviations"]) -> "Deviations":
        """Return the sums of `parts`, one or more, all over the same customers."""
        return Deviations(
            np.sum([part.price for part in parts], axis=0),
            np.sum([part.quantity for part in parts], axis=0),
            np.sum([part.lines for part in parts], axis=0),
        )

    @cached_property
    def mean_price(self) -> Floats:
        """The mean deviation of the price of a customer's lines, 0 for whom there is none."""
        means: Floats = self.price / np.maximum(self.lines, 1)
        return means

    @cached_property
    def mean_quantity(self) -> Floats:
        """The mean deviation of the quantity of a customer's lines, 0 for whom there is none."""
        means: Floats = self.quantity / np.maximum(self.lines, 1)
        return means

    def among(self, customers: NDArray[np.intp]) -> "Deviations":
        """Return the same of some customers alone."""
        return Deviations(self.price[customers], self.quantity[customers], self.lines[customers])

    def enlarged(self, at: Codes, customers: int) -> "Deviations":
        """Return the same among `customers` customers, of whom those here are the ones `at`."""
        return Deviations.gathered([(at, self)], customers)

    @staticmethod
    def gathered(parts: Sequence[tuple[Codes, "Deviations"]], customers: int) -> "Deviations":
        """Return the sums of parts over different customers, of whom those of each are the ones named."""
        at = np.concatenate([np.empty(0, np.int32), *(at for at, _ in parts)])
        columns = (
            np.concatenate([np.empty(0), *(getattr(part, name) for _, part in parts)])
            for name in ("price", "quantity", "lines")
        )
        return Deviations(*(np.bincount(at, column, customers).astype(np.float64) for column in columns))


@dataclass(frozen=True)
class Norms:
    """Mean log price (thousandths) and mean log quantity by product code; NaN where nothing is usual."""

    log_price: Floats
    log_quantity: Floats

    @staticmethod
    def of(sales: Lines) -> "Norms":
        """Return the norms of the products in `sales`, sale lines.

        >>> lines = Lines.empty()
        >>> len(Norms.of(lines).log_price)
        0
        """
        counts = np.bincount(sales.product)
        enough = counts >= LINES_MIN
        log_price, log_quantity = (
            np.where(enough, np.bincount(sales.product, np.log(values)) / np.maximum(counts, 1), np.nan)
            for values in (sales.price, sales.quantity)
        )
        return Norms(log_price, log_quantity)

    def deviations(self, sales: Lines, customers: int) -> Deviations:
        """Return the deviations of `sales`, sale lines, by customer code below `customers`."""
        if not len(self.log_price):
            return Deviations(*np.zeros((3, customers)))
        product = np.minimum(sales.product, len(self.log_price) - 1)
        known = (sales.product == product) & np.isfinite(self.log_price[product])
        sales, product = sales.select(known), product[known]
        price, quantity = (
            np.clip(np.log(values) - usual[product], -LOG_RATIO_MAX, LOG_RATIO_MAX)
            for values, usual in ((sales.price, self.log_price), (sales.quantity, self.log_quantity))
        )
        sums = [
            np.bincount(sales.customer, weights, customers)
            for weights in (price, quantity, np.ones(len(sales)))
        ]
        return Deviations(*(values.astype(np.float64) for values in sums))
