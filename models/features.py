"""Features of customers in a window: the one implementation that training, serving and the batch jobs share.

Definitions are those of the original batch system: sale lines only (quantity and price above zero,
customer known). Sums are over integers (money in thousandths): exact, whatever the order of lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400
MONEY_SCALE = 1_000  # money is kept in thousandths of the currency unit

# Raised whenever a definition below changes: models and states of another version do not mix.
FEATURES_VERSION = 1

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Floats = NDArray[np.float64]

#: Described over the long window; the names of the original system.
RFM_FEATURES = (
    "Recency",
    "Frequency",
    "Monetary",
    "AvgQuantity",
    "TotalQuantity",
    "AvgUnitPrice",
    "NumOrders",
    "NumProducts",
)
LIFE_FEATURES = ("LifeSpend", "LifeOrders", "Tenure")
RECENT_SPEND_DAYS = (14, 30, 60)
EXTRA_FEATURES = (*LIFE_FEATURES, *(f"Spend{days}" for days in RECENT_SPEND_DAYS), "MaxOrder", "MeanOrder")
NUMERIC_FEATURES = (*RFM_FEATURES, *EXTRA_FEATURES)
FEATURES = (*NUMERIC_FEATURES, "Country")
#: Described over each shorter window too, under `<name>_<days>d`; zero where nothing was bought in it.
SCALED_FEATURES = (
    "Frequency",
    "Monetary",
    "AvgQuantity",
    "TotalQuantity",
    "AvgUnitPrice",
    "NumOrders",
    "NumProducts",
)


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

    @property
    def amount(self) -> Ints:
        """Quantity times price, thousandths; negative for returns."""
        return self.quantity * self.price

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
class Purchases:
    """Integer sums of sale lines a customer, rows in the order of `customer` (rising codes)."""

    customer: Codes
    last_time: Ints
    lines: Ints
    amount: Ints  # thousandths
    pieces: Ints
    price_sum: Ints  # thousandths, each line once
    orders: Ints
    products: Ints
    max_order: Ints  # thousandths, the largest invoice

    def __len__(self) -> int:
        return len(self.customer)


def pair_keys(left: Codes, right: Codes) -> Ints:
    """Return one integer for each pair of codes."""
    return (left.astype(np.int64) << 32) | right


def purchases(sales: Lines) -> Purchases:
    """Return the sums a customer of `sales` (sale lines of known customers only)."""
    customer, row = np.unique(sales.customer, return_inverse=True)
    n = len(customer)
    amount = sales.amount

    def total(values: Ints) -> Ints:
        sums = np.zeros(n, np.int64)
        np.add.at(sums, row, values)
        return sums

    last_time = np.full(n, np.iinfo(np.int64).min)
    np.maximum.at(last_time, row, sales.time)
    order_keys, order = np.unique(pair_keys(row.astype(np.int32), sales.invoice), return_inverse=True)
    order_amount = np.zeros(len(order_keys), np.int64)
    np.add.at(order_amount, order, amount)
    order_row = order_keys >> 32
    max_order = np.zeros(n, np.int64)
    np.maximum.at(max_order, order_row, order_amount)
    product_keys = np.unique(pair_keys(row.astype(np.int32), sales.product))
    return Purchases(
        customer=customer,
        last_time=last_time,
        lines=np.bincount(row, minlength=n).astype(np.int64),
        amount=total(amount),
        pieces=total(sales.quantity),
        price_sum=total(sales.price),
        orders=np.bincount(order_row, minlength=n).astype(np.int64),
        products=np.bincount(product_keys >> 32, minlength=n).astype(np.int64),
        max_order=max_order,
    )


def spend_since(sales: Lines, customer: Codes, since: int) -> Ints:
    """Return the spend (thousandths) of each of `customer` (rising codes) in sale lines from `since` on."""
    recent = sales.time >= since
    sums = np.zeros(len(customer), np.int64)
    np.add.at(sums, np.searchsorted(customer, sales.customer[recent]), sales.amount[recent])
    return sums


def rfm_columns(bought: Purchases, window_end: int) -> dict[str, NDArray[Any]]:
    """Return the original's eight numeric features, in decimal units, a row a customer of `bought`."""
    count = np.maximum(bought.lines, 1)  # a customer without a line in a shorter window has zeros, not 0/0
    return {
        "Recency": (window_end - bought.last_time) // DAY_S,
        "Frequency": bought.lines,
        "Monetary": bought.amount / MONEY_SCALE,
        "AvgQuantity": bought.pieces / count,
        "TotalQuantity": bought.pieces,
        "AvgUnitPrice": bought.price_sum / (count * float(MONEY_SCALE)),
        "NumOrders": bought.orders,
        "NumProducts": bought.products,
    }


def scaled_columns(bought: Purchases, customer: Codes, window_end: int, days: int) -> dict[str, NDArray[Any]]:
    """Return the features of a shorter window for the rows `customer`, zeros where nothing was bought."""
    row = np.searchsorted(customer, bought.customer)
    columns: dict[str, NDArray[Any]] = {}
    source = rfm_columns(bought, window_end)
    for name in SCALED_FEATURES:
        column = np.zeros(len(customer), source[name].dtype)
        column[row] = source[name]
        columns[f"{name}_{days}d"] = column
    return columns


def latest_country(sales: Lines, customer: Codes, words: "SortWords") -> Codes:
    """Return each customer's country code: of the latest sale line by (time, invoice, product, country).

    `words` gives the texts behind the codes; they are compared only where lines of a customer tie in time.
    """
    row = np.searchsorted(customer, sales.customer)
    last = np.full(len(customer), np.iinfo(np.int64).min)
    np.maximum.at(last, row, sales.time)
    tied = np.flatnonzero(sales.time == last[row])
    country = np.full(len(customer), -1, np.int32)
    country[row[tied]] = sales.country[tied]
    contested = tied[country[row[tied]] != sales.country[tied]]
    for index in np.unique(row[contested]):
        lines = tied[row[tied] == index]
        best = max(
            lines,
            key=lambda i: (
                words.invoices[int(sales.invoice[i])],
                words.products[int(sales.product[i])],
                words.countries[int(sales.country[i])],
            ),
        )
        country[index] = sales.country[best]
    return country


@dataclass(frozen=True)
class SortWords:
    """The texts behind the codes, by code."""

    invoices: Sequence[str]
    products: Sequence[str]
    countries: Sequence[str]
