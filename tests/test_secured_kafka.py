"""A cluster with TLS, SASL and ACLs: who gets in, what the others are told, and that the listed rights do."""

from pathlib import Path

import pytest
from conftest import KAFKA_CACHE
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from pydantic import SecretStr
from secured_kafka import MUTUAL, PLAIN, SCRAM, Authority, SecuredKafka, wait_until
from small_shop import SHORT
from stream_run import StreamRun

from streams.errors import ExitCode, UserError
from streams.kafka_process import HOST
from streams.processes import Child, environment_of, stop_all
from streams.rights import PROCESSES, Right, commands_of, rights_of
from streams.settings import Settings
from streams.topic_admin import connect_check, ensure_topics
from streams.topic_reader import read_all, read_live
from streams.topics import catalogue

pytestmark = pytest.mark.broker

SECRET = "worker-password"
TEXT = "customers=3000,days=150,seed=3"


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    with SecuredKafka(tmp_path_factory.mktemp("secured"), KAFKA_CACHE, acls=True) as broker:
        broker.add_users(*PROCESSES)
        yield broker


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority.made(tmp_path_factory.mktemp("stranger") / "authority")


def scram(broker, **changes):
    return Settings(
        **{
            "bootstrap_servers": broker.address(SCRAM),
            "security_protocol": "SASL_SSL",
            "sasl_username": "worker",
            "sasl_password": SECRET,
            "ssl_ca_file": broker.authority.ca_file,
            "broker_wait_s": 60,
            **changes,
        }
    )


def plain(broker, **changes):
    given = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_password": "right-password",
    }
    return scram(
        broker, **{"bootstrap_servers": broker.address(PLAIN), "ssl_ca_file": None, **given, **changes}
    )


def mutual(broker, authority, **changes):
    certificate, key = authority.issue("worker", "worker.example")
    given = {
        "bootstrap_servers": broker.address(MUTUAL),
        "security_protocol": "SSL",
        "ssl_certificate_file": certificate,
        "ssl_key_file": key,
        "ssl_ca_file": broker.authority.ca_file,
        "broker_wait_s": 60,
    }
    return Settings(**(given | changes))


# -- getting in ------------------------------------------------------------------


def test_each_way_in(secured, tmp_path):
    connect_check(scram(secured))
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


# -- rights ----------------------------------------------------------------------


def acl(principal: str, right: Right, operation: str) -> ACL:
    words = "".join(f"_{letter}" if letter.isupper() else letter for letter in operation).upper().lstrip("_")
    pattern = ResourcePattern(
        ResourceType[right.kind.upper().replace("-", "_")], right.name, ACLResourcePatternType.LITERAL
    )
    return ACL(principal, "*", ACLOperation[words], ACLPermissionType.ALLOW, pattern)


def allow(broker, settings):
    given = [
        acl(f"User:{process}", right, operation)
        for process in PROCESSES
        for right in rights_of(process, settings)
        for operation in right.operations
    ]
    every = ACLFilter(
        None,
        None,
        ACLOperation.ANY,
        ACLPermissionType.ANY,
        ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
    )
    with KafkaAdminClient(bootstrap_servers=broker.kafka.bootstrap_servers) as admin:
        admin.create_acls(given)
        wait_until(lambda: set(admin.describe_acls(every)[0]) >= set(given))


def as_user(conf: Settings, name: str) -> Settings:
    return conf.model_copy(update={"sasl_username": name, "sasl_password": SecretStr(f"{name}-password")})


class OfRights(StreamRun):
    """Each process is a user of its own, with its listed rights and no others."""

    def __init__(self, settings: Settings, logs: Path, as_test: Settings) -> None:
        super().__init__(as_test, logs)
        self.as_users = settings

    def start(self, *arguments: str):
        child = Child.start(
            list(arguments),
            env=environment_of(as_user(self.as_users, arguments[0])),
            log_path=self.logs / f"{len(self.children):02d}-{arguments[0]}.log",
        )
        self.children.append(child)
        return child


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_listed_rights_are_enough_for_every_process(secured, tmp_path):
    own = {
        **SHORT,
        "topic_prefix": "secured.",
        "partitions": 2,
        "registry_dir": tmp_path / "registry",
        "reports_dir": tmp_path / "reports",
        "kafka_dir": tmp_path / "kafka",
        "webhooks_dir": tmp_path / "webhooks",
        "decision_wait_s": 600,
        "training_timeout_s": 300,
        "compression": "zstd",
    }
    conf = scram(secured, **own)
    allow(secured, conf)
    assert ensure_topics(as_user(conf, "topics")) == []
    stream = OfRights(conf, tmp_path, Settings(bootstrap_servers=secured.kafka.bootstrap_servers, **own))
    try:
        for name in ("scores", "retrain"):
            stream.start(name, "--port", "0")
        stream.worker()
        stream.replay("--synthetic", TEXT, "--speed", "max")
        stream.wait_for(stream.ended, timeout_s=480)
        assert stream.decisions().by_request
        stream.wait_for(lambda: scored(stream.settings))
        assert stream.start("watch", "--once").process.wait(180) == 0, stream.words()
        again = stream.start("replay", "--synthetic", TEXT, "--speed", "max", "--resume")
        assert again.process.wait(180) == 0, stream.words()
        stop_all(stream.children)
        held = next(iter(read_live(stream.settings, catalogue(conf).scores.name)))
        erased = stream.start("erase", held.decode(), "--everywhere", "--yes")
        assert erased.process.wait(180) == 0, stream.words()
        assert "\n0 records" not in erased.log_path.read_text(), stream.words()
    finally:
        stop_all(stream.children)
    said = "".join(child.log_path.read_text() for child in stream.children)
    assert "uthorization" not in said
    assert "-password" not in said


def scored(settings: Settings) -> bool:
    topic = catalogue(settings).scores.name
    return any(record.value for p in range(settings.partitions) for record in read_all(settings, topic, p))


def test_without_rights_one_message_names_what_is_refused(secured):
    with pytest.raises(UserError) as caught:
        ensure_topics(
            scram(secured, sasl_username="watch", sasl_password="watch-password", topic_prefix="no.")
        )
    assert caught.value.code is ExitCode.BROKER
    assert "uthoriz" in caught.value.message


def test_every_right_is_one_that_kafka_knows():
    for process in PROCESSES:
        for line in commands_of(process, f"User:{process}", Settings(topic_prefix="a.")):
            assert line.startswith(f"kafka-acls.sh --add --allow-principal User:{process} --")
        for right in rights_of(process, Settings(topic_prefix="a.")):
            assert right.operations
            assert right.kind == "cluster" or right.name.startswith(("a.", "retail."))
            for operation in right.operations:
                acl("User:x", right, operation)
