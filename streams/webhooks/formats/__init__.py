"""The forms of a message, one a file: each writes a notice as the bytes of a request."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from streams.webhooks.endpoints import Format
from streams.webhooks.formats import alertmanager, cloudevent, pagerduty, slack, teams

Writer = Callable[[Mapping[str, Any], str], bytes]


class Body(NamedTuple):
    """The bytes of a request and what they are."""

    content: bytes
    content_type: str


_WRITERS: dict[Format, tuple[Writer, str]] = {
    Format.CLOUDEVENTS: (cloudevent.write, cloudevent.CONTENT_TYPE),
    Format.SLACK: (slack.write, "application/json"),
    Format.TEAMS: (teams.write, "application/json"),
    Format.PAGERDUTY: (pagerduty.write, "application/json"),
    Format.ALERTMANAGER: (alertmanager.write, "application/json"),
}


def body_of(kind: Format, event: Mapping[str, Any], routing_key: str = "") -> Body:
    """Return `event` in the form `kind`, always in the same bytes; `routing_key` is PagerDuty's."""
    writer, content_type = _WRITERS[kind]
    return Body(writer(event, routing_key), content_type)
