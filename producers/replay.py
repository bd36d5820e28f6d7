"""The replay: records to Kafka in order, at a pace, each acknowledged; after a stop it can go on."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from threading import Event

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from producers.feed import Record
from producers.pacing import Pace
from streams.errors import ExitCode, UserError
from streams.kafka_access import async_client, compression_type
from streams.settings import Settings
from streams.topics import MIB, catalogue

MESSAGE_BYTES_MAX = 8 * MIB
OVERHEAD_BYTES = 512  # what a batch of one record adds to key and value, headers included, rounded up
BATCH_BYTES = MIB // 4
LINGER_S = 0.02
TICK_S = 0.2

# How long a batch may wait for its acknowledgement: a broker may be restarted meanwhile.
ACK_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


@dataclass
class Outcome:
    """What a replay has done so far."""

    sent: int = 0  # lines
    acknowledged: int = 0  # lines
    controls: int = 0  # control records acknowledged
    refused: int = 0  # lines larger than the topic takes
    last_seq: int = 0
    clock: int | None = None  # event time reached, epoch seconds
    lag_s: float = 0.0  # behind the schedule
    elapsed_s: float = 0.0
    stopped: bool = False

    @property
    def complete(self) -> bool:
        """Whether every line was sent and acknowledged."""
        return self.sent == self.acknowledged and not self.refused and not self.stopped


async def replay(
    settings: Settings,
    records: Iterable[Record | None],
    *,
    pace: Pace,
    stop: Event,
    report: Callable[[Outcome], None],
    refuse: Callable[[Record], None],
) -> Outcome:
    """Send records in their order; return when all are acknowledged, or soon after `stop` is set.

    Order is kept within each partition, so also a customer's. A partition never has a hole: its next batch
    leaves when the one before it is acknowledged. A record that is too large is given to `refuse` and passed
    over. None among the records says that nothing is there for now: what was sent is then acknowledged before
    the next is asked for. `report` is called a few times a second. Raises UserError (BROKER) where the broker
    is missing or does not acknowledge within `ACK_TIMEOUT_S`; a replay that resumes goes on behind what the
    topic holds.
    """
    outcome = Outcome()
    progress = _Progress(outcome, report)
    async with _producer(settings) as producer:
        delivery = _Delivery(producer, catalogue(settings).transactions.name, outcome)
        for record in records:
            if record is None:
                await delivery.finish()
                await asyncio.sleep(TICK_S)
                progress.tick(time.monotonic())
                if stop.is_set():
                    outcome.stopped = True
                    break
                continue
            due = pace.due(record.clock)
            while (now := time.monotonic()) < due and not stop.is_set():
                if due - now > LINGER_S or now - delivery.flushed > LINGER_S:
                    await delivery.flush()
                await asyncio.sleep(min(due - now, TICK_S))
                progress.tick(now)
            if stop.is_set():
                outcome.stopped = True
                break
            outcome.lag_s = max(0.0, now - due) if due > 0 else 0.0
            if not await delivery.send(record):
                refuse(record)
            progress.tick(now)
        await delivery.finish()
    progress.tick(math.inf)
    return outcome


class _Progress:
    """Reports an outcome a few times a second."""

    def __init__(self, outcome: Outcome, report: Callable[[Outcome], None]) -> None:
        self.outcome = outcome
        self.report = report
        self.began = time.monotonic()
        self.due = self.began + TICK_S

    def tick(self, now: float) -> None:
        """Report if it is time; an infinite `now` is the end."""
        if now >= self.due:
            self.outcome.elapsed_s = time.monotonic() - self.began
            self.report(self.outcome)
            self.due = now + TICK_S


@dataclass
class _Batch:
    builder: BatchBuilder
    lines: int = 0
    controls: int = 0

    def add(self, record: Record) -> bool:
        """Add a record; False where the batch is full. The first one always fits."""
        added = self.builder.append(
            timestamp=None, key=record.key, value=record.value, headers=record.headers
        )
        if added is None:
            return False
        self.lines += record.control is None
        self.controls += record.control is not None
        return True


class _Delivery:
    """Fills a batch for each partition and sends it once the batch before it is acknowledged.

    Batches are built here because the client takes 3 us a record that way; its `send`, or kafka-python's,
    makes a future of each record, which costs ten times as much.
    """

    def __init__(self, producer: AIOKafkaProducer, topic: str, outcome: Outcome) -> None:
        self.producer = producer
        self.topic = topic
        self.outcome = outcome
        self.flushed = -math.inf  # when, on the monotonic clock
        self._open: dict[int, _Batch] = {}
        self._flying: dict[int, tuple[asyncio.Future[object], _Batch]] = {}

    async def send(self, record: Record) -> bool:
        """Take a record; False where it is larger than the topic takes."""
        size = len(record.value) + len(record.key or b"") + OVERHEAD_BYTES
        if size > MESSAGE_BYTES_MAX:
            self.outcome.refused += 1
            return False
        batch = self._open.get(record.partition)
        if batch is None or not batch.add(record):
            await self._submit(record.partition)
            batch = self._open[record.partition] = _Batch(self.producer.create_batch())
            assert batch.add(record)
        self.outcome.sent += record.control is None
        self.outcome.last_seq = record.seq
        self.outcome.clock = record.clock
        return True

    async def flush(self) -> None:
        """Send what the open batches hold."""
        for partition in tuple(self._open):
            await self._submit(partition)
        self.flushed = time.monotonic()

    async def finish(self) -> None:
        """Send what is left and wait for every acknowledgement."""
        await self.flush()
        for partition in tuple(self._flying):
            await self._land(partition)

    async def _submit(self, partition: int) -> None:
        batch = self._open.pop(partition, None)
        if batch is None:
            return
        await self._land(partition)
        future = await self.producer.send_batch(batch.builder, self.topic, partition=partition)
        self._flying[partition] = (future, batch)
        await asyncio.sleep(0)  # lets the client send while the next batch is filled

    async def _land(self, partition: int) -> None:
        """Wait for the acknowledgement of a partition's batch; raises KafkaError where there is none."""
        if partition in self._flying:
            future, batch = self._flying.pop(partition)
            await future
            self.outcome.acknowledged += batch.lines
            self.outcome.controls += batch.controls


@asynccontextmanager
async def _producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """Open an idempotent producer; failures of Kafka inside become a UserError (BROKER)."""
    address = settings.bootstrap_servers
    producer = AIOKafkaProducer(
        **async_client(settings),
        compression_type=compression_type(settings),
        enable_idempotence=True,
        acks="all",
        max_batch_size=BATCH_BYTES,
        max_request_size=MESSAGE_BYTES_MAX + OVERHEAD_BYTES,
        request_timeout_ms=round(ACK_TIMEOUT_S * 1000),
    )
    try:
        await producer.start()
        yield producer
    except KafkaError as exc:
        raise UserError(
            f"the broker at {address} did not take the records: {exc!r}",
            hint="once it answers, --resume goes on where this stopped",
            code=ExitCode.BROKER,
        ) from exc
    finally:
        # Stopping waits for what is in flight; on the way out of a failure nothing more will come of it.
        with suppress(TimeoutError):
            await asyncio.wait_for(producer.stop(), STOP_TIMEOUT_S)
