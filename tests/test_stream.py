"""The stream on a real broker gives what a backfill of the same input gives, whatever dies."""

import json
import os
import random
import signal
import time

import pytest
from kafka import KafkaProducer
from small_shop import SHORT, shop
from stream_run import backfilled, encoded, running

from streams.settings import Settings
from streams.topic_reader import read_all
from streams.topics import catalogue
from streams.transactions import FIELDS

pytestmark = [pytest.mark.broker, pytest.mark.slow]

TEXT = "customers=1200,days=130,seed=5"


@pytest.fixture
def small(settings) -> Settings:
    return settings.model_copy(update={**SHORT, "decision_wait_s": 600.0, "training_timeout_s": 300.0})


@pytest.fixture(scope="module")
def source():
    return shop("price:+60%@2011-03-28", text=TEXT)


def replay_arguments() -> list[str]:
    return ["--synthetic", TEXT, "--inject", "price:+60%@2011-03-28", "--speed", "max"]


def test_one_worker_many_partitions(small, source, tmp_path):
    """Snapshots, evaluations, events and decisions equal the backfill's, and every line is accounted for."""
    expected = backfilled(source, small, tmp_path / "backfill")
    with running(small, tmp_path / "logs") as stream:
        stream.worker()
        stream.retrain()
        stream.replay(*replay_arguments())
        stream.wait_for(stream.ended)
        assert stream.evaluations() == encoded(expected.evaluations), stream.words()
        events = [record.value for record in read_all(small, catalogue(small).events.name)]
        assert events == list(map(_bytes, expected.events))
        stream.wait_for(lambda: len(decisions_of(small)) >= len(expected.decisions))
        decisions = [record.value for record in decisions_of(small)]
        assert decisions == list(map(_bytes, expected.decisions))
        assert any(event["data"]["action"] == "retrain" for event in expected.events)
        lines = sum(1 for _ in source.lines())
        stream.wait_for(lambda: stream.counters().get("on_time", 0) >= lines)
        counters = stream.counters()
        fates = ("on_time", "late", "duplicate", "control", "dead")
        assert counters["on_time"] == lines
        assert counters["read"] == sum(counters[fate] for fate in fates)


def test_one_partition_and_two_workers(small, source, tmp_path):
    expected = backfilled(source, small, tmp_path / "backfill")
    single = small.model_copy(update={"partitions": 1})
    with running(single, tmp_path / "logs") as stream:
        stream.worker()
        stream.worker()
        stream.retrain()
        stream.replay(*replay_arguments())
        stream.wait_for(stream.ended)
        assert stream.evaluations() == encoded(expected.evaluations), stream.words()


def test_killed_workers(small, source, tmp_path):
    """SIGKILL at random moments; nothing counts twice, nothing is missing, no key gets two values."""
    seed = int(time.time())
    dice = random.Random(seed)
    expected = backfilled(source, small, tmp_path / "backfill")
    with running(small, tmp_path / "logs") as stream:
        worker = stream.worker()
        stream.retrain()
        replay = stream.start("replay", *replay_arguments()[:-2], "--speed", "800000")
        for _ in range(3):
            time.sleep(dice.uniform(3, 7))
            os.kill(worker.process.pid, signal.SIGKILL)
            worker.process.wait()
            worker = stream.worker()
        assert replay.process.wait(300) == 0
        stream.wait_for(stream.ended)
        assert stream.evaluations() == encoded(expected.evaluations), f"seed {seed}\n{stream.words()}"
        lines = sum(1 for _ in source.lines())
        stream.wait_for(lambda: stream.counters().get("on_time", 0) >= lines)
        counters = stream.counters()
        assert counters["on_time"] == lines, f"seed {seed}: {counters}"
        assert counters["duplicate"] == 0


def test_bad_lines_become_dead_letters(small, tmp_path):
    """What cannot be a line goes to the dead-letter topic with its reason, and the stream goes on."""
    good = dict(
        zip(FIELDS, ("1", "A", "a thing", 1, "2011-01-03T10:00:00", 2.5, "17850", "France"), strict=True)
    )
    bad = {
        b"not json": "malformed",
        json.dumps(good | {"Quantity": 10**12}).encode(): "Quantity",
        json.dumps(good).replace("2.5", "NaN").encode(): "malformed",
        json.dumps(good).replace("2.5", "1e400").encode(): "UnitPrice",
        json.dumps({k: v for k, v in good.items() if k != "Country"}).encode(): "Country",
        json.dumps(good | {"Description": "x" * 5_000_000}).encode(): "bytes",
        json.dumps(good).encode("utf-16"): "",
        json.dumps(good | {"InvoiceDate": "2011-13-45"}).encode(): "InvoiceDate",
    }
    single = small.model_copy(update={"partitions": 1})
    with running(single, tmp_path / "logs") as stream:
        stream.worker()
        topics = catalogue(single)
        producer = KafkaProducer(bootstrap_servers=single.bootstrap_servers, max_request_size=8 << 20)
        for number in range(3):
            producer.send(topics.transactions.name, json.dumps(good | {"InvoiceNo": str(number)}).encode())
        far = json.dumps(good | {"InvoiceDate": "2099-01-01T00:00:00"}).encode()
        for value in [*bad, far]:
            producer.send(topics.transactions.name, value)
        # A day later: the checkpoint that covers the lines above.
        later = json.dumps(good | {"InvoiceDate": "2011-01-06T00:00:00"}).encode()
        producer.send(topics.transactions.name, later).get(60)
        producer.close()
        stream.wait_for(lambda: stream.counters().get("read", 0) == len(bad) + 5)
        counters = stream.counters()
        assert (counters["dead"], counters["on_time"]) == (len(bad) + 1, 4), counters
        letters = {
            record.value: dict(record.headers) for record in read_all(single, topics.dead_letters.name)
        }
        assert set(letters) == {*bad, far}
        for value, word in bad.items():
            assert word.encode() in letters[value]["dlq.reason"], (value[:80], letters[value])
        assert b"days ahead" in letters[far]["dlq.reason"]
        assert letters[far]["dlq.offset"] == b"%d" % (3 + len(bad))


def decisions_of(settings: Settings) -> list:
    return list(read_all(settings, catalogue(settings).models.name))


def _bytes(event: dict) -> bytes:
    from streams import cloudevents

    return cloudevents.encode(event)


def test_an_idle_partition_does_not_hold_windows_open(small, tmp_path):
    """A feed without watermarks, one of whose partitions falls silent: the worker writes time into it."""
    pair = small.model_copy(update={"partitions": 2, "idle_after_s": 2.0})
    topics = catalogue(pair)
    with running(pair, tmp_path / "logs") as stream:
        worker = stream.worker()
        # What was written before the worker looked was not seen to move.
        stream.wait_for(lambda: "partition loaded" in worker.log_path.read_text())
        producer = KafkaProducer(bootstrap_servers=pair.bootstrap_servers)
        for day in range(1, 29):
            line = {
                "InvoiceNo": f"{day}",
                "StockCode": "A",
                "Description": None,
                "Quantity": 1,
                "InvoiceDate": f"2011-02-{day:02}T10:00:00",
                "UnitPrice": 1.5,
                "CustomerID": f"{day % 7}",
                "Country": "France",
            }
            value = json.dumps(line).encode()
            producer.send(topics.transactions.name, value, partition=0)
            if day == 1:
                producer.send(topics.transactions.name, value, partition=1)
            # The other partition must be seen to move while this one is silent.
            producer.flush()
            time.sleep(0.3)

        def evaluated() -> bool:
            producer.send(topics.transactions.name, value, partition=0)
            producer.flush()
            return "2011-02-21T00:00:00Z" in stream.evaluations()

        stream.wait_for(evaluated)
        producer.close()
        written = [r for r in read_all(pair, topics.transactions.name, 1) if dict(r.headers).get("control")]
        assert written
        assert not any(r.headers for r in read_all(pair, topics.transactions.name, 0))
        last = json.loads(stream.evaluations()["2011-02-21T00:00:00Z"])["data"]
        assert last["lines"] == 21  # the line in the silent partition, and twenty days of the other
