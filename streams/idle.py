"""Idle partitions: event time written into them, so that they do not hold a window open."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from streams.decode import Decoder
from streams.kafka_io import offsets_of, read_to_end
from streams.topics import catalogue
from streams.transactions import Control, control_value
from streams.vocabulary import Vocabulary

if TYPE_CHECKING:
    from streams.app import Worker

log = structlog.get_logger(__name__)

TAIL_RECORDS = 200  # of another partition, looked at for its latest event time


@dataclass
class _Seen:
    """The end of a partition's log, and since when it has been there (monotonic seconds)."""

    end: int
    since: float


class IdleWatch:
    """Writes a watermark record into partitions of this worker that are fully read and silent.

    The time written is logged like everything else, so the partition stays a function of its log: the
    smallest of the other partitions' latest event times, never the clock. Where all are silent, nothing is
    written: the feed itself has stopped.
    """

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._seen: dict[int, _Seen] = {}
        self._written: dict[int, int] = {}

    async def look(self) -> None:
        """Look at all partitions once; called every so often. Where no broker answers, the next time will do.

        What leaves a timer of Faust's ends the whole worker.
        """
        try:
            await self._look()
        except (KafkaError, TimeoutError, ConnectionError) as exc:
            log.warning("idle partitions not looked at", reason=repr(exc))

    async def _look(self) -> None:
        worker, settings = self._worker, self._worker.settings
        held = {tp.partition: (tp, shard) for tp, shard in worker.shards.items() if shard.state is not None}
        if not held:
            return
        topic = catalogue(settings).transactions.name
        ends = {p: (await offsets_of(settings, topic, p))[1] for p in range(settings.partitions)}
        now = time.monotonic()
        for partition, end in ends.items():
            seen = self._seen.get(partition)
            if seen is None or seen.end != end:
                self._seen[partition] = _Seen(end, now)
        idle = {p for p in ends if now - self._seen[p].since >= settings.idle_after_s}
        if not idle or len(idle) == len(ends):
            return
        times = [await self._latest_time(topic, p, ends[p]) for p in ends if p not in idle]
        known = [value for value in times if value is not None]
        if not known:
            return
        for partition in idle & held.keys():
            await self._write(*held[partition], end=ends[partition], event_time=min(known))

    async def _latest_time(self, topic: str, partition: int, end: int) -> int | None:
        """Return the latest trusted event time of a partition that moves."""
        shard = self._worker.shards.get(TP(topic, partition))
        if shard is not None and shard.state is not None:
            return shard.state.guard.largest
        start = max(0, end - TAIL_RECORDS)
        records, _ = await read_to_end(self._worker.settings, topic, partition, start=start)
        decoder = Decoder(Vocabulary(), self._worker.settings.field_mapping)
        batch = decoder.decode([r.value for r in records], [r.headers for r in records])
        times = sorted([*batch.lines.time.tolist(), *(control.event_time for control in batch.controls)])
        # The median rather than the largest: one line from the far future must not speak for the partition.
        return times[len(times) // 2] if times else None

    async def _write(self, tp: TP, shard: Any, *, end: int, event_time: int) -> None:
        state = shard.state
        if state is None or state.read_offset + 1 < end:
            return
        if state.guard.largest is not None and event_time <= state.guard.largest:
            return
        producer = self._worker.producer
        assert producer is not None
        await producer.send_and_wait(
            tp.topic,
            value=control_value(event_time),
            partition=tp.partition,
            headers=[("control", Control.WATERMARK.value.encode())],
        )
        log.info("watermark written into an idle partition", partition=tp.partition, event_time=event_time)
