"""The listed rights are enough for every process, and none of them is one too many."""

from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from conftest import KAFKA_CACHE
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError
from secured_kafka import Asked, SecuredKafka, acl, acls_of, as_user, is_asked, scram
from small_shop import SHORT
from stream_run import StreamRun
from webhook_receiver import SECRET, receiving

from streams import doctor, erase, explaining, manual_decisions, rename, watch
from streams.doctor import Status
from streams.errors import UserError
from streams.processes import Child, environment_of, stop_all
from streams.rights import PROCESSES, Right, commands_of, rights_of
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all, read_live
from streams.topics import catalogue
from streams.watch_model import View
from streams.web.follower import PageReader
from streams.web.page_model import PageModel
from streams.webhooks.endpoints import Endpoint

TEXT = "customers=3000,days=150,seed=3"

# The other mechanism that is offered, for a client of either library.
SHA_256 = ("retrain", "replay")


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    with SecuredKafka(tmp_path_factory.mktemp("rights"), KAFKA_CACHE, acls=True) as broker:
        broker.add_users(*PROCESSES)
        yield broker


class OfRights(StreamRun):
    """Each process is a user of its own, with its listed rights and no others."""

    def __init__(self, broker: SecuredKafka, own: dict[str, Any], logs: Path) -> None:
        super().__init__(Settings(bootstrap_servers=broker.kafka.bootstrap_servers, **own), logs)
        self.broker, self.as_users = broker, scram(broker, **own)
        self.denied: set[Asked] = set()
        self.customers: Iterator[str] = iter(())  # with a score, none of them erased yet

    def user(self, name: str) -> Settings:
        mechanism = "SCRAM-SHA-256" if name in SHA_256 else "SCRAM-SHA-512"
        return as_user(self.as_users, name).model_copy(update={"sasl_mechanism": mechanism})

    def start(self, *arguments: str):
        child = Child.start(
            list(arguments),
            env=environment_of(self.user(arguments[0])),
            log_path=self.logs / f"{len(self.children):02d}-{arguments[0]}.log",
        )
        self.children.append(child)
        return child


@pytest.fixture(scope="module")
def story(secured, tmp_path_factory):
    """An installation that every process has worked in, each as its user; all have ended."""
    here = tmp_path_factory.mktemp("story")
    secret = here / "secret"
    secret.write_text(SECRET)
    places = ("registry_dir", "reports_dir", "kafka_dir", "webhooks_dir")
    with receiving() as hook:
        own = {
            **SHORT,
            "topic_prefix": "secured.",
            "partitions": 2,
            **{name: here / name for name in places},
            "decision_wait_s": 600,
            "training_timeout_s": 300,
            "compression": "zstd",
            "webhooks": {
                "ops": Endpoint(
                    url=hook.url,
                    secret_file=secret,
                    allow_hosts=["127.0.0.1"],
                    start="beginning",
                    timeout_s=60,
                )
            },
        }
        stream = OfRights(secured, own, here)
        secured.allow([one for process in PROCESSES for one in acls_of(process, stream.settings)])
        assert ensure_topics(stream.user("topics")) == []
        try:
            work(stream, hook)
        finally:
            stop_all(stream.children)
        stream.denied = secured.asked("Denied")
        yield stream


def work(stream: OfRights, hook) -> None:
    """Let every process do what it is for."""
    with KafkaProducer(bootstrap_servers=stream.settings.bootstrap_servers) as producer:
        producer.send(catalogue(stream.settings).transactions.name, b"no line at all", partition=0)
    for name in ("scores", "retrain", "webhooks"):
        stream.start(name, "--port", "0")
    stream.worker()
    stream.replay("--synthetic", TEXT, "--speed", "max")
    stream.wait_for(stream.ended, timeout_s=480)
    assert stream.decisions().by_request
    stream.wait_for(lambda: scored(stream.settings))
    stream.wait_for(lambda: bool(hook.got))
    # It reads what it wrote.
    stop_all(stream.children[:1])
    stream.start("scores", "--port", "0")
    again = stream.start("replay", "--synthetic", TEXT, "--speed", "max", "--resume")
    assert again.process.wait(180) == 0, stream.words()
    look_at_page(stream.user("worker"))
    reads_scores = Asked("scores", "read", "topic", catalogue(stream.settings).scores.name)
    stream.wait_for(lambda: reads_scores in stream.broker.asked("Allowed"))
    stop_all(stream.children)
    held = read_live(stream.settings, catalogue(stream.settings).scores.name)
    stream.customers = (name.decode() for name in held)
    erased = stream.start("erase", next(stream.customers), "--everywhere", "--yes")
    assert erased.process.wait(180) == 0, stream.words()
    assert "\n0 records" not in erased.log_path.read_text(), stream.words()
    for operate in OPERATIONS.values():
        operate(stream)


def scored(settings: Settings) -> bool:
    topic = catalogue(settings).scores.name
    return any(record.value for p in range(settings.partitions) for record in read_all(settings, topic, p))


def look_at_page(settings: Settings) -> None:
    """Read for the worker's page as its thread does while somebody looks."""
    model = PageModel(settings.acting_detector)
    with watch.open_consumer(settings) as consumer:
        reader = PageReader(consumer, settings, model)
        reader.step()
        assert not model.waiting_for
        reader.read_to_ends()


# -- what ends quickly, as its user; each raises where something is refused ------


def topics(stream: OfRights) -> None:
    ensure_topics(stream.user("topics"))


def look(stream: OfRights) -> None:
    view = View(stream.settings.acting_detector)
    with watch.open_reader(stream.user("watch"), view) as reader:
        watch._once(reader, view)
    if view.waiting_for:
        raise UserError(view.waiting_for)


def decide(stream: OfRights) -> None:
    settings = stream.user("model")
    explaining.newest_in_topics(settings)
    manual_decisions.request(settings, reason="a test")


def examine(stream: OfRights) -> None:
    settings = stream.user("doctor")
    for check in doctor._CHECKS:
        if check.needs_broker and (found := check.run(settings)).status is not Status.OK:
            raise UserError(found.found)


def forget(stream: OfRights) -> None:
    settings = stream.user("erase")
    customer = next(stream.customers)
    rename.rename(settings, customer)
    erase.erase(settings, erase.look(settings, customer))


OPERATIONS = {"topics": topics, "watch": look, "model": decide, "doctor": examine, "erase": forget}


# -- enough ----------------------------------------------------------------------


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_listed_rights_are_enough_for_every_process(story):
    assert story.denied == set()
    said = "".join(child.log_path.read_text() for child in story.children)
    assert "uthorization" not in said
    assert "-password" not in said


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_right_is_listed_that_no_process_asks_for(secured, story):
    found = secured.asked("Allowed")
    unused = {
        (process, operation, right.name)
        for process in PROCESSES
        for right in rights_of(process, story.settings)
        for operation in right.operations
        if not is_asked(process, right, operation, found)
    }
    assert unused == not_in_the_story(story.settings)


def not_in_the_story(settings: Settings) -> set[tuple[str, str, str]]:
    """Return what workers alone may do, and no worker had to do here."""
    topics = catalogue(settings)
    # An idle partition, a decision that did not come in time, an early warning.
    writes = {
        ("worker", "Write", spec.name) for spec in (topics.transactions, topics.models, topics.warnings)
    }
    others = ("ingest", "evaluate", "compare")  # they have joined theirs by certificate, in another test
    return writes | {("worker", "Read", settings.topic(f"clv-drift-{role}")) for role in others}


# -- not one too many --------------------------------------------------------------


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("process", OPERATIONS)
def test_with_one_right_missing_something_is_refused(secured, story, process, monkeypatch):
    if process == "topics":  # they are there
        soon = partialmethod(KafkaAdminClient.wait_for_topics, timeout_ms=200)
        monkeypatch.setattr(KafkaAdminClient, "wait_for_topics", soon)
    monkeypatch.setattr(watch, "REFRESH_S", 0.2)
    kept = [
        (operation, right.name)
        for right in rights_of(process, story.settings)
        for operation in right.operations
        if is_tried(process, right, operation)
        and not is_refused(secured, story, process, acl(f"User:{process}", right, operation))
    ]
    assert kept == []


def is_tried(process: str, right: Right, operation: str) -> bool:
    if process == "topics" and right.kind == "cluster":
        return False  # every topic is there
    return operation != "Delete"  # what `doctor` cannot delete it leaves there, and says nothing


def is_refused(secured, story, process, one) -> bool:
    secured.forbid(one)
    try:
        OPERATIONS[process](story)
    except (UserError, KafkaError):
        return True
    finally:
        secured.allow([one])
    return False


def test_every_right_is_one_that_kafka_knows():
    settings = Settings(topic_prefix="a.")
    for process in PROCESSES:
        for line in commands_of(process, f"User:{process}", settings):
            assert line.startswith(f"kafka-acls.sh --add --allow-principal User:{process} --")
        for right in rights_of(process, settings):
            assert right.operations
            assert right.kind == "cluster" or right.name.startswith(("a.", "retail."))
            for operation in right.operations:
                acl("User:x", right, operation)
