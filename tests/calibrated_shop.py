"""A shop whose customers behave alike all year, and what the calibrated detector says of its weeks.

The windows are the real ones: 13, 4 and 1 weeks; the reference has 24.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from line_factory import MONDAY, WEEK_S, line, windows_of

from models.lines import Lines
from streams.detectors.builtin import calibrated
from streams.detectors.calibrated import CalibratedDetector
from streams.detectors.calibrated.arcs import Arc
from streams.detectors.calibrated.circle import Reference
from streams.detectors.calibrated.norms import Deviations
from streams.detectors.calibrated.statistic import LINES_PER_ORDER
from streams.detectors.interface import NUMERIC_UNITS, Carry, DetectionContext, Verdict
from streams.history import History
from streams.joining import Snapshot
from streams.settings import Settings

REFERENCE_WEEKS = 24
WEEKS = 40
CHANGE_WEEK = 30  # from whose first second on a shop of these tests changes
CUSTOMERS = 400
PRODUCTS = 50

Line = dict[str, Any]
Change = Callable[[Line], Line | None]


def shop_settings(**changes: Any) -> Settings:
    """Return the settings of the shop."""
    return Settings(**({"reference_weeks": REFERENCE_WEEKS} | changes))


def end_of(week: int) -> int:
    """Return the end (epoch seconds) of the week number `week`, the first being 1."""
    return MONDAY + week * WEEK_S


def steady(
    seed: int, *, customers: int = CUSTOMERS, weeks: range = range(WEEKS), first_id: int = 10_000
) -> list[Line]:
    """Return the lines of a stationary shop, in the order of time.

    Each customer orders at a rate of his own, as chance will have it; likes quantities of his own; has a
    country. Each product has a price, from which single lines differ a little.
    """
    rng = np.random.default_rng(seed)
    rates = rng.gamma(1.5, 0.3, customers)  # orders a week
    tastes = rng.lognormal(1.5, 0.6, customers)  # pieces a line
    prices = rng.lognormal(1.0, 0.7, PRODUCTS)
    countries = rng.choice(["United Kingdom", "Germany", "France"], customers, p=[0.85, 0.1, 0.05])
    orders = rng.poisson(rates * len(weeks))
    who = np.repeat(np.arange(customers), orders)
    times = MONDAY + weeks.start * WEEK_S + rng.integers(0, len(weeks) * WEEK_S, len(who))
    lines = []
    for number in np.argsort(times, kind="stable"):
        customer = int(who[number])
        for product in rng.choice(PRODUCTS, 1 + rng.poisson(1.5), replace=False):
            pieces = max(1, round(float(tastes[customer] * rng.lognormal(0, 0.4))))
            price = max(0.01, round(float(prices[product] * rng.lognormal(0, 0.1)), 2))
            lines.append(
                line(
                    int(times[number]),
                    InvoiceNo=f"{first_id}-{number}",
                    StockCode=f"P{product}",
                    Quantity=pieces,
                    UnitPrice=price,
                    CustomerID=str(first_id + customer),
                    Country=str(countries[customer]),
                )
            )
    return lines


def week_of(item: Line) -> int:
    """Return the number of the week that a line falls into, the first being 1."""
    return int(np.datetime64(item["InvoiceDate"]).astype("int64") - MONDAY) // WEEK_S + 1


def changed(lines: Iterable[Line], change: Change, *, from_week: int = CHANGE_WEEK) -> list[Line]:
    """Return the lines with those from `from_week` on changed, or left out where `change` returns None."""
    found = (change(item) if week_of(item) >= from_week else item for item in lines)
    return [item for item in found if item is not None]


def merged(*shops: Iterable[Line]) -> list[Line]:
    """Return the lines of several shops, in the order of time."""
    return sorted((item for lines in shops for item in lines), key=lambda item: item["InvoiceDate"])


def history_of(snapshots: Iterable[Snapshot]) -> History:
    """Return the history of windows that were joined."""
    history = History()
    for snapshot in snapshots:
        history.add(snapshot)
    return history


def history_of_lines(lines: Iterable[Line], **changes: Any) -> History:
    """Return the history of a replay of `lines`."""
    return history_of(windows_of(lines, shop_settings(**changes)))


def detector(**changes: Any) -> CalibratedDetector:
    """Return a detector that has seen nothing yet."""
    return calibrated(shop_settings(**changes))


def context(history: History, week: int, reference: Sequence[int] | None = None) -> DetectionContext:
    """Return what the detector is given of a week, beside the first 24 or the weeks of `reference`."""
    window = history.windows[end_of(week)]
    weeks = range(1, REFERENCE_WEEKS + 1) if reference is None else reference
    ends = tuple(end_of(number) for number in weeks if end_of(number) in history.windows)
    last = history.windows[ends[-1]]
    return DetectionContext(
        window_end=window.window_end,
        current=window.rows,
        reference=last.rows,
        reference_window_end=last.window_end,
        partial=window.partial,
        history=history,
        reference_ends=ends,
    )


def verdicts(
    judge: CalibratedDetector,
    history: History,
    weeks: Iterable[int] = range(REFERENCE_WEEKS + 1, WEEKS + 1),
    carry: Carry | None = None,
) -> dict[int, Verdict]:
    """Return the verdicts on `weeks`, by week, each call given what the one before left."""
    found = {}
    for week in weeks:
        found[week], carry = judge.judge(context(history, week), carry)
    return found


# -- hand-made parts


def lines_of(**columns: Any) -> Lines:
    """Return lines with some columns given, all as long; the others are alike in all lines."""
    size = len(next(iter(columns.values())))
    usual = {
        "time": 0,
        "customer": 0,
        "invoice": 0,
        "product": 0,
        "country": 0,
        "quantity": 1,
        "price": 1_000,
    }
    wide = {"time", "quantity", "price"}
    return Lines(
        **{
            name: np.asarray(columns.get(name, np.full(size, value)), np.int64 if name in wide else np.int32)
            for name, value in usual.items()
        }
    )


def arc(**columns: Any) -> Arc:
    """Return an arc with some features given; the deviations are `price`, `quantity` and `lines`."""
    size = len(columns["Frequency"])
    features = {name: np.asarray(columns.get(name, np.ones(size)), float) for name in NUMERIC_UNITS}
    features[LINES_PER_ORDER] = features["Frequency"] / np.maximum(features["NumOrders"], 1)
    deviations = [
        np.asarray(columns.get(name, np.zeros(size)), float) for name in ("price", "quantity", "lines")
    ]
    return Arc(
        features, np.asarray(columns["country"], np.int32), features["Frequency"] > 0, Deviations(*deviations)
    )


def random_reference(seed: int, *, hops: int, customers: int = 40, growth: float = 0.0) -> Reference:
    """Return a reference of customers who buy at random; the number of lines grows by `growth` a hop."""
    rng = np.random.default_rng(seed)
    rates = np.exp(growth * np.arange(hops))
    size = customers * hops // 2
    hop = rng.choice(hops, size, p=rates / rates.sum())
    return _reference(rng, hop, rng.integers(0, customers, size), hops)


def regular_reference(customers: int, *, hops: int) -> Reference:
    """Return a reference whose customers all buy once a hop."""
    hop, who = np.divmod(np.arange(hops * customers), customers)
    return reference_of(hop, who, hops)


def reference_of(hop: Any, who: Any, hops: int) -> Reference:
    """Return a reference in which the customers `who` buy in the hops `hop`, an order each."""
    return _reference(np.random.default_rng(0), hop, who, hops)


def _reference(rng: np.random.Generator, hop: Any, who: Any, hops: int) -> Reference:
    size = len(hop)
    numbered, customer = np.unique(who, return_inverse=True)
    sales = lines_of(
        time=MONDAY + hop * WEEK_S + rng.permutation(size) * (WEEK_S // size),
        customer=customer,
        invoice=rng.permutation(size),
        product=rng.integers(0, 8, size),
        country=customer % 5 // 4,
        quantity=rng.integers(1, 12, size),
        price=rng.integers(500, 1_500, size),
    )
    return Reference(sales.select(np.argsort(sales.time)), MONDAY, hops, WEEK_S, len(numbered))


def turned(reference: Reference, hops: int) -> Reference:
    """Return the reference with all that happened in it `hops` hops later, around the circle."""
    length = reference.hops * reference.hop_s
    time = reference.start + (reference.sales.time - reference.start + hops * reference.hop_s) % length
    return replace(reference, sales=replace(reference.sales, time=time).select(np.argsort(time)))
