"""When a delivery that failed is tried again, and when no more."""

from email.utils import parsedate_to_datetime

BASE_S = 1.0
CAP_S = 900.0
TRIES_MIN = 3  # before a delivery is given up, however long it has waited for its turn
RETRY_AFTER_MAX_S = 86_400.0


def pause_s(failures: int, share: float) -> float:
    """Return how long to wait after `failures` (from 1 on) in a row: full jitter, `share` in [0, 1).

    Doubled each time up to a cap, and any part of it: endpoints that failed together do not come back
    together (Brooker, "Exponential Backoff And Jitter", 2015).
    """
    return share * min(CAP_S, BASE_S * 2.0 ** min(failures - 1, 30))


def retry_after_s(header: str | None, now_s: float) -> float:
    """Return the wait that a `Retry-After` asks for (seconds or a date, RFC 9110), 0 where it says nothing.

    >>> retry_after_s("120", now_s=0), retry_after_s("soon", now_s=0), retry_after_s(None, now_s=0)
    (120.0, 0.0, 0.0)
    >>> retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", now_s=20)
    40.0
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), RETRY_AFTER_MAX_S)
    try:
        when = parsedate_to_datetime(text)
        wait_s = when.timestamp() - now_s
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
    return min(max(0.0, wait_s), RETRY_AFTER_MAX_S)


def is_past(*, queued_at_s: float, next_try_s: float, horizon_s: float, failures: int) -> bool:
    """Return whether a delivery is given up: its next try would come after the horizon."""
    return failures >= TRIES_MIN and next_try_s > queued_at_s + horizon_s
