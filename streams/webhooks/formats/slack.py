"""Slack's incoming webhooks: blocks for those who see them, a text for notifications."""

from collections.abc import Mapping
from typing import Any

import msgspec

from streams.webhooks.notice import Notice, notice_of

FACTS_MAX = 40  # Slack takes 50 blocks, and 3,000 characters in one
# A text cannot leave its place: neither as a mention or link (the first three) nor as formatting.
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "*": "\u2217", "`": "\u2019", "~": "\u223c", "_": "\uff3f"}
)


def escaped(text: str) -> str:
    """Return `text` so that Slack shows it and does nothing else with it."""
    return text.translate(_ESCAPES)


def write(event: Mapping[str, Any], _: str) -> bytes:
    """Return the message; the body of Slack's `chat` webhooks."""
    notice = notice_of(event)
    text = f"{'[warning] ' if notice.severity == 'warning' else ''}{escaped(notice.title)}"
    blocks = [_section(f"*{text}*"), *map(_fact, notice.facts[:FACTS_MAX])]
    if (more := len(notice.facts) - FACTS_MAX) > 0:
        blocks.append(_section(f"and {more} more"))
    blocks.append({"type": "context", "elements": [_markdown(_origin(notice))]})
    # `verbatim`: no address in a text becomes a link, no name a mention.
    return msgspec.json.encode({"text": text, "blocks": blocks, "unfurl_links": False, "unfurl_media": False})


def _fact(fact: tuple[str, str]) -> dict[str, Any]:
    label, text = fact
    return _section(f"{escaped(label)}: {escaped(text)}")


def _origin(notice: Notice) -> str:
    return f"{escaped(notice.source)} {escaped(notice.time)} {escaped(notice.event_id)}"


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _markdown(text)}


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}
