"""The replay against a real broker: each line once in the topic, whatever stops it, at the pace asked for."""

import asyncio
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from statistics import median

import pytest
from kafka import KafkaConsumer, TopicPartition
from rich.console import Console

from producers import feed
from producers.lines import numbered
from producers.pacing import AtOnce, ByEventTime, ByRate
from producers.partitions import partition_of
from producers.replay import MESSAGE_BYTES_MAX, replay
from producers.session import INTERRUPTED, Request, run
from producers.synthetic import Shop, Synthetic
from producers.topic_tail import last_places, partition_count
from streams.errors import ExitCode, UserError
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topics import catalogue
from streams.transactions import HEADER_CONTROL, HEADER_SEQ, encode_line, header_map

SHOP = "customers=2000,days=60,seed=2"


@pytest.fixture(scope="module")
def lines():
    return list(Synthetic(Shop(2000, 60, 2)).lines())


@pytest.fixture
def topic(settings) -> str:
    ensure_topics(settings)
    return catalogue(settings).transactions.name


def consume(settings, topic):
    """Every record of the topic, by partition."""
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, auto_offset_reset="earliest")
    try:
        partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        found = {partition.partition: [] for partition in partitions}
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, batch in consumer.poll(timeout_ms=500).items():
                found[partition.partition] += batch
        return found
    finally:
        consumer.close()


def lines_in(found):
    """Numbers of the lines of each partition, control records left out."""
    return {
        partition: [
            int(header_map(record.headers)[HEADER_SEQ])
            for record in log
            if HEADER_CONTROL not in header_map(record.headers)
        ]
        for partition, log in found.items()
    }


def all_lines(found):
    return sorted(number for log in lines_in(found).values() for number in log)


def controls_in(found):
    headers = [header_map(record.headers) for log in found.values() for record in log]
    return Counter(header[HEADER_CONTROL].decode() for header in headers if HEADER_CONTROL in header)


def quiet(outcome):
    pass


def send(settings, records, pace=None, stop=None, refuse=None):
    return asyncio.run(
        replay(
            settings,
            records,
            pace=pace or AtOnce(),
            stop=stop or threading.Event(),
            report=quiet,
            refuse=refuse or pytest.fail,
        )
    )


def records_of(lines, settings, source="test"):
    return feed.records(
        numbered(lines), source=source, partitions=settings.partitions, jump_max_days=30, jump_confirm_lines=3
    )


def say():
    return Console(record=True, width=200, soft_wrap=True, file=open(os.devnull, "w"))  # noqa: PTH123


# -- pace ---------------------------------------------------------------------------------------------------


def test_event_time_sets_the_schedule():
    now = [100.0]
    pace = ByEventTime(3600.0, clock=lambda: now[0])
    assert pace.due(None) == -math.inf
    assert pace.due(7_200) == 100.0
    now[0] = 500.0
    assert pace.due(7_200 + 36_000) == 110.0  # the schedule does not slip with the clock


def test_a_rate_sets_the_schedule_and_a_long_pause_is_not_made_up_for():
    now = [0.0]
    pace = ByRate(10.0, clock=lambda: now[0])
    assert [pace.due(None) for _ in range(3)] == pytest.approx([0.0, 0.1, 0.2])
    now[0] = 1_000.0
    assert pace.due(None) == pytest.approx(999.0)


# -- against a broker ---------------------------------------------------------------------------------------

broker = pytest.mark.broker


@broker
def test_every_line_is_there_once_in_order_in_its_partition(settings, topic, lines):
    outcome = send(settings, records_of(lines, settings))
    assert outcome.complete
    assert outcome.sent == outcome.acknowledged == len(lines)
    found = consume(settings, topic)
    numbers = lines_in(found)
    assert all(log == sorted(log) for log in numbers.values())
    assert all_lines(found) == list(range(1, len(lines) + 1))
    assert sum(map(len, found.values())) == len(lines) + outcome.controls
    for partition, log in found.items():
        for record in log:
            if HEADER_CONTROL not in header_map(record.headers):
                assert partition_of(record.key, settings.partitions) == partition
                assert record.value == encode_line(lines[int(header_map(record.headers)[HEADER_SEQ]) - 1])
    assert controls_in(found)["end_of_input"] == settings.partitions


@broker
def test_a_stopped_replay_resumes_where_each_partition_ends(settings, topic, lines):
    stop = threading.Event()

    def stopping():
        for number, record in enumerate(records_of(lines, settings)):
            if number == 7_000:
                stop.set()
            yield record

    outcome = send(settings, stopping(), stop=stop)
    assert outcome.stopped
    assert not outcome.complete
    assert 0 < outcome.sent == outcome.acknowledged < len(lines)
    written = asyncio.run(last_places(settings, "test"))
    send(settings, feed.unwritten(records_of(lines, settings), written))
    found = consume(settings, topic)
    assert all_lines(found) == list(range(1, len(lines) + 1))
    whole = Counter(r.control.value for r in records_of(lines, settings) if r.control)
    assert controls_in(found) == whole


@broker
def test_the_tail_is_found_behind_other_sources(settings, topic, lines):
    send(settings, records_of(lines[:300], settings, "mine"))
    send(settings, records_of(lines, settings, "other"))
    places = asyncio.run(last_places(settings, "mine"))
    assert {place.seq for place in places.values()} == {300}
    assert asyncio.run(last_places(settings, "mine", records_max=100)) == {}
    assert asyncio.run(last_places(settings, "nobody")) == {}


@broker
def test_large_lines_are_sent_and_larger_ones_are_refused_by_number(settings, topic, lines):
    big = lines[:4]
    big[1] = lines[1] | {"Description": "x" * 5_000_000}
    big[2] = lines[2] | {"Description": "x" * MESSAGE_BYTES_MAX}
    refused = []
    outcome = send(settings, records_of(big, settings), refuse=refused.append)
    assert [record.seq for record in refused] == [3]
    assert (outcome.sent, outcome.acknowledged, outcome.refused) == (3, 3, 1)
    assert not outcome.complete
    assert all_lines(consume(settings, topic)) == [1, 2, 4]


@broker
def test_the_pace_is_kept(settings, topic, lines):
    part = lines[:2_000]
    span_s = feed.event_time(part[-1]) - feed.event_time(part[0])
    began = time.monotonic()
    outcome = send(settings, records_of(part, settings), pace=ByEventTime(span_s / 2.0, clock=time.monotonic))
    assert outcome.complete
    assert 1.9 < time.monotonic() - began < 40


@broker
def test_a_missing_topic_and_another_number_of_partitions_are_told(settings, topic):
    assert partition_count(settings) == settings.partitions
    for changed, words in (
        ({"topic_prefix": "nothing."}, "no topic"),
        ({"partitions": 7}, "has 4 partitions"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            partition_count(settings.model_copy(update=changed))
        assert caught.value.code is ExitCode.STATE


def test_a_missing_broker_is_told_with_its_address():
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1 ") as caught:
        partition_count(Settings(bootstrap_servers="127.0.0.1:1", broker_wait_s=0.5))
    assert caught.value.code is ExitCode.BROKER


# -- the command --------------------------------------------------------------------------------------------


@broker
def test_a_second_replay_says_what_it_repeats_and_a_resumed_one_sends_nothing(settings, topic, lines):
    assert run(settings, Request(synthetic=SHOP), say()) == ExitCode.OK
    console = say()
    assert run(settings, Request(synthetic=SHOP, resume=True), console) == ExitCode.OK
    text = console.export_text()
    assert f"up to row {len(lines):,}" in text
    assert "sent 0 lines" in text
    assert sum(map(len, lines_in(consume(settings, topic)).values())) == len(lines)
    console = say()
    assert run(settings, Request(synthetic=SHOP, limit=10), console) == ExitCode.OK
    assert "ignored by the worker as duplicates" in console.export_text()


@broker
def test_limit_and_no_end(settings, topic):
    assert run(settings, Request(synthetic=SHOP, limit=50, end=False), say()) == ExitCode.OK
    found = consume(settings, topic)
    assert all_lines(found) == list(range(1, 51))
    assert controls_in(found)["end_of_input"] == 0


@broker
def test_a_scenario_is_another_source(settings, topic, lines):
    run(settings, Request(synthetic=SHOP), say())
    console = say()
    run(settings, Request(synthetic=SHOP, inject=("churn:30%@2010-12-20",), resume=True), console)
    assert "nothing of this input is in the topic" in console.export_text()


@pytest.mark.parametrize(
    "request_",
    [Request(live=True, resume=True), Request(live=True, synthetic=SHOP), Request(live=True, speed=1.0)],
)
def test_options_that_do_not_go_together(request_):
    with pytest.raises(UserError) as caught:
        run(Settings(), request_, say())
    assert caught.value.code is ExitCode.USAGE


def command(settings, *arguments):
    environment = os.environ | {
        "CLV_DRIFT_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "CLV_DRIFT_TOPIC_PREFIX": settings.topic_prefix,
        "CLV_DRIFT_BROKER_WAIT_S": str(settings.broker_wait_s),
    }
    program = [sys.executable, "-c", "from streams.cli import main; main()", "replay", *arguments]
    return subprocess.Popen(
        program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_lines(settings, least):
    deadline = time.monotonic() + 180
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers)
    name = catalogue(settings).transactions.name
    partitions = [TopicPartition(name, number) for number in range(settings.partitions)]
    try:
        while sum(consumer.end_offsets(partitions).values()) < least:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        consumer.close()


@broker
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_replay_that_is_interrupted_or_killed_goes_on_without_loss_or_repeat(
    settings, topic, lines, number
):
    process = command(settings, "--synthetic", SHOP, "--speed", "100000")
    wait_for_lines(settings, 400)
    process.send_signal(number)
    said, _ = process.communicate(timeout=180)
    if number is signal.SIGINT:
        assert process.returncode == INTERRUPTED
        assert "--resume goes on from there" in said
    assert sum(map(len, lines_in(consume(settings, topic)).values())) < len(lines)
    again = command(settings, "--synthetic", SHOP, "--resume")
    said, _ = again.communicate(timeout=180)
    assert again.returncode == 0, said
    found = consume(settings, topic)
    assert all_lines(found) == list(range(1, len(lines) + 1))
    assert controls_in(found)["end_of_input"] == settings.partitions


@broker
def test_the_live_feed_has_todays_dates_and_its_rate(settings, topic):
    process = command(settings, "--live", "--lines-per-s", "200")
    try:
        wait_for_lines(settings, 600)
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=180)
    assert process.returncode == INTERRUPTED, said
    found = consume(settings, topic)
    times = sorted(record.timestamp / 1000 for log in found.values() for record in log)
    hundred_s = median(later - time for time, later in zip(times, times[100:], strict=False))
    assert 100 / hundred_s == pytest.approx(200, rel=0.3)
    assert controls_in(found)["watermark"] == settings.partitions


@broker
def test_a_broker_that_dies_for_a_while_costs_nothing(own_kafka, tmp_path, lines):
    own_kafka.start()
    settings = Settings(bootstrap_servers=own_kafka.bootstrap_servers, broker_wait_s=60)
    ensure_topics(settings)
    process = command(settings, "--synthetic", SHOP, "--speed", "300000")
    wait_for_lines(settings, 2_000)
    own_kafka.kill()
    own_kafka.start()
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    found = consume(settings, catalogue(settings).transactions.name)
    assert all_lines(found) == list(range(1, len(lines) + 1))
