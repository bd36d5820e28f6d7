"""The terminal view's edge: what it reads from Kafka, without a group, and the screen it draws on."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from rich.console import Console
from rich.live import Live

from streams import cloudevents
from streams.checkpoints import StateUnusableError, newest_head
from streams.comparisons import REQUESTED
from streams.kafka_access import python_client
from streams.settings import Settings
from streams.topic_admin import connect_check
from streams.topics import MIB, Catalogue, catalogue
from streams.watch_model import View
from streams.watch_page import Page

REFRESH_S = 1.0
RATE_LOOK_S = 1.0  # between the two looks at the topic's end of a single snapshot
ANSWER_MAX_MS = 5_000
TAIL_RECORDS = 50  # of a state partition, read back first; more if no head is among them


def watch(settings: Settings, console: Console, *, once: bool) -> None:
    """Show the state of the stream until it is interrupted; once where `once` or without a terminal.

    Raises UserError (ExitCode.BROKER) where no broker answers at the start; one that falls silent later is
    waited for.
    """
    # What the client says about a lost connection would break the screen; the view says it itself.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    connect_check(settings)
    view = View(settings.acting_detector)
    with open_reader(settings, view) as reader:
        if once or not console.is_terminal:
            _once(reader, view)
            console.print(Page(view, place=_place(settings)))
            return
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                reader.step()
                live.update(Page(view, place=_place(settings), height=console.height), refresh=True)


def _once(reader: "Reader", view: View) -> None:
    """Read everything up to its present end, and look at the feed twice for its rate."""
    reader.step()
    if not view.waiting_for:
        reader.read_to_ends()
        time.sleep(RATE_LOOK_S)
        reader.look_at_feed()


def _place(settings: Settings) -> str:
    prefix = f", prefix {settings.topic_prefix}" if settings.topic_prefix else ""
    return f"{settings.bootstrap_servers}{prefix}"


class Reader:
    """Reads the topics into a view; nothing is committed, nothing is written."""

    def __init__(self, consumer: KafkaConsumer, settings: Settings, view: View) -> None:
        self.consumer = consumer
        self.settings = settings
        self.view = view
        self.topics: Catalogue = catalogue(settings)
        self.inputs = [TopicPartition(self.topics.transactions.name, p) for p in range(settings.partitions)]
        self.states = [TopicPartition(self.topics.state.name, p) for p in range(settings.partitions)]
        self._answered_at = time.monotonic()
        self._assigned = False

    def step(self) -> None:
        """Take what has come within `REFRESH_S`; note in the view what has to be waited for."""
        until = time.monotonic() + REFRESH_S
        try:
            if not self._assigned:
                self._assign()
            if self._assigned:
                self._take(self.consumer.poll(timeout_ms=round(REFRESH_S * 500)))
                self.look_at_feed()
                self.view.waiting_for = ""
            self._answered_at = time.monotonic()
        except KafkaError as exc:
            silent_s = time.monotonic() - self._answered_at
            self.view.waiting_for = (
                f"the broker at {self.settings.bootstrap_servers} has not answered for {silent_s:.0f} s"
                f" ({type(exc).__name__})"
            )
        time.sleep(max(0.0, until - time.monotonic()))

    def read_to_ends(self) -> None:
        """Read the assigned topics to where they end now."""
        self._read_until(self.consumer.end_offsets(list(self.consumer.assignment()), ANSWER_MAX_MS))

    def look_at_feed(self) -> None:
        """Note where the input topic ends."""
        ends = self.consumer.end_offsets(self.inputs, ANSWER_MAX_MS)
        self.view.feed.note_ends(time.monotonic(), {tp.partition: end for tp, end in ends.items()})

    def _assign(self) -> None:
        """Begin to read, if every topic is there."""
        missing = sorted({spec.name for spec in self.topics.specs} - self.consumer.topics())
        if missing:
            self.view.waiting_for = f"no topic {', '.join(missing)}: `clv-drift topics` creates them"
            return
        self._read_state()
        topics = self.topics
        logs = [topics.evaluations, topics.events, topics.models, topics.comparisons, topics.warnings]
        log_partitions = [TopicPartition(spec.name, 0) for spec in logs]
        positions = {tp: self.consumer.position(tp) for tp in self.states}
        self.consumer.assign([*self.states, *log_partitions])
        for tp, position in positions.items():
            self.consumer.seek(tp, position)
        self.consumer.seek_to_beginning(*log_partitions)
        self._assigned = True

    def _read_state(self) -> None:
        """Read the state partitions from their ends backwards as far as their newest heads."""
        self.consumer.assign(self.states)
        begins = self.consumer.beginning_offsets(self.states, ANSWER_MAX_MS)
        ends = self.consumer.end_offsets(self.states, ANSWER_MAX_MS)
        length = TAIL_RECORDS
        while True:
            starts = {
                tp: ends[tp] if tp.partition in self.view.feed.heads else max(begins[tp], ends[tp] - length)
                for tp in self.states
            }
            for tp, start in starts.items():
                self.consumer.seek(tp, start)
            self._read_until(ends)
            if all(starts[tp] in {begins[tp], ends[tp]} for tp in self.states):
                return
            length *= 4

    def _read_until(self, ends: dict[TopicPartition, int]) -> None:
        # The position, not the last record: compaction may have removed what stood before the end.
        while any((self.consumer.position(tp, ANSWER_MAX_MS) or 0) < end for tp, end in ends.items()):
            self._take(self.consumer.poll(timeout_ms=200))

    def _take(self, fetched: dict[TopicPartition, list[Any]]) -> None:
        heads: dict[int, list[Any]] = defaultdict(list)
        for tp, records in fetched.items():
            if tp.topic == self.topics.state.name:
                heads[tp.partition] += [(record.key, record.value) for record in records]
                continue
            for record in records:
                if record.value is not None:
                    self._note(record)
        for partition, records in heads.items():
            try:
                head = newest_head(records)
            except StateUnusableError:
                self.view.unreadable += 1
            else:
                if head is not None:
                    self.view.feed.note_head(partition, head)

    def _note(self, record: Any) -> None:
        """Hand a message to the view; one that cannot be understood is counted."""
        view = self.view
        notes: dict[str, Callable[[dict[str, Any]], None]] = {
            self.topics.evaluations.name: view.note_evaluation,
            self.topics.events.name: view.note_event,
            self.topics.comparisons.name: view.note_comparison,
            self.topics.warnings.name: view.note_warning,
            self.topics.models.name: lambda event: view.note_decision(record.offset, event),
        }
        try:
            event = cloudevents.decode(record.value)
            if event["type"] != REQUESTED:
                notes[record.topic](event)
        except (KeyError, TypeError, ValueError):
            view.unreadable += 1


@contextmanager
def open_reader(settings: Settings, view: View) -> Iterator[Reader]:
    """Give a reader that fills `view`."""
    with open_consumer(settings) as consumer:
        yield Reader(consumer, settings, view)


def open_consumer(settings: Settings) -> KafkaConsumer:
    """Return a consumer without a group, to be closed; raises KafkaError where no broker answers."""
    return KafkaConsumer(
        **python_client(settings),
        client_id=settings.topic("clv-drift-watch"),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        bootstrap_timeout_ms=round(settings.broker_wait_s * 1000),
        reconnect_backoff_max_ms=1_000,
        max_partition_fetch_bytes=10 * MIB,
    )
