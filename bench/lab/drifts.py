"""Changes put into a quiet stream: what each does from the onset on, and which causes are right to name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.lines import Lines, pair_keys

from .streams import ONSET_WEEK, START, WEEK_S, WEEKS, Stream

ONSET = START + ONSET_WEEK * WEEK_S
RAMP_WEEKS = 8
STRENGTHS = {"full": 1.0, "half": 0.5, "quarter": 0.25}
SUDDEN, GROWING = "sudden", "growing"
HOME = "United Kingdom"
PACK = 6
QUARTER_WEEKS = 13

Floats = NDArray[np.float64]
Random = np.random.Generator


class Variant(NamedTuple):
    """A drift at a strength, all at once or growing."""

    drift: str
    strength: str
    pace: str

    def __str__(self) -> str:
        return "-".join(self)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the variant of that name; raises ValueError where there is none."""
        variant = cls(*text.split("-"))
        if variant.drift not in DRIFTS or variant.strength not in STRENGTHS:
            raise ValueError(f"there is no variant {text!r}")
        return variant


@dataclass(frozen=True)
class Dose:
    """How much of a drift there is at each moment: 0 before the onset, `strength` when it is fully there."""

    strength: float
    ramp_weeks: int  # 0: all at once

    def at(self, time: NDArray[np.int64]) -> Floats:
        """Return the level at each moment (epoch seconds)."""
        if not self.ramp_weeks:
            return np.where(time >= ONSET, self.strength, 0.0)
        return self.strength * np.clip((time - ONSET) / (self.ramp_weeks * WEEK_S), 0.0, 1.0)


def _dearer(stream: Stream, dose: Dose, _rng: Random) -> Lines:
    lines = stream.lines
    price = np.rint(lines.price * (1 + 0.2 * dose.at(lines.time)))
    return replace(lines, price=price.astype(np.int64))


def _whales(stream: Stream, dose: Dose, _rng: Random) -> Lines:
    lines = stream.lines
    before = lines.time < ONSET
    pieces = np.bincount(lines.customer[before], lines.quantity[before], minlength=stream.customers)
    top = np.zeros(stream.customers, bool)
    top[np.argsort(-pieces, kind="stable")[: np.count_nonzero(pieces) // 50]] = True
    factor = np.where(top[lines.customer], 1 + 2 * dose.at(lines.time), 1.0)
    return replace(lines, quantity=np.rint(lines.quantity * factor).astype(np.int64))


def _abroad(stream: Stream, dose: Dose, rng: Random) -> Lines:
    lines, home = stream.lines, stream.country(HOME)
    moves = rng.random(stream.customers)[lines.customer] < 0.1 * dose.at(lines.time)
    others = np.delete(np.arange(len(stream.words.countries), dtype=np.int32), home)
    where = rng.choice(others, stream.customers)[lines.customer]
    return replace(lines, country=np.where(moves & (lines.country == home), where, lines.country))


def _churn(stream: Stream, dose: Dose, rng: Random) -> Lines:
    lines = stream.lines
    return lines.select(rng.random(stream.customers)[lines.customer] >= 0.3 * dose.at(lines.time))


def _newcomers(stream: Stream, dose: Dose, rng: Random) -> Lines:
    """Add customers who do what others do, from one of those others' orders on, as if it were the first."""
    lines = stream.lines
    active = len(np.unique(stream.between(ONSET_WEEK - QUARTER_WEEKS, ONSET_WEEK).customer))
    arrival = _arrivals(0.25 * dose.strength * active / QUARTER_WEEKS, dose.ramp_weeks, rng)
    by_customer = np.argsort(lines.customer, kind="stable")
    _, starts, counts = np.unique(lines.customer[by_customer], return_index=True, return_counts=True)
    model = rng.integers(0, len(starts), len(arrival))
    first, count = starts[model], counts[model]
    at = by_customer[np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())]
    order = by_customer[first + rng.integers(0, count)]
    turn = arrival - (lines.time[order] - START) // WEEK_S
    who = np.repeat(np.arange(len(arrival)), count)
    time = START + (lines.time[at] - START + turn[who] * WEEK_S) % (WEEKS * WEEK_S)
    customer = (stream.customers + who).astype(np.int32)
    added = replace(lines.select(at), time=time, customer=customer)
    return Lines.concat([lines, added.select(time >= START + arrival[who] * WEEK_S)])


def _arrivals(a_week: float, ramp_weeks: int, rng: Random) -> NDArray[np.int64]:
    """Draw the weeks of arrivals, counted from the start; their rate grows evenly to `a_week` and stays."""
    felt_max = (WEEKS - ONSET_WEEK) - ramp_weeks / 2
    felt = rng.uniform(0, felt_max, round(a_week * felt_max))
    # While the rate grows, t weeks bring as many as t^2 / (2 ramp) weeks of the full rate.
    growing = np.sqrt(2 * felt * ramp_weeks)
    weeks = np.where(felt < ramp_weeks / 2, growing, felt + ramp_weeks / 2)
    return ONSET_WEEK + np.floor(weeks).astype(np.int64)


def _smaller_baskets(stream: Stream, dose: Dose, rng: Random) -> Lines:
    lines = stream.lines
    return lines.select(rng.random(len(lines)) >= 0.3 * dose.at(lines.time))


def _rarer(stream: Stream, dose: Dose, rng: Random) -> Lines:
    lines = stream.lines
    orders, order = np.unique(pair_keys(lines.customer, lines.invoice), return_inverse=True)
    return lines.select(rng.random(len(orders))[order] >= 0.3 * dose.at(lines.time))


def _packs(stream: Stream, dose: Dose, rng: Random) -> Lines:
    lines = stream.lines
    drawn = rng.random(int(lines.product.max(initial=-1)) + 1)[lines.product]
    packed = (drawn < 0.3 * dose.at(lines.time)) & (lines.quantity % PACK == 0)
    return replace(
        lines,
        quantity=np.where(packed, lines.quantity // PACK, lines.quantity),
        price=np.where(packed, lines.price * PACK, lines.price),
    )


@dataclass(frozen=True)
class Drift:
    """A change at full strength, in words; `causes` are the features that it moves by what it is."""

    number: int  # its own random numbers; never given to another
    words: str
    change: Callable[[Stream, Dose, Random], Lines]
    causes: frozenset[str]


_FEWER_CUSTOMERS = {"customers", "orders", "NumOrders", "Recency", "returning", "retained"}
_LESS_BOUGHT = {"Frequency", "NumProducts", "Monetary", "TotalQuantity"}

DRIFTS = {
    "price": Drift(1, "prices +20%", _dearer, frozenset({"AvgUnitPrice", "Monetary"})),
    "whales": Drift(
        2,
        "the top 2% of customers by quantity buy three times as much",
        _whales,
        frozenset({"AvgQuantity", "TotalQuantity", "Monetary"}),
    ),
    "country": Drift(3, "10% of the customers at home become foreign", _abroad, frozenset({"Country"})),
    "churn": Drift(4, "30% of the customers leave", _churn, frozenset(_FEWER_CUSTOMERS)),
    "newcomers": Drift(
        5,
        "new customers come, a quarter of the active ones every 13 weeks",
        _newcomers,
        frozenset({"arrivals", "customers", "orders"}),
    ),
    "basket": Drift(
        6,
        "each line is left out with probability 30%",
        _smaller_baskets,
        frozenset(_LESS_BOUGHT | {"LinesPerOrder"}),
    ),
    "rarer": Drift(
        7,
        "each order is left out with probability 30%",
        _rarer,
        frozenset(_LESS_BOUGHT | _FEWER_CUSTOMERS),
    ),
    "packs": Drift(
        8,
        f"30% of the products are booked in packs of {PACK} where the pieces allow it",
        _packs,
        frozenset({"AvgQuantity", "TotalQuantity", "AvgUnitPrice"}),
    ),
}


def drifted(stream: Stream, variant: Variant, seed: int) -> Stream:
    """Return the stream with a drift in it; a seed chooses the same customers at every strength and pace."""
    drift = DRIFTS[variant.drift]
    dose = Dose(STRENGTHS[variant.strength], RAMP_WEEKS if variant.pace == GROWING else 0)
    return stream.with_lines(drift.change(stream, dose, np.random.default_rng([seed, 2, drift.number])))
