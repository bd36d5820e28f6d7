"""Line items as columns, and what is quickly told of columns of integers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lines:
    """Line items as parallel columns; strings are codes of the holder's vocabulary."""

    time: Ints  # event time, epoch seconds
    customer: Codes
    invoice: Codes
    product: Codes
    country: Codes
    quantity: Ints  # pieces
    price: Ints  # thousandths a piece

    def __len__(self) -> int:
        return len(self.time)

    def select(self, index: Any) -> "Lines":
        """Return the lines at `index` (a mask, slice or positions)."""
        return Lines(
            self.time[index],
            self.customer[index],
            self.invoice[index],
            self.product[index],
            self.country[index],
            self.quantity[index],
            self.price[index],
        )

    @cached_property
    def amount(self) -> Ints:
        """Quantity times price, thousandths; negative for returns."""
        return self.quantity * self.price

    @cached_property
    def runs(self) -> "Runs":
        """The lines taken together by customer and invoice."""
        keys = pair_keys(self.customer, self.invoice)
        starts = np.flatnonzero(starts_of(keys))
        return Runs(starts, keys[starts])

    @property
    def is_sale(self) -> NDArray[np.bool_]:
        """Whether a line is a sale: quantity and price above zero."""
        return (self.quantity > 0) & (self.price > 0)

    @staticmethod
    def concat(parts: Sequence["Lines"]) -> "Lines":
        """Return the lines of `parts` one after another."""
        if not parts:
            return Lines.empty()
        if len(parts) == 1:
            return parts[0]
        return Lines(
            np.concatenate([part.time for part in parts]),
            np.concatenate([part.customer for part in parts]),
            np.concatenate([part.invoice for part in parts]),
            np.concatenate([part.product for part in parts]),
            np.concatenate([part.country for part in parts]),
            np.concatenate([part.quantity for part in parts]),
            np.concatenate([part.price for part in parts]),
        )

    @staticmethod
    def empty() -> "Lines":
        """Return no lines."""
        ints, codes = np.empty(0, np.int64), np.empty(0, np.int32)
        return Lines(ints, codes, codes, codes, codes, ints, ints)


@dataclass(frozen=True)
class Runs:
    """Lines that follow one another and have customer and invoice in common, taken together.

    Lines of an invoice are neighbours in the log: there are some twenty times fewer runs than lines, which is
    what makes sums a customer cheap. An invoice may still come in several runs, if others came between.
    """

    starts: NDArray[np.intp]
    keys: Ints  # `pair_keys` of customer and invoice

    @property
    def customer(self) -> Ints:
        """The customer of each run."""
        return self.keys >> 32

    def sums(self, values: Ints, size: int) -> Ints:
        """Return the sums of `values`, one a line, for each customer code below `size`."""
        sums = np.zeros(size, np.int64)
        np.add.at(sums, self.customer, np.add.reduceat(values, self.starts))
        return sums


def pair_keys(left: Codes, right: Codes) -> Ints:
    """Return one integer for each pair of codes."""
    return (left.astype(np.int64) << 32) | right


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values that occur, rising.

    By sorting, which numpy does with vector instructions; its `unique` hashes, many times slower.
    """
    ordered = np.sort(values)
    return ordered[starts_of(ordered)]


def starts_of(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which values differ from the one before."""
    starts = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=starts[1:])
    return starts
