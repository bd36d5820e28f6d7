"""A broker as companies have it: TLS, SASL, client certificates, ACLs; and an open door for the tests."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion

from streams.embedded_kafka import EmbeddedKafka
from streams.kafka_process import HOST, free_port

SCRAM, PLAIN, MUTUAL = "SCRAM", "PLAIN", "MUTUAL"
MECHANISM = "SCRAM-SHA-512"


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
            f"listener.name.{SCRAM.lower()}.sasl.enabled.mechanisms": MECHANISM,
            f"listener.name.{PLAIN.lower()}.sasl.enabled.mechanisms": "PLAIN",
            "ssl.keystore.type": "PEM",
            "ssl.truststore.type": "PEM",
            "ssl.keystore.certificate.chain": certificate.read_text().strip(),
            "ssl.keystore.key": key.read_text().strip(),
            "ssl.truststore.certificates": self.authority.ca_file.read_text().strip(),
            f"listener.name.{MUTUAL.lower()}.ssl.client.auth": "required",
            f"listener.name.{SCRAM.lower()}.{MECHANISM.lower()}.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            f"listener.name.{PLAIN.lower()}.plain.sasl.jaas.config": (
                "org.apache.kafka.common.security.plain.PlainLoginModule required"
                ' user_worker="right-password";'
            ),
        }
        if acls:
            properties |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }
        self.kafka = EmbeddedKafka(directory / "kafka", cache, properties=properties)

    def __enter__(self) -> Self:
        self.kafka.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kafka.stop()

    def address(self, listener: str) -> str:
        return f"{HOST}:{self.ports[listener]}"

    def add_users(self, *names: str) -> None:
        """Let users in by SCRAM; a user's password is `<name>-password`."""
        with KafkaAdminClient(bootstrap_servers=self.kafka.bootstrap_servers) as admin:
            admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(name, MECHANISM, f"{name}-password") for name in names]
            )
            wait_until(lambda: admin.describe_user_scram_credentials().keys() >= set(names))


def wait_until(is_known: Callable[[], bool]) -> None:
    """Wait for what a broker has acknowledged to be known to it."""
    until = time.monotonic() + 60
    while not is_known():
        assert time.monotonic() < until
        time.sleep(0.05)
