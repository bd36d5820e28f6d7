"""Another shop's data, from its file and its topic: the verdicts are those of the same lines in our shape."""

import csv
import json
import signal

import odd_shop
import pytest
from kafka import KafkaProducer
from small_shop import clv_drift, set_environment, shop, short_settings
from stream_run import running

from producers.partitions import partition_of
from streams.errors import ExitCode
from streams.topic_reader import read_all
from streams.topics import catalogue
from streams.transactions import FIELDS, HEADER_CONTROL, Control, control_headers, control_value, header_map

FEW = "customers=200,days=110,seed=2"


@pytest.fixture(scope="module")
def lines():
    """The lines of a small shop, to the minute, as the till writes them."""
    found = [line for _, line in shop(text=FEW).lines()]
    return [line | {"InvoiceDate": line["InvoiceDate"][:17] + "00"} for line in found]


def test_the_evaluations_are_those_of_the_default_shape_byte_for_byte(lines, tmp_path, monkeypatch, capsys):
    set_environment(monkeypatch, registry_dir=tmp_path / "registry")
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "ours.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(lines)
    odd_shop.write(tmp_path / "till.csv", lines)
    with_mapping = ("--mapping", odd_shop.EXAMPLE)
    assert clv_drift("check", "till.csv", *with_mapping) == ExitCode.OK
    assert clv_drift("backfill", "ours.csv", "--out", "ours") == 0
    assert clv_drift("backfill", "till.csv", *with_mapping, "--out", "till") == 0
    ours = (tmp_path / "ours" / "evaluations.jsonl").read_bytes()
    assert len(ours.splitlines()) > 12, "verdicts are among them"
    assert (tmp_path / "till" / "evaluations.jsonl").read_bytes() == ours
    assert (tmp_path / "till" / "events.jsonl").read_bytes() == (
        tmp_path / "ours" / "events.jsonl"
    ).read_bytes()


@pytest.mark.broker
def test_a_followed_till_and_a_foreign_topic(lines, settings, tmp_path):
    """One after the other into one topic: every line counts once, what cannot be read is a dead letter."""
    lines = lines[: len(lines) // 3]
    half = len(lines) // 2
    here = short_settings(
        **{
            name: getattr(settings, name)
            for name in ("bootstrap_servers", "broker_wait_s", "topic_prefix", "kafka_cache_dir")
        },
        kafka_dir=tmp_path / "kafka",
        registry_dir=tmp_path / "registry",
        mapping=odd_shop.EXAMPLE,
        partitions=2,
    )
    till = tmp_path / "till.csv"
    text = odd_shop.text_of(lines[:half]).encode("cp1252")
    till.write_bytes(text[: len(text) // 2])
    topics = catalogue(here)

    def seqs():
        headers = [
            header_map(r.headers) for p in range(2) for r in read_all(here, topics.transactions.name, p)
        ]
        return sorted(int(h["seq"]) for h in headers if HEADER_CONTROL not in h)

    with running(here, tmp_path / "logs") as stream:
        stream.worker("ingest")
        follower = stream.start("replay", "--follow", str(till))
        stream.wait_for(lambda: len(seqs()) > half // 3)
        follower.process.send_signal(signal.SIGTERM)
        assert follower.process.wait(120) == 130
        follower = stream.start("replay", "--follow", str(till), "--resume")
        with till.open("ab") as file:
            file.write(text[len(text) // 2 :])
        stream.wait_for(lambda: len(seqs()) >= half)
        follower.process.send_signal(signal.SIGINT)
        assert follower.process.wait(120) == 130
        assert seqs() == list(range(1, half + 1))
        send(here, lines[half:])
        stream.wait_for(lambda: stream.counters().get("read", 0) >= len(lines) + 3)
        counted = stream.counters()
        letters = [r for p in range(2) for r in read_all(here, topics.dead_letters.name, p)]
    assert counted["on_time"] + counted["late"] == len(lines)
    assert (counted["dead"], counted["duplicate"]) == (1, 0)
    assert [header_map(r.headers)["dlq.reason"] for r in letters] == [
        b"Quantity: 'viele' is no number as the mapping writes them"
    ]


def send(here, lines):
    """Send the rest as a till with its own Kafka client does, one line that is none, and the end."""
    topic = catalogue(here).transactions.name
    producer = KafkaProducer(bootstrap_servers=here.bootstrap_servers)
    bad = odd_shop.record(lines[0]) | {"Menge": "viele"}
    for record in [bad, *map(odd_shop.record, lines)]:
        key = (record["Kundennr"] or record["Belegnr"]).encode()
        producer.send(topic, json.dumps(record).encode(), key=key, partition=partition_of(key, 2))
    producer.flush()
    for partition in range(2):
        value, headers = control_value(1_600_000_000), control_headers(Control.END_OF_INPUT, "till", 0)
        producer.send(topic, value, headers=headers, partition=partition)
    producer.flush()
    producer.close()
