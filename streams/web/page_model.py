"""What the live page knows: the logs folded message by message, and what of it changed since when."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from streams.decisions import Decision
from streams.grid import iso
from streams.remedies import REQUESTS
from streams.watch_model import View
from streams.web.window_row import causes_of, comparison_of, day_of, number, row_of, short

WINDOWS_MAX = 1_500
STEPS_MAX = 300
LETTER_KINDS_MAX = 100
WARNINGS_SHOWN = 30
OTHER_KINDS = "other reasons"

_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


def letter_kind(reason: str) -> str:
    """Return a dead letter's reason without the values in it, which differ from line to line.

    >>> letter_kind("Quantity 'three' is no whole number; 9000 bytes are more than a line may have")
    'Quantity … is no whole number; … bytes are more than a line may have'
    """
    return short(_NUMBER.sub("…", _QUOTED.sub("…", reason)))


@dataclass(frozen=True)
class Published:
    """The page's state as readers get it; rows and sections are JSON, each with the revision it is of."""

    revision: int = 0
    rows: dict[str, tuple[int, msgspec.Raw]] = field(default_factory=dict)  # by day of the window's end
    sections: dict[str, tuple[int, msgspec.Raw]] = field(default_factory=dict)

    def since(self, revision: int) -> bytes:
        """Return as JSON what changed after `revision`, all after 0: sections, and `windows` by time."""
        told: dict[str, Any] = {name: raw for name, (at, raw) in self.sections.items() if at > revision}
        told["windows"] = [raw for _, (at, raw) in sorted(self.rows.items()) if at > revision]
        return msgspec.json.encode(told)


class PageModel(View):
    """The terminal view's model with what the page shows besides; the `note` methods raise as those do."""

    def __init__(self, acting_detector: str) -> None:
        super().__init__(acting_detector)
        self._rows: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()
        self._early: dict[str, dict[str, Any]] = {}  # comparisons read before their evaluations
        self._steps: dict[str, dict[str, Any]] = {}  # events and decisions by id
        self._rival: dict[str, Any] | None = None
        self._refused: str | None = None
        self._cards: dict[str, dict[str, Any]] = {}  # of the versions that were decided on
        self._letters: Counter[str] = Counter()
        self._letter_places: dict[str, str] = {}

    # -- messages -------------------------------------------------------------

    def note_evaluation(self, event: dict[str, Any]) -> None:
        """Take a message of the log of evaluations."""
        row, rival = row_of(event["data"], self.acting_detector), _rival(event["data"]["rival"])
        super().note_evaluation(event)
        day = row["end"]
        row["comparison"] = self._early.pop(day, None) or self._rows.get(day, row)["comparison"]
        self._put(row)
        if day == max(self._rows):
            self._rival = rival
            self._refused = event["data"]["model_refused"]

    def note_comparison(self, event: dict[str, Any]) -> None:
        """Take a message of the log of comparisons."""
        found = comparison_of(event)
        super().note_comparison(event)
        if found is None:
            return
        day, comparison = found
        if day in self._rows:
            self._put(self._rows[day] | {"comparison": comparison})
        else:
            self._early[day] = comparison
            _shorten(self._early, WINDOWS_MAX, key=lambda known: known)

    def note_event(self, event: dict[str, Any]) -> None:
        """Take a message of the log of drift events."""
        data = event["data"]
        effective = data.get("effective_from")
        step = {
            "day": day_of(data["window_end"]),
            "kind": "request" if data["action"] in REQUESTS else "drift",
            "about": short(data["drift_type"]),
            "state": short(data["state"]),
            "action": short(data["action"]),
            "reason": short(data["reason"]),
            "causes": causes_of(data["causes"]),
            "effective_from": None if effective is None else day_of(effective),
        }
        super().note_event(event)
        self._note_step(str(event["id"]), step)

    def note_decision(self, offset: int, event: dict[str, Any]) -> None:
        """Take the message at `offset` of the log of models."""
        before = list(self.last_decisions)
        super().note_decision(offset, event)
        if list(self.last_decisions) == before:
            return  # a repetition, or one that came too late
        decision = Decision.from_event(event)
        if decision.version is not None and decision.card is not None:
            self._cards[decision.version] = decision.card
            _shorten(self._cards, STEPS_MAX)
        step = {
            "day": iso(decision.window_end)[:10],
            "kind": "decision",
            "outcome": decision.outcome.value,
            "version": decision.version and short(decision.version),
            "reason": short(decision.reason),
            "by_hand": decision.request_id is None,
            "gate": _gate(decision.gate),
        }
        self._note_step(str(event["id"]), step)

    def note_dead_letter(self, place: str, reason: str) -> None:
        """Take a dead letter that came from `place` of the input topic."""
        kind = letter_kind(reason)
        if kind not in self._letters and len(self._letters) >= LETTER_KINDS_MAX:
            kind = OTHER_KINDS
        self._letters[kind] += 1
        self._letter_places[kind] = f"{place}: {short(reason)}"

    def _put(self, row: dict[str, Any]) -> None:
        self._rows[row["end"]] = row
        self._changed.add(row["end"])
        _shorten(self._rows, WINDOWS_MAX, key=lambda day: day)

    def _note_step(self, name: str, step: dict[str, Any]) -> None:
        self._steps.setdefault(name, {"id": name, **step})
        _shorten(self._steps, STEPS_MAX)

    # -- what readers get -----------------------------------------------------

    def publish(self, before: Published, *, reports: list[str]) -> Published:
        """Return the state as it is now; `before` itself where nothing changed. `reports` are days."""
        revision = before.revision + 1
        told = {
            "feed": self._feed(),
            "model": self._model(),
            "steps": self._shown_steps(),
            "warnings": self._shown_warnings(),
            "letters": self._shown_letters(),
            "reports": reports,
        }
        sections = {name: _kept(before.sections.get(name), revision, value) for name, value in told.items()}
        rows = {day: kept for day, kept in before.rows.items() if day in self._rows}
        for day in self._changed & self._rows.keys():
            rows[day] = _kept(before.rows.get(day), revision, self._rows[day])
        self._changed = set()
        after = Published(revision, rows, sections)
        return before if (after.rows, after.sections) == (before.rows, before.sections) else after

    def _feed(self) -> dict[str, Any]:
        feed = self.feed
        rate = feed.rate
        return {
            "waiting_for": self.waiting_for,
            "unreadable": self.unreadable,
            "records": feed.records,
            "rate": None if rate is None else round(rate, 1),
            "unread": feed.unread if feed.heads else None,
            "counters": msgspec.to_builtins(feed.counters) if feed.heads else None,
            "watermarks": {
                str(partition): None if time is None else iso(time)
                for partition, time in feed.watermarks().items()
            },
            "unchecked": sorted(feed.ends.keys() - feed.heads.keys()),
        }

    def _model(self) -> dict[str, Any]:
        latest = self.latest
        version = None if latest is None else latest.model_version
        card = self._cards.get(version or "", {})
        return {
            "version": None if version is None else short(version),
            "since": None if self.serving_since is None else iso(self.serving_since)[:10],
            "estimator": None if not card else short(card["estimator"]),
            "horizon_days": card.get("horizon_days"),
            "refused": None if self._refused is None else short(self._refused),
            "onset": None if self.onset is None else iso(self.onset)[:10],
            "rival": self._rival,
            "pending": [
                {
                    "day": day_of(asked.window_end),
                    "effective_from": day_of(asked.effective_from),
                    "about": short(asked.drift_type),
                }
                for asked in self.pending
            ],
        }

    def _shown_steps(self) -> list[dict[str, Any]]:
        """Return the events and decisions, newest first; a decision is later than the request of its day."""
        answered = self.decisions.by_request
        steps = [
            step | {"decided": step["id"] in answered} if step["kind"] == "request" else step
            for step in self._steps.values()
        ]
        return sorted(steps, key=lambda step: (str(step["day"]), step["kind"] == "decision"), reverse=True)

    def _shown_warnings(self) -> dict[str, Any]:
        """Return the newest early warnings, each with the state of its window once that is evaluated."""
        newest = sorted(self.warnings.items(), reverse=True)[:WARNINGS_SHOWN]
        return {
            "open": len(self.open_warnings),
            "newest": [
                {
                    "day": short(warning.day),
                    "partition": warning.partition,
                    "state": self._rows.get(iso(warning.window_end)[:10], {}).get("state"),
                    "findings": [
                        {"signal": short(signal), "change": number(change), "onset": short(onset)}
                        for signal, change, onset in warning.findings
                    ],
                }
                for _, warning in newest
            ],
        }

    def _shown_letters(self) -> dict[str, Any]:
        return {
            "read": sum(self._letters.values()),
            "kinds": [
                {"kind": kind, "count": count, "latest": self._letter_places[kind]}
                for kind, count in self._letters.most_common(20)
            ],
        }


def _kept(before: tuple[int, msgspec.Raw] | None, revision: int, value: Any) -> tuple[int, msgspec.Raw]:
    """Return `value` as JSON under `revision`, or as it was published before where it is the same."""
    encoded = msgspec.json.encode(value)
    if before is not None and bytes(before[1]) == encoded:
        return before
    return revision, msgspec.Raw(encoded)


def _shorten(items: dict[str, Any], length_max: int, key: Callable[[str], Any] | None = None) -> None:
    """Remove the smallest by `key`, or else the oldest, of a dictionary that grew too long."""
    while len(items) > length_max:
        del items[next(iter(items)) if key is None else min(items, key=key)]


def _gate(gate: dict[str, Any] | None) -> dict[str, Any] | None:
    if gate is None:
        return None
    return {
        "customers": gate.get("customers"),
        "probability_better": number(gate.get("probability_better")),
        "probability_required": number(gate.get("probability_required")),
        "rival": None if gate.get("rival") is None else short(gate["rival"]),
        "champion_nmae": number((gate.get("champion") or {}).get("nmae")),
        "challenger_nmae": number((gate.get("challenger") or {}).get("nmae")),
    }


def _rival(rival: dict[str, Any] | None) -> dict[str, Any] | None:
    if rival is None:
        return None
    return {
        "version": short(rival["version"]),
        "purpose": short(rival["purpose"]),
        "since": day_of(rival["since"]),
        "reviews": int(rival["reviews"]),
        "performance": {
            days: {
                "of": day_of(found["window_end"]),
                "champion_nmae": number(found["champion"].get("nmae")),
                "rival_nmae": number(found["rival"].get("nmae")),
            }
            for days, found in dict(rival["performance"]).items()
        },
    }
