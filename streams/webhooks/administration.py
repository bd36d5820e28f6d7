"""What a person does about webhooks: look at dead deliveries, send them again, try an endpoint."""

import asyncio
import secrets
import time
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from streams import cloudevents
from streams.errors import ExitCode, UserError
from streams.settings import Settings
from streams.start_checks import check_written
from streams.webhooks.client import Fate, send, tls_of
from streams.webhooks.endpoints import Endpoint
from streams.webhooks.notice import TEST, TYPES
from streams.webhooks.store import Store, storage_errors
from streams.webhooks.target import target_of


def check_any(settings: Settings) -> None:
    """Raise UserError (USAGE) where there is no endpoint, or one asks for events that there are not."""
    if not settings.webhooks:
        raise UserError(
            "the settings name no webhook",
            hint="add a table [webhooks.NAME]; docs/webhooks.md has an example",
            code=ExitCode.USAGE,
        )
    for name, endpoint in settings.webhooks.items():
        for pattern in endpoint.types:
            if not any(fnmatchcase(kind, pattern) for kind in TYPES):
                raise UserError(
                    f"webhook {name}: no event is of type {pattern!r}",
                    hint=f"there are {', '.join(sorted(TYPES))}",
                    code=ExitCode.USAGE,
                )


def dead(settings: Settings) -> list[dict[str, Any]]:
    """Return the dead deliveries, oldest first, as JSON values; times in UTC."""
    check_written(settings, "webhooks_dir")
    with storage_errors(settings.webhooks_dir), Store(settings.webhooks_dir) as store:
        found = store.dead()
    return [
        {
            "endpoint": delivery.endpoint,
            "id": delivery.event_id,
            "type": cloudevents.decode(delivery.event)["type"],
            "queued_at": datetime.fromtimestamp(delivery.queued_at, UTC).isoformat(timespec="seconds"),
            "tries": delivery.failures,
            "problem": delivery.problem,
        }
        for delivery in found
    ]


def dead_table(deliveries: list[dict[str, Any]]) -> Table:
    """Return `dead`'s list for a terminal."""
    names = list(deliveries[0])
    table = Table(*(Column(name, no_wrap=name == "id") for name in names))
    for delivery in deliveries:
        table.add_row(*(escape(str(delivery[name])) for name in names))
    return table


def redeliver(settings: Settings, name: str, event_id: str | None) -> int:
    """Queue the dead deliveries of endpoint `name` again, or the one of `event_id`; return how many.

    Raises UserError (USAGE) where there is no such endpoint or delivery.
    """
    _endpoint(settings, name)
    check_written(settings, "webhooks_dir")
    with storage_errors(settings.webhooks_dir), Store(settings.webhooks_dir) as store:
        count = store.redeliver(name, event_id, now=time.time())
    if event_id is not None and not count:
        raise UserError(
            f"webhook {name} has no dead delivery {event_id}",
            hint="`clv-drift webhooks dead` lists them",
            code=ExitCode.USAGE,
        )
    return count


def test(settings: Settings, name: str) -> str:
    """Send a test message to endpoint `name`, and return how that went.

    Raises UserError: USAGE where it cannot be used as it is, FAILURE where the message was not accepted.
    """
    endpoint = _endpoint(settings, name)
    target, tls = target_of(name, endpoint), tls_of(name, endpoint.ca_file)
    event = cloudevents.envelope(
        kind=TEST,
        source=settings.event_source,
        window_end=int(time.time()),
        data={"message": f"A test of webhook {name}: nothing has happened."},
        event_id=f"test-{secrets.token_hex(8)}",
    )
    started = time.monotonic()
    result = asyncio.run(send(endpoint, target, cloudevents.encode(event), tls))
    took_ms = (time.monotonic() - started) * 1_000
    if result.fate is not Fate.DELIVERED:
        said = f": {result.excerpt}" if result.excerpt else ""
        raise UserError(f"webhook {name} at {target.host} did not take the message, {result.problem}{said}")
    return f"webhook {name} at {target.host} took the message: {result.status} after {took_ms:.0f} ms"


def _endpoint(settings: Settings, name: str) -> Endpoint:
    check_any(settings)
    if name not in settings.webhooks:
        raise UserError(
            f"there is no webhook {name!r}",
            hint=f"the settings name {', '.join(settings.webhooks)}",
            code=ExitCode.USAGE,
        )
    return settings.webhooks[name]
