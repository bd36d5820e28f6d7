"""The retrain consumer on a broker: the answers of a run over the file, once each, whatever is killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from retrain_story import NOWHERE, Story, gone

from models.registry import Registry, RegistryStorageError
from streams import cloudevents
from streams.decisions import Decision, Outcome
from streams.errors import ExitCode
from streams.retrain import GROUP, TRIES_MAX
from streams.retrain_answer import decide
from streams.retrain_child import kept
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

WAIT_S = 300
STOP_MAX_S = 25


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    return Story(tmp_path_factory.mktemp("told") / "registry")


@pytest.fixture
def short(settings, story) -> Settings:
    """The story's settings on the test's broker, topics and registry."""
    ours = settings.model_dump(exclude_unset=True)
    conf = Settings(**(story.settings.model_dump(exclude_unset=True) | ours))
    ensure_topics(conf)
    return conf


def produce(conf, topic, records):
    producer = KafkaProducer(bootstrap_servers=conf.bootstrap_servers, acks="all", enable_idempotence=True)
    sent = [producer.send(topic, key=key, value=value, partition=0) for key, value in records]
    for future in sent:
        future.get(timeout=60)
    producer.close()


def produce_snapshots(conf, story):
    produce(conf, catalogue(conf).snapshots.name, story.snapshots)


def produce_events(conf, events):
    records = [(item["id"].encode(), cloudevents.encode(item)) for item in events]
    produce(conf, catalogue(conf).events.name, records)


def written(conf):
    return list(read_all(conf, catalogue(conf).models.name))


def expected(conf, decisions):
    """The bytes that `backfill` gives for these topics: the `source` names the installation."""
    return [cloudevents.encode(decision | {"source": conf.event_source}) for decision in decisions]


def committed(conf) -> int | None:
    with KafkaAdminClient(bootstrap_servers=conf.bootstrap_servers) as admin:
        groups = admin.list_group_offsets([conf.topic(GROUP)])
    found = groups[conf.topic(GROUP)].get(TopicPartition(catalogue(conf).events.name, 0))
    return None if found is None else found.offset


def wait_committed(conf, offset: int) -> None:
    """Return when the group's position is `offset`: it is noted after the answer is told."""
    deadline = time.monotonic() + WAIT_S
    while (found := committed(conf)) != offset:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def environment(conf, **changes):
    given = conf.model_dump(mode="json", exclude_unset=True) | changes
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    named = {f"CLV_DRIFT_{name.upper()}": text for name, text in texts.items()}
    return {**os.environ, "PATH": path, **named, "CLV_DRIFT_LOG_FORMAT": "json"}


class Consumer:
    """`clv-drift retrain` as a process, and what it logs."""

    def __init__(self, process: subprocess.Popen, log_file: Path) -> None:
        self.process = process
        self.log_file = log_file

    def logged(self, what: str) -> list[dict]:
        lines = [line for line in self.log_file.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in map(json.loads, lines) if entry["event"] == what]

    def wait_for(self, what: str, count: int = 1) -> dict:
        deadline = time.monotonic() + WAIT_S
        while len(found := self.logged(what)) < count:
            assert time.monotonic() < deadline, self.log_file.read_text()
            assert self.process.poll() is None or self.logged(what), self.log_file.read_text()
            time.sleep(0.1)
        return found[count - 1]

    def stop(self) -> float:
        """Ask it to end; return how long that took, seconds."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WAIT_S) == 0, self.log_file.read_text()
        return time.monotonic() - begun


@pytest.fixture
def consume(tmp_path):
    """Start consumers; none is left at the end."""
    running = []

    def start(conf, **changes) -> Consumer:
        log_file = tmp_path / f"retrain-{len(running)}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                ["clv-drift", "retrain", "--port", "0"],
                stdout=log,
                stderr=log,
                env=environment(conf, **changes),
            )
        running.append(process)
        return Consumer(process, log_file)

    yield start
    for process in running:
        process.kill()
        process.wait()


@contextmanager
def held(pid: int):
    """Stop a process for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.broker
@pytest.mark.slow
def test_the_decisions_are_those_of_the_file_to_the_byte(short, story, consume):
    """Damaged messages, a window that comes after its request, an event that comes twice."""
    decided = len(story.decisions)
    events = story.events_to(story.requests[decided - 1])
    topics = catalogue(short)
    for topic in (topics.events.name, topics.models.name, topics.snapshots.name):
        produce(short, topic, [(b"k", b"{"), (b"k", b'{"data": {}, "type": "x"}')])
    produce_events(short, events)
    consumer = consume(short)
    consumer.wait_for("request waits")
    assert len(written(short)) == 2
    produce_snapshots(short, story)
    consumer.wait_for("request decided", decided)
    produce_events(short, events)
    consumer.wait_for("request stands decided", decided)
    found = written(short)[2:]
    assert [record.value for record in found] == expected(short, story.decisions)
    assert [record.key.decode() for record in found] == [r.request_id for r in story.requests[:decided]]
    assert [record.headers for record in found] == [cloudevents.HEADERS] * decided
    assert Registry(short.registry_dir).list_versions() == story.registry.list_versions()
    wait_committed(short, 2 + 2 * len(events))
    assert consumer.stop() < STOP_MAX_S
    # Each damaged message is reported once, however often its topic is read; no traceback, no other text.
    assert len(consumer.logged("message refused")) == 3
    assert all(line.startswith("{") for line in consumer.log_file.read_text().splitlines())


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "trained_again", "written_before"),
    [
        ("retrain:before_training", True, 0),
        ("retrain:in_training", True, 0),
        ("retrain:after_save", True, 0),
        ("retrain:before_commit", False, 1),
    ],
)
def test_a_kill_at_any_step_leaves_one_right_decision(
    short, story, consume, point, trained_again, written_before
):
    produce_snapshots(short, story)
    produce_events(short, story.events_to(story.requests[0]))
    killed = consume(short, fault=point)
    assert killed.process.wait(WAIT_S) == -signal.SIGKILL
    assert len(written(short)) == written_before
    assert not committed(short)
    for entry in killed.logged("training started"):
        deadline = time.monotonic() + WAIT_S
        while not gone(entry["child_pid"]):  # it notices that its parent is gone once it is up
            assert time.monotonic() < deadline
            time.sleep(0.1)
    if point == "retrain:after_save":
        assert Registry(short.registry_dir).list_versions() == [story.decisions[0]["data"]["version"]]
    second = consume(short)
    second.wait_for("request decided" if trained_again else "request stands decided")
    wait_committed(short, 1)
    second.stop()
    assert bool(second.logged("training started")) == trained_again
    assert [record.value for record in written(short)] == expected(short, story.decisions[:1])


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fault": "retrain-child:before_training"}, "the training process ended by signal 9"),
        ({"training_timeout_s": 0.2}, "the training gave no answer in 0.2 s"),
    ],
)
def test_training_that_fails_three_times_keeps_the_champion(short, story, consume, changes, reason):
    produce_snapshots(short, story)
    produce_events(short, story.events_to(story.requests[0]))
    consumer = consume(short, **changes)
    consumer.wait_for("request decided")
    assert len(consumer.logged("training started")) == TRIES_MAX
    wait_committed(short, 1)
    consumer.stop()
    (record,) = written(short)
    decision = Decision.from_event(cloudevents.decode(record.value))
    assert decision == kept(story.requests[0], f"no model in 3 tries: {reason}")


@pytest.mark.broker
@pytest.mark.slow
def test_a_request_that_expired_during_the_training_is_not_answered(short, story, consume):
    request = story.requests[0]
    produce_snapshots(short, story)
    produce_events(short, story.events_to(request))
    consumer = consume(short)
    expired = Decision(Outcome.EXPIRED, "too late", request.requested_at, request_id=request.request_id)
    value = cloudevents.encode(expired.to_event(short.event_source))
    with held(consumer.wait_for("training started")["child_pid"]):
        produce(short, catalogue(short).models.name, [(b"k", value)])
    assert consumer.wait_for("request stands decided")["outcome"] == "expired"
    wait_committed(short, 1)
    consumer.stop()
    assert [record.value for record in written(short)] == [value]


@pytest.mark.broker
@pytest.mark.slow
def test_an_interrupt_during_the_training_ends_the_child_and_commits_nothing(short, story, consume):
    produce_snapshots(short, story)
    produce_events(short, story.events_to(story.requests[0]))
    consumer = consume(short)
    child = consumer.wait_for("training started")["child_pid"]
    assert consumer.stop() < STOP_MAX_S
    assert gone(child)
    assert written(short) == []
    assert not committed(short)


@pytest.mark.broker
@pytest.mark.slow
def test_a_second_member_that_joins_during_the_training_does_no_harm(short, story, consume):
    produce_snapshots(short, story)
    produce_events(short, story.events_to(story.requests[0]))
    first = consume(short)
    with held(first.wait_for("training started")["child_pid"]):
        second = consume(short)
        second.wait_for("retrain consumer started")
        time.sleep(2)  # until the group has let it in
    wait_committed(short, 1)
    first.stop()
    second.stop()
    # Both may have answered; then both said the same, which counts once.
    assert {record.value for record in written(short)} == set(expected(short, story.decisions[:1]))


@pytest.mark.broker
@pytest.mark.slow
def test_a_broker_that_is_killed_is_waited_for(own_kafka, tmp_path, story, consume):
    own_kafka.start()
    places = {"bootstrap_servers": own_kafka.bootstrap_servers, "registry_dir": tmp_path / "registry"}
    conf = Settings(**(story.settings.model_dump(exclude_unset=True) | places | {"broker_wait_s": 60}))
    ensure_topics(conf)
    produce_snapshots(conf, story)
    produce_events(conf, story.events_to(story.requests[0]))
    consumer = consume(conf, broker_wait_s=3)
    with held(consumer.wait_for("training started")["child_pid"]):
        own_kafka.kill()
    consumer.wait_for("log of decisions not readable")
    own_kafka.start()
    consumer.wait_for("request decided")
    produce_events(conf, story.results.events[1:2])
    wait_committed(conf, 2)
    assert [record.value for record in written(conf)] == expected(conf, story.decisions[:1])
    own_kafka.kill()
    assert consumer.stop() < STOP_MAX_S


@pytest.mark.broker
def test_a_champion_that_cannot_be_loaded_stays(short, story):
    produce_snapshots(short, story)
    request = story.requests[1]
    decision = decide(short, request)
    reason = decision.reason
    assert decision == kept(request, reason)
    assert re.match(f"the champion cannot be loaded: model {request.champion} is not in the registry", reason)


@pytest.mark.broker
def test_a_registry_that_cannot_be_written_is_not_a_verdict(short, story):
    produce_snapshots(short, story)
    short.registry_dir.parent.mkdir(parents=True, exist_ok=True)
    short.registry_dir.write_text("a file where the directory should be")
    with pytest.raises(RegistryStorageError):
        decide(short, story.requests[0])


@pytest.mark.broker
def test_missing_topics_are_named(settings, consume):
    consumer = consume(settings)
    assert consumer.process.wait(WAIT_S) == ExitCode.STATE
    said = consumer.log_file.read_text()
    for name in ("clv.snapshots", "clv.drift.events", "clv.models", "clv-drift topics"):
        assert name in said
    assert "Traceback" not in said


def test_a_missing_broker_is_named(consume):
    consumer = consume(Settings(bootstrap_servers=NOWHERE, broker_wait_s=1))
    assert consumer.process.wait(WAIT_S) == ExitCode.BROKER
    said = consumer.log_file.read_text()
    assert f"no Kafka broker answered at {NOWHERE}" in said
    assert "Traceback" not in said
