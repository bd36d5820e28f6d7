"""Decisions about models: the records of the log that evaluations follow."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from streams import cloudevents


class Outcome(StrEnum):
    """What became of a request, or what a person did."""

    PROMOTED = "promoted"
    KEPT = "kept"
    EXPIRED = "expired"  # nobody decided in time
    ROLLED_BACK = "rolled_back"


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
            if outcome in {Outcome.PROMOTED, Outcome.ROLLED_BACK}:
                if not isinstance(version, str):
                    raise ValueError(f"a decision `{outcome}` names no version")
            elif request_id is None:
                raise ValueError(f"a decision `{outcome}` answers no request")
            if not isinstance(request_id, str | None):
                raise ValueError(f"request_id {request_id!r} is not text")
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
            )
        except (KeyError, TypeError) as exc:
            raise ValueError(f"not a decision: {exc!r}") from exc


@dataclass
class DecisionLog:
    """The decisions read so far, by request; those made by hand in their order.

    The first decision on a request stands; a later one is refused.
    """

    by_request: dict[str, tuple[str, Decision]] = field(
        default_factory=dict
    )  # request -> (event id, decision)
    by_hand: list[tuple[int, str, Decision]] = field(default_factory=list)  # (position, event id, decision)
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
            self.by_hand.append((position, event_id, decision))
            return True
        if decision.request_id in self.by_request:
            self.refused += self.by_request[decision.request_id][0] != event_id
            return False
        self.by_request[decision.request_id] = (event_id, decision)
        return True

    def since(self, position: int) -> list[tuple[int, str, Decision]]:
        """Return the hand-made decisions after `position`."""
        return [item for item in self.by_hand if item[0] > position]
