"""Lines for tests: single records, small shops with every oddity that the definitions must bear."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from producers import feed
from streams.backfill import Windows
from streams.joining import Snapshot
from streams.partition import Applied, PartitionState
from streams.settings import Settings
from streams.state_config import StateConfig
from streams.transactions import (
    Control,
    Headers,
    control_headers,
    control_value,
    encode_line,
    record_headers,
)

DAY_S = 86_400
HOUR_S = 3_600
WEEK_S = 7 * DAY_S
MONDAY = int(datetime(2011, 1, 3, tzinfo=UTC).timestamp())

# Lengths a third of the real ones: a few weeks of lines then show everything.
SHORT_WINDOWS: dict[str, Any] = {
    "window_days": 28,
    "mid_window_days": 14,
    "short_window_days": 7,
    "reference_weeks": 6,
    "acting_detector": "baseline",  # the calibrated one needs a longer reference
    "horizon_days": 14,
    "monitor_horizon_days": 7,
    "cooldown_days": 14,
    "harm_gate": False,  # these streams are too short for labels to show harm
    "min_matured_windows": 0,
    "retrain_every_days": 0,
    "estimators": ("tweedie_glm",),
    "gate_resamples": 200,
}


def settings(**changes: Any) -> Settings:
    """Settings with windows of 4, 2 and 1 weeks, unless `changes` say otherwise."""
    return Settings(**(SHORT_WINDOWS | changes))


def line(time: int = MONDAY, **changes: Any) -> dict[str, Any]:
    """One line at `time` (epoch seconds), as a producer's dict."""
    return {
        "InvoiceNo": "536365",
        "StockCode": "85123A",
        "Description": None,
        "Quantity": 1,
        "InvoiceDate": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "UnitPrice": 2.5,
        "CustomerID": "17850",
        "Country": "United Kingdom",
    } | changes


@dataclass(frozen=True)
class Entry:
    """One record of a partition's log."""

    value: bytes | None
    headers: Headers

    @property
    def partition(self) -> int:
        """The logs of these tests have one partition."""
        return 0


def entry(time: int = MONDAY, *, source: str | None = None, seq: int = 0, **changes: Any) -> Entry:
    """The record of `line`, with the headers of a replay where a source is named."""
    headers = record_headers(source, seq) if source is not None else []
    return Entry(encode_line(line(time, **changes)), headers)


def mark(time: int, kind: Control = Control.WATERMARK) -> Entry:
    """A control record that says `time`."""
    return Entry(control_value(time), control_headers(kind, "feed", 0))


def apply(state: PartitionState, log: Sequence[Entry], first: int, stop: int) -> Applied:
    """Apply the records `first` to `stop` of a log whose offsets are its positions."""
    batch = log[first:stop]
    return state.apply(range(first, stop), [e.value for e in batch], [e.headers for e in batch])


def state_config(**changes: Any) -> StateConfig:
    """The configuration of a partition: windows of 3, 2 and 1 weeks, few lines a segment."""
    return StateConfig(
        **(
            {
                "partitions": 1,
                "window_days": 21,
                "mid_window_days": 14,
                "short_window_days": 7,
                "window_hop_days": 7,
                "lateness_s": DAY_S,
                "jump_max_days": 10,
                "jump_confirm_lines": 2,
                "segment_lines_max": 9,
                "sample_customers_max": 1_000,
            }
            | changes
        )
    )


def shop(
    seed: int,
    *,
    days: int,
    customers: int,
    orders_a_day: float,
    start: int = MONDAY + 2 * DAY_S,
    price_factor: float = 1.0,
    price_from: int | None = None,
) -> list[dict[str, Any]]:
    """Lines in order of time: returns, gifts, unknown customers, ties in time, an invoice of two countries.

    Every price from `price_from` on (epoch seconds) is `price_factor` times what it would be.
    """
    rng = random.Random(seed)
    taste = {who: rng.lognormvariate(0, 0.8) for who in range(customers)}
    countries = ("United Kingdom", "Germany", "France", "EIRE")
    lines: list[dict[str, Any]] = []
    times = sorted(start + rng.randrange(days * DAY_S) // 60 * 60 for _ in range(int(days * orders_a_day)))
    for number, time in enumerate(times):
        who = rng.randrange(customers)
        home = countries[min(who % 9, 3)] if who % 9 < 4 else countries[0]
        invoice = f"{536_000 + number}"
        known = rng.random() > 0.1
        returns = rng.random() < 0.08
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            factor = price_factor if price_from is not None and time >= price_from else 1.0
            lines.append(
                line(
                    time,
                    InvoiceNo=f"C{invoice}" if returns else invoice,
                    StockCode=f"P{rng.randrange(60)}",
                    Quantity=(-1 if returns else 1) * rng.choice((1, 2, 3, 6, 12)),
                    UnitPrice=_price(rng, taste[who], factor),
                    CustomerID=str(12_346 + who) if known else None,
                    Country=home if rng.random() > 0.05 else rng.choice(countries),
                )
            )
    return lines


def _price(rng: random.Random, taste: float, factor: float) -> float:
    """A price with at most three decimals; now and then nothing, now and then a deduction."""
    chance = rng.random()
    if chance < 0.02:
        return 0.0
    if chance < 0.03:
        return -1.5
    return round((0.05 + rng.random() * 5 * taste) * factor, rng.choice((2, 3)))


def records_of(
    lines: Iterable[dict[str, Any]], conf: Settings, partitions: int, *, end: bool = True
) -> Iterator[feed.Record]:
    """The records that a replay of `lines` writes."""
    return feed.records(
        enumerate(lines, 1),
        source="shop",
        partitions=partitions,
        jump_max_days=conf.jump_max_days,
        jump_confirm_lines=conf.jump_confirm_lines,
        end=end,
    )


def windows_of(
    lines: Iterable[dict[str, Any]], conf: Settings, *, partitions: int = 1, batch_lines: int = 997
) -> list[Snapshot]:
    """The joined windows of a replay of `lines`."""
    return list(Windows(conf, partitions, batch_lines).feed(records_of(lines, conf, partitions)))
