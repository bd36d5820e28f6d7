"""Lines come faster than a worker can take them: memory stays bounded, and its place in the group is kept."""

import asyncio
import logging
import os
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from stream_run import running

from streams.kafka_process import free_port
from streams.processes import Child
from streams.settings import Settings
from streams.topics import catalogue
from streams.transactions import Control, control_headers, control_value

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.broker, pytest.mark.slow]

LINES = int(os.environ.get("CLV_TEST_BURST_LINES", "150000"))
WAIT_S = 120 + LINES / 400
TEXT = b"A THING " * 125  # forgotten once a line is read: what piles up unread weighs the more
PIECE = 500  # lines that are made, and sent to a partition, at once
DAY_LINES = 500  # a window of a week and the open one, all that is kept, fit into the first tenth
START = int(datetime(2011, 1, 3, tzinfo=UTC).timestamp())
# What may come on top of the first tenth, however many lines follow: queues that fill, garbage that waits for
# its collection. Measured were 3 MB with the default, 130 MB with 1,000,000 lines, 90 MB with 2,500,000;
# 520 MB with 1,000,000 where the worker took from Faust whatever had come (a long `stream_buffer_maxsize`).
GROWTH_MAX_MB = 200
QUICK = {"session_timeout_s": 10.0, "heartbeat_interval_s": 0.5}  # longer than a busy machine may stand still
WEEK = {"window_days": 7, "mid_window_days": 7, "short_window_days": 7, "reference_weeks": 4}


@pytest.fixture
def short(settings) -> Settings:
    """A session that a busy worker can lose, and state that stops growing after two weeks of lines."""
    return settings.model_copy(update={**QUICK, **WEEK, "write_watermarks": False})


def lines(first: int, count: int) -> Iterator[bytes]:
    """JSON lines of some hundred customers; time goes on by a day every `DAY_LINES`."""
    for number in range(first, first + count):
        moment = datetime.fromtimestamp(START + number * 86_400 // DAY_LINES, UTC)
        yield (
            b'{"InvoiceNo":"%d","StockCode":"%d","Description":"%s","Quantity":%d,'
            b'"InvoiceDate":"%s","UnitPrice":2.5,"CustomerID":"%d","Country":"United Kingdom"}'
            % (
                number // 10,
                number % 997,
                TEXT,
                1 + number % 5,
                moment.isoformat()[:19].encode(),
                number % 400,
            )
        )


async def burst(settings: Settings, count: int) -> None:
    """Send lines as fast as a producer can, to all partitions in turn; then end the input."""
    topic = catalogue(settings).transactions.name
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        enable_idempotence=True,
        acks="all",
        max_batch_size=2**20,
    )
    await producer.start()
    try:
        for piece, first in enumerate(range(0, count, PIECE)):
            batch = producer.create_batch()
            for value in lines(first, min(PIECE, count - first)):
                assert batch.append(key=None, value=value, timestamp=None) is not None
            await producer.send_batch(batch, topic, partition=piece % settings.partitions)
        value = control_value(START + count * 86_400 // DAY_LINES)
        headers = control_headers(Control.END_OF_INPUT, "burst", count + 1)
        for partition in range(settings.partitions):
            await producer.send_and_wait(topic, value, partition=partition, headers=headers)
    finally:
        await producer.stop()


def metric(port: int, name: str) -> float:
    """The sum of a worker's metric over its partitions."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        samples = answer.read().decode().splitlines()
    return sum(float(line.split()[1]) for line in samples if line.startswith(f"{name}{{"))


def peak_mb(worker: Child) -> float:
    """The most memory that a process has had resident so far (Linux)."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def loaded(worker: Child) -> int:
    """How many times a partition was loaded: again, where the group took it away or handed it out anew."""
    return worker.log_path.read_text().count('"event": "partition loaded"')


def test_a_burst_is_taken_in_bounded_memory_without_losing_the_group(short, tmp_path):
    port = free_port()
    with running(short, tmp_path / "logs") as stream, ThreadPoolExecutor(1) as beside:
        worker = stream.start("worker", "--role", "ingest", "--port", str(port))
        stream.wait_for(lambda: loaded(worker) == short.partitions)
        begun = time.monotonic()
        sending = beside.submit(asyncio.run, burst(short, LINES))
        read = partial(metric, port, "clv_lines_read_total")
        stream.wait_for(lambda: read() >= LINES / 10, timeout_s=WAIT_S)
        first_tenth_mb = peak_mb(worker)
        stream.wait_for(lambda: read() == LINES + short.partitions, timeout_s=WAIT_S)
        sending.result()
        wall_s, whole_mb = time.monotonic() - begun, peak_mb(worker)
        log.info("%d lines, %.1f s, %.0f and %.0f MB", LINES, wall_s, first_tenth_mb, whole_mb)
        assert stream.counters() == {
            "read": LINES + short.partitions,
            "on_time": LINES,
            "late": 0,
            "duplicate": 0,
            "control": short.partitions,
            "dead": 0,
        }
        assert loaded(worker) == short.partitions, stream.words()
        assert metric(port, "clv_stream_holes_total") == 0
        assert whole_mb < first_tenth_mb + GROWTH_MAX_MB
