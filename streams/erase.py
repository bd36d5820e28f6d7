"""Erasing one customer: the score at once; of everything else, where the customer stands and until when."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from models.features import DAY_S
from models.registry import Registry, RegistryError
from streams.batch import registry_errors
from streams.broker_errors import connecting
from streams.checkpoints import StateUnusableError, load
from streams.decode import Decoder
from streams.erasures import Erasures
from streams.errors import ExitCode, UserError
from streams.grid import iso
from streams.kafka_access import python_client
from streams.settings import Settings
from streams.snapshots import named
from streams.state_config import StateConfig
from streams.topic_reader import read_all, read_live
from streams.topics import catalogue
from streams.transactions import canonical_customer_id
from streams.vocabulary import Vocabulary

ACK_TIMEOUT_S = 30.0
BATCH_RECORDS = 10_000


@dataclass(frozen=True)
class Held:
    """A place that holds something of the customer: how much, and when that will be gone."""

    place: str
    count: int  # of records, messages or files; of states, the partitions
    until: str
    renamed: bool = False  # whether `streams.rename` can put another name there


@dataclass(frozen=True)
class Findings:
    """Where a customer stands; `scored_in` are the partitions with a score of them."""

    name: str  # what the topics call the customer
    scored_in: tuple[int, ...]
    held: tuple[Held, ...]


def look(settings: Settings, customer: str) -> Findings:
    """Return where `customer` (the id as a person writes it) stands now; reads whole topics.

    Raises UserError: USAGE for an id that is none, STATE where topics are missing, BROKER.
    """
    name = settings.known_as(customer)
    if not name:
        raise UserError("the id of a customer is no empty text", code=ExitCode.USAGE)
    lines, last_time = _lines(settings, name)
    held = [
        Held(catalogue(settings).transactions.name, lines, "the topic's retention.ms: for ever, unless set"),
        Held(
            catalogue(settings).dead_letters.name,
            _letters(settings, name),
            "the topic's retention.ms: for ever, unless set",
        ),
        *_behind(settings, name, last_time),
    ]
    return Findings(name, _scored_in(settings, name), tuple(place for place in held if place.count))


def erase(settings: Settings, found: Findings) -> None:
    """Put the customer on the list of those not to be scored, then take their score out of the topic.

    Raises UserError: STORAGE where the list cannot be written, BROKER.
    """
    with registry_errors():
        Erasures(settings.registry_dir).add(found.name)
    with connecting(settings):
        producer = KafkaProducer(**python_client(settings), acks="all", enable_idempotence=True)
    try:
        for partition in found.scored_in:
            producer.send(
                catalogue(settings).scores.name, key=found.name.encode(), value=None, partition=partition
            ).get(timeout=ACK_TIMEOUT_S)
    except KafkaError as exc:
        raise UserError(
            f"the score could not be erased: {exc}", hint="run the command again", code=ExitCode.BROKER
        ) from exc
    finally:
        producer.close()


def _behind(settings: Settings, name: str, last_time: int | None) -> Iterator[Held]:
    """Yield the places behind the border."""
    topics, days = catalogue(settings), settings.window_days
    gone = "" if last_time is None else f", {iso(last_time + days * DAY_S)[:10]}"
    states = sum(_in_state(settings, partition, name) for partition in range(settings.partitions))
    yield Held(
        topics.state.name,
        states,
        f"the lines: {days} days of event time after the last one{gone}; the sums of a lifetime: as long as"
        " the topic",
        renamed=True,
    )
    chunks = _chunks(read_live(settings, topics.snapshots.name).values(), name)
    yield Held(
        topics.snapshots.name, chunks, "as long as the topic: past windows are compared with", renamed=True
    )
    rows = sum(
        _chunks(read_live(settings, topics.rows.name, partition).values(), name)
        for partition in range(settings.partitions)
    )
    yield Held(
        topics.rows.name,
        rows,
        f"the first window {days} days after the last line{gone}, then compaction",
        renamed=True,
    )
    versions = ", ".join(_references(settings, name))
    yield Held(
        f"reference rows of the models {versions}", bool(versions), "a version's directory is removed by hand"
    )


def _lines(settings: Settings, name: str) -> tuple[int, int | None]:
    """Return how many lines of the input are the customer's, and the latest event time of one."""
    times: list[int] = []
    for partition in range(settings.partitions):
        words = Vocabulary()
        decoder = Decoder(words, settings.field_mapping, settings.pseudonyms)
        code = words.customers[name]
        for batch in _batches(read_all(settings, catalogue(settings).transactions.name, partition)):
            lines = decoder.decode([r.value for r in batch], [r.headers for r in batch]).lines
            times += lines.time[lines.customer == code].tolist()
    return len(times), max(times, default=None)


def _batches(records: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(records, BATCH_RECORDS)):
        yield batch


def _letters(settings: Settings, name: str) -> int:
    """Return how many dead letters hold the customer's id in any of their fields."""
    topic = catalogue(settings).dead_letters.name
    return sum(
        _mentions(settings, record.value, name)
        for partition in range(settings.partitions)
        for record in read_all(settings, topic, partition)
    )


def _mentions(settings: Settings, value: bytes | None, name: str) -> bool:
    try:
        record = msgspec.json.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(record, dict) and any(_is(settings, told, name) for told in _leaves(record))


def _leaves(value: object) -> Iterator[object]:
    """Yield every single value in what JSON decodes to, however deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        else:
            yield one


def _is(settings: Settings, told: object, name: str) -> bool:
    try:
        customer = canonical_customer_id(told)
    except ValueError:
        return False
    return customer is not None and settings.known_as(customer) == name


def _in_state(settings: Settings, partition: int, name: str) -> bool:
    live = read_live(settings, catalogue(settings).state.name, partition)
    try:
        stored = load(partition, StateConfig.of(settings), live)
    except StateUnusableError as exc:
        raise UserError(str(exc), hint="use the settings of the worker", code=ExitCode.STATE) from exc
    if stored is None:
        return False
    state, _ = stored
    # Of a refused line the customer is remembered, though the line itself is nowhere.
    return name in state.words.customers or any(who == name for _, who in state.guard.witnesses)


def _chunks(held: Iterable[bytes], name: str) -> int:
    """Return how many messages of rows or lines name the customer; one that is none is passed over."""
    return sum(named(value, name) for value in held)


def _references(settings: Settings, name: str) -> Iterator[str]:
    """Yield the versions whose reference rows hold the customer; a damaged one cannot be looked into."""
    registry = Registry(settings.registry_dir)
    for version in registry.list_versions():
        try:
            rows = registry.load_reference(version)
        except RegistryError:
            yield f"{version} (damaged: not looked into)"
            continue
        if "CustomerID" in rows and (rows["CustomerID"] == name).any():
            yield version


def _scored_in(settings: Settings, name: str) -> tuple[int, ...]:
    """Return the partitions in which a score of the customer stands."""
    topic, key = catalogue(settings).scores.name, name.encode()
    return tuple(p for p in range(settings.partitions) if key in read_live(settings, topic, p))
