"""The close of a window in one partition: rows of its customers, its totals, its week's lines."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.features import (
    DAY_S,
    MONEY_SCALE,
    RECENT_SPEND_DAYS,
    Purchases,
    SortWords,
    latest_country,
    purchases,
    rfm_columns,
    scaled_columns,
    spend_since,
)
from models.holdout import customer_hash
from models.lines import Codes, Lines, distinct
from streams.lifetime import Lifetime
from streams.vocabulary import Vocabulary

Columns = dict[str, NDArray[Any] | list[str]]  # by name; texts are lists
Positions = NDArray[np.intp]

SAMPLE_KEY = b"clv-drift/sample/1"  # not the hold-out's key, or the sample would hold too many of them


@dataclass(frozen=True)
class WindowPart:
    """What one partition says about one window.

    `columns` hold a row a sampled customer, in the order of the id's text. `lines` are those folded at this
    close (of sampled customers): each line of the stream stands in exactly one part.
    """

    window_end: int
    partition: int
    partial: bool
    after: int | None  # end of the window that the partition closed before; None for its first
    earliest: int | None  # the partition's earliest event time so far
    totals: dict[str, int]  # of all customers, sampled or not
    sample_bound: int | None  # customers up to this hash are sampled; None: everyone is
    columns: Columns
    lines: Lines
    line_ids: "LineTexts"
    rest: Columns | None = None  # rows of those who are not sampled, where asked for; as `columns`, by hash


@dataclass(frozen=True)
class LineTexts:
    """The texts behind the codes of a part's lines, by code; sorted, and each of them occurs."""

    customers: Sequence[str]
    invoices: Sequence[str]
    products: Sequence[str]
    countries: Sequence[str]


@dataclass(frozen=True)
class Scales:
    """Lengths of the three windows, days."""

    long_days: int
    mid_days: int
    short_days: int


def totals_of(bought: Purchases, suffix: str = "") -> dict[str, int]:
    """Return the sums over all customers of a scale; amounts in thousandths."""
    return {
        f"customers{suffix}": len(bought),
        f"sale_lines{suffix}": int(bought.lines.sum()),
        f"orders{suffix}": int(bought.orders.sum()),
        f"pieces{suffix}": int(bought.pieces.sum()),
        f"amount{suffix}": int(bought.amount.sum()),
    }


@dataclass(frozen=True)
class Sample:
    """Who is sampled: the customers with the smallest hashes, so the same in every window while active.

    `order` and `rest` are positions: of those who are, in the order of the id's text; of the others, by hash.
    """

    order: Positions
    rest: Positions
    bound: int | None  # the largest hash among the sampled; None if all are


def sample_of(ids: list[str], sample_max: int) -> Sample:
    """Return who of `ids` is sampled: `sample_max` of them, or all."""
    sampled, rest, bound = np.arange(len(ids)), np.empty(0, np.intp), None
    if len(ids) > sample_max:
        hashes = customer_hash(ids, SAMPLE_KEY)
        by_hash = np.argsort(hashes, kind="stable")
        sampled, rest = by_hash[:sample_max], by_hash[sample_max:]
        bound = int(hashes[sampled[-1]])
    return Sample(np.array(sorted(sampled.tolist(), key=ids.__getitem__), np.intp), rest, bound)


@dataclass(frozen=True)
class WindowRows:
    """The customers of a window: rows of the sampled, of the `rest` where asked for, and totals of all."""

    columns: Columns
    rest: Columns | None
    totals: dict[str, int]
    bound: int | None  # of the sample


def window_rows(
    sales: Lines,
    window_end: int,
    scales: Scales,
    lifetime: Lifetime,
    words: Vocabulary,
    sample_max: int,
    *,
    rest_wanted: bool = False,
) -> WindowRows:
    """Return the customers of the window that ends at `window_end`.

    `sales` are the known customers' sale lines in the long window; `lifetime` is complete up to its end.
    """
    mid_sales = sales.select(sales.time >= window_end - scales.mid_days * DAY_S)
    short_sales = mid_sales.select(mid_sales.time >= window_end - scales.short_days * DAY_S)
    bought, mid, short = purchases(sales), purchases(mid_sales), purchases(short_sales)
    customer = bought.customer
    columns: dict[str, NDArray[Any]] = rfm_columns(bought, window_end)
    columns["LifeSpend"] = lifetime.spend[customer] / MONEY_SCALE
    columns["LifeOrders"] = lifetime.orders[customer]
    columns["Tenure"] = (window_end - lifetime.first_purchase[customer]) // DAY_S
    for days in RECENT_SPEND_DAYS:
        columns[f"Spend{days}"] = spend_since(sales, customer, window_end - days * DAY_S) / MONEY_SCALE
    columns["MaxOrder"] = bought.max_order / MONEY_SCALE
    columns["MeanOrder"] = bought.amount / (np.maximum(bought.orders, 1) * float(MONEY_SCALE))
    columns |= scaled_columns(mid, customer, window_end, scales.mid_days)
    columns |= scaled_columns(short, customer, window_end, scales.short_days)
    totals = totals_of(bought)
    totals |= totals_of(mid, f"_{scales.mid_days}d") | totals_of(short, f"_{scales.short_days}d")

    ids = [words.customers.texts[code] for code in customer.tolist()]
    country = latest_country(sales, customer, _sort_words(words))
    sample = sample_of(ids, sample_max)

    def rows(of: Positions) -> Columns:
        found: Columns = {"CustomerID": [ids[i] for i in of.tolist()]}
        found |= {name: column[of] for name, column in columns.items()}
        found["Country"] = [words.countries.texts[code] for code in country[of].tolist()]
        return found

    rest = rows(sample.rest) if rest_wanted and len(sample.rest) else None
    return WindowRows(rows(sample.order), rest, totals, sample.bound)


def sampled_lines(fresh: Lines, words: Vocabulary, bound: int | None) -> tuple[Lines, LineTexts]:
    """Return the lines of customers up to the sample's bound, and the texts behind their codes.

    Codes are ranks among the texts that occur, and lines are sorted by all their columns: codes and the order
    of arrival depend on the partitions and on the process, the result does not.
    """
    if bound is not None:
        used: Codes = distinct(fresh.customer)
        hashes = customer_hash([words.customers.texts[code] for code in used.tolist()], SAMPLE_KEY)
        fresh = fresh.select(np.isin(fresh.customer, used[hashes <= bound]))
    customer, customers = words.customers.ranked(fresh.customer)
    invoice, invoices = words.invoices.ranked(fresh.invoice)
    product, products = words.products.ranked(fresh.product)
    country, countries = words.countries.ranked(fresh.country)
    ranked = replace(fresh, customer=customer, invoice=invoice, product=product, country=country)
    order = np.lexsort((country, fresh.price, fresh.quantity, product, invoice, customer, fresh.time))
    return ranked.select(order), LineTexts(customers, invoices, products, countries)


def _sort_words(words: Vocabulary) -> SortWords:
    return SortWords(words.invoices.texts, words.products.texts, words.countries.texts)
