"""A small history with a true drift in it, as the topics would hold it; computed once a test run."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from line_factory import DAY_S, MONDAY, records_of, settings, shop

from models.registry import Registry
from streams.backfill import Results, Windows, run

PARTITIONS = 2
DRIFT_DAY = 91


def story_settings(**changes):
    # A lenient gate: a shop of this size gives little to tell two models apart by.
    return settings(**({"partitions": PARTITIONS, "gate_probability": 0.55} | changes))


def _lines():
    return shop(
        1,
        days=140,
        customers=360,
        orders_a_day=36,
        price_factor=3.0,
        price_from=MONDAY + DRIFT_DAY * DAY_S,
    )


@cache
def story() -> Results:
    """The windows of a shop where every price is three times higher from `DRIFT_DAY` on."""
    conf = story_settings()
    with TemporaryDirectory() as directory:
        return run(
            records_of(_lines(), conf, PARTITIONS), conf, Registry(Path(directory)), partitions=PARTITIONS
        )


@cache
def story_partitions():
    """The states of the partitions at the end of the same history."""
    conf = story_settings()
    windows = Windows(conf, PARTITIONS)
    for _ in windows.feed(records_of(_lines(), conf, PARTITIONS)):
        pass
    return windows.states
