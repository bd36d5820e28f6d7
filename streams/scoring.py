"""The scores process: every customer's predicted value, kept in a compacted topic for whoever subscribes.

A member of a group: each has some partitions. Once a partition's rows of a window are there, and the
evaluation that says which model served it, the customers are scored, and those who left get a tombstone. The
topic itself is the only state, so a process that is killed leaves nothing behind: what stands there is not
sent again. Of windows that close faster than they are scored only the newest counts.

Not covered: a process that was frozen while another took its partition over may write a few scores of an
older window after newer ones; the next window sets them right, and each message names its window.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Event
from typing import Any, Protocol

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from models.fitted import FrameError
from models.registry import Registry, RegistryError
from streams import cloudevents
from streams.broker_errors import asking
from streams.erasures import Erasures, without
from streams.errors import UserError
from streams.event_group import group_options
from streams.faults import strike
from streams.grid import iso
from streams.kafka_access import compression_type, python_client
from streams.model_cache import ModelCache
from streams.score_book import Champion, NewestRows, ScoreBook, champion_in
from streams.scores import score_messages
from streams.settings import Settings
from streams.topic_reader import read_all
from streams.topics import MIB, catalogue

log = structlog.get_logger(__name__)

GROUP = "clv-drift-scores"
POLL_MS = 500
FLUSH_TIMEOUT_S = 30.0
AGAIN_S = 2.0
CLOSE_TIMEOUT_S = 2.0
MODEL_AGAIN_S = 15.0


def run(settings: Settings, observer: "ScoresObserver", beat: Callable[[], None]) -> None:
    """Keep the scores until SIGTERM or SIGINT; call it from the main thread. `beat` is told that it goes on.

    Raises UserError: BROKER where none answers at the start.
    """
    stop = Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        with closing(Scorer(settings, observer, stop, beat)) as scorer:
            log.info("scores process started", group=settings.topic(GROUP))
            scorer.run()
        log.info("scores process stopped")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ScoresObserver(Protocol):
    """Whoever shows what the process does."""

    def observe_sent(self, scores: int, tombstones: int) -> None: ...  # noqa: D102
    def observe_scored(self, partition: int, customers: int, window_end: int) -> None: ...  # noqa: D102
    def observe_lost(self, partition: int) -> None: ...  # noqa: D102
    def observe_refused(self) -> None: ...  # noqa: D102


class GoneError(Exception):
    """The partition is another member's now."""


class Partition:
    """A partition of this member: what is to be scored, and what stands scored."""

    def __init__(self, book: ScoreBook) -> None:
        self.book = book
        self.rows = NewestRows()
        self.done: tuple[int, Champion] | None = None
        self.put_off: tuple[int, Champion] | None = None  # the last one that could not be scored
        self.not_before = 0.0  # of the clock that only rises


class Scorer(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python exports it untyped
    """Takes rows and evaluations in, and publishes what differs from what stands in the topic."""

    def __init__(
        self, settings: Settings, observer: ScoresObserver, stop: Event, beat: Callable[[], None]
    ) -> None:
        """Join the group; raises UserError (ExitCode.BROKER) where no broker answers."""
        self.settings = settings
        self.topics = catalogue(settings)
        self.partitions: dict[int, Partition] = {}
        self.champions: dict[int, Champion | None] = {}
        self._observer = observer
        self._stop = stop
        self._beat = beat
        self._failures: list[BaseException] = []
        self._models = ModelCache(Registry(settings.registry_dir))
        self._erasures = Erasures(settings.registry_dir)
        with asking(settings):
            self._group = KafkaConsumer(**group_options(settings, GROUP), max_partition_fetch_bytes=10 * MIB)
            self._evaluations = KafkaConsumer(
                **python_client(settings),
                client_id=settings.topic(GROUP),
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            self._producer = KafkaProducer(
                **python_client(settings),
                client_id=settings.topic(GROUP),
                acks="all",
                enable_idempotence=True,
                linger_ms=20,
                compression_type=compression_type(settings),
            )
        self._group.subscribe([self.topics.rows.name], listener=self)
        place = TopicPartition(self.topics.evaluations.name, 0)
        self._evaluations.assign([place])
        self._evaluations.seek_to_beginning(place)

    def close(self) -> None:
        """Leave the group."""
        self._producer.close(timeout=CLOSE_TIMEOUT_S)
        self._evaluations.close(autocommit=False, timeout_ms=round(CLOSE_TIMEOUT_S * 1_000))
        self._group.close(autocommit=False, timeout_ms=round(CLOSE_TIMEOUT_S * 1_000))

    # -- the group ----------------------------------------------------------

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Forget what another member will keep from now on."""
        for place in revoked:
            self.partitions.pop(place.partition, None)
            self._observer.observe_lost(place.partition)

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Read the rows of a new partition from the beginning: nothing else says what is to be scored."""
        for place in assigned:
            self._group.seek_to_beginning(place)
        self._group.resume(*assigned)  # one that is kept through a rebalance stays paused otherwise

    # -- the loop -----------------------------------------------------------

    def run(self) -> None:
        """Go on until `stop` is set."""
        while not self._stop.is_set():
            self._beat()
            try:
                self._take()
                self._score_what_is_due()
            except (KafkaError, UserError) as exc:
                log.warning("the broker does not answer, trying again", reason=str(exc) or repr(exc))
                self._begin_anew()
                self._stop.wait(AGAIN_S)

    def _begin_anew(self) -> None:
        """Forget what was taken to be written: the topic will tell what is."""
        self.partitions.clear()
        self._failures.clear()
        for place in self._group.assignment():
            self._group.seek_to_beginning(place)
        self._group.resume(*self._group.assignment())

    def _take(self) -> None:
        """Take in what has come: rows first, for their evaluations come later."""
        self._take_rows(POLL_MS)
        while batch := self._evaluations.poll(timeout_ms=0):
            for record in (record for found in batch.values() for record in found):
                self._pass(record, self._note_evaluation)

    def _take_rows(self, timeout_ms: int) -> None:
        for found in self._group.poll(timeout_ms=timeout_ms).values():
            for record in found:
                self._pass(record, lambda one: self._partition(one.partition).rows.add(one.value or b""))

    def _pass(self, record: Any, take: Callable[[Any], None]) -> None:
        """Hand a record on; one that is not what it should be is passed over."""
        try:
            take(record)
        except ValueError as exc:
            self._observer.observe_refused()
            log.error(
                "message refused",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                reason=str(exc),
            )

    def _note_evaluation(self, record: Any) -> None:
        if record.value is not None:
            end, champion = champion_in(record.value)
            self.champions[end] = champion
            self.champions = {e: c for e, c in self.champions.items() if e >= end - 8 * self.settings.hop_s}

    def _partition(self, number: int) -> Partition:
        """Return a partition of this member; what stands scored in it is read when it is first met."""
        if number not in self.partitions:
            book = ScoreBook()
            for record in read_all(self.settings, self.topics.scores.name, number):
                self._pass(record, lambda one: book.read(one.key or b"", one.value))
            self.partitions[number] = Partition(book)
            log.info("partition loaded", partition=number, customers=len(book))
        return self.partitions[number]

    def _score_what_is_due(self) -> None:
        for number, partition in list(self.partitions.items()):
            end = partition.rows.window_end
            if end is None or not partition.rows.whole or not self._has(number, partition):
                continue
            champion = self.champions.get(end)
            if (
                champion is None
                or partition.done == (end, champion)
                or end < (partition.book.window_end or end)
                or time.monotonic() < partition.not_before
            ):
                continue
            try:
                self._score(number, partition, end, champion)
            except GoneError:
                log.info("partition given back while it was scored", partition=number)
            except (RegistryError, FrameError) as exc:
                self._put_off(partition, (end, champion), number, exc)

    def _has(self, number: int, partition: Partition) -> bool:
        """Return whether a partition is still this member's, and was not read anew meanwhile."""
        return self.partitions.get(number) is partition

    def _put_off(self, partition: Partition, what: tuple[int, Champion], number: int, exc: Exception) -> None:
        """Try again in a while: a model may be on its way, a disk may come back. Said and counted once."""
        partition.not_before = time.monotonic() + MODEL_AGAIN_S
        if partition.put_off != what:
            partition.put_off = what
            self._observer.observe_refused()
            log.error("window not scored yet", partition=number, window_end=iso(what[0]), reason=str(exc))

    # -- one window of one partition ----------------------------------------

    def _score(self, number: int, partition: Partition, end: int, champion: Champion) -> None:
        started, present, sent = time.monotonic(), set[str](), 0
        for key, value in self._messages(partition, end, champion, present):
            self._send(number, key, value)
            sent += 1
            if sent % self.settings.scores_per_second_max == 0:
                strike(self.settings, "scores:in_window")
                self._pace(number, partition, started + sent / self.settings.scores_per_second_max)
        self._take_rows(0)  # a rebalance is noticed here, before anybody is taken to have left
        if not self._has(number, partition):
            raise GoneError
        left = partition.book.gone(present)
        for customer in left:
            self._send(number, customer, None)
        self._flush()
        partition.done, partition.book.window_end = (end, champion), end
        self._observer.observe_sent(sent, len(left))
        self._observer.observe_scored(number, len(present), end)
        log.info(
            "window scored",
            partition=number,
            window_end=iso(end),
            model_version=champion.version,
            customers=len(present),
            sent=sent,
            tombstones=len(left),
        )

    def _messages(
        self, partition: Partition, end: int, champion: Champion, present: set[str]
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the scores that differ from what stands there; put everyone into `present`.

        Who was erased is as one who left.
        """
        model, card = self._models.load(champion.version)
        erased = self._erasures.digests()
        for rows in partition.rows.tables():
            scored = score_messages(
                rows, model, card, champion.cuts, window_end=end, source=self.settings.event_source
            )
            for customer, value in without(scored, erased):
                present.add(customer)
                if partition.book.news(customer, value):
                    yield customer, value

    def _send(self, number: int, customer: str, value: bytes | None) -> None:
        self._producer.send(
            self.topics.scores.name,
            key=customer.encode(),
            value=value,
            partition=number,
            headers=cloudevents.HEADERS if value is not None else [],
        ).add_errback(self._failures.append)

    def _flush(self) -> None:
        """Wait until the broker has acknowledged everything; raises KafkaError where it did not."""
        self._producer.flush(timeout=FLUSH_TIMEOUT_S)
        if self._failures:
            raise self._failures[0]

    def _pace(self, number: int, partition: Partition, until: float) -> None:
        """Wait until then, as a member who takes no rows; GoneError where the partition went away."""
        self._flush()
        self._group.pause(*self._group.assignment())
        try:
            while True:
                self._beat()
                left_s = until - time.monotonic()
                self._take_rows(max(0, min(POLL_MS, round(left_s * 1_000))))  # what a rebalance lets through
                if self._stop.is_set() or not self._has(number, partition):
                    raise GoneError
                if left_s <= 0:
                    return
        finally:
            self._group.resume(*self._group.assignment())
