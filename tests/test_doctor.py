"""`clv-drift doctor`: a sound installation passes, each fault is found, named, and told what to do about."""

import json
import shutil

import pytest
from small_shop import clv_drift

from models.registry import Registry
from streams import doctor
from streams.doctor import Status, examine, exit_code
from streams.errors import ExitCode
from streams.kafka_process import free_port
from streams.settings import ENV_PREFIX
from streams.topic_admin import ensure_topics, open_admin


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Set the environment of an installation in a directory of its own, with no broker."""

    def put(**changes):
        home = {
            name: tmp_path / name for name in ("registry_dir", "reports_dir", "kafka_dir", "kafka_cache_dir")
        }
        defaults = {"bootstrap_servers": f"127.0.0.1:{free_port()}", "broker_wait_s": 1}
        for name, value in {**home, **defaults, **changes}.items():
            monkeypatch.setenv(ENV_PREFIX + name.upper(), str(value))
        monkeypatch.setattr(doctor, "PROBE_WAIT_S", 60.0)
        return tmp_path

    return put


def found():
    return {finding.check: finding for finding in examine()}


@pytest.mark.broker
def test_a_sound_installation_passes(place, settings, capsys):
    ensure_topics(settings)
    place(
        bootstrap_servers=settings.bootstrap_servers,
        topic_prefix=settings.topic_prefix,
        kafka_cache_dir=settings.kafka_cache_dir,
        broker_wait_s=60,
    )
    assert clv_drift("doctor", "--json") == ExitCode.OK
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {it["check"]: it["status"] for it in told if it["status"] != "ok" and it["check"] != "disk"} == {}
    assert {"broker", "topics", "clocks", "registry", "disk", "settings"} <= {it["check"] for it in told}
    with open_admin(settings) as admin:  # what was written to was taken away again
        assert not [name for name in admin.list_topics() if "doctor" in name]


@pytest.mark.broker
def test_missing_topics_are_named(place, settings):
    place(bootstrap_servers=settings.bootstrap_servers, topic_prefix=settings.topic_prefix, broker_wait_s=60)
    finding = found()["topics"]
    assert (finding.status, finding.code) == (Status.FAILED, ExitCode.STATE)
    assert settings.topic("clv.evaluations") in finding.found
    assert "clv-drift topics" in finding.hint


@pytest.mark.broker
@pytest.mark.parametrize(("offset_s", "word"), [(90, "behind"), (-90, "ahead of")])
def test_a_clock_that_differs_is_told(place, settings, monkeypatch, offset_s, word):
    place(bootstrap_servers=settings.bootstrap_servers, topic_prefix=settings.topic_prefix, broker_wait_s=60)
    right = doctor.time.time
    monkeypatch.setattr(doctor.time, "time", lambda: right() + offset_s)
    finding = found()["clocks"]
    assert finding.status is Status.WARNING
    assert word in finding.found
    assert "NTP" in finding.hint


def test_without_a_broker_the_rest_is_checked(place, capsys):
    place()
    assert clv_drift("doctor") == ExitCode.BROKER
    said = capsys.readouterr().out
    assert "no Kafka broker answered" in said
    assert "clv-drift broker" in said
    assert "registry" in said
    assert "Traceback" not in said
    assert found()["topics"].status is found()["clocks"].status is Status.UNKNOWN


def test_settings_that_are_refused_end_it(place, capsys):
    place(partitions="many")
    assert clv_drift("doctor", "--json") == ExitCode.USAGE
    (told,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told["check"] == "settings"
    assert "partitions" in told["found"]


def test_a_place_that_cannot_be_written_is_named(place):
    home = place()
    (home / "reports_dir").write_text("a file")
    finding = found()["directories"]
    assert (finding.status, finding.code) == (Status.FAILED, ExitCode.STORAGE)
    assert "reports_dir" in finding.found + finding.hint


def test_a_damaged_model_is_named(place):
    home = place()
    version = "0123456789abcdef"
    (home / "registry_dir" / version).mkdir(parents=True)
    (home / "registry_dir" / version / "card.json").write_text("{")
    assert version in Registry(home / "registry_dir").damaged()
    finding = found()["registry"]
    assert (finding.status, finding.code) == (Status.FAILED, ExitCode.MODEL)
    assert version in finding.found


@pytest.mark.parametrize(
    ("free", "status", "code"),
    [
        (10 * 2**20, Status.FAILED, ExitCode.STORAGE),
        (2**30, Status.WARNING, ExitCode.OK),
        (2**40, Status.OK, 0),
    ],
)
def test_a_full_disk_is_told(place, monkeypatch, free, status, code):
    place()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=free))
    finding = found()["disk"]
    assert (finding.status, finding.code) == (status, code)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, Status.OK),
        ({"web_host": "0.0.0.0"}, Status.WARNING),
        ({"web_host": "0.0.0.0", "web_token": "long enough for one"}, Status.OK),
    ],
)
def test_a_page_that_everybody_reads_is_told(place, changes, status):
    place(**changes)
    assert found()["web"].status is status


def test_jars_that_are_missing_are_no_failure(place):
    place()
    finding = found()["embedded broker"]
    assert finding.status is Status.WARNING
    assert "--prepare" in finding.hint
    assert exit_code([finding]) is ExitCode.OK
