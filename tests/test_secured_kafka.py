"""A cluster with TLS and SASL: who gets in, what the others are told, and that processes work there."""

from pathlib import Path
from typing import Any

import pytest
from conftest import KAFKA_CACHE
from secured_kafka import SCRAM, Authority, SecuredKafka, acls_of, as_user, mutual, plain, scram
from small_shop import SHORT
from stream_run import StreamRun

from streams.errors import ExitCode, UserError
from streams.kafka_process import HOST
from streams.processes import Child, environment_of, stop_all
from streams.rights import PROCESSES, rights_of
from streams.settings import Settings
from streams.topic_admin import connect_check, ensure_topics

pytestmark = pytest.mark.broker

SECRET = "worker-password"


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    with SecuredKafka(tmp_path_factory.mktemp("secured"), KAFKA_CACHE, acls=True) as broker:
        broker.add_users(*PROCESSES)
        yield broker


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority.made(tmp_path_factory.mktemp("stranger") / "authority")


# -- getting in ------------------------------------------------------------------


def test_each_way_in(secured, tmp_path):
    connect_check(scram(secured))
    connect_check(scram(secured, sasl_mechanism="SCRAM-SHA-256"))
    connect_check(plain(secured))
    connect_check(mutual(secured, secured.authority))
    file = tmp_path / "password"
    file.write_text(SECRET + "\n")
    connect_check(scram(secured, sasl_password=None, sasl_password_file=file))
    localhost = secured.address(SCRAM).replace(HOST, "localhost")
    connect_check(scram(secured, bootstrap_servers=localhost, ssl_check_hostname=False))


REFUSED = {
    "password": (lambda b, _: scram(b, sasl_password="wrong"), "refuses the user 'worker' (SCRAM-SHA-512)"),
    "user": (lambda b, _: scram(b, sasl_username="nobody"), "refuses the user 'nobody'"),
    "plain password": (lambda b, _: plain(b, sasl_password="wrong"), "refuses the user 'worker' (PLAIN)"),
    "mechanism": (lambda b, _: plain(b, sasl_mechanism="SCRAM-SHA-256"), "does not take SCRAM-SHA-256"),
    "authority": (lambda b, s: scram(b, ssl_ca_file=s.ca_file), "is not trusted: unable to get local issuer"),
    "host": (
        lambda b, _: scram(b, bootstrap_servers=b.address(SCRAM).replace(HOST, "localhost")),
        "is not trusted: Hostname mismatch",
    ),
    "certificate": (mutual, "closed the connection after our certificate"),
    "no certificate": (
        lambda b, _: mutual(b, b.authority, ssl_certificate_file=None, ssl_key_file=None),
        "closed the connection after our certificate",
    ),
    "no TLS": (
        lambda b, _: Settings(bootstrap_servers=b.address(SCRAM)),
        "closed the connection",
    ),
    "TLS where there is none": (
        lambda b, _: mutual(b, b.authority, bootstrap_servers=b.kafka.bootstrap_servers),
        "does not speak TLS",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_who_does_not_get_in_is_told_why_and_no_secret(secured, stranger, name, monkeypatch):
    monkeypatch.setattr("streams.broker_refusal.ASK_MAX_S", 60.0)
    made, words = REFUSED[name]
    with pytest.raises(UserError) as caught:
        connect_check(made(secured, stranger).model_copy(update={"broker_wait_s": 2}))
    assert caught.value.code is ExitCode.BROKER
    assert words in caught.value.message
    said = f"{caught.value.message} {caught.value.hint} {caught.value.__cause__!r}"
    assert "security_protocol" in said or "sasl" in said or "ssl_" in said
    assert "password'" not in said
    assert "wrong" not in said


def test_secrets_are_in_no_text_of_the_settings(secured):
    settings = scram(secured, ssl_key_password="of-the-key")
    said = repr(settings) + str(settings) + settings.model_dump_json()
    assert SECRET not in said
    assert "of-the-key" not in said
    assert settings.revealed()["sasl_password"] == SECRET


# -- work ------------------------------------------------------------------------


class OfCertificates(StreamRun):
    """Each process shows a certificate made out to it, or goes by PLAIN; it has its listed rights."""

    def __init__(self, broker: SecuredKafka, own: dict[str, Any], logs: Path) -> None:
        super().__init__(Settings(bootstrap_servers=broker.kafka.bootstrap_servers, **own), logs)
        self.broker, self.own = broker, own

    def start(self, *arguments: str, by_password: bool = False):
        name = arguments[0]
        if by_password:
            found = as_user(plain(self.broker, **self.own), name)
        else:
            found = mutual(self.broker, self.broker.authority, name, **self.own)
        child = Child.start(
            list(arguments),
            env=environment_of(found),
            log_path=self.logs / f"{len(self.children):02d}-{name}.log",
        )
        self.children.append(child)
        return child


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_work_by_client_certificate_and_by_plain(secured, tmp_path):
    own = {
        **SHORT,
        "topic_prefix": "mutual.",
        "partitions": 1,
        **{name: tmp_path / name for name in ("registry_dir", "reports_dir", "kafka_dir")},
    }
    stream = OfCertificates(secured, own, tmp_path)
    secured.allow([one for process in PROCESSES for one in acls_of(process, stream.settings)])
    assert ensure_topics(stream.settings) == []
    try:
        for role in ("ingest", "evaluate"):
            stream.worker(role)
        stream.start("worker", "--role", "compare", "--port", "0", by_password=True)
        stream.start("retrain", "--port", "0")
        stream.replay("--synthetic", "customers=300,days=60,seed=3", "--speed", "max")
        stream.wait_for(stream.ended)
        groups = [
            right
            for p in ("worker", "retrain")
            for right in rights_of(p, stream.settings)
            if right.kind == "group"
        ]
        joined = {right.name for right in groups if not right.name.endswith("-all")}
        stream.wait_for(
            lambda: joined <= {one.name for one in secured.asked("Allowed") if one.kind == "group"}
        )
    finally:
        stop_all(stream.children)
    assert "uthorization" not in "".join(child.log_path.read_text() for child in stream.children)
    denied = [one for one in secured.asked("Denied") if "mutual." in one.name]
    assert denied == []


def test_without_rights_one_message_names_what_is_refused(secured):
    with pytest.raises(UserError) as caught:
        ensure_topics(as_user(scram(secured, topic_prefix="no."), "watch"))
    assert caught.value.code is ExitCode.BROKER
    assert "uthoriz" in caught.value.message
