"""Decisions about models: the records of the log that evaluations follow."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from streams import cloudevents


class Outcome(StrEnum):
    """What became of a request, or what a person did."""

    PROMOTED = "promoted"
    SHADOWED = "shadowed"  # the gate let it through, and it runs beside the champion first
    KEPT = "kept"
    EXPIRED = "expired"  # nobody decided in time
    ROLLED_BACK = "rolled_back"
    REQUESTED = "requested"  # a person asks for a retrain


KIND = "clv.model.{}.v1"


@dataclass(frozen=True)
class Decision:
    """A decision; `request_id` is None where a person made it. Times are epoch seconds of window ends."""

    outcome: Outcome
    reason: str
    window_end: int  # of the request, or of the last evaluation when a person decided
    request_id: str | None = None
    version: str | None = None  # the version that serves from now on; None where the champion stays
    parent: str | None = None
    gate: dict[str, Any] | None = None
    card: dict[str, Any] | None = None
    nonce: str | None = None  # tells two equal decisions of a person apart
    effective_from: int | None = None  # made by hand: the window it was meant for, or was put off to

    @property
    def key(self) -> str:
        """The key of its record: the request, or the version; where a person asks for one, the nonce."""
        return self.request_id or self.version or self.nonce or ""

    @property
    def takes_effect_at(self) -> int:
        """Where a person decided: the earliest window end from which the decision holds."""
        return self.window_end + 1 if self.effective_from is None else self.effective_from

    def to_event(self, source: str) -> dict[str, Any]:
        """Return the CloudEvent of the decision."""
        data = {
            "outcome": self.outcome.value,
            "request_id": self.request_id,
            "version": self.version,
            "parent": self.parent,
            "reason": self.reason,
            "window_end": cloudevents.iso(self.window_end),
            "gate": self.gate,
            "card": self.card,
            "nonce": self.nonce,
            "effective_from": None if self.effective_from is None else cloudevents.iso(self.effective_from),
        }
        kind = KIND.format(self.outcome.value)
        return cloudevents.envelope(kind=kind, source=source, window_end=self.window_end, data=data)

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> "Decision":
        """Return the decision in an event; raises ValueError where it is none."""
        try:
            data = event["data"]
            outcome = Outcome(data["outcome"])
            version, request_id = data["version"], data["request_id"]
            if outcome in {Outcome.PROMOTED, Outcome.ROLLED_BACK, Outcome.SHADOWED}:
                if not isinstance(version, str):
                    raise ValueError(f"a decision `{outcome}` names no version")
            elif request_id is None and outcome is not Outcome.REQUESTED:
                raise ValueError(f"a decision `{outcome}` answers no request")
            if not isinstance(request_id, str | None):
                raise ValueError(f"request_id {request_id!r} is not text")
            effective_from = data["effective_from"]
            return cls(
                outcome=outcome,
                reason=str(data["reason"]),
                window_end=cloudevents.from_iso(data["window_end"]),
                request_id=request_id,
                version=version,
                parent=data["parent"],
                gate=data["gate"],
                card=data["card"],
                nonce=data["nonce"],
                effective_from=None if effective_from is None else cloudevents.from_iso(effective_from),
            )
        except (KeyError, TypeError) as exc:
            raise ValueError(f"not a decision: {exc!r}") from exc


class HandMade(NamedTuple):
    """A decision that a person made: where its first record stands in the log, that one's event id."""

    position: int
    event_id: str
    decision: Decision


@dataclass
class DecisionLog:
    """The decisions read so far: those on requests, and those made by hand.

    The first decision on a request stands; a later one is refused. One made by hand may stand in the log
    several times, under one name: the latest `effective_from` counts, in whatever order they are read.
    """

    by_request: dict[str, tuple[str, Decision]] = field(
        default_factory=dict
    )  # request -> (event id, decision)
    by_hand: dict[str, HandMade] = field(default_factory=dict)  # by name: the nonce, else the event's id
    refused: int = 0

    def add(self, position: int, event: dict[str, Any]) -> bool:
        """Take the event at `position` of the log; return whether it counts.

        Raises ValueError if it is no decision.
        """
        decision = Decision.from_event(event)
        event_id = event.get("id")
        if not isinstance(event_id, str):
            raise ValueError("the event of a decision has no id")
        if decision.request_id is None:
            return self._add_by_hand(HandMade(position, event_id, decision))
        if decision.request_id in self.by_request:
            self.refused += self.by_request[decision.request_id][0] != event_id
            return False
        self.by_request[decision.request_id] = (event_id, decision)
        return True

    def _add_by_hand(self, made: HandMade) -> bool:
        name = made.decision.nonce or made.event_id
        known = self.by_hand.setdefault(name, made)
        if made.decision.takes_effect_at > known.decision.takes_effect_at:
            put_off = replace(known.decision, effective_from=made.decision.takes_effect_at)
            self.by_hand[name] = known._replace(decision=put_off)
        return known is made

    def due_by_hand(self, window_end: int, applied: Collection[str]) -> dict[str, HandMade]:
        """Return what holds from `window_end` or earlier on and is not in `applied`, in the log's order."""
        due = [
            (name, made)
            for name, made in self.by_hand.items()
            if name not in applied and made.decision.takes_effect_at <= window_end
        ]
        return dict(sorted(due, key=lambda item: item[1].position))

    def copy(self) -> "DecisionLog":
        """Return the log as it is now; what is added later does not show in it."""
        return DecisionLog(dict(self.by_request), dict(self.by_hand), self.refused)
