"""Why a broker that is there does not let us in: one connection, made for the answer alone.

Clients try again and again and end with a time-out, whatever the reason; a single connection tells it.
"""

import asyncio
import ssl
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from streams.kafka_access import KafkaAccess, async_client

ASK_MAX_S = 3.0


def refusal(access: KafkaAccess) -> tuple[str, str] | None:
    """Return (what is wrong, what to do) of the first broker that answers and refuses; None where none does.

    Neither holds a secret.
    """
    for address in access.bootstrap_servers.split(","):
        found = _in_its_own_loop(_ask(access, address))
        if found is not None:
            return found
    return None


def _in_its_own_loop(question: Coroutine[Any, Any, tuple[str, str] | None]) -> tuple[str, str] | None:
    """Run a coroutine to its end, in a thread: whoever waits may be within a loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, question).result()


async def _ask(access: KafkaAccess, address: str) -> tuple[str, str] | None:
    from aiokafka.conn import create_conn  # noqa: PLC0415  (only where something is wrong)
    from aiokafka.errors import KafkaError  # noqa: PLC0415
    from aiokafka.protocol.admin import ApiVersionRequest  # noqa: PLC0415

    host, _, port = address.rpartition(":")
    options = {name: value for name, value in async_client(access).items() if name != "bootstrap_servers"}
    try:
        async with asyncio.timeout(ASK_MAX_S):
            connection = await create_conn(
                host, int(port), request_timeout_ms=round(ASK_MAX_S * 1000), **options
            )
            try:
                # A broker that wants a certificate says so after the handshake is over.
                await connection.send(ApiVersionRequest())
            finally:
                connection.close()
    except (KafkaError, OSError, TimeoutError) as exc:
        return _told(access, address, exc)
    return None


def _told(access: KafkaAccess, address: str, exc: Exception) -> tuple[str, str] | None:
    from aiokafka.errors import (  # noqa: PLC0415
        AuthenticationFailedError,
        SaslAuthenticationFailed,
        UnsupportedSaslMechanismError,
    )

    protocol, mechanism = access.security_protocol, access.sasl_mechanism
    match exc:
        case UnsupportedSaslMechanismError():
            return (
                f"the Kafka broker at {address} does not take {mechanism}",
                "set sasl_mechanism to what its listener has",
            )
        case SaslAuthenticationFailed() | AuthenticationFailedError():
            return (
                f"the Kafka broker at {address} refuses the user {access.sasl_username!r} ({mechanism})",
                "correct sasl_username, or the password in sasl_password_file or sasl_password",
            )
        case ssl.SSLCertVerificationError():
            trusted = access.ssl_ca_file or "the system's certificates"
            return (
                f"the certificate of the Kafka broker at {address} is not trusted: {exc.verify_message}",
                f"it was checked against {trusted} (ssl_ca_file)",
            )
        case ssl.SSLError() | ConnectionResetError():
            return (
                f"what answers at {address} does not speak TLS with us",
                f"security_protocol {protocol} has to be what the broker's listener has",
            )
    return _closed(access, address) if str(exc).endswith("closed") else None  # else nobody answers there


def _closed(access: KafkaAccess, address: str) -> tuple[str, str]:
    """Return what it means that a broker ends a connection without a word."""
    if access.security_protocol == "SSL":
        given = access.ssl_certificate_file or "none"
        return (
            f"the Kafka broker at {address} closed the connection after our certificate",
            f"it takes others than ssl_certificate_file ({given})",
        )
    return (
        f"the Kafka broker at {address} closed the connection",
        f"security_protocol {access.security_protocol} has to be what its listener has",
    )
