"""How a process gets into a Kafka cluster that is not open to all: the settings, and what clients need."""

import ssl
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, SecretStr, model_validator

from streams.errors import ExitCode, UserError

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Compression = Literal["none", "gzip", "lz4", "snappy", "zstd"]


class KafkaAccess(BaseModel):
    """The settings of every connection to Kafka; names and values are Kafka's own where it has them."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        pattern=r"^[^\s,:]+:\d{1,5}(,[^\s,:]+:\d{1,5})*$",
        description="Brokers, as host:port[,host:port].",
    )
    security_protocol: Protocol = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, as the listener has it."
    )
    sasl_mechanism: Mechanism = Field("SCRAM-SHA-512", description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.")
    sasl_username: str = Field("", description="User of SASL.")
    sasl_password: SecretStr | None = Field(
        None, description="Password of SASL; rather in `sasl_password_file`, which no environment shows."
    )
    sasl_password_file: Path | None = Field(
        None, description="File that holds the password of SASL; a line break at its end does not count."
    )
    ssl_ca_file: Path | None = Field(
        None, description="Certificates (PEM) that the broker's is checked against; else the system's."
    )
    ssl_certificate_file: Path | None = Field(
        None, description="Certificate of this process (PEM, with those between it and the authority)."
    )
    ssl_key_file: Path | None = Field(None, description="Key of that certificate (PEM).")
    ssl_key_password: SecretStr | None = Field(None, description="Password of that key, if it has one.")
    ssl_check_hostname: bool = Field(
        True, description="Whether the broker's certificate must be made out to the host that is called."
    )
    compression: Compression = Field(
        "none", description="How messages are compressed: none, gzip, lz4, snappy or zstd."
    )

    @model_validator(mode="after")
    def _access_agrees(self) -> Self:
        wrong = [
            f"bootstrap_servers: {server} has no port from 1 to 65535"
            for server in self.bootstrap_servers.split(",")
            if not 1 <= int(server.rpartition(":")[2]) <= 65_535
        ]
        if self.uses_sasl and not self.sasl_username:
            wrong.append(f"sasl_username is needed for security_protocol {self.security_protocol}")
        if self.uses_sasl and (self.sasl_password is None) == (self.sasl_password_file is None):
            wrong.append(
                f"either sasl_password or sasl_password_file is needed for {self.security_protocol}, not both"
            )
        if self.sasl_username and not self.uses_sasl:
            wrong.append(f"sasl_username says nothing with security_protocol {self.security_protocol}")
        if (self.ssl_ca_file or self.ssl_certificate_file) and not self.uses_tls:
            wrong.append(f"ssl_... files say nothing with security_protocol {self.security_protocol}")
        if (self.ssl_certificate_file is None) != (self.ssl_key_file is None):
            wrong.append("ssl_certificate_file and ssl_key_file belong together")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def uses_sasl(self) -> bool:
        """Whether a user and a password are sent."""
        return self.security_protocol.startswith("SASL")

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.security_protocol.endswith("SSL")

    @cached_property
    def tls_context(self) -> ssl.SSLContext | None:
        """What TLS connections are made with, None without; raises UserError (USAGE) on unusable files."""
        if not self.uses_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ssl_ca_file)
        except (OSError, ssl.SSLError) as exc:
            raise _refused("ssl_ca_file", self.ssl_ca_file, exc) from exc
        context.check_hostname = self.ssl_check_hostname
        if self.ssl_certificate_file is not None:
            secret = self.ssl_key_password
            try:
                # Without a password given, a locked key would be asked for at the terminal.
                password = b"" if secret is None else secret.get_secret_value().encode()
                context.load_cert_chain(self.ssl_certificate_file, self.ssl_key_file, lambda: password)
            except (OSError, ssl.SSLError) as exc:
                names = f"{self.ssl_certificate_file} and {self.ssl_key_file}"
                raise _refused("ssl_certificate_file, ssl_key_file", names, exc) from exc
        return context

    @cached_property
    def password(self) -> str | None:
        """The password of SASL, None without; raises UserError (USAGE) where its file cannot be read."""
        if self.sasl_password is not None:
            return self.sasl_password.get_secret_value()
        if self.sasl_password_file is None:
            return None
        try:
            return self.sasl_password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise _refused("sasl_password_file", self.sasl_password_file, exc) from exc


def python_client(access: KafkaAccess) -> dict[str, Any]:
    """Return what a client of kafka-python is made with to get into the cluster."""
    return {"bootstrap_servers": access.bootstrap_servers.split(","), **_credentials(access)}


def async_client(access: KafkaAccess) -> dict[str, Any]:
    """Return what a client of aiokafka is made with to get into the cluster."""
    return {"bootstrap_servers": access.bootstrap_servers, **_credentials(access)}


def compression_type(access: KafkaAccess) -> str | None:
    """Return what a producer of either library is told."""
    return None if access.compression == "none" else access.compression


def faust_credentials(access: KafkaAccess) -> Any:
    """Return what a Faust app is given as its broker's credentials, None where it needs none."""
    import faust  # noqa: PLC0415  (seconds, for the worker alone)

    if access.uses_sasl:
        return faust.SASLCredentials(
            username=access.sasl_username,
            password=access.password,
            ssl_context=access.tls_context,
            mechanism=access.sasl_mechanism,
        )
    return faust.SSLCredentials(context=access.tls_context) if access.uses_tls else None


def _credentials(access: KafkaAccess) -> dict[str, Any]:
    found: dict[str, Any] = {"security_protocol": access.security_protocol}
    if access.uses_tls:
        found["ssl_context"] = access.tls_context
    if access.uses_sasl:
        found |= {
            "sasl_mechanism": access.sasl_mechanism,
            "sasl_plain_username": access.sasl_username,
            "sasl_plain_password": access.password,
        }
    return found


def _refused(name: str, what: object, exc: Exception) -> UserError:
    reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return UserError(
        f"{name}: {what} cannot be used: {reason}",
        hint="files in PEM format that this user can read are expected",
        code=ExitCode.USAGE,
    )
