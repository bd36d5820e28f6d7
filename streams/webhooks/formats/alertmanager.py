"""The body of Alertmanager's webhook, version 4: what a receiver written for Alertmanager understands."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from streams.webhooks.notice import DIGEST, Alarm, Notice, notice_of

NOT_ENDED = "0001-01-01T00:00:00Z"  # Go's zero time, as Alertmanager writes it


def write(event: Mapping[str, Any], _: str) -> bytes:
    """Return the alerts of an event, or of a digest: of each alert what the newest event says."""
    events = event["data"]["events"] if event["type"] == DIGEST else [event]
    newest = {notice.key: notice for notice in map(notice_of, events)}
    alerts = [_alert(notice) for notice in newest.values()]
    firing = any(alert["status"] == Alarm.FIRING for alert in alerts)
    common = _common(alert["labels"] for alert in alerts)
    return msgspec.json.encode(
        {
            "version": "4",
            "groupKey": f"clv-drift:{event.get('source', '')}",
            "truncatedAlerts": 0,
            "status": "firing" if firing else "resolved",
            "receiver": "clv-drift",
            "groupLabels": {"source": str(event.get("source", ""))},
            "commonLabels": common,
            "commonAnnotations": _common(alert["annotations"] for alert in alerts),
            "externalURL": "",
            "alerts": alerts,
        }
    )


def _alert(notice: Notice) -> dict[str, Any]:
    facts = dict(notice.facts)
    resolved = notice.alarm is Alarm.RESOLVED
    # Labels are an alert's identity: nothing that changes from its beginning to its end.
    labels = {"alertname": "CLVDrift", "source": notice.source, "key": notice.key}
    return {
        "status": (Alarm.RESOLVED if resolved else Alarm.FIRING).value,
        "labels": labels,
        "annotations": {"summary": notice.title, "severity": notice.severity, **facts},
        "startsAt": facts.get("Since", notice.time),
        "endsAt": notice.time if resolved else NOT_ENDED,
        "generatorURL": "",
        "fingerprint": blake2b(notice.key.encode(), digest_size=8).hexdigest(),
    }


def _common(mappings: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what all have in common."""
    first, *others = mappings
    return {name: text for name, text in first.items() if all(it.get(name) == text for it in others)}
