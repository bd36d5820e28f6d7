"""What is known beforehand: peaks and sales that change a shop for a time, and concern nobody."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field, model_validator

from streams.aspects import Aspect


class ExpectedEvent(BaseModel):
    """A time from `start` to `end`, both included (UTC), in which some aspects of the shop may change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=80)
    start: date
    end: date
    aspects: tuple[Aspect, ...] = Field(tuple(Aspect), min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> "ExpectedEvent":
        if self.end < self.start:
            raise ValueError(f"{self.name!r} ends ({self.end}) before it starts ({self.start})")
        return self

    def meets(self, start_s: int, end_s: int) -> bool:
        """Return whether the event falls into [start_s, end_s), epoch seconds, at least in part."""
        return _seconds(self.start) < end_s and start_s < _seconds(self.end + timedelta(days=1))


def explaining(
    events: Sequence[ExpectedEvent], aspects: Sequence[Aspect], start_s: int, end_s: int
) -> list[str]:
    """Return the names of the events that together explain a change of `aspects` in [start_s, end_s).

    None do if there is an aspect that none of them expects.
    """
    met = [event for event in events if event.meets(start_s, end_s)]
    expected = {aspect for event in met for aspect in event.aspects}
    if not aspects or not set(aspects) <= expected:
        return []
    return [event.name for event in met if set(event.aspects) & set(aspects)]


def _seconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
