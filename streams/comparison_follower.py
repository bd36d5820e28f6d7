"""The log of comparisons as the owner of the evaluations follows it: asks for one and waits for it."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer

from streams import cloudevents
from streams.comparisons import COMPARISON, ComparisonKey, Wanted
from streams.decision_follower import GivenBackError
from streams.grid import iso
from streams.kafka_io import read_to_end, send_event, tail
from streams.settings import Settings
from streams.topics import catalogue

log = structlog.get_logger(__name__)

REMIND_S = 60.0


class ComparisonFollower:
    """Reads the log from `load` to `close`; of two comparisons of a window the first in the log counts."""

    def __init__(
        self, settings: Settings, producer: AIOKafkaProducer, on_failure: Callable[[BaseException], None]
    ) -> None:
        self.settings = settings
        self.topic = catalogue(settings).comparisons.name
        self._producer = producer
        self._on_failure = on_failure  # told when following ends by itself
        self._found: dict[ComparisonKey, dict[str, Any]] = {}
        self._grown = asyncio.Condition()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Read the log to its end and follow it from there; raises GivenBackError after a `close`."""
        records, end = await read_to_end(self.settings, self.topic)
        for record in records:
            self._note(record)
        self._still_held()
        self._task = asyncio.create_task(self._follow(end))
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Follow no longer; whoever waits for a comparison gets GivenBackError."""
        self._closed = True
        async with self._grown:
            self._grown.notify_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

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
            async with asyncio.timeout(seconds), self._grown:
                await self._grown.wait_for(lambda: self._closed or key in self._found)
        self._still_held()
        return key in self._found

    def _still_held(self) -> None:
        if self._closed:
            raise GivenBackError

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._on_failure(exc)

    async def _follow(self, start: int) -> None:
        async for records in tail(self.settings, self.topic, start=start):
            async with self._grown:
                for record in records:
                    self._note(record)
                self._grown.notify_all()

    def _note(self, record: Any) -> None:
        try:
            event = cloudevents.decode(record.value or b"")
            if (event["type"], event.get("source")) == (COMPARISON, self.settings.event_source):
                self._found.setdefault(ComparisonKey.told(event["data"]), event["data"])
        except (ValueError, KeyError, TypeError) as exc:
            log.error("comparison refused", offset=record.offset, reason=repr(exc))
