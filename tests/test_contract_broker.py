"""The contract on a real broker: all that processes write, and those who subscribe to it."""

import itertools
import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from functools import cache
from pathlib import Path

import pytest
from contract_schemas import PROJECT, contract, problems, problems_of_event
from kafka import KafkaProducer
from line_factory import MONDAY, WEEK_S, records_of, settings, shop
from stream_run import StreamRun, running

from models.registry import Registry
from streams import cloudevents
from streams.backfill import Results, run
from streams.grid import iso
from streams.settings import Settings
from streams.snapshots import decode_chunk
from streams.topic_reader import read_all
from streams.topics import TopicSpec, catalogue
from streams.watch import open_reader
from streams.watch_model import View

sys.path.insert(0, str(PROJECT / "docs" / "examples"))
import rebuild_state

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

PARTITIONS = 2
WAIT_S = 180
LOOK_S = 1.0  # between two looks: each reads whole topics, and takes the time from those that are tested


class Told:
    """One installation that has read a small shop to its end: prices triple in the eighth week."""

    def __init__(self, conf: Settings, expected: Results) -> None:
        self.conf, self.topics, self.expected = conf, catalogue(conf), expected

    def read(self, spec: TopicSpec) -> list:
        return [record for p in range(spec.partitions) for record in read_all(self.conf, spec.name, p)]

    @cache  # noqa: B019  (one for the module; nothing is written any more)
    def records(self, spec_name: str) -> list:
        return self.read(getattr(self.topics, spec_name))

    def events(self, name: str) -> list[dict]:
        return [cloudevents.decode(record.value) for record in self.records(name) if record.value is not None]

    def is_complete(self, stream: StreamRun) -> bool:
        """Whether the last window is evaluated, every whole one compared, and all customers scored."""
        time.sleep(LOOK_S)
        if not stream.ended():
            return False
        compared = {record.key.decode() for record in self.read(self.topics.comparisons)}
        whole = {key for key in stream.evaluations() if key != max(stream.evaluations())}
        scores = {record.key.decode(): record.value for record in self.read(self.topics.scores)}
        return whole <= compared and {k: v for k, v in scores.items() if v} == self.expected.scores


@pytest.fixture(scope="module")
def told(bootstrap_servers, tmp_path_factory) -> Told:
    place = tmp_path_factory.mktemp("contract")
    conf = settings(
        bootstrap_servers=bootstrap_servers,
        broker_wait_s=60,
        topic_prefix=f"t{uuid.uuid4().hex[:8]}.",
        partitions=PARTITIONS,
        registry_dir=place / "registry",
        reports_dir=place / "reports",
        harm_gate=True,
        confirm_windows=1,
        detectors=("baseline",),
        gate_probability=0.5,
        cooldown_days=28,
        decision_wait_s=600.0,
        training_timeout_s=300.0,
    )
    prices = {"price_factor": 3.0, "price_from": MONDAY + 7 * WEEK_S}
    lines = shop(5, days=70, customers=360, orders_a_day=36, **prices)
    records = list(records_of(lines, conf, PARTITIONS))
    expected = run(records, conf, Registry(place / "expected"), partitions=PARTITIONS)
    with running(conf, place / "logs") as stream:
        stream.worker()
        stream.retrain()
        stream.start("scores", "--port", "0")
        produce(conf, records)
        found = Told(conf, expected)
        stream.wait_for(lambda: found.is_complete(stream), timeout_s=600)
    return found


def produce(conf: Settings, records: list) -> None:
    """Write the lines, and before them one that is none."""
    topic = catalogue(conf).transactions.name
    producer = KafkaProducer(bootstrap_servers=conf.bootstrap_servers, acks="all", enable_idempotence=True)
    producer.send(topic, key=b"1", value=b'{"InvoiceNo": 1}', partition=0)
    for record in records:
        producer.send(
            topic, key=record.key, value=record.value, headers=record.headers, partition=record.partition
        )
    producer.flush()
    producer.close()


# -- every message ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["warnings", "evaluations", "comparisons", "events", "models", "scores"])
def test_every_event_is_as_its_schema_says(told, name):
    events, channel = told.events(name), contract.CHANNELS[name]
    assert events
    assert [problem for event in events for problem in problems_of_event(event)] == []
    assert {event["type"] for event in events} <= set(channel.messages)
    assert {event["source"] for event in events} == {told.conf.event_source}
    assert all(record.key for record in told.records(name))


@pytest.mark.parametrize("name", ["warnings", "evaluations", "comparisons", "events", "models", "scores"])
def test_every_event_carries_its_content_type(told, name):
    """As CloudEvents' binding for Kafka asks for in structured mode."""
    found = {tuple(record.headers) for record in told.records(name) if record.value}
    assert found == {tuple(cloudevents.HEADERS)}


@pytest.mark.parametrize("name", ["snapshots", "rows"])
def test_every_chunk_is_as_its_schemas_say(told, name):
    schemas = {"rows": "clv.snapshot.row", "lines": "clv.snapshot.line"}
    kinds = set()
    for record in told.records(name):
        chunk = decode_chunk(record.value)
        kinds.add(chunk.kind)
        assert problems("clv.snapshot.meta", chunk.meta) == []
        for row in chunk.table.slice(0, 20).to_pylist():
            if "event_time" in row:
                row["event_time"] = iso(int(row["event_time"].timestamp()))
            assert problems(schemas[chunk.kind], row) == []
    assert kinds == ({"rows", "lines"} if name == "snapshots" else {"rows"})


def test_every_dead_letter_says_where_it_came_from(told):
    letters = told.records("dead_letters")
    assert [record.value for record in letters] == [b'{"InvoiceNo": 1}']
    for record in letters:
        headers = {name: value.decode() for name, value in record.headers}
        assert problems("retail.dead_letter.headers", headers) == []
        assert headers["dlq.topic"] == told.topics.transactions.name


# -- who subscribes ---------------------------------------------------------------------------------------


def first_lines(count: int, *command: str) -> list[str]:
    """The first lines that a program without an end prints; it is ended then."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": path}, start_new_session=True
    )
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True)
    reader.start()
    try:
        return [lines.get(timeout=WAIT_S).rstrip("\n") for _ in range(count)]
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        reader.join()
        process.stdout.close()


def drifts(told: Told) -> list[dict]:
    wanted = {"clv.drift.detected.v1", "clv.drift.resolved.v1"}
    return [event for event in told.events("events") if event["type"] in wanted]


@pytest.mark.parametrize("client", ["kafka_python", "confluent"])
def test_a_subscriber_is_told_each_drift(told, client):
    script = str(PROJECT / "docs" / "examples" / f"subscribe_{client}.py")
    expected = drifts(told)
    arguments = (told.conf.bootstrap_servers, f"group-{uuid.uuid4().hex}", told.conf.topic_prefix)
    for line, event in itertools.zip_longest(
        first_lines(len(expected), sys.executable, script, *arguments), expected
    ):
        window_end, kind, drift_type, *causes = line.split()
        assert (window_end, kind) == (event["data"]["window_end"], event["type"])
        assert drift_type == event["data"]["drift_type"]
        assert causes


def test_a_shell_is_told_each_drift(told):
    expected = [event for event in drifts(told) if "detected" in event["type"]]
    script = str(PROJECT / "docs" / "examples" / "subscribe.sh")
    lines = first_lines(len(expected), "sh", script, told.conf.bootstrap_servers, told.conf.topic_prefix)
    assert [cloudevents.decode(line.encode()) for line in lines] == expected


def test_a_late_subscriber_has_what_the_live_view_has(told, monkeypatch):
    monkeypatch.setattr("streams.watch.ANSWER_MAX_MS", 60_000)
    picture = rebuild_state.rebuild(told.conf.bootstrap_servers, told.conf.topic_prefix)
    view = View(told.conf.acting_detector)
    with open_reader(told.conf, view) as reader:
        reader.step()
        reader.read_to_ends()
    shown = {
        iso(end): (window.state, window.model_version, window.customers, window.action)
        for end, window in view.windows.items()
    }
    assert shown == {
        end: tuple(event["data"][name] for name in ("state", "model_version", "customers", "action"))
        for end, event in picture.evaluations.items()
    }
    assert picture.serving == view.latest.model_version is not None
    assert picture.drift_since == iso(view.onset)
    assert {key: event["data"]["status"] for key, event in picture.comparisons.items()} == {
        iso(end): found.status for end, found in view.comparisons.items()
    }
    assert len(picture.warnings) == len(view.warnings) > 0


def test_a_late_subscriber_has_the_scores_of_the_backfill(told):
    picture = rebuild_state.rebuild(told.conf.bootstrap_servers, told.conf.topic_prefix)
    assert picture.scores == {
        customer: cloudevents.decode(value) for customer, value in told.expected.scores.items()
    }
    assert len(picture.scores) > 100
