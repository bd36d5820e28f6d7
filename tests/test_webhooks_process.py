"""The webhooks process against a broker: killed between a delivery and its note, nothing is lost."""

import json
import os
import signal
import time
import urllib.request

import pytest
from kafka import KafkaProducer
from stream_run import StreamRun
from webhook_receiver import SECRET, drift_event, receiving, wait_for

from streams import cloudevents
from streams.decisions import Decision, Outcome
from streams.kafka_process import free_port
from streams.metrics_table import METRICS
from streams.processes import stop_all
from streams.topic_admin import ensure_topics
from streams.topics import catalogue
from streams.webhooks.endpoints import Endpoint
from streams.webhooks.notice import DEAD_LETTERS
from streams.webhooks.store import Store


def write(settings, topic: str, events) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers.split(","))
    for event in events:
        producer.send(topic, key=event["id"].encode(), value=cloudevents.encode(event), partition=0)
    producer.close()


def page(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.read().decode()


def ready(port: int) -> bool:
    try:
        return bool(json.loads(page(port, "/readyz"))["ok"])
    except OSError:
        return False


def killed(child) -> bool:
    return child.process.wait(120) == -signal.SIGKILL


def slowly(handler):
    time.sleep(0.1)
    handler.send_response(204)
    handler.end_headers()


@pytest.fixture
def receivers():
    with receiving(*[slowly] * 100) as hook, receiving() as other:
        yield hook, other


@pytest.fixture
def run(settings, receivers, tmp_path, monkeypatch):
    """The process' surroundings: three endpoints, one of them dead; topics that are there and empty."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    hook, other = receivers
    here = {
        "secret_env": "HOOK_SECRET",
        "allow_hosts": ["127.0.0.1"],
        "start": "beginning",
        "timeout_s": 60,
    }
    found = StreamRun(
        settings.model_copy(
            update={
                "webhooks": {
                    "ops": Endpoint(url=hook.url, types=("clv.drift.*",), **here),
                    "dead": Endpoint(url=f"http://127.0.0.1:{free_port()}/", **here),
                    "all": Endpoint(url=other.url, **here),
                },
                "webhooks_dir": tmp_path / "webhooks",
                "webhooks_port": free_port(),
                "log_format": "json",
            }
        ),
        tmp_path,
    )
    ensure_topics(found.settings)
    yield found
    stop_all(found.children)


@pytest.mark.broker
def test_nothing_is_lost_and_nobody_waits_for_a_dead_endpoint(run, receivers):
    hook, other = receivers
    topics = catalogue(run.settings)
    events = [drift_event(n) for n in range(8)]
    decision = Decision(Outcome.KEPT, "no better", 1_300_000_000, request_id="r", parent="m1").to_event("/s/")
    write(run.settings, topics.events.name, events)
    write(run.settings, topics.models.name, [decision])

    whole, run.settings = run.settings, run.settings.model_copy(update={"fault": "webhooks:delivered"})
    assert killed(run.start("webhooks")), run.words()
    run.settings = whole
    before = len(hook.got)
    child = run.start("webhooks")
    hook.wait(before + 3)
    with Store(run.settings.webhooks_dir) as store:
        wait_for(lambda: len(store.marks()) == run.settings.partitions)
    write(run.settings, topics.dead_letters.name, [drift_event(n) for n in range(3)])
    os.kill(child.process.pid, signal.SIGKILL)
    assert killed(child)

    child = run.start("webhooks")
    wait_for(lambda: len(set(hook.ids)) == 8 and len(set(other.ids)) == 10)
    ids = [event["id"] for event in events]
    assert sorted(hook.ids, key=ids.index) == hook.ids, "in the order of the log, repetitions too"
    assert len(hook.ids) <= 8 + 2, "a kill repeats one delivery at most"
    assert [one for one in dict.fromkeys(other.ids) if one in ids] == ids
    assert decision["id"] in other.ids
    (refused,) = {got.json["data"]["count"] for got in other.got if got.json["type"] == DEAD_LETTERS}
    assert refused == 3
    check_pages(run.settings.webhooks_port)

    write(run.settings, topics.events.name, [drift_event(9)])
    wait_for(lambda: drift_event(9)["id"] in hook.ids)
    child.process.terminate()
    assert child.process.wait(120) == 0, run.words()
    lines = child.log_path.read_text().splitlines()
    assert {json.loads(line)["process"] for line in lines} == {"webhooks"}
    assert json.loads(lines[-1])["event"] == "webhooks stopped"
    assert not any("MfKQ9r8" in line or "/hook" in line for line in lines)


def check_pages(port: int) -> None:
    wait_for(lambda: 'clv_webhook_pending{endpoint="dead"} 10.0' in page(port, "/metrics"))
    metrics = page(port, "/metrics")
    wait_for(lambda: 'clv_webhook_pending{endpoint="ops"} 0.0' in page(port, "/metrics"))
    assert 'clv_webhook_oldest_timestamp_seconds{endpoint="dead"}' in metrics
    for spec in METRICS:
        if spec.process == "webhooks":
            assert f"# HELP {spec.name.removesuffix('_total')}" in metrics, spec.name
    assert json.loads(page(port, "/healthz"))["ok"]
    wait_for(lambda: ready(port))  # on a busy machine its look at the broker may time out
