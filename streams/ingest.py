"""The agent `ingest`: batches into partition states, their outputs and checkpoints into Kafka."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from faust.types import TP

from streams import cloudevents
from streams.checkpoints import Ledger, StateRecord, StateUnusableError, load
from streams.consumption import Batch, Gate
from streams.early_warnings import Tally
from streams.errors import ExitCode, UserError
from streams.faults import strike, strike_after
from streams.kafka_io import offsets_of, read_to_end, send_all, until_loaded
from streams.partition import Applied, PartitionState, Refused
from streams.settings import Settings
from streams.snapshots import encode_part, encode_rows
from streams.state_config import Counters, StateConfig
from streams.topic_reader import newest_values
from streams.topics import catalogue
from streams.withheld import shown_letter

log = structlog.get_logger(__name__)

CHECKPOINTS_AHEAD_MAX = 32  # cuts that may wait for their acknowledgement while reading goes on
RELOAD_PAUSE_S = 0.5
FAILURES_MAX = 3  # of one batch, before its lines are taken one by one


@dataclass
class Publication:
    """What a cut asks to be written: outputs first, then the checkpoint, then the group's offset."""

    outputs: list["asyncio.Future[Any]"]
    snapshots: list[tuple[bytes, bytes]]
    rows: list[tuple[bytes, bytes]]
    warnings: list[tuple[bytes, bytes]]
    checkpoint: list[StateRecord]
    offset: int
    counters: Counters
    tally: Tally


@dataclass
class Shard:
    """One input partition as this worker holds it."""

    tp: TP
    settings: Settings
    producer: AIOKafkaProducer
    gate: Gate
    seek: Callable[[TP, int], Any]
    spawn: Callable[[Coroutine[Any, Any, None]], None]  # runs something beside the agent
    observe_close: Callable[[float], None]  # told how long a batch took that closed windows, seconds
    state: PartitionState | None = None
    committable: int | None = None  # the offset up to which everything is stored
    stored: Counters = field(default_factory=Counters)  # as of the newest checkpoint acknowledged
    stored_warnings: Tally = field(default_factory=Tally)  # of the same
    holes: int = 0
    reloads: int = 0
    _ledger: Ledger = field(default_factory=Ledger)
    _queue: "asyncio.Queue[Publication]" = field(default_factory=lambda: asyncio.Queue(CHECKPOINTS_AHEAD_MAX))
    _letters: list["asyncio.Future[Any]"] = field(default_factory=list)
    _publisher: "asyncio.Task[None] | None" = None
    _reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False  # given back for good
    _sizes: dict[bytes, int] = field(default_factory=dict)  # of the live records of the newest checkpoint
    _failures: int = 0  # in a row, without getting past `_failed_until`
    _failed_until: int = -1  # last offset of the batches that failed
    _poison: dict[int, str] = field(default_factory=dict)  # offsets of lines that always fail, and how

    async def load(self) -> None:
        """Restore the newest checkpoint, or begin anew; then let the records after it pass."""
        await self._drop()
        topics = catalogue(self.settings)
        config = StateConfig.of(self.settings)
        records, _ = await read_to_end(self.settings, topics.state.name, self.tp.partition, committed=True)
        live = newest_values(records)
        try:
            found = load(self.tp.partition, config, live)
        except StateUnusableError as exc:
            raise UserError(
                str(exc),
                hint="go back to those settings, or use a new topic_prefix and replay the input",
                code=ExitCode.STATE,
            ) from exc
        state, self._ledger = found or (PartitionState(self.tp.partition, config), Ledger())
        first, end = await offsets_of(self.settings, self.tp.topic, self.tp.partition)
        if not first <= state.read_offset + 1 <= end:
            raise UserError(
                f"partition {self.tp.partition} of {self.tp.topic} holds offsets {first} to {end - 1}, "
                f"but the state was read up to {state.read_offset}: going on would leave a hole",
                hint="lines were deleted unread, or the topic was made anew: use another topic_prefix",
                code=ExitCode.STATE,
            )
        if self.closed:  # the partition went while its state was read
            return
        self.state = state
        self.stored, self.stored_warnings = replace(state.counters), Tally(**asdict(state.warnings.tally))
        self._sizes = {key: len(key) + len(value) for key, value in live.items()}
        self._queue = asyncio.Queue(CHECKPOINTS_AHEAD_MAX)
        self._publisher = asyncio.create_task(self._publish(self._queue))
        self._publisher.add_done_callback(partial(self._published, state))
        self.gate.open(self.tp, state.read_offset)
        await self.seek(self.tp, state.read_offset + 1)
        log.info("partition loaded", partition=self.tp.partition, next_offset=state.read_offset + 1, end=end)

    async def close(self) -> None:
        """Give the partition back; what was being written is abandoned, for it can be written again."""
        self.closed = True
        await self._drop()

    async def _drop(self) -> None:
        self.gate.close(self.tp)
        self.state = None
        self._letters.clear()
        if self._publisher is not None:
            self._publisher.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._publisher
            self._publisher = None
        while not self._queue.empty():  # nobody takes from it any more: whoever waits for room must go on
            self._queue.get_nowait()

    async def take(self, batch: Batch) -> None:
        """Apply a batch and hand on what follows from it."""
        state = self.state
        if state is None:
            return
        if batch.prev != state.read_offset:
            self.holes += 1
            log.warning(
                "records lost on the way, read again",
                partition=self.tp.partition,
                expected=state.read_offset + 1,
                got=batch.offsets[0],
            )
            self.gate.open(self.tp, state.read_offset)
            await self.seek(self.tp, state.read_offset + 1)
            return
        started = time.perf_counter()
        try:
            applied = self._apply(batch)
        except Exception as exc:  # noqa: BLE001  (whatever it is, the half-changed state must go)
            self._failures += 1
            self._failed_until = max(self._failed_until, batch.offsets[-1])
            await self.reload(state, "a batch failed", exc)
            return
        if any(cut.parts for cut in applied.cuts):
            self.observe_close(time.perf_counter() - started)
        if batch.offsets[-1] >= self._failed_until:
            self._failures = 0
        try:
            await self._hand_on(batch, applied)
        except Exception as exc:  # noqa: BLE001  (the state is ahead of what was handed on: it must go)
            await self.reload(state, "handing on failed", exc)

    def _apply(self, batch: Batch) -> Applied:
        """Apply a batch; line by line where batches failed again and again, to find the one to blame."""
        assert self.state is not None
        if self._failures < FAILURES_MAX and not self._poison:
            return self.state.apply(batch.offsets, batch.values, batch.headers)
        applied = Applied()
        for i, offset in enumerate(batch.offsets):
            try:
                value = None if offset in self._poison else batch.values[i]
                one = self.state.apply([offset], [value], [batch.headers[i]])
            except Exception as exc:
                self._poison[offset] = f"internal error: {exc!r}"
                raise
            applied.refused += [
                Refused(letter.offset, i, self._poison.get(offset, letter.reason)) for letter in one.refused
            ]
            applied.cuts += one.cuts
        return applied

    def _published(self, state: PartitionState, publisher: "asyncio.Task[None]") -> None:
        """Start anew where writing failed: what was not written is made again."""
        if not publisher.cancelled() and publisher.exception() is not None and not self.closed:
            self.spawn(self.reload(state, "publishing failed", publisher.exception()))

    async def reload(self, failed: PartitionState, why: str, exc: BaseException | None) -> None:
        """Start again from the newest checkpoint, unless another failure of the state was quicker."""
        async with self._reloading:
            if self.state is not failed:
                return
            self.reloads += 1
            log.error("partition is loaded anew", partition=self.tp.partition, why=why, exc_info=exc)
            await self._drop()
            await asyncio.sleep(RELOAD_PAUSE_S)
            await until_loaded(self.load)

    async def _hand_on(self, batch: Batch, applied: Applied) -> None:
        """Send dead letters at once; queue what the cuts ask for.

        While one waits here the partition may be given back or loaded anew: then nothing more is handed on.
        """
        state = self.state
        assert state is not None
        topics = catalogue(self.settings)
        for letter in applied.refused:
            sent = await self._send_letter(topics.dead_letters.name, batch, letter)
            if self.state is not state:
                return
            self._letters.append(sent)
        for cut in applied.cuts:
            snapshots = [
                record for part in cut.parts for record in encode_part(part, state.config.partitions)
            ]
            rows = [
                record
                for part in cut.parts
                if self.settings.scores and not part.partial
                for record in encode_rows(part, state.config.partitions)
            ]
            source, hop_s = self.settings.event_source, self.settings.hop_s
            warnings = [warned.record(source, hop_s) for warned in cut.warned]
            checkpoint = self._ledger.commit(cut, state.words)
            letters, self._letters = self._letters, []
            counters = Counters(**cut.head["counters"])
            tally = Tally(**cut.head["warnings"]["tally"])
            await self._queue.put(
                Publication(letters, snapshots, rows, warnings, checkpoint, cut.offset, counters, tally)
            )
            if self.state is not state:
                return

    async def _send_letter(self, topic: str, batch: Batch, letter: Refused) -> "asyncio.Future[Any]":
        i = letter.position
        key, value = batch.keys[i], batch.values[i]
        kept: list[tuple[str, Any]] = list(batch.headers[i])
        if self.settings.pseudonyms is not None:
            key, value, kept = shown_letter(
                value, kept, self.settings.pseudonyms, self.settings.field_mapping
            )
        headers = [
            *kept,
            ("dlq.topic", self.tp.topic.encode()),
            ("dlq.partition", b"%d" % self.tp.partition),
            ("dlq.offset", b"%d" % letter.offset),
            ("dlq.reason", letter.reason.encode(errors="replace")),
        ]
        future: asyncio.Future[Any] = await self.producer.send(
            topic, key=key, value=value, partition=self.tp.partition, headers=headers
        )
        return future

    async def _publish(self, queue: "asyncio.Queue[Publication]") -> None:
        """Write publications in their order; outputs are acknowledged before the checkpoint is sent."""
        topics = catalogue(self.settings)
        unconfirmed: deque[tuple[Publication, list[asyncio.Future[Any]]]] = deque()
        while True:
            if queue.empty() or len(unconfirmed) >= CHECKPOINTS_AHEAD_MAX:
                while unconfirmed:
                    done, futures = unconfirmed.popleft()
                    await asyncio.gather(*futures)
                    self._note_stored(done)
            item = await queue.get()
            rows = await send_all(self.producer, topics.rows.name, item.rows, partition=self.tp.partition)
            warnings = await send_all(
                self.producer, topics.warnings.name, item.warnings, partition=0, headers=cloudevents.HEADERS
            )
            sent = await self._send_outputs(topics.snapshots.name, item)
            await asyncio.gather(*item.outputs, *rows, *warnings, *sent)
            unconfirmed.append((item, await self._send_checkpoint(topics.state.name, item)))

    def _note_stored(self, done: Publication) -> None:
        """Take note that a checkpoint is acknowledged."""
        self.committable, self.stored, self.stored_warnings = done.offset, done.counters, done.tally
        for key, value in done.checkpoint:
            if value is None:
                self._sizes.pop(key, None)
            else:
                self._sizes[key] = len(key) + len(value)

    @property
    def stored_bytes(self) -> int:
        """Size of the newest checkpoint acknowledged, all its records; what was replaced is left out."""
        return sum(self._sizes.copy().values())

    async def _send_outputs(self, topic: str, item: Publication) -> list["asyncio.Future[Any]"]:
        if item.snapshots:
            strike(self.settings, "ingest:window_closed")
        return await self._send(topic, item.snapshots, 0, "ingest:output_begun", "ingest:outputs_sent")

    async def _send_checkpoint(self, topic: str, item: Publication) -> list["asyncio.Future[Any]"]:
        points = "ingest:checkpoint_begun", "ingest:checkpoint_sent"
        return await self._send(topic, item.checkpoint, self.tp.partition, *points)

    async def _send(
        self, topic: str, records: Sequence[StateRecord], partition: int, begun: str, done: str
    ) -> list["asyncio.Future[Any]"]:
        """Hand records to the producer; `begun` and `done` are the faults after the first and after all."""
        if not records:
            return []
        first = await send_all(self.producer, topic, records[:1], partition=partition)
        await strike_after(self.settings, begun, first)
        sent = first + await send_all(self.producer, topic, records[1:], partition=partition)
        await strike_after(self.settings, done, sent)
        return sent
