"""A broker that is not there: one message and the exit code, whichever command needs it."""

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from kafka.errors import KafkaTimeoutError

from streams.broker_errors import CLIENT_LOGGERS, asking, connecting, quiet_clients
from streams.errors import ExitCode, UserError
from streams.kafka_process import free_port
from streams.settings import Settings

COMMANDS = (
    ("topics",),
    ("replay", "--synthetic", "customers=20,days=5,seed=1"),
    ("worker",),
    ("retrain",),
    ("scores",),
    ("watch",),
    ("model", "promote", "abcdef012345", "--reason", "test"),
    ("model", "rollback", "--reason", "test"),
)


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"CLV_DRIFT_BROKER_WAIT_S": "1", "COLUMNS": "200", **environment}
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        cwd=cwd,
        env={**os.environ, **given},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: "-".join(words[:2]))
def test_without_a_broker_there_is_one_message_and_nothing_else(tmp_path, arguments):
    address = f"127.0.0.1:{free_port()}"
    ended = run(*arguments, cwd=tmp_path, CLV_DRIFT_BOOTSTRAP_SERVERS=address)
    assert ended.returncode == ExitCode.BROKER
    assert ended.stdout == ""
    error, hint = ended.stderr.splitlines()
    assert error == f"error: no Kafka broker answered at {address} within 1 s"
    assert hint.startswith("hint: start one")


@pytest.mark.parametrize("arguments", COMMANDS[:5], ids=lambda words: words[0])
def test_where_logs_are_json_the_end_is_a_line_of_them(tmp_path, arguments):
    address = f"127.0.0.1:{free_port()}"
    json_too = {"CLV_DRIFT_BOOTSTRAP_SERVERS": address, "CLV_DRIFT_LOG_FORMAT": "json"}
    ended = run(*arguments, cwd=tmp_path, **json_too)
    assert ended.returncode == ExitCode.BROKER
    line = json.loads(ended.stdout.splitlines()[-1])
    assert (line["level"], line["event"], line["process"]) == ("critical", "ended", arguments[0])
    assert line["reason"] == f"no Kafka broker answered at {address} within 1 s"
    assert line["hint"].startswith("start one")
    assert line["exit_code"] == ExitCode.BROKER
    assert "error" not in ended.stderr


def test_a_refused_setting_is_logged_too(tmp_path):
    ended = run("worker", cwd=tmp_path, CLV_DRIFT_LOG_FORMAT="json", CLV_DRIFT_PARTITIONS="many")
    line = json.loads(ended.stdout)
    assert ended.returncode == ExitCode.USAGE == line["exit_code"]
    assert line["level"] == "critical"
    assert "partitions" in line["reason"]


def test_who_listens_but_is_no_broker_is_told_the_same_way(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        ended = run("worker", cwd=tmp_path, CLV_DRIFT_BOOTSTRAP_SERVERS=address)
    assert ended.returncode == ExitCode.BROKER
    assert ended.stderr.splitlines()[0].startswith("error: ")
    assert address in ended.stderr.splitlines()[0]


def test_at_debug_the_client_is_heard(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    ended = run("worker", cwd=tmp_path, CLV_DRIFT_BOOTSTRAP_SERVERS=address, CLV_DRIFT_LOG_LEVEL="DEBUG")
    assert ended.returncode == ExitCode.BROKER
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert any(entry["logger"].startswith("kafka.") for entry in lines)


@pytest.fixture
def client(caplog):
    """A logger of the client as it is before anybody sets a level, and what it says."""
    before = [(logger := logging.getLogger(name), logger.level) for name in CLIENT_LOGGERS]
    for logger, _ in before:
        logger.setLevel(logging.NOTSET)
    yield logging.getLogger("kafka.net.manager")
    for logger, level in before:
        logger.setLevel(level)


@pytest.mark.parametrize("block", [connecting, asking])
def test_the_clients_speak_again_after_the_block(block, client, caplog):
    def fail():
        with block(Settings()):
            client.error("kept back")
            raise KafkaTimeoutError("too late")

    with pytest.raises(UserError, match=Settings().bootstrap_servers) as caught:
        fail()
    client.error("said")
    assert caught.value.code is ExitCode.BROKER
    assert [record.message for record in caplog.records] == ["said"]


def test_blocks_that_overlap_leave_nothing_silent(client, caplog):
    first, second = quiet_clients(), quiet_clients()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    client.error("kept back")
    second.__exit__(None, None, None)
    client.error("said")
    assert [record.message for record in caplog.records] == ["said"]
