"""PagerDuty's Events API v2: a drift triggers an incident, its end resolves the same one."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec

from streams.webhooks.notice import Alarm, notice_of

SUMMARY_MAX = 1_024
KEY_MAX = 255


def write(event: Mapping[str, Any], routing_key: str) -> bytes:
    """Return the request; only for events with an alarm.

    The key that joins trigger and resolve is the installation's and the kind of drift's, so there is one
    incident for each at a time.
    """
    notice = notice_of(event)
    message: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if notice.alarm is Alarm.RESOLVED else "trigger",
        "dedup_key": dedup_key(notice.key),
        "client": "clv-drift",
        "payload": {
            "summary": f"{notice.title} ({notice.source})"[:SUMMARY_MAX],
            "source": notice.source or "clv-drift",
            "severity": notice.severity,
            "class": notice.kind,
            "custom_details": {**dict(notice.facts), "event_id": notice.event_id, "time": notice.time},
        },
    }
    return msgspec.json.encode(message)


def dedup_key(key: str) -> str:
    """Return a key in PagerDuty's bounds."""
    return f"clv-drift{key}" if len(key) < KEY_MAX - 9 else f"clv-drift/{sha256(key.encode()).hexdigest()}"
