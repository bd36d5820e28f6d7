"""The log of comparisons as the owner of the evaluations follows it: asks for one and waits for it."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer

from streams import cloudevents
from streams.comparisons import COMPARISON, ComparisonKey, Wanted
from streams.grid import iso
from streams.kafka_io import send_event
from streams.log_follower import LogFollower
from streams.settings import Settings
from streams.topics import catalogue

log = structlog.get_logger(__name__)

REMIND_S = 60.0


class ComparisonFollower(LogFollower):
    """Reads the log from `load` to `close`; of two comparisons of a window the first in the log counts."""

    def __init__(
        self, settings: Settings, producer: AIOKafkaProducer, on_failure: Callable[[BaseException], None]
    ) -> None:
        super().__init__(settings, catalogue(settings).comparisons.name, on_failure)
        self._producer = producer
        self._found: dict[ComparisonKey, dict[str, Any]] = {}

    async def compared(self, wanted: Wanted) -> dict[str, Any]:
        """Return the data of a comparison; one that is not in the log is asked for and waited for.

        It comes in the end: what Evidently cannot compare is published as failed. Windows are asked for in
        their order, so what is older is forgotten. Raises GivenBackError after a `close`.
        """
        self._found = {key: data for key, data in self._found.items() if key.window_end >= wanted.window_end}
        if wanted.key not in self._found:
            name = iso(wanted.window_end)
            request = wanted.to_event(self.settings.event_source)
            await send_event(self._producer, self.topic, f"{name}/request", request)
            log.info("waiting for a comparison", window_end=name)
            while not await self._within(REMIND_S, wanted.key):
                log.warning("still waiting for a comparison: does a worker compare?", window_end=name)
        return self._found[wanted.key]

    async def _within(self, seconds: float, key: ComparisonKey) -> bool:
        """Wait for a comparison; return whether it came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self.grown:
                await self.grown.wait_for(lambda: self.closed or key in self._found)
        self.still_held()
        return key in self._found

    def _note(self, record: Any) -> None:
        try:
            event = cloudevents.decode(record.value or b"")
            if (event["type"], event.get("source")) == (COMPARISON, self.settings.event_source):
                self._found.setdefault(ComparisonKey.told(event["data"]), event["data"])
        except (ValueError, KeyError, TypeError) as exc:
            log.error("comparison refused", offset=record.offset, reason=repr(exc))
