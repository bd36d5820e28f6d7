"""Another name in a customer's place: the same figures in checkpoints, snapshots and rows, and nobody's.

Verdicts, models and windows rest on those figures, so they stay. The name is drawn by chance and written down
nowhere: whoever knows the customer's own name finds nothing by it. All is written in one transaction.
"""

import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError

from streams import checkpoints, snapshots
from streams.batch import registry_errors
from streams.broker_errors import connecting
from streams.checkpoints import StateUnusableError
from streams.erasures import Erasures
from streams.errors import ExitCode, UserError
from streams.kafka_access import compression_type, python_client
from streams.rights import RENAMING, holders
from streams.settings import Settings
from streams.topic_reader import read_live
from streams.topics import MIB, catalogue

PREFIX = "erased-"
NAME_BYTES = 8
COMMIT_TIMEOUT_S = 60.0

Record = tuple[str, int, bytes, bytes | None]  # topic, partition, key, value; None is a tombstone


def rename(settings: Settings, name: str) -> int:
    """Put another name in the place of the customer `name`; return how many records were written for it.

    Workers and scores processes must be stopped: they would write the name again. Raises UserError: STATE
    where one of them runs or a checkpoint is damaged, STORAGE where the list of the erased cannot be
    written, BROKER where nothing was changed.
    """
    _nobody_works(settings)
    other = PREFIX + secrets.token_hex(NAME_BYTES)
    records = list(_records(settings, name, other))
    if not records:
        return 0
    with registry_errors():
        Erasures(settings.registry_dir).add(other)  # before anybody can come to score it
    try:
        _write(settings, records)
    except KafkaError as exc:
        raise UserError(
            f"the other name could not be written: {exc}",
            hint="nothing was changed; run the command again",
            code=ExitCode.BROKER,
        ) from exc
    return len(records)


def _nobody_works(settings: Settings) -> None:
    """Raise UserError (STATE) where a group has a member."""
    with connecting(settings):
        admin = KafkaAdminClient(**python_client(settings))
    try:
        working = [name for name in holders(settings) if _members(admin, name)]
    except KafkaError as exc:
        raise UserError(f"the groups cannot be looked at: {exc}", code=ExitCode.BROKER) from exc
    finally:
        admin.close()
    if working:
        raise UserError(
            f"processes are at work in {', '.join(working)}, and would write the name again",
            hint="stop workers and scores processes, run the command again, then start them",
            code=ExitCode.STATE,
        )


def _members(admin: KafkaAdminClient, group: str) -> int:
    told = admin.describe_groups([group])[group]
    return len(told.get("members") or ())


def _records(settings: Settings, name: str, other: str) -> Iterator[Record]:
    """Yield what is to be written, from what the topics hold now."""
    topics = catalogue(settings)
    for partition in range(settings.partitions):
        held = read_live(settings, topics.state.name, partition)
        try:
            changed = checkpoints.renamed(held, name, other)
        except StateUnusableError as exc:
            raise UserError(
                f"partition {partition} of {topics.state.name}: {exc}", code=ExitCode.STATE
            ) from exc
        yield from ((topics.state.name, partition, *record) for record in changed)
    for spec in (topics.snapshots, topics.rows):
        for partition in range(spec.partitions):
            held = read_live(settings, spec.name, partition)
            yield from ((spec.name, partition, *record) for record in _parts(held, name, other))


def _parts(held: Mapping[bytes, bytes], name: str, other: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield every message of the parts that the customer is in: a part is taken as new when all of it is."""
    parts: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for key in held:
        parts[key.rpartition(b"/")[0]].append(key)
    for keys in parts.values():
        if any(snapshots.named(held[key], name) for key in keys):
            yield from ((key, snapshots.renamed(held[key], name, other)) for key in keys)


def _write(settings: Settings, records: list[Record]) -> None:
    """Write all records or none."""
    with connecting(settings):
        producer = KafkaProducer(
            **python_client(settings),
            transactional_id=settings.topic(RENAMING),
            max_request_size=10 * MIB,
            compression_type=compression_type(settings),
        )
    try:
        producer.init_transactions()
        producer.begin_transaction()
        sent = [producer.send(topic, key=key, value=value, partition=p) for topic, p, key, value in records]
        # A commit waits without end for what the broker has refused.
        for future in sent:
            future.get(timeout=COMMIT_TIMEOUT_S)
        producer.commit_transaction()
    finally:
        producer.close(timeout=COMMIT_TIMEOUT_S)
