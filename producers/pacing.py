"""When a record is due, on a monotonic clock: by event time, by a rate, or at once."""

import math
from collections.abc import Callable
from typing import Protocol

# A feed with a rate that was held up longer than this (a suspended machine) does not make up for it.
CATCH_UP_MAX_S = 1.0


class Pace(Protocol):
    """Tells when each record of a feed is due; asked once a record, in their order."""

    def due(self, event_time: int | None) -> float:
        """Return when a record is due, in seconds of the pace's clock; -inf for at once."""


class AtOnce:
    """As fast as it goes."""

    def due(self, event_time: int | None) -> float:  # noqa: ARG002  (the protocol's signature)
        """Return -inf."""
        return -math.inf


class ByEventTime:
    """`speed` seconds of event time a second, from the first record that has an event time."""

    def __init__(self, speed: float, *, clock: Callable[[], float]) -> None:
        self.speed = speed
        self.clock = clock
        self._first: tuple[int, float] | None = None

    def due(self, event_time: int | None) -> float:
        """Return the point of the schedule for an event time (epoch seconds)."""
        if event_time is None:
            return -math.inf
        if self._first is None:
            self._first = (event_time, self.clock())
        since, began = self._first
        return began + (event_time - since) / self.speed


class ByRate:
    """`records_per_s` records a second."""

    def __init__(self, records_per_s: float, *, clock: Callable[[], float]) -> None:
        self.records_per_s = records_per_s
        self.clock = clock
        self._next = clock()

    def due(self, event_time: int | None) -> float:  # noqa: ARG002  (the protocol's signature)
        """Return the point of the schedule for the next record."""
        due = max(self._next, self.clock() - CATCH_UP_MAX_S)
        self._next = due + 1 / self.records_per_s
        return due
