"""Microsoft Teams' workflows: a message with an adaptive card.

All texts are runs of a rich text block: unlike text blocks and fact sets those are no Markdown, so that there
is nothing in a text to escape but the template marks.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from streams.webhooks.notice import notice_of

FACTS_MAX = 60  # a card has at most 28 KB


def write(event: Mapping[str, Any], _: str) -> bytes:
    """Return the message that a workflow "when a webhook request is received" posts."""
    notice = notice_of(event)
    warning = notice.severity == "warning"
    title = _run(notice.title) | {
        "size": "Large",
        "weight": "Bolder",
        "color": "Attention" if warning else "Default",
    }
    lines = [[_run(f"{label}: ") | {"weight": "Bolder"}, _run(text)] for label, text in notice.facts]
    shown = lines[:FACTS_MAX]
    if len(lines) > len(shown):
        shown.append([_run(f"and {len(lines) - len(shown)} more")])
    origin = _run(f"{notice.source} {notice.time} {notice.event_id}") | {"isSubtle": True, "size": "Small"}
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "RichTextBlock", "inlines": inlines} for inlines in ([title], *shown, [origin])],
    }
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return msgspec.json.encode({"type": "message", "attachments": [attachment]})


def _run(text: str) -> dict[str, Any]:
    # {{DATE(...)}} and ${...} would be replaced by something else.
    return {"type": "TextRun", "text": text.replace("{", "(").replace("}", ")")}
