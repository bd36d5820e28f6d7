"""Runs that might have been: customers drawn anew, each one's weeks turned by a random number of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models.lines import Floats
from streams.detectors.calibrated.circle import Circle
from streams.detectors.calibrated.contributions import (
    BINS,
    distance_values,
    sum_values,
)

CHUNK = 128  # customers whose rows are added up at a time: so many fit the processor's cache


@dataclass(frozen=True)
class Runs:
    """`values` of all statistics (runs, windows, statistics), each against another run's reference."""

    values: Floats


def draw(circle: Circle, customers_in_all: float, *, runs: int, seed: int) -> Runs:
    """Return `runs` runs of as many windows as the circle has hops, all without drift.

    The bootstrap draws customers, for the windows of a customer depend on each other, and leaves the order of
    their weeks alone but for where it begins. How many of those seen come into a run is binomial, as if
    those never seen were drawn too. A run is compared with the reference that the next run gives: what the
    reference itself owes to chance is part of the null.
    """
    generator = np.random.default_rng(seed)
    hops, seen, _ = circle.contributions.shape
    # Twice around, so that a turned customer is one contiguous piece: (customers, turns, windows, values).
    turned = _turns(circle.contributions)
    turned_bins = _turns(circle.bins)
    width = circle.bins.shape[2] * (BINS + 2)
    places = np.arange(hops)[:, None] * width + np.arange(circle.bins.shape[2]) * (BINS + 2)
    sums = np.empty((runs, hops, circle.contributions.shape[2]))
    counts = np.empty((runs, hops, circle.bins.shape[2], BINS + 2))
    for run in range(runs):
        size = int(generator.binomial(round(customers_in_all), seen / round(customers_in_all)))
        who = generator.integers(0, seen, size)
        turn = generator.integers(0, hops, size)
        total = np.zeros(sums.shape[1:])
        tally = np.zeros(hops * width, np.int64)
        for start in range(0, size, CHUNK):
            piece = slice(start, start + CHUNK)
            total += turned[who[piece], turn[piece]].sum(axis=0)
        for start in range(0, size, 8 * CHUNK):
            piece = slice(start, start + 8 * CHUNK)
            found = turned_bins[who[piece], turn[piece]] + places
            tally += np.bincount(found.ravel(), minlength=hops * width)
        sums[run] = total
        counts[run] = tally.reshape(counts.shape[1:])
    reference_sums = np.roll(circle.level(sums), 1, axis=0)[:, None]
    reference_counts = np.roll(circle.histogram(counts), 1, axis=0)[:, None]
    means = sum_values(sums) - sum_values(reference_sums)
    distances = distance_values(counts, reference_counts)
    return Runs(np.concatenate([means, distances], axis=2))


def _turns(table: NDArray[Any]) -> NDArray[Any]:
    """Return a view (customers, turns, windows, values) of a table (windows, customers, values)."""
    windows = table.shape[0]
    twice = np.ascontiguousarray(np.concatenate([table, table]).transpose(1, 0, 2))
    return sliding_window_view(twice, windows, axis=1).transpose(0, 1, 3, 2)
