"""The deliveries of one endpoint, in order: each tried until it is accepted or given up."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from streams.errors import UserError
from streams.faults import strike
from streams.settings import Settings
from streams.webhooks.backoff import is_past, pause_s
from streams.webhooks.client import Fate, Result, send, tls_of
from streams.webhooks.endpoints import Endpoint
from streams.webhooks.store import HOUR_S, Delivery, Store
from streams.webhooks.target import target_of

log = structlog.get_logger(__name__)

LOOK_S = 1.0  # how soon a delivery is seen that a command has queued again
PAUSE_SETTINGS_S = 30.0  # a secret that cannot be read is looked for again


class WebhooksObserver(Protocol):
    """Whoever shows what the process does."""

    def observe_try(self, endpoint: str, outcome: str, seconds: float) -> None: ...  # noqa: D102
    def observe_queue(  # noqa: D102
        self, endpoint: str, pending: int, dead: int, oldest_at: float | None
    ) -> None: ...
    def observe_refused(self) -> None: ...  # noqa: D102


class Sender:
    """A task of its own for each endpoint, so that a slow one holds nobody else up."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        store: Store,
        observer: WebhooksObserver,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Read the certificates; raises UserError (USAGE) where endpoint `name` cannot be used as it is."""
        self.settings = settings
        self.name = name
        self.endpoint: Endpoint = settings.webhooks[name]
        self.store = store
        self.stopping = False
        self.woken = asyncio.Event()
        self._observer = observer
        self._jitter = jitter
        self._tls = tls_of(name, self.endpoint.ca_file)
        target_of(name, self.endpoint)

    async def run(self) -> None:
        """Deliver until `stop`; a request that is under way then is finished."""
        while not self.stopping:
            wait_s = await self.step()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.woken.wait()
            self.woken.clear()

    def stop(self) -> None:
        """Let `run` end."""
        self.stopping = True
        self.woken.set()

    async def step(self) -> float:
        """Try the delivery that is next, if it is due; return after how long to look again, seconds."""
        now = time.time()
        head = self.store.head(self.name)
        if head is None:
            return LOOK_S
        if head.next_try_at > now:
            return min(head.next_try_at - now, LOOK_S)
        left, free_in_s = self._budget(now)
        if left == 0:
            return min(free_in_s, LOOK_S)
        if left == 1:
            head = self.store.fold(self.name, now=now) or head
        await self._try(head)
        return 0.0

    def _budget(self, now: float) -> tuple[int, float]:
        """Return how many messages may still be sent in this hour (-1: any number), and when one more may."""
        limit = self.endpoint.per_hour_max
        if limit == 0:
            return -1, 0.0
        sent = self.store.sent_since(self.name, now - HOUR_S)
        if len(sent) < limit:
            return limit - len(sent), 0.0
        return 0, sent[-limit] + HOUR_S - now

    async def _try(self, delivery: Delivery) -> None:
        started = time.monotonic()
        try:
            target = target_of(self.name, self.endpoint)
        except UserError as exc:
            self._put_off(delivery, exc.message, PAUSE_SETTINGS_S)
            return
        result = await send(self.endpoint, target, delivery.event, self._tls)
        outcome = self._settle(delivery, result)
        self._observer.observe_try(self.name, outcome, time.monotonic() - started)
        told = {"endpoint": self.name, "event_id": delivery.event_id, "host": target.host}
        if outcome == "delivered":
            log.info("delivered", **told, status=result.status, tries=delivery.failures + 1)
        else:
            level = log.error if outcome == "dead" else log.warning
            level(
                "not delivered", **told, outcome=outcome, reason=result.problem, tries=delivery.failures + 1
            )

    def _settle(self, delivery: Delivery, result: Result) -> str:
        """Note what became of a try, and return it in a word."""
        if result.fate is Fate.DELIVERED:
            strike(self.settings, "webhooks:delivered")
            self.store.delivered(delivery, now=time.time())
            return "delivered"
        if result.fate is Fate.DEAD:
            self.store.give_up(delivery, result.problem)
            return "dead"
        return self._put_off(delivery, result.problem, result.retry_after_s)

    def _put_off(self, delivery: Delivery, problem: str, wait_min_s: float) -> str:
        """Have a delivery tried again later, unless that would be past its horizon."""
        failures = delivery.failures + 1
        next_try_at = time.time() + max(wait_min_s, pause_s(failures, self._jitter()))
        if is_past(
            queued_at_s=delivery.queued_at,
            next_try_s=next_try_at,
            horizon_s=self.endpoint.horizon_hours * HOUR_S,
            failures=failures,
        ):
            self.store.give_up(delivery, f"{problem}; given up after {self.endpoint.horizon_hours:g} h")
            return "dead"
        self.store.failed(delivery, problem, next_try_at=next_try_at)
        return "again"
