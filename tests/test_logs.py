"""Logs: every line one JSON object with the keys of the call, whoever logs and however it ends."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import warnings
from datetime import UTC, datetime

import numpy as np
import pytest
import structlog

from streams.logs import HIDDEN, configure, watch_loop
from streams.settings import Settings

pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.fixture
def lines():
    """Call it to get what was logged since the last call, line by line."""
    stream = io.StringIO()

    def read(log_level="INFO", **settings):
        configure(Settings(log_level=log_level, **settings), process="worker", stream=stream)

    def taken():
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return [json.loads(line) for line in text.splitlines()]

    read()
    taken.configure = read
    taken.stream = stream
    return taken


def test_a_line_names_its_window_and_process(lines):
    structlog.get_logger("streams.evaluate_agent").info("window evaluated", window_end="2011-06-06T00:00:00Z")
    (line,) = lines()
    assert list(line)[:6] == ["timestamp", "level", "process", "pid", "logger", "event"]
    assert line["process"] == "worker"
    assert line["logger"] == "streams.evaluate_agent"
    assert line["window_end"] == "2011-06-06T00:00:00Z"
    age = datetime.now(UTC) - datetime.fromisoformat(line["timestamp"])
    assert 0 <= age.total_seconds() < 10


def test_a_logger_made_before_the_configuration_follows_it(lines):
    early = structlog.get_logger("early")
    structlog.reset_defaults()
    lines.configure()
    early.info("said")
    assert [line["event"] for line in lines()] == ["said"]


def test_libraries_log_the_same_way(lines):
    logging.getLogger("sklearn.ensemble").info("fitted %d trees", 7)
    warnings.warn("something is old", UserWarning, stacklevel=1)
    fitted, old = lines()
    assert (fitted["event"], fitted["level"]) == ("fitted 7 trees", "info")
    assert old["logger"] == "py.warnings"
    assert "something is old" in old["event"]


@pytest.mark.parametrize("name", ["faust.app", "mode.worker", "aiokafka.consumer", "kafka.conn"])
def test_noisy_libraries_are_heard_from_warnings_on(lines, name):
    logging.getLogger(name).info("rebalancing")
    logging.getLogger(name).warning("no leader")
    assert [line["event"] for line in lines()] == ["no leader"]
    lines.configure("ERROR")
    logging.getLogger(name).warning("no leader")
    assert lines() == []
    lines.configure("DEBUG")
    logging.getLogger(name).debug("fetching")
    assert [line["event"] for line in lines()] == ["fetching"]


def test_the_level_is_the_settings(lines):
    lines.configure("WARNING")
    structlog.get_logger("streams.ingest").info("quiet")
    structlog.get_logger("streams.ingest").warning("loud")
    assert [line["event"] for line in lines()] == ["loud"]


def test_an_exception_is_one_field_of_one_line(lines):
    try:
        {}["line 3 is bad"]
    except KeyError as exc:
        structlog.get_logger("streams").error("partition is loaded anew", exc_info=exc, partition=2)
        logging.getLogger("faust").exception("agent crashed")
    ours, theirs = lines()
    for line in (ours, theirs):
        assert "Traceback" in line["exception"]
        assert "KeyError: 'line 3 is bad'" in line["exception"]
        assert "exc_info" not in line
    assert ours["partition"] == 2


HOSTILE = 'a"b\n\u2028\x1b[31m\ud800é'


def test_any_value_gives_valid_json_on_one_line(lines):
    structlog.get_logger("x").info(
        HOSTILE,
        text=HOSTILE,
        missing=None,
        share=float("nan"),
        count=np.int64(3),
        ratio=np.float64(0.5),
        raw=b"\xff",
        nested={1: {"CustomerID": HOSTILE}},
        names=("b", "a"),
    )
    assert lines.stream.getvalue().count("\n") == 1
    assert lines.stream.getvalue().isascii()
    (line,) = lines()
    assert line["event"] == line["text"] == line["nested"]["1"]["CustomerID"] == HOSTILE
    assert (line["missing"], line["share"], line["raw"]) == (None, "nan", "\\xff")
    assert (line["ratio"], line["names"]) == (0.5, ["b", "a"])


def test_secrets_are_hidden(lines):
    structlog.get_logger("x").info(
        "delivering to https://me:pw1@example.test/hook",
        webhook_secret="pw2",
        options={"sasl_password": "pw3", "hosts": ["https://me:pw4@example.test"]},
        url="https://me:pw5@example.test/hook",
    )
    text = lines.stream.getvalue()
    (line,) = lines()
    assert "pw" not in text
    assert line["webhook_secret"] == HIDDEN
    assert line["url"] == f"https://{HIDDEN}@example.test/hook"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("log_format", "stream", "readable"),
    [
        ("auto", io.StringIO, False),
        ("auto", Terminal, True),
        ("json", Terminal, False),
        ("console", io.StringIO, True),
    ],
)
def test_the_format_follows_the_setting_and_the_terminal(log_format, stream, readable):
    out = stream()
    configure(Settings(log_format=log_format), process="worker", stream=out)
    structlog.get_logger("x").info("window \x1b[2Jevaluated", customers=12, country="\x1b]0;owned\x07")
    text = out.getvalue()
    assert text.startswith("{") is not readable
    assert "\x1b[2J" not in text
    assert "\x1b]0" not in text
    if readable:
        assert "customers" in text


def test_asyncio_tells_what_nobody_awaited(lines):
    async def failing():
        raise RuntimeError("lost")

    async def main():
        watch_loop(asyncio.get_running_loop())
        task = asyncio.ensure_future(failing())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task

    asyncio.run(main())
    (line,) = lines()
    assert line["event"] == "uncaught in asyncio"
    assert "RuntimeError: lost" in line["exception"]


PROGRAM = """
import sys, threading
from streams.logs import configure
from streams.settings import Settings
configure(Settings(log_format="json"), process="retrain")
def fail(): raise KeyError("in a thread")
thread = threading.Thread(target=fail, name="trainer")
thread.start(); thread.join()
raise OSError("in the main thread")
"""


def test_an_uncaught_exception_ends_in_json_too():
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    in_thread, in_main = (json.loads(line) for line in ended.stderr.splitlines())
    assert (in_thread["level"], in_thread["thread"]) == ("critical", "trainer")
    assert "KeyError: 'in a thread'" in in_thread["exception"]
    assert "OSError: in the main thread" in in_main["exception"]
    assert in_main["process"] == "retrain"
