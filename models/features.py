"""Features of customers in a window: the one implementation that training, serving and the batch jobs share.

Definitions are those of the original batch system: sale lines only (quantity and price above zero,
customer known). Sums are over integers (money in thousandths): exact, whatever the order of lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.lines import Codes, Ints, Lines, Runs, distinct, pair_keys, starts_of

DAY_S = 86_400
MONEY_SCALE = 1_000  # money is kept in thousandths of the currency unit

# Raised whenever a definition below changes: models and states of another version do not mix.
FEATURES_VERSION = 1

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


def purchases(sales: Lines) -> Purchases:
    """Return the sums a customer of `sales` (sale lines of known customers only).

    Sums are taken by code, so memory grows with the largest one: codes are numbered without gaps.
    """
    runs = sales.runs
    who = runs.customer
    size = int(who.max(initial=-1)) + 1
    lines = np.zeros(size, np.int64)
    np.add.at(lines, who, np.diff(runs.starts, append=len(sales)))
    customer = np.flatnonzero(lines).astype(np.int32)
    last_time = np.full(size, np.iinfo(np.int64).min)
    np.maximum.at(last_time, who, np.maximum.reduceat(sales.time, runs.starts))
    order_customer, order_amount = _orders(runs, sales.amount)
    max_order = np.zeros(size, np.int64)
    np.maximum.at(max_order, order_customer, order_amount)
    product_customer = distinct(pair_keys(sales.customer, sales.product)) >> 32
    return Purchases(
        customer=customer,
        last_time=last_time[customer],
        lines=lines[customer],
        amount=runs.sums(sales.amount, size)[customer],
        pieces=runs.sums(sales.quantity, size)[customer],
        price_sum=runs.sums(sales.price, size)[customer],
        orders=np.bincount(order_customer, minlength=size)[customer].astype(np.int64),
        products=np.bincount(product_customer, minlength=size)[customer].astype(np.int64),
        max_order=max_order[customer],
    )


def _orders(runs: Runs, amount: Ints) -> tuple[Ints, Ints]:
    """Return customer and amount of each order: of each pair of a customer and an invoice."""
    order = np.argsort(runs.keys)
    keys, amount = runs.keys[order], np.add.reduceat(amount, runs.starts)[order]
    starts = np.flatnonzero(starts_of(keys))
    return keys[starts] >> 32, np.add.reduceat(amount, starts)


def spend_since(sales: Lines, customer: Codes, since: int) -> Ints:
    """Return the spend (thousandths) of each of `customer` (rising codes) in sale lines from `since` on."""
    amount = np.where(sales.time >= since, sales.amount, 0)
    return sales.runs.sums(amount, int(customer.max(initial=-1)) + 1)[customer]


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

    `customer` are all customers of `sales`. `words` gives the texts behind the codes; they are compared only
    where lines of a customer tie in time.
    """
    size = int(customer.max(initial=-1)) + 1
    country = np.full(size, -1, np.int32)
    country[sales.customer] = sales.country
    moved = np.zeros(size, bool)
    moved[sales.customer[country[sales.customer] != sales.country]] = True
    for code in np.flatnonzero(moved):
        lines = np.flatnonzero(sales.customer == code)
        latest = lines[sales.time[lines] == sales.time[lines].max()]
        best = max(
            latest,
            key=lambda i: (
                words.invoices[int(sales.invoice[i])],
                words.products[int(sales.product[i])],
                words.countries[int(sales.country[i])],
            ),
        )
        country[code] = sales.country[best]
    return country[customer]


@dataclass(frozen=True)
class SortWords:
    """The texts behind the codes, by code."""

    invoices: Sequence[str]
    products: Sequence[str]
    countries: Sequence[str]
