"""A log that the owner of the evaluations follows beside its work: read to its end, then as it grows."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from streams.kafka_io import read_to_end, tail
from streams.settings import Settings


class GivenBackError(Exception):
    """The partition was given back while a window waited or was evaluated: it is another owner's now."""


class LogFollower(ABC):
    """Reads a topic of one partition from `load` to `close`; `grown` is notified after each piece of it."""

    def __init__(self, settings: Settings, topic: str, on_failure: Callable[[BaseException], None]) -> None:
        self.settings = settings
        self.topic = topic
        self.grown = asyncio.Condition()
        self.closed = False
        self._on_failure = on_failure  # told when following ends by itself
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    def _note(self, record: Any) -> None:
        """Take note of a record, in the order of the log."""

    async def _caught_up(self) -> None:  # noqa: B027  (most followers have nothing to do here)
        """Do what is to be done after records were noted while following; nothing unless overridden."""

    async def load(self) -> None:
        """Read the log to its end and follow it from there; raises GivenBackError after a `close`."""
        records, end = await read_to_end(self.settings, self.topic)
        for record in records:
            self._note(record)
        self.still_held()
        self._task = asyncio.create_task(self._follow(end))
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Stop for good: whoever waits for something in the log gets GivenBackError."""
        self.closed = True
        async with self.grown:
            self.grown.notify_all()
        if self._task is not None:
            self._task.cancel()
            # Unlike awaiting the task, this ends in CancelledError only where the caller is cancelled.
            await asyncio.wait({self._task})
            self._task = None

    def still_held(self) -> None:
        """Raise GivenBackError after a `close`."""
        if self.closed:
            raise GivenBackError

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._on_failure(exc)

    async def _follow(self, start: int) -> None:
        async for records in tail(self.settings, self.topic, start=start):
            async with self.grown:
                for record in records:
                    self._note(record)
                self.grown.notify_all()
            await self._caught_up()
