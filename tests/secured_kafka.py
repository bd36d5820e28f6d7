"""A broker as companies have it: TLS, SASL, client certificates, ACLs; and an open door for the tests."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self
from unittest.mock import patch

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
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
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr

from streams.embedded_kafka import EmbeddedKafka
from streams.kafka_config import LOG4J_PROPERTIES
from streams.kafka_process import HOST, free_port
from streams.rights import PROCESSES, Right, rights_of
from streams.settings import Settings

SCRAM, PLAIN, MUTUAL = "SCRAM", "PLAIN", "MUTUAL"
MECHANISM = "SCRAM-SHA-512"
MECHANISMS = (MECHANISM, "SCRAM-SHA-256")

# The broker notes whom it allowed or denied what.
AUDITED = (
    LOG4J_PROPERTIES.replace("loggers = ", "loggers = audit, ")
    + """\
logger.audit.name = kafka.authorizer.logger
logger.audit.level = DEBUG
"""
)
_ASKED = re.compile(
    r"Principal = User:(\S+) is (Allowed|Denied) operation = (\w+) from host = \S+"
    r" on resource = (\w+):LITERAL:(\S+) "
)
EVERY_ACL = ACLFilter(
    None,
    None,
    ACLOperation.ANY,
    ACLPermissionType.ANY,
    ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)


class Asked(NamedTuple):
    """What the broker was asked by a user; operation and kind in small letters without anything between."""

    user: str
    operation: str
    kind: str
    name: str


@dataclass(frozen=True)
class Authority:
    """Who signs, with the files that settings name."""

    ca: trustme.CA
    directory: Path

    @classmethod
    def made(cls, directory: Path) -> "Authority":
        directory.mkdir(parents=True)
        found = cls(trustme.CA(), directory)
        found.ca.cert_pem.write_to_path(str(found.ca_file))
        return found

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    def issue(self, name: str, host: str) -> tuple[Path, Path]:
        """Return the files of a certificate made out to `host`, and of its key."""
        made = self.ca.issue_cert(host, common_name=name)
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        loaded = load_pem_private_key(made.private_key_pem.bytes(), None)
        # The one form that Kafka reads.
        key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key


class SecuredKafka:
    """The broker; ports of its listeners by name. The open one, `kafka.port`, is for the tests alone."""

    def __init__(self, directory: Path, cache: Path, *, acls: bool = False) -> None:
        self.authority = Authority.made(directory / "authority")
        self.ports = {name: free_port() for name in (SCRAM, PLAIN, MUTUAL)}
        certificate, key = self.authority.issue("broker", HOST)
        listeners = ",".join(f"{name}://{HOST}:{port}" for name, port in self.ports.items())
        properties = {
            "listeners": listeners,
            "advertised.listeners": listeners,
            "listener.security.protocol.map": f"{SCRAM}:SASL_SSL,{PLAIN}:SASL_PLAINTEXT,{MUTUAL}:SSL",
            f"listener.name.{SCRAM.lower()}.sasl.enabled.mechanisms": ",".join(MECHANISMS),
            f"listener.name.{PLAIN.lower()}.sasl.enabled.mechanisms": "PLAIN",
            "ssl.keystore.type": "PEM",
            "ssl.truststore.type": "PEM",
            "ssl.keystore.certificate.chain": certificate.read_text().strip(),
            "ssl.keystore.key": key.read_text().strip(),
            "ssl.truststore.certificates": self.authority.ca_file.read_text().strip(),
            f"listener.name.{MUTUAL.lower()}.ssl.client.auth": "required",
            # Whom a certificate is made out to is a user, as by the other ways in.
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+),.*$/$1/,DEFAULT",
            f"listener.name.{PLAIN.lower()}.plain.sasl.jaas.config": (
                "org.apache.kafka.common.security.plain.PlainLoginModule required"
                + "".join(f' user_{name}="{name}-password"' for name in PROCESSES)
                + ";"
            ),
        } | {
            f"listener.name.{SCRAM.lower()}.{mechanism.lower()}.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            )
            for mechanism in MECHANISMS
        }
        if acls:
            properties |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }
        self.kafka = EmbeddedKafka(directory / "kafka", cache, properties=properties)

    def __enter__(self) -> Self:
        with patch("streams.kafka_process.LOG4J_PROPERTIES", AUDITED):
            self.kafka.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kafka.stop()

    def address(self, listener: str) -> str:
        return f"{HOST}:{self.ports[listener]}"

    def add_users(self, *names: str) -> None:
        """Let users in by SCRAM; a user's password is `<name>-password`."""
        with KafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers) as admin:
            for mechanism in MECHANISMS:
                admin.alter_user_scram_credentials(
                    [UserScramCredentialUpsertion(name, mechanism, f"{name}-password") for name in names]
                )
            wait_until(
                lambda: all(
                    len(admin.describe_user_scram_credentials().get(name, ())) == len(MECHANISMS)
                    for name in names
                )
            )

    def allow(self, acls: Iterable[ACL]) -> None:
        """Give rights, and wait for them to hold."""
        given = set(acls)
        with KafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers) as admin:
            admin.create_acls(list(given))
            wait_until(lambda: given <= set(admin.describe_acls(EVERY_ACL)[0]))

    def forbid(self, one: ACL) -> None:
        """Take a right back, and wait until it holds no more."""
        taken = ACLFilter(
            one.principal,
            one.host,
            one.operation,
            one.permission_type,
            ResourcePatternFilter(
                one.resource_pattern.resource_type,
                one.resource_pattern.resource_name,
                one.resource_pattern.pattern_type,
            ),
        )
        with KafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers) as admin:
            admin.delete_acls([taken])
            wait_until(lambda: one not in set(admin.describe_acls(EVERY_ACL)[0]))

    def asked(self, verdict: str) -> set[Asked]:
        """Return what was `Allowed` or `Denied` so far, as the broker notes it."""
        found = _ASKED.findall(self.kafka.log_file.read_text(errors="replace"))
        return {
            Asked(user, _small(operation), _small(kind), name)
            for user, said, operation, kind, name in found
            if said == verdict
        }


def _small(words: str) -> str:
    return re.sub("[^a-z]", "", words.lower())


def is_asked(process: str, right: Right, operation: str, found: set[Asked]) -> bool:
    """Return whether `process` made use of an operation of one of its rights."""
    return any(
        (one.user, one.operation, one.kind) == (process, _small(operation), _small(right.kind))
        and (one.name.startswith(right.name) if right.prefixed else one.name == right.name)
        for one in found
    )


def acl(principal: str, right: Right, operation: str) -> ACL:
    """Return an operation of a right as Kafka's clients have it."""
    words = "".join(f"_{letter}" if letter.isupper() else letter for letter in operation).upper().lstrip("_")
    how = ACLResourcePatternType.PREFIXED if right.prefixed else ACLResourcePatternType.LITERAL
    pattern = ResourcePattern(ResourceType[right.kind.upper().replace("-", "_")], right.name, how)
    return ACL(principal, "*", ACLOperation[words], ACLPermissionType.ALLOW, pattern)


def acls_of(process: str, settings: Settings) -> list[ACL]:
    """Return the listed rights of a process for the user of its name."""
    return [
        acl(f"User:{process}", right, operation)
        for right in rights_of(process, settings)
        for operation in right.operations
    ]


def scram(broker: SecuredKafka, **changes) -> Settings:
    """Settings of the user `worker`, who comes in by SCRAM and TLS."""
    return Settings(
        **{
            "bootstrap_servers": broker.address(SCRAM),
            "security_protocol": "SASL_SSL",
            "sasl_username": "worker",
            "sasl_password": "worker-password",
            "ssl_ca_file": broker.authority.ca_file,
            "broker_wait_s": 60,
            **changes,
        }
    )


def plain(broker: SecuredKafka, **changes) -> Settings:
    """Settings of the user `worker`, who comes in by PLAIN, without TLS."""
    given = {
        "bootstrap_servers": broker.address(PLAIN),
        "ssl_ca_file": None,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
    }
    return scram(broker, **(given | changes))


def mutual(broker: SecuredKafka, authority: Authority, name: str = "worker", **changes) -> Settings:
    """Settings of whoever has a certificate of `authority` made out to `name`."""
    certificate, key = authority.issue(name, "worker.example")
    given = {
        "bootstrap_servers": broker.address(MUTUAL),
        "security_protocol": "SSL",
        "ssl_certificate_file": certificate,
        "ssl_key_file": key,
        "ssl_ca_file": broker.authority.ca_file,
        "broker_wait_s": 60,
    }
    return Settings(**(given | changes))


def as_user(conf: Settings, name: str) -> Settings:
    """Return `conf` with another user of SASL."""
    return conf.model_copy(update={"sasl_username": name, "sasl_password": SecretStr(f"{name}-password")})


def wait_until(is_known: Callable[[], bool]) -> None:
    """Wait for what a broker has acknowledged to be known to it."""
    until = time.monotonic() + 60
    while not is_known():
        assert time.monotonic() < until
        time.sleep(0.05)
