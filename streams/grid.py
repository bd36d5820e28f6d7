"""The fixed grid of window ends: Mondays 00:00 UTC, `hop_s` apart, whatever the data begins with."""

from collections.abc import Iterator
from datetime import UTC, datetime

from models.features import DAY_S

FIRST_MONDAY = 4 * DAY_S  # 1970-01-05; day 0 was a Thursday


def floor_end(time: int, hop_s: int) -> int:
    """Return the last window end at or before `time` (epoch seconds).

    >>> iso(floor_end(1_291_191_960, 7 * 86_400))
    '2010-11-29T00:00:00Z'
    """
    return (time - FIRST_MONDAY) // hop_s * hop_s + FIRST_MONDAY


def ends_between(after: int, until: int, hop_s: int) -> Iterator[int]:
    """Yield the window ends E with `after` < E <= `until`; both in epoch seconds."""
    end = floor_end(after, hop_s) + hop_s
    while end <= until:
        yield end
        end += hop_s


def iso(time: int) -> str:
    """Return epoch seconds as the text that every topic and file uses, `2011-06-06T00:00:00Z`."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_iso(text: str) -> int:
    """Return the epoch seconds of a text that `iso` wrote."""
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
