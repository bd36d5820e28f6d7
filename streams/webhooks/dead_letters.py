"""Dead letters as events: how many came since the last look, not each of them."""

import asyncio
import time
from collections.abc import Callable

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams import cloudevents
from streams.kafka_io import reader
from streams.settings import Settings
from streams.topics import catalogue
from streams.webhooks.intake import told_of
from streams.webhooks.notice import DEAD_LETTERS
from streams.webhooks.store import Store

log = structlog.get_logger(__name__)

LOOK_S = 300.0


class DeadLetterLook:
    """Compares the topic's ends with those of the last look, which the store keeps."""

    def __init__(self, settings: Settings, store: Store, *, queued: Callable[[], None]) -> None:
        self.settings = settings
        self.store = store
        spec = catalogue(settings).dead_letters
        self.topic = spec.name
        self.places = [TopicPartition(spec.name, partition) for partition in range(spec.partitions)]
        self._queued = queued

    async def run(self) -> None:
        """Look every `LOOK_S` for ever, the first time at once; a broker that is gone is waited for."""
        while True:
            try:
                async with reader(self.settings) as consumer:
                    ends = await consumer.end_offsets(self.places)
            except KafkaError as exc:
                log.warning("the dead letters cannot be counted", reason=type(exc).__name__)
            else:
                self.note({place.partition: end for place, end in ends.items()}, now=time.time())
            await asyncio.sleep(LOOK_S)

    def note(self, ends: dict[int, int], *, now: float) -> None:
        """Queue an event about what is new up to `ends`, by partition; what was there before all is not."""
        marks = {partition: f"{self.topic}/{partition}" for partition in ends}
        known = self.store.marks()
        grown = [
            {"partition": partition, "first_offset": known[mark], "next_offset": ends[partition]}
            for partition, mark in sorted(marks.items())
            if known.get(mark, ends[partition]) < ends[partition]
        ]
        count = sum(item["next_offset"] - item["first_offset"] for item in grown)
        new_marks = {mark: ends[partition] for partition, mark in marks.items()}
        if not count:
            self.store.announce(None, (), new_marks, now=now)
            return
        event = cloudevents.envelope(
            kind=DEAD_LETTERS,
            source=self.settings.event_source,
            window_end=int(now),
            data={
                "count": count,
                "severity": "warning",
                "topic": self.topic,
                "partitions": grown,
                "message": f"{count} lines were not accepted; {self.topic} has them with the reasons",
            },
        )
        self.store.announce(event, told_of(self.settings.webhooks, event), new_marks, now=now)
        self._queued()
