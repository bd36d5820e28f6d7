"""An installation of its own on the benchmark's broker: its settings, its processes, how far they are."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from programs import RUN_MAX_S, Usage, used, wait_until

from streams.checkpoints import newest_head
from streams.processes import Child, environment_of
from streams.roles import Role
from streams.settings import Settings
from streams.topic_reader import read_all
from streams.topics import catalogue

QUIET_S = 3.0  # a worker that wrote nothing for so long has written everything
SETTLE_S = 1.0  # the last partitions may still be loading where all have owners

Moment = tuple[float, Usage]  # of the monotonic clock, and what was used until then


def settings_of(servers: str, prefix: str, home: Path, **changes: object) -> Settings:
    """Return settings with names and directories of their own; nobody trains here."""
    usual = {"decision_wait_s": 0.1, "training_timeout_s": 0.05}
    return Settings(
        bootstrap_servers=servers,
        topic_prefix=prefix,
        kafka_dir=home / "kafka",
        registry_dir=home / "registry",
        reports_dir=home / "reports",
        **(usual | changes),
    )


def records(settings: Settings, topic: str) -> int:
    """Return the records ever written to a topic."""
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers)
    places = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)]
    found = sum(consumer.end_offsets(places).values())
    consumer.close()
    return found


def stored(settings: Settings) -> int:
    """Return the records of the input that the newest checkpoints cover."""
    topics, read = catalogue(settings), 0
    for partition in range(settings.partitions):
        found = read_all(settings, topics.state.name, partition)
        head = newest_head([(record.key, record.value) for record in found])
        read += head["read_offset"] + 1 if head else 0
    return read


def start_worker(settings: Settings, home: Path, role: Role = Role.INGEST) -> Child:
    """Start a worker of the installation with a log of its own in `home`."""
    log_path = home / f"{settings.topic_prefix}{role.value}-{time.monotonic_ns()}.log"
    arguments = ["worker", "--role", role.value, "--port", "0"]
    return Child.start(arguments, env=environment_of(settings), log_path=log_path)


def given_input() -> list[str]:
    """Return the input that `ONLINE_RETAIL` names as arguments of a replay; else that one chooses."""
    named = os.environ.get("ONLINE_RETAIL")
    return [named] if named else []


def start_replay(settings: Settings, home: Path, *arguments: str) -> Child:
    """Start a replay as fast as it can."""
    log_path = home / f"{settings.topic_prefix}replay.log"
    return Child.start(
        ["replay", *arguments, "--speed", "max"], env=environment_of(settings), log_path=log_path
    )


def replay(settings: Settings, home: Path, *arguments: str) -> None:
    """Replay to the end; SystemExit where that fails."""
    filling = start_replay(settings, home, *arguments)
    if filling.process.wait():
        raise SystemExit(filling.last_words())


def watch(
    settings: Settings, workers: Sequence[Child], *, filling: Child | None = None, poll_s: float = 0.01
) -> tuple[Moment, Moment]:
    """Return the moment of the call and that of the last output, when all of the input is stored.

    `filling` is what still writes the input; SystemExit where it fails or the whole takes too long.
    """
    pids = [child.process.pid for child in workers]
    first = last = time.monotonic(), used(pids)
    until = first[0] + RUN_MAX_S
    topics = catalogue(settings)
    places = [
        TopicPartition(spec.name, partition)
        for spec in (topics.state, topics.evaluations)
        for partition in range(spec.partitions)
    ]
    consumer, seen = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers), 0
    while True:
        written = sum(consumer.end_offsets(places).values())
        if written > seen:
            seen, last = written, (time.monotonic(), used(pids))
        if time.monotonic() > until:
            whole = records(settings, topics.transactions.name)
            raise SystemExit(f"the workers stored {stored(settings):,} of {whole:,} records")
        filled = filling is None or filling.poll() is not None
        if filled and time.monotonic() - last[0] > QUIET_S:
            if filling is not None and filling.poll():
                raise SystemExit(filling.last_words())
            if stored(settings) >= records(settings, topics.transactions.name):
                break
        time.sleep(poll_s)
    consumer.close()
    return first, last


def told(worker: Child, event: str) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield when a worker logged an event, wall time in seconds, and the whole entry."""
    for line in worker.log_path.read_text().splitlines():
        if f'"{event}"' in line:
            entry = json.loads(line)
            yield datetime.fromisoformat(entry["timestamp"]).timestamp(), entry


def loads(worker: Child) -> dict[int, float]:
    """Return when a worker last loaded each partition: wall time, seconds."""
    return {entry["partition"]: at for at, entry in told(worker, "partition loaded")}


def wait_spread(settings: Settings, workers: Sequence[Child]) -> None:
    """Return when every partition is loaded and each worker holds its share of them."""

    def spread() -> bool:
        newest = {}  # partition: (when it was loaded last, by which worker)
        for number, worker in enumerate(workers):
            for partition, at in loads(worker).items():
                newest[partition] = max(newest.get(partition, (at, number)), (at, number))
        held = Counter(number for _, number in newest.values())
        share = settings.partitions // len(workers)
        return len(newest) == settings.partitions and all(held[n] >= share for n in range(len(workers)))

    wait_until(spread, workers)
    time.sleep(SETTLE_S)
