"""Comparisons by Evidently as messages: what is asked about a window, and what is answered."""

from typing import Any, NamedTuple

import msgspec

from streams import cloudevents
from streams.carry import Carry, Serving
from streams.grid import from_iso, iso

COMPARISON = "clv.comparison.v1"
REQUESTED = "clv.comparison.requested.v1"


class ComparisonKey(NamedTuple):
    """What a comparison is of: a window's end and its reference's, epoch seconds. It is made once."""

    window_end: int
    reference_end: int | None

    @classmethod
    def told(cls, data: dict[str, Any]) -> "ComparisonKey":
        """Return the key of a comparison's data; raises KeyError, TypeError or ValueError."""
        reference_end = data["reference_end"]
        return cls(from_iso(data["window_end"]), None if reference_end is None else from_iso(reference_end))


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison to make; of the models in `serving`, the last one serves in the window."""

    window_end: int
    reference_end: int | None
    serving: tuple[Serving, ...] = ()

    @classmethod
    def of(cls, carry: Carry) -> "Wanted":
        """Return the comparison of the window that `carry` belongs to."""
        assert carry.window_end is not None
        return cls(window_end=carry.window_end, reference_end=carry.reference_end, serving=carry.serving)

    @property
    def key(self) -> ComparisonKey:
        """What the comparison is of."""
        return ComparisonKey(self.window_end, self.reference_end)

    @property
    def champion(self) -> str | None:
        """The version that serves in the window."""
        return self.serving[-1].version if self.serving else None

    def served_at(self, window_end: int) -> str | None:
        """Return the version that served a window, None before the first."""
        return Carry(serving=self.serving).served_at(window_end)

    def to_event(self, source: str) -> dict[str, Any]:
        """Return the request for the comparison as a CloudEvent."""
        data = self._told() | {"serving": msgspec.to_builtins(self.serving)}
        return cloudevents.envelope(kind=REQUESTED, source=source, window_end=self.window_end, data=data)

    @classmethod
    def from_event(cls, event: dict[str, Any], source: str) -> "Wanted":
        """Return what a request of this installation asks for; raises ValueError where `event` is none."""
        told = (event.get("source"), event["type"])
        if told != (source, REQUESTED):
            raise ValueError(f"an event {told[1]!r} of {told[0]!r} is no request of {source!r}")
        try:
            key = ComparisonKey.told(event["data"])
            serving = msgspec.convert(event["data"]["serving"], tuple[Serving, ...])
        except (KeyError, TypeError) as exc:
            raise ValueError(f"not a request for a comparison: {exc!r}") from exc
        return cls(window_end=key.window_end, reference_end=key.reference_end, serving=serving)

    def answer(self, status: str, **found: Any) -> dict[str, Any]:
        """Return the data of the comparison; `found` is what Evidently said, or the reason why it did not."""
        return self._told() | {"status": status, "report": None, **found}

    def _told(self) -> dict[str, Any]:
        return {
            "window_end": iso(self.window_end),
            "reference_end": None if self.reference_end is None else iso(self.reference_end),
            "model_version": self.champion,
        }
