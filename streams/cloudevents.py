"""CloudEvents 1.0 in structured mode: the envelope of every JSON message."""

from hashlib import blake2b
from typing import Any

import msgspec

from streams.grid import from_iso, iso

__all__ = ["content_id", "decode", "encode", "envelope", "from_iso", "iso"]

CONTENT_TYPE = b"application/cloudevents+json"
HEADERS = [("content-type", CONTENT_TYPE)]


def content_id(kind: str, data: dict[str, Any]) -> str:
    """Return an id derived from content: the same message has the same id, whoever sends it again."""
    digest = blake2b(kind.encode() + b"\0" + msgspec.json.encode(data, order="deterministic"), digest_size=16)
    return digest.hexdigest()


def envelope(
    *, kind: str, source: str, window_end: int, data: dict[str, Any], event_id: str | None = None
) -> dict[str, Any]:
    """Return `data` as a CloudEvent of type `kind`; its `time` is the window's end, never the clock."""
    return {
        "specversion": "1.0",
        "id": event_id or content_id(kind, data),
        "source": source,
        "type": kind,
        "time": iso(window_end),
        "subject": iso(window_end),
        "datacontenttype": "application/json",
        "data": data,
    }


def encode(event: dict[str, Any]) -> bytes:
    """Return an event as the bytes of a message."""
    return msgspec.json.encode(event)


def decode(value: bytes) -> dict[str, Any]:
    """Return the event in a message; raises ValueError on anything that is no CloudEvent with data."""
    try:
        event = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(f"not JSON: {exc}") from exc
    if not isinstance(event, dict) or not isinstance(event.get("data"), dict) or "type" not in event:
        raise ValueError("not a CloudEvent with data")
    return event
