"""Which events an endpoint is told."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from streams.draft import RESOLVED
from streams.webhooks.endpoints import Endpoint, Format
from streams.webhooks.notice import alarm_of, severity_of

_ALARMS_ONLY = frozenset({Format.PAGERDUTY, Format.ALERTMANAGER})


def wants(endpoint: Endpoint, event: Mapping[str, Any]) -> bool:
    """Return whether `endpoint` is told `event`.

    The end of a drift passes the filter of features: it closes what may have been told, and names no cause.
    """
    kind = event["type"]
    if endpoint.types and not any(fnmatchcase(kind, pattern) for pattern in endpoint.types):
        return False
    if endpoint.min_severity == "warning" and severity_of(event) != "warning":
        return False
    if endpoint.format in _ALARMS_ONLY and alarm_of(event) is None:
        return False
    if endpoint.features and kind != RESOLVED:
        causes = event["data"].get("causes") or ()
        named = {cause.get("feature") for cause in causes if isinstance(cause, Mapping)}
        return not named.isdisjoint(endpoint.features)
    return True
