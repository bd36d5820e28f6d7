"""What an event tells a person: a title, facts, and whether it opens or closes an alarm."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from streams.decisions import KIND, Outcome
from streams.draft import ACTION_REQUESTED, CHANGED, DETECTED, REFERENCE_READY, RESOLVED

DIGEST = "clv.webhook.digest.v1"
TEST = "clv.webhook.test.v1"
DEAD_LETTERS = "clv.dead_letters.added.v1"
OWN_TYPES = frozenset({DIGEST, TEST, DEAD_LETTERS})
CAUSES_SHOWN = 5
TEXT_MAX = 300  # characters of any single fact

_TITLES = {
    REFERENCE_READY: "The reference is ready",
    DETECTED: "Drift detected",
    CHANGED: "The verdict changed",
    RESOLVED: "Drift resolved",
    ACTION_REQUESTED: "An action is asked for",
    DIGEST: "Several events",
    TEST: "A test message",
    DEAD_LETTERS: "Lines were refused",
    **{KIND.format(outcome.value): f"Model {outcome.value.replace('_', ' ')}" for outcome in Outcome},
}
TYPES = frozenset(_TITLES) - {DIGEST, TEST}  # that an endpoint can ask for
_WARNINGS = frozenset({KIND.format(Outcome.EXPIRED.value)})


class Alarm(StrEnum):
    """What an event does to an alarm."""

    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Notice:
    """An event for a person. Texts are as they came, bounded but not escaped: each format does that."""

    event_id: str
    kind: str
    source: str
    time: str
    severity: str  # info or warning
    title: str
    facts: tuple[tuple[str, str], ...]
    alarm: Alarm | None
    key: str  # what an alarm and its end have in common


def severity_of(event: Mapping[str, Any]) -> str:
    """Return `warning` or `info`; the end of a drift weighs as much as its beginning, for it closes it."""
    kind = event["type"]
    if kind in {DETECTED, RESOLVED} or kind in _WARNINGS:
        return "warning"
    return "warning" if event["data"].get("severity") == "warning" else "info"


def alarm_of(event: Mapping[str, Any]) -> Alarm | None:
    """Return whether an event opens an alarm or closes one; most do neither."""
    if event["type"] == RESOLVED:
        return Alarm.RESOLVED
    asks = event["data"].get("action") == "ask"
    return Alarm.FIRING if event["type"] in {DETECTED, TEST} or asks else None


def notice_of(event: Mapping[str, Any]) -> Notice:
    """Return what `event` tells; a field that it lacks is left out."""
    kind, data = str(event["type"]), event["data"]
    drift_type = str(data.get("drift_type", ""))
    title = _TITLES.get(kind, kind)
    if drift_type and kind in {DETECTED, CHANGED, RESOLVED}:
        title += f": {'the customers' if drift_type == 'data' else 'the served model'}"
    return Notice(
        event_id=str(event["id"]),
        kind=kind,
        source=str(event.get("source", "")),
        time=str(event.get("time", "")),
        severity=severity_of(event),
        title=clean(title),
        facts=tuple((label, clean(text)) for label, text in _facts(event) if text),
        alarm=alarm_of(event),
        key=f"{event.get('source', '')}{drift_type or kind}",
    )


def clean(text: str) -> str:
    """Return `text` on one line, bounded, without control characters and marks that change its direction."""
    kept = "".join(letter if letter.isprintable() else " " for letter in text)
    return kept if len(kept) <= TEXT_MAX else kept[: TEXT_MAX - 1] + "\u2026"


def _facts(event: Mapping[str, Any]) -> list[tuple[str, str]]:
    data = event["data"]
    if event["type"] == DIGEST:
        return [(str(item.get("time", "")), _line(item)) for item in data["events"]]
    facts = [
        ("Window", _text(data.get("window_end"))),
        ("State", _text(data.get("state"))),
        ("Since", _text(data.get("onset"))),
        ("Causes", causes_text(data.get("causes") or ())),
        ("Action", "" if data.get("action") == "none" else _text(data.get("action"))),
        ("Reason", _text(data.get("reason"))),
        ("Model", _text(data.get("model_version") or data.get("version"))),
        ("Message", _text(data.get("message"))),
    ]
    return [(label, text) for label, text in facts if text]


def _line(event: Mapping[str, Any]) -> str:
    notice = notice_of(event)
    causes = dict(notice.facts).get("Causes")
    return f"{notice.title} ({causes})" if causes else notice.title


def causes_text(causes: Any) -> str:
    """Return the first causes in words; nothing of what is not written as a cause is."""
    texts = []
    for cause in causes:
        try:
            segment = f" of {cause['segment']}" if cause["segment"] else ""
            texts.append(f"{cause['feature']}{segment} ({float(cause['effect']):+.4g} {cause['unit']})")
        except (KeyError, TypeError, ValueError):
            texts.append("unknown")
    more = len(texts) - CAUSES_SHOWN
    return ", ".join(texts[:CAUSES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _text(value: Any) -> str:
    return "" if value is None else str(value)
