"""What one evaluation hands to the next: kept in the evaluation itself, so that a verdict can be replayed."""

from enum import StrEnum
from typing import Any

import msgspec

from streams.detectors.track_record import TrackRecord
from streams.grid import from_iso
from streams.policy import PolicyState
from streams.remedies import Action, Episode

EVALUATION = "clv.evaluation.v1"  # the type of the CloudEvent that carries it


class Purpose(StrEnum):
    """Why a model runs beside the champion."""

    ROLLBACK = "rollback"  # it was replaced, and comes back if it proves better after all
    SHADOW = "shadow"  # the gate let it through, and it has to prove itself before it serves


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """A model beside the champion since the window end `since`, scored on the same windows.

    `reviews` counts the requests to settle it. `retrained_at` and `onset` are those of the request that
    retrained a model in shadow; None where it was recalibrated.
    """

    version: str
    purpose: Purpose
    since: int
    reviews: int = 0
    retrained_at: int | None = None
    onset: int | None = None


class Request(msgspec.Struct, frozen=True):
    """A request for a model: its event's id, the window that asked, the window from which it takes effect.

    `champion` is the version that served then, which a challenger has to beat; None before the first.
    `onset` is the end of the first window of the drift it answers; None where there is none. `rival` is
    what a review holds against the champion.
    """

    request_id: str
    requested_at: int
    effective_from: int
    champion: str | None
    action: Action = Action.RETRAIN
    onset: int | None = None
    rival: Rival | None = None


class Serving(msgspec.Struct, frozen=True):
    """A model that serves from the window `since` on, until the next one."""

    since: int
    version: str


class R2Reference(msgspec.Struct, frozen=True):
    """The first matured R2 of the champion: what later ones are compared with."""

    version: str
    window_end: int
    r2: float


class Carry(msgspec.Struct, frozen=True, kw_only=True):
    """State between two evaluations; times are epoch seconds of window ends."""

    window_end: int | None = None  # of the evaluation that left this
    first_window: int | None = None
    reference_start: int | None = None  # end of the first window of the reference
    reference_end: int | None = None  # end of its last one, whose rows detectors compare with
    origin: tuple[int, int] | None = None  # the first reference: ends of its first and its last window
    serving: tuple[Serving, ...] = ()
    pending: tuple[Request, ...] = ()
    first_requested: int | None = None  # when a first model was last asked for
    last_request: int | None = None  # when a recalibration or a retrain was last asked for
    episode: Episode | None = None
    rival: Rival | None = None
    applied_by_hand: tuple[str, ...] = ()  # names of the hand-made decisions that have taken effect
    policies: dict[str, PolicyState] = {}
    detectors: dict[str, dict[str, Any] | None] = {}
    r2_reference: R2Reference | None = None
    errors: dict[str, dict[str, Any] | None] = {}  # of the performance detector, by horizon in days
    track_records: dict[str, TrackRecord] = {}  # of its estimates, by horizon in days

    @property
    def champion(self) -> str | None:
        """The version that serves."""
        return self.serving[-1].version if self.serving else None

    def refers_to(self, window_end: int, least_s: int) -> bool:
        """Return whether the window belongs to a reference, this one or the first, or may come to do so.

        A reference shorter than `least_s` from its first window to its last grows to that.
        """
        if self.reference_start is None or self.reference_end is None:
            return True
        spans = [(self.reference_start, self.reference_end), *([self.origin] if self.origin else [])]
        return any(first <= window_end <= max(last, first + least_s) for first, last in spans)

    def served_at(self, window_end: int) -> str | None:
        """Return the version that served the window, None before the first."""
        versions = [item.version for item in self.serving if item.since <= window_end]
        return versions[-1] if versions else None

    def due(self, window_end: int) -> list[Request]:
        """Return the requests that must be decided before the window can be evaluated."""
        return [request for request in self.pending if request.effective_from <= window_end]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Carry":
        """Return what `to_dict` wrote; raises msgspec.ValidationError on anything else."""
        return msgspec.convert(values, cls)


def carry_in(event: dict[str, Any], source: str) -> Carry:
    """Return what an evaluation of this installation carries; raises ValueError where `event` is none.

    Every field of a carry has a default: only that it names its own window tells it from any other object.
    """
    told = (event.get("source"), event["type"])
    if told != (source, EVALUATION):
        raise ValueError(f"an event {told[1]!r} of {told[0]!r} is no evaluation of {source!r}")
    try:
        carry = Carry.from_dict(event["data"]["carry"])
        window_end = from_iso(event["data"]["window_end"])
    except (KeyError, TypeError) as exc:
        raise ValueError(f"not an evaluation: {exc!r}") from exc
    if carry.window_end != window_end:
        raise ValueError(f"what it carries is of window {carry.window_end}, not of {window_end}")
    return carry
