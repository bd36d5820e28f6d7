"""The live page's reader: follows the topics while somebody looks, in a thread and without a group.

A worker that nobody looks at reads nothing for the page. What is shown comes from the topics alone, so every
worker shows the same, and a restart forgets nothing.
"""

import secrets
import threading
import time
from collections.abc import Generator
from typing import Any

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from streams.settings import Settings
from streams.watch import ANSWER_MAX_MS, Reader, open_consumer
from streams.web.page_model import PageModel, Published
from streams.web.reports import report_days

log = structlog.get_logger(__name__)

LETTERS_BACK = 5_000  # dead letters of each partition that are looked back at
LINGER_S = 60.0  # that the reader goes on after the last one who looked
AGAIN_S = 2.0
FAILED_S = 30.0  # before the topics are read anew after what should not happen
BEAT_S = 10.0  # at least so often a stream says something: whoever left is noticed then


class PageReader(Reader):
    """Reads the topics into a page's model, dead letters too."""

    view: PageModel

    def __init__(self, consumer: KafkaConsumer, settings: Settings, view: PageModel) -> None:
        super().__init__(consumer, settings, view)
        self.letters = [TopicPartition(self.topics.dead_letters.name, p) for p in range(settings.partitions)]

    def _assign(self) -> None:
        super()._assign()
        if not self._assigned:
            return
        others = self.consumer.assignment()
        positions = {tp: self.consumer.position(tp, ANSWER_MAX_MS) for tp in others}
        ends = self.consumer.end_offsets(self.letters, ANSWER_MAX_MS)
        begins = self.consumer.beginning_offsets(self.letters, ANSWER_MAX_MS)
        starts = {tp: max(begins[tp], ends[tp] - LETTERS_BACK) for tp in self.letters}
        self.consumer.assign([*others, *self.letters])
        for tp, position in (positions | starts).items():
            self.consumer.seek(tp, position)

    def _note(self, record: Any) -> None:
        if record.topic != self.topics.dead_letters.name:
            super()._note(record)
            return
        told = {name: value.decode(errors="replace") for name, value in record.headers if value is not None}
        place = f"partition {told.get('dlq.partition', '?')}, offset {told.get('dlq.offset', '?')}"
        self.view.note_dead_letter(place, told.get("dlq.reason", "no reason given"))


class Follower:
    """Gives each who asks a stream of server-sent events: the whole state first, then what changes.

    An id names this follower and the revision, so that a stream that broke off goes on where it ended; any
    other id, of another worker or before a restart, gets the whole state.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._name = secrets.token_hex(4)
        self._changed = threading.Condition()
        self._published = Published()
        self._readers = 0
        self._left_at = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """End every stream and the thread that reads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(AGAIN_S)

    def events(self, last_id: str) -> Generator[bytes, None, None]:
        """Yield server-sent events until `close`; `last_id` is that of the last one which was received."""
        self._enter()
        try:
            yield b"retry: 2000\n\n"
            name, _, number = last_id.partition("-")
            seen = int(number) if name == self._name and number.isdecimal() else None
            while not self._closed:
                now = self._newer(seen)
                if now is None:
                    yield b"event: beat\ndata: {}\n\n"  # a page that hears none connects anew
                    continue
                kind, told = ("state", now.since(0)) if seen is None else ("change", now.since(seen))
                yield f"id: {self._name}-{now.revision}\nevent: {kind}\ndata: ".encode() + told + b"\n\n"
                seen = now.revision
        finally:
            with self._changed:
                self._readers -= 1
                self._left_at = time.monotonic()

    def _newer(self, seen: int | None) -> Published | None:
        """Wait for a revision other than `seen`; None where none came for a while."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._published.revision > 0 and self._published.revision != seen),
                timeout=BEAT_S,
            )
            now = self._published
        return now if now.revision not in {0, seen} and not self._closed else None

    def _enter(self) -> None:
        with self._changed:
            self._readers += 1
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="page", daemon=True)
                self._thread.start()

    def _wanted(self) -> bool:
        """Return whether to go on reading; after a no, the next who looks starts a new thread."""
        with self._changed:
            lingering = time.monotonic() - self._left_at < LINGER_S
            if not self._closed and (self._readers or lingering):
                return True
            self._thread = None
            # What was published so far grows old from here on, and so do the ids that were given out.
            self._name, self._published = secrets.token_hex(4), Published()
            return False

    def _run(self) -> None:
        while self._wanted():
            model = PageModel(self.settings.acting_detector)
            try:
                with open_consumer(self.settings) as consumer:
                    self._follow(PageReader(consumer, self.settings, model), model)
            except (KafkaError, OSError) as exc:
                model.waiting_for = (
                    f"the broker at {self.settings.bootstrap_servers} does not answer ({type(exc).__name__})"
                )
                self._publish(model)
                time.sleep(AGAIN_S)
            except Exception:
                # Whatever a topic holds: the page must not look alive while nobody reads for it any more.
                log.exception("the page's reader failed")
                self._publish(_unshown(self.settings))
                time.sleep(FAILED_S)

    def _follow(self, reader: Reader, model: PageModel) -> None:
        caught_up = False
        while self._wanted():
            reader.step()
            if not caught_up and not model.waiting_for:
                reader.read_to_ends()
                caught_up = True
            self._publish(model)

    def _publish(self, model: PageModel) -> None:
        days = report_days(self.settings.reports_dir)
        with self._changed:
            before, self._published = self._published, model.publish(self._published, reports=days)
            if self._published is not before:
                self._changed.notify_all()


def _unshown(settings: Settings) -> PageModel:
    """Return a model that says nothing but that the topics could not be shown."""
    model = PageModel(settings.acting_detector)
    model.waiting_for = "the topics could not be shown, see the log of this process; they are read anew"
    return model
