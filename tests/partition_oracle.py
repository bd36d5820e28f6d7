"""What a partition must make of its log, read word by word: plain Python, a record at a time, and slow.

Nothing here is shared with what it judges but the settings: lists and dictionaries, exact integers, and every
window computed anew from all lines accepted so far.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from streams.state_config import StateConfig

DAY_S = 86_400
MONDAY_S = 4 * DAY_S  # 1970-01-05, on which every grid of window ends stands
SPEND_DAYS = (14, 30, 60)
FATES = ("on_time", "late", "duplicate", "control", "dead")

Header = tuple[str, bytes | None]


@dataclass(frozen=True)
class Line:
    """An accepted line item; money in thousandths."""

    time: int
    customer: str | None
    invoice: str
    product: str
    country: str
    quantity: int
    price: int

    @property
    def amount(self) -> int:
        return self.quantity * self.price

    @property
    def sale(self) -> bool:
        """Whether somebody known bought something for money."""
        return self.customer is not None and self.quantity > 0 and self.price > 0


@dataclass(frozen=True)
class Part:
    """What the partition says about one window; rows by the column names of the snapshots topic."""

    partial: bool
    after: int | None
    earliest: int | None
    totals: dict[str, int]
    sample_bound: int | None
    rows: list[dict[str, Any]]
    lines: list[tuple[int, str, str, str, str, int, int]]


@dataclass(frozen=True)
class Figures:
    """A customer's lifetime up to the last window closed."""

    spend: int = 0
    orders: int = 0
    first_purchase: int | None = None


@dataclass(frozen=True)
class Standing:
    """What must hold after a record: how many records had which fate, and the windows closed so far."""

    fates: dict[str, int]
    figures: dict[str, Figures]
    closed_through: int | None
    earliest: int | None


class Clock:
    """The trusted time of a partition: by the rule for jumps ahead and for a first line that stands alone."""

    def __init__(self, jump_max_s: int, confirm_lines: int) -> None:
        self.jump_max_s = jump_max_s
        self.confirm_lines = confirm_lines
        self.now: int | None = None
        self.earliest: int | None = None
        self.sure = False  # false while all that is known is one first line
        self.doubtful: list[tuple[int, str]] = []  # lines that disagreed with `now`

    def line(self, time: int, who: str) -> bool:
        """Take a line's time; return whether the line counts."""
        if self.now is None:
            self.now = self.earliest = time
            return True
        near = abs(time - self.now) <= self.jump_max_s
        ahead = time > self.now
        if near or (self.sure and not ahead):
            self._settle(max(self.now, time), min(self.now, time))
            return True
        agreeing = [(t, w) for t, w in self.doubtful if abs(t - time) <= self.jump_max_s]
        if len({w for _, w in agreeing} - {who}) >= self.confirm_lines:
            times = [time, *(t for t, _ in agreeing)]
            # Lines ahead that were refused vouch for this one; only lines that counted may move the time.
            self._settle(time if ahead else max(times), min(times))
            return True
        self.doubtful = [*self.doubtful, (time, who)][-8 * self.confirm_lines :]  # recent ones alone
        return not ahead

    def told(self, time: int) -> None:
        """Take the time that a control record says: it is true."""
        if self.now is None or (not self.sure and abs(time - self.now) > self.jump_max_s):
            self.now = time
        self._settle(max(self.now, time), min(self.now, time))

    def _settle(self, now: int, earliest: int) -> None:
        if not self.sure:
            self.earliest = earliest
        self.now, self.sure, self.doubtful = now, True, []


@dataclass
class Oracle:
    """Reads a log record by record; `parts` grow where windows close, `cuts` where segments end."""

    config: StateConfig
    sources_max: int
    standings: list[Standing] = field(default_factory=list)  # a record of the log each
    cuts: list[int] = field(default_factory=list)  # the offset with which each segment ends
    parts: dict[int, Part] = field(default_factory=dict)  # by window end
    dead: list[int] = field(default_factory=list)  # offsets
    closed_through: int | None = None

    def __post_init__(self) -> None:
        self.clock = Clock(self.config.jump_max_days * DAY_S, self.config.jump_confirm_lines)
        self._fates = dict.fromkeys(FATES, 0)
        self._rows_read: dict[str, int] = {}  # the last row a source; who was heard last stands last
        self._accepted: list[Line] = []
        self._waiting: list[Line] = []  # of known customers, not in their figures yet
        self._folded: list[Line] = []
        self._figures: dict[str, Figures] = {}
        self._segment_records = 0
        self._segment_day: int | None = None

    def read(self, offset: int, value: bytes | None, headers: Sequence[Header]) -> None:
        """Take the next record of the log."""
        said = dict(headers)
        fate = self._fate(value, said)
        self._fates[fate] += 1
        self._segment_records += 1  # records of every kind fill a segment
        if fate == "dead":
            self.dead.append(offset)
        ends = fate == "control" and said["control"] == b"end_of_input"
        if ends or self._segment_records >= self.config.segment_lines_max or self._day() != self._segment_day:
            self._cut(offset, _event_time(value) if ends else None)
        earliest = min((line.time for line in self._accepted), default=None)
        self.standings.append(
            Standing(dict(self._fates), self._figures, self.closed_through, earliest),
        )

    # -- what a record is -----------------------------------------------------

    def _fate(self, value: bytes | None, said: dict[str, bytes | None]) -> str:
        if "control" in said:
            time = _event_time(value)
            if time is None or said["control"] not in {b"watermark", b"end_of_input"}:
                return "dead"
            self.clock.told(time)
            return "control"
        if self._read_before(said):
            return "duplicate"
        line = line_of(value)
        if line is None or not self.clock.line(line.time, line.customer or line.invoice):
            return "dead"
        self._accepted.append(line)
        if line.customer is not None:
            self._waiting.append(line)
        return "late" if self.closed_through is not None and line.time < self.closed_through else "on_time"

    def _read_before(self, said: dict[str, bytes | None]) -> bool:
        """Whether the record repeats a row; one without a sensible source and row never does."""
        source, row = said.get("source"), said.get("seq")
        if source is None or len(source) > 128 or row is None or not row.isdigit() or len(row) > 18:
            return False
        name, number = source.decode("latin-1"), int(row)
        last = self._rows_read.pop(name, 0)
        self._rows_read[name] = max(last, number)
        return number <= last

    # -- where a segment ends -------------------------------------------------

    def _day(self) -> int | None:
        """The day of the watermark; None until there is a time to trust."""
        if not self.clock.sure:
            return None
        assert self.clock.now is not None
        return (self.clock.now - self.config.lateness_s) // DAY_S

    def _cut(self, offset: int, input_ends_at: int | None) -> None:
        self.cuts.append(offset)
        self._segment_records = 0
        self._segment_day = self._day()
        if self.clock.sure:
            self._close_windows(input_ends_at)
        for name in list(self._rows_read)[: max(0, len(self._rows_read) - self.sources_max)]:
            del self._rows_read[name]  # unheard for longest

    def _close_windows(self, input_ends_at: int | None) -> None:
        config, now, earliest = self.config, self.clock.now, self.clock.earliest
        assert now is not None
        assert earliest is not None
        if self.closed_through is None:
            self.closed_through = self._floor(earliest - config.lateness_s)
        until = now - config.lateness_s if input_ends_at is None else max(now, input_ends_at)
        last = self._floor(until)
        for end in range(self.closed_through + config.hop_s, last + 1, config.hop_s):
            # In a long silence only the window at its end is told of.
            silent = not self._waiting and all(line.time < end - config.window_s for line in self._accepted)
            if end == last or not silent:
                self._close(end, partial=False)
        if input_ends_at is not None and until >= self.closed_through:
            self._close(self.closed_through + config.hop_s, partial=True)

    def _floor(self, time: int) -> int:
        """The last window end at or before `time`."""
        return time - (time - MONDAY_S) % self.config.hop_s

    # -- a window closes ------------------------------------------------------

    def _close(self, end: int, *, partial: bool) -> None:
        start = end - self.config.window_s
        fresh = [line for line in self._waiting if line.time < end]
        self._waiting = [line for line in self._waiting if line.time >= end]
        self._fold(fresh, start)
        inside = [line for line in self._accepted if start <= line.time < end]
        sampled, bound = self._sample({line.customer for line in inside if line.sale})
        self.parts[end] = Part(
            partial=partial,
            after=self.closed_through if self.parts else None,
            earliest=min((line.time for line in self._accepted), default=None),
            totals=self._totals(inside, end),
            sample_bound=bound,
            rows=[self._row(who, inside, end) for who in sampled],
            lines=sorted(
                (x.time, x.customer, x.invoice, x.product, x.quantity, x.price, x.country)
                for x in fresh
                if bound is None or sample_hash(x.customer) <= bound
            ),
        )
        self.closed_through = end

    def _fold(self, fresh: list[Line], start: int) -> None:
        """Add lines to their customers' figures; `start` is that of the window that closes.

        An invoice is an order once, as far as the lines that are still retained can tell.
        """
        figures = dict(self._figures)
        known = {(line.customer, line.invoice) for line in self._folded if line.sale and line.time >= start}
        for line in fresh:
            old = figures.get(line.customer, Figures())
            order = (line.customer, line.invoice)
            counts = line.sale and line.time >= start and order not in known
            if counts:
                known.add(order)
            first = [t for t in (old.first_purchase, line.time if line.sale else None) if t is not None]
            figures[line.customer] = Figures(
                old.spend + line.amount, old.orders + counts, min(first, default=None)
            )
        self._folded += fresh
        self._figures = figures

    def _sample(self, customers: set[str]) -> tuple[list[str], int | None]:
        """The customers with the smallest hashes, sorted by id; the largest hash if any were left out."""
        if len(customers) <= self.config.sample_customers_max:
            return sorted(customers), None
        chosen = sorted(customers, key=sample_hash)[: self.config.sample_customers_max]
        return sorted(chosen), sample_hash(chosen[-1])

    def _totals(self, inside: list[Line], end: int) -> dict[str, int]:
        config = self.config
        week = [line for line in inside if line.time >= end - config.short_window_days * DAY_S]
        totals = {"lines": len(inside), "lines_week": len(week)}
        for days, suffix in (
            (config.window_days, ""),
            (config.mid_window_days, f"_{config.mid_window_days}d"),
            (config.short_window_days, f"_{config.short_window_days}d"),
        ):
            sales = [line for line in inside if line.sale and line.time >= end - days * DAY_S]
            totals |= {
                f"customers{suffix}": len({line.customer for line in sales}),
                f"sale_lines{suffix}": len(sales),
                f"orders{suffix}": len({(line.customer, line.invoice) for line in sales}),
                f"pieces{suffix}": sum(line.quantity for line in sales),
                f"amount{suffix}": sum(line.amount for line in sales),
            }
        return totals

    def _row(self, customer: str, inside: list[Line], end: int) -> dict[str, Any]:
        own = [line for line in inside if line.sale and line.customer == customer]
        life = self._figures[customer]
        latest = max(own, key=lambda line: (line.time, line.invoice, line.product, line.country))
        orders: dict[str, int] = {}
        for line in own:
            orders[line.invoice] = orders.get(line.invoice, 0) + line.amount
        row = {"CustomerID": customer, "Country": latest.country} | described(own)
        row |= {
            "Recency": (end - latest.time) // DAY_S,
            "LifeSpend": life.spend / 1000,
            "LifeOrders": life.orders,
            "Tenure": (end - life.first_purchase) // DAY_S,
            "MaxOrder": max(orders.values()) / 1000,
            "MeanOrder": sum(orders.values()) / (1000 * len(orders)),
        }
        for days in SPEND_DAYS:
            row[f"Spend{days}"] = sum(x.amount for x in own if x.time >= end - days * DAY_S) / 1000
        for days in (self.config.mid_window_days, self.config.short_window_days):
            row |= described([x for x in own if x.time >= end - days * DAY_S], f"_{days}d")
        return row


def described(sales: list[Line], suffix: str = "") -> dict[str, Any]:
    """The features that every scale has; zeros where nothing was bought."""
    count = len(sales)
    return {
        f"Frequency{suffix}": count,
        f"Monetary{suffix}": sum(line.amount for line in sales) / 1000,
        f"AvgQuantity{suffix}": sum(line.quantity for line in sales) / count if count else 0,
        f"TotalQuantity{suffix}": sum(line.quantity for line in sales),
        f"AvgUnitPrice{suffix}": sum(line.price for line in sales) / (1000 * count) if count else 0,
        f"NumOrders{suffix}": len({line.invoice for line in sales}),
        f"NumProducts{suffix}": len({line.product for line in sales}),
    }


def sample_hash(customer: str) -> int:
    """The number by which customers are sampled."""
    digest = blake2b(customer.encode(), key=b"clv-drift/sample/1", digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def line_of(value: bytes | None) -> Line | None:
    """The line in a record, None where it holds none. Prices stay decimal, so that nothing is rounded."""
    try:
        said = json.loads(value, parse_float=Decimal)
        price, quantity = Decimal(said["UnitPrice"]) * 1000, said["Quantity"]
        texts = [said[name] for name in ("InvoiceNo", "StockCode", "Country")]
        time = int(datetime.fromisoformat(said["InvoiceDate"]).replace(tzinfo=UTC).timestamp())
        customer = customer_of(said["CustomerID"])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    if not _whole(price) or not isinstance(quantity, int) or not all(map(_text, texts)):
        return None
    invoice, product, country = texts
    return Line(time, customer, invoice, product, country, quantity, int(price))


def customer_of(raw: str | int | Decimal | None) -> str | None:
    """17850, 17850.0, "17850" and "17850.0" are one customer; null and blanks are nobody."""
    if raw is None:
        return None
    if not isinstance(raw, str):
        if not _whole(Decimal(raw)):
            raise ValueError("not an id")
        return str(int(raw))
    text = raw.strip()
    return (text.removesuffix(".0") if text.removesuffix(".0").isdigit() else text) or None


def _whole(number: Decimal) -> bool:
    return number.is_finite() and number == int(number)


def _text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _event_time(value: bytes | None) -> int | None:
    """What a control record says; None where it is damaged."""
    try:
        time = json.loads(value)["event_time"]
    except (KeyError, TypeError, ValueError):
        return None
    return time if isinstance(time, int) and time >= 0 else None
