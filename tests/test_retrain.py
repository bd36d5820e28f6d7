"""The retrain consumer: the answers of a run over the file, once each, whatever is killed and when."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import line_factory
import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from models.registry import Registry, RegistryStorageError
from streams import backfill, cloudevents
from streams.carry import Request
from streams.decisions import Decision, Outcome
from streams.errors import ExitCode
from streams.grid import from_iso
from streams.history import History
from streams.partition import PartitionState
from streams.retrain import GROUP, PAUSE_MAX_S, TRIES_MAX, pauses, request_in
from streams.retrain_answer import NoSuchWindowError, WindowNotThereError, decide, history_until
from streams.retrain_child import Failed, Later, Training, kept
from streams.retraining import answer
from streams.settings import Settings
from streams.snapshots import encode_part
from streams.state_config import StateConfig
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

PARTITIONS = 2
WEEKS, PRICES_FROM_WEEK = 11, 8
WAIT_S = 120
STOP_MAX_S = 5
NOWHERE = "127.0.0.1:9"  # nothing listens there


class Story:
    """A stream of eleven weeks as a file tells it: a first model, prices that rise, a second request."""

    def __init__(self, directory: Path) -> None:
        self.settings = line_factory.settings(partitions=PARTITIONS)
        self.registry = Registry(directory)
        prices_from = line_factory.MONDAY + PRICES_FROM_WEEK * line_factory.WEEK_S
        lines = line_factory.shop(
            5, days=WEEKS * 7, customers=400, orders_a_day=120, price_factor=2.5, price_from=prices_from
        )
        self.records = list(line_factory.records_of(lines, self.settings, PARTITIONS))
        self.results = backfill.run(self.records, self.settings, self.registry, partitions=PARTITIONS)
        self.snapshots = list(self._messages())
        self.requests = [request for event in self.results.events if (request := request_in(event))]
        by_request = {event["data"]["request_id"]: event for event in self.results.decisions}
        self.decisions = [by_request[r.request_id] for r in self.requests if r.request_id in by_request]

    def _messages(self):
        """What the workers write into the topic of snapshots: one partition's all, then the other's."""
        for partition in range(PARTITIONS):
            log = [record for record in self.records if record.partition == partition]
            state = PartitionState(partition, StateConfig.of(self.settings))
            applied = state.apply(range(len(log)), [r.value for r in log], [r.headers for r in log])
            for cut in applied.cuts:
                for part in cut.parts:
                    yield from encode_part(part, PARTITIONS)

    def events_to(self, request: Request) -> list[dict]:
        """The log of events up to the one that is `request`."""
        ids = [event["id"] for event in self.results.events]
        return self.results.events[: ids.index(request.request_id) + 1]

    def answered(self, request: Request, training_windows_max: int, history: History) -> bytes:
        changed = self.settings.model_copy(update={"training_windows_max": training_windows_max})
        champion = self.registry.load(request.champion)[0] if request.champion else None
        return cloudevents.encode(answer(history, request, champion, changed).decision.to_event("/test"))


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    told = Story(tmp_path_factory.mktemp("told") / "registry")
    assert len(told.decisions) >= 2
    assert told.requests[0].champion is None
    assert told.requests[1].champion == told.decisions[0]["data"]["version"]
    return told


@pytest.fixture
def short(settings, story) -> Settings:
    """The story's settings on the test's broker, topics and registry."""
    ours = settings.model_dump(exclude_unset=True)
    conf = Settings(**(story.settings.model_dump(exclude_unset=True) | ours))
    ensure_topics(conf)
    return conf


# -- pure ---------------------------------------------------------------------------------------------------


def event(**changes):
    data = {
        "action": "retrain",
        "window_end": "2011-02-14T00:00:00Z",
        "effective_from": "2011-02-21T00:00:00Z",
        "model_version": None,
    }
    return {"id": "e1", "type": "clv.reference.ready.v1", "data": data | changes}


def test_a_request_is_read_from_its_event():
    first = request_in(event())
    assert first == Request("e1", from_iso("2011-02-14T00:00:00Z"), from_iso("2011-02-21T00:00:00Z"), None)
    assert request_in(event(model_version="7d137e3f9881cd29")).champion == "7d137e3f9881cd29"


@pytest.mark.parametrize("action", ["none", "recalibrate", "ask", None])
def test_other_events_ask_for_no_model(action):
    assert request_in(event(action=action, effective_from=None)) is None


@pytest.mark.parametrize(
    "changes", [{"effective_from": None}, {"window_end": "soon"}, {"model_version": 7}, {"window_end": 5}]
)
def test_a_request_that_is_not_whole_is_refused(changes):
    with pytest.raises(ValueError, match="not a request"):
        request_in(event(**changes))


def test_requests_of_the_evaluator_are_read_back(story):
    carried = {
        Request(*map(request.get, ("request_id", "requested_at", "effective_from", "champion")))
        for evaluation in story.results.evaluations
        for request in evaluation["data"]["carry"]["pending"]
    }
    assert set(story.requests) == carried


def test_pauses_grow_within_bounds():
    waits = list(islice(pauses(), 20))
    assert waits == sorted(waits)
    assert 0 < waits[0] < 1
    assert waits[-1] == waits[-2] == PAUSE_MAX_S


# -- history ------------------------------------------------------------------------------------------------


def values(story):
    return [value for _, value in story.snapshots]


def whole_history(story) -> History:
    history = History()
    for snapshot in story.results.snapshots:
        history.add(snapshot)
    return history


@pytest.mark.parametrize("windows_max", [1, 2, 52])
@pytest.mark.parametrize("number", [0, 1])
def test_what_is_forgotten_or_comes_later_does_not_change_the_answer(story, windows_max, number):
    request = story.requests[number]
    conf = story.settings.model_copy(update={"training_windows_max": windows_max})
    history = history_until(request.requested_at, values(story), conf, pytest.fail)
    whole = whole_history(story)
    assert max(history.windows) == request.requested_at < max(whole.windows)
    if (number, windows_max) == (1, 1):
        assert min(history.windows) > min(whole.windows)
    assert story.answered(request, windows_max, history) == story.answered(request, windows_max, whole)


def test_the_history_waits_for_its_window_in_every_partition(story):
    end = story.requests[0].requested_at
    both = values(story)
    with pytest.raises(WindowNotThereError, match="2011-02-14"):
        history_until(end, both[: len(both) // 2], story.settings, pytest.fail)


def test_a_window_that_never_was_is_not_waited_for(story):
    between = story.requests[0].requested_at - 86_400
    with pytest.raises(NoSuchWindowError, match="2011-02-13"):
        history_until(between, values(story), story.settings, pytest.fail)


def test_damaged_messages_and_tombstones_are_passed_over(story):
    end = story.requests[0].requested_at
    refused = []
    messages = [None, b"", b"no snapshot", *values(story)]
    history = history_until(end, messages, story.settings, refused.append)
    assert len(refused) == 2
    assert max(history.windows) == end


# -- child --------------------------------------------------------------------------------------------------


def reply_of(training):
    deadline = time.monotonic() + WAIT_S
    while (reply := training.reply()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return reply


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


REQUEST = Request("e1", from_iso("2011-02-14T00:00:00Z"), from_iso("2011-02-21T00:00:00Z"), None)


def test_a_child_without_a_broker_asks_for_patience():
    with Training(Settings(bootstrap_servers=NOWHERE, broker_wait_s=0.5), REQUEST) as training:
        reply = reply_of(training)
    assert isinstance(reply, Later)
    assert NOWHERE in reply.reason


def test_a_child_that_is_killed_has_failed():
    with Training(Settings(bootstrap_servers=NOWHERE), REQUEST) as training:
        os.kill(training.pid, signal.SIGKILL)
        assert reply_of(training) == Failed("the training process ended by signal 9")


def test_a_child_that_takes_too_long_has_failed_and_is_ended():
    with Training(Settings(bootstrap_servers=NOWHERE, training_timeout_s=0.1), REQUEST) as training:
        reply = reply_of(training)
        assert not gone(training.pid)
    assert reply == Failed("the training gave no answer in 0.1 s")
    assert gone(training.pid)


# -- with a broker ------------------------------------------------------------------------------------------


def produce(conf, topic, records):
    producer = KafkaProducer(bootstrap_servers=conf.bootstrap_servers, acks="all", enable_idempotence=True)
    sent = [producer.send(topic, key=key, value=value, partition=0) for key, value in records]
    for future in sent:
        future.get(timeout=30)
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
                ["clv-drift", "retrain", "--port", "0"], stderr=log, env=environment(conf, **changes)
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
    assert consumer.stop() < STOP_MAX_S
    assert committed(short) == 2 + 2 * len(events)
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
    second.stop()
    assert bool(second.logged("training started")) == trained_again
    assert [record.value for record in written(short)] == expected(short, story.decisions[:1])
    assert committed(short) == 1


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
    consumer.stop()
    (record,) = written(short)
    decision = Decision.from_event(cloudevents.decode(record.value))
    assert decision == kept(story.requests[0], f"no model in 3 tries: {reason}")
    assert committed(short) == 1


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
    consumer.stop()
    assert [record.value for record in written(short)] == [value]
    assert committed(short) == 1


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
    deadline = time.monotonic() + WAIT_S
    while committed(short) != 1:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    first.stop()
    second.stop()
    # Both may have answered; then both said the same, which counts once.
    assert {record.value for record in written(short)} == set(expected(short, story.decisions[:1]))


@pytest.mark.broker
@pytest.mark.slow
def test_a_broker_that_is_killed_is_waited_for(own_kafka, tmp_path, story, consume):
    own_kafka.start()
    places = {"bootstrap_servers": own_kafka.bootstrap_servers, "registry_dir": tmp_path / "registry"}
    conf = Settings(**(story.settings.model_dump(exclude_unset=True) | places | {"broker_wait_s": 3}))
    ensure_topics(conf)
    produce_snapshots(conf, story)
    produce_events(conf, story.events_to(story.requests[0]))
    consumer = consume(conf)
    with held(consumer.wait_for("training started")["child_pid"]):
        own_kafka.kill()
    consumer.wait_for("log of decisions not readable")
    own_kafka.start()
    consumer.wait_for("request decided")
    produce_events(conf, story.results.events[1:2])
    deadline = time.monotonic() + WAIT_S
    while committed(conf) != 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
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
