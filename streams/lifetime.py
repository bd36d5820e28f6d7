"""Lifetime figures of a partition's customers, complete up to the last closed window end."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.lines import Codes, Ints, Lines, distinct

NEVER = np.iinfo(np.int64).max  # a first purchase that has not happened


@dataclass
class Lifetime:
    """Arrays by customer code; grown as codes appear.

    `spend` is net of returns (thousandths), `orders` counts invoices with a sale, `first_purchase` is the
    event time of the first sale line. A customer is `known` once a line of theirs was folded.
    """

    spend: Ints
    orders: Ints
    first_purchase: Ints
    known: NDArray[np.bool_]

    @classmethod
    def empty(cls) -> "Lifetime":
        """Return the figures of nobody."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool))

    def grow(self, size: int) -> None:
        """Make room for codes below `size`."""
        missing = size - len(self.spend)
        if missing <= 0:
            return
        # Doubling, so that a stream of new customers costs amortised constant time.
        missing = max(missing, len(self.spend))
        self.spend = np.concatenate([self.spend, np.zeros(missing, np.int64)])
        self.orders = np.concatenate([self.orders, np.zeros(missing, np.int64)])
        self.first_purchase = np.concatenate([self.first_purchase, np.full(missing, NEVER)])
        self.known = np.concatenate([self.known, np.zeros(missing, bool)])

    def fold(self, fresh: Lines, counted: Lines, *, orders_since: int) -> Codes:
        """Add the lines of `fresh`; return the customers touched (rising codes).

        `counted` are the sale lines folded before that are still retained (those of other invoices than
        `fresh` names may be left out): an invoice among them has its order already. A sale line before
        `orders_since` (epoch seconds) adds spend but no order, because the lines that could tell whether its
        invoice was counted may be gone.
        """
        self.grow(int(fresh.customer.max(initial=-1)) + 1)
        np.add.at(self.spend, fresh.customer, fresh.amount)
        self.known[fresh.customer] = True
        sales = fresh.select(fresh.is_sale)
        np.minimum.at(self.first_purchase, sales.customer, sales.time)
        recent = sales.select(sales.time >= orders_since)
        new, old = distinct(recent.runs.keys), counted.runs.keys
        np.add.at(self.orders, new[~np.isin(new, old)] >> 32, 1)
        return distinct(fresh.customer)

    def codes(self) -> Codes:
        """Return the codes of all known customers, rising."""
        return np.flatnonzero(self.known).astype(np.int32)

    def table(self, customers: Codes, texts: list[str]) -> dict[str, Any]:
        """Return the figures of `customers` as texts and raw little-endian columns, for a checkpoint.

        In the order of the texts: codes differ between processes, and a checkpoint must not.
        """
        ids = [texts[code] for code in customers.tolist()]
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.intp)
        rows = customers[order]
        return {
            "id": [ids[i] for i in order.tolist()],
            "spend": self.spend[rows].astype("<i8").tobytes(),
            "orders": self.orders[rows].astype("<i8").tobytes(),
            "first_purchase": self.first_purchase[rows].astype("<i8").tobytes(),
        }

    def put(self, customers: Codes, table: dict[str, Any]) -> None:
        """Set the figures of `customers` to those of a table that `table()` gave."""
        self.grow(int(customers.max(initial=-1)) + 1)
        self.spend[customers] = np.frombuffer(table["spend"], "<i8")
        self.orders[customers] = np.frombuffer(table["orders"], "<i8")
        self.first_purchase[customers] = np.frombuffer(table["first_purchase"], "<i8")
        self.known[customers] = True
