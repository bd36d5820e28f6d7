"""One request to an endpoint: no redirect, no proxy, no cookie, and little is read of the answer."""

import os
import re
import ssl
import time
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus, urlsplit

import aiohttp

from streams import cloudevents
from streams.errors import ExitCode, UserError
from streams.webhooks.backoff import retry_after_s
from streams.webhooks.endpoints import Endpoint
from streams.webhooks.formats import body_of
from streams.webhooks.guard import RefusedAddressError, guarded_socket
from streams.webhooks.notice import clean
from streams.webhooks.signing import signature_headers
from streams.webhooks.target import Target

CONNECT_TIMEOUT_S = 5.0
BODY_BYTES_MAX = 1024 * 1024
ANSWER_BYTES_MAX = 4 * 1024
AGAIN = frozenset({408, 429})
AGENT = "clv-drift"
HIDDEN = "[hidden]"
SECRET_CHARACTERS_MIN = 6  # shorter parts of a URL are words such as `v1` or `hooks`
_SEPARATORS = re.compile(r"[/?&=:;,]")  # between the parts of a path and of a query


class Fate(Enum):
    """What becomes of a delivery after a try."""

    DELIVERED = auto()
    AGAIN = auto()
    DEAD = auto()


class Result(NamedTuple):
    """How a try went. `problem` holds no secret; `excerpt` is what the endpoint said, for its owner only."""

    fate: Fate
    status: int | None
    problem: str = ""
    retry_after_s: float = 0.0
    excerpt: str = ""


def fate_of(status: int) -> Fate:
    """Return what an answer means.

    2xx is accepted; what asks for patience, or is the server's fault, is tried again; anything else, a
    redirect too, would be answered the same again.
    """
    if 200 <= status < 300:
        return Fate.DELIVERED
    return Fate.AGAIN if status >= 500 or status in AGAIN else Fate.DEAD


def tls_of(name: str, ca_file: Path | None) -> ssl.SSLContext:
    """Return what certificates are verified with; raises UserError (USAGE) on an unusable `ca_file`."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as exc:  # SSLError is one
        raise UserError(
            f"webhook {name}: its ca_file {ca_file} cannot be used: {exc.strerror or type(exc).__name__}",
            code=ExitCode.USAGE,
        ) from exc


async def send(endpoint: Endpoint, target: Target, event: bytes, tls: ssl.SSLContext) -> Result:
    """Send the bytes of an event once; never raises for what an endpoint, the network or an event does."""
    decoded = cloudevents.decode(event)
    try:
        body = body_of(endpoint.format, decoded, target.routing_key)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        # Nobody may stop the deliveries of all others by one odd event.
        return Result(Fate.DEAD, None, f"the event cannot be written as {endpoint.format}: {exc!r}")
    if len(body.content) > BODY_BYTES_MAX:
        return Result(Fate.DEAD, None, f"the message has {len(body.content)} bytes, at most {BODY_BYTES_MAX}")
    headers = {
        "Content-Type": body.content_type,
        "User-Agent": AGENT,
        **signature_headers(target.keys, str(decoded["id"]), int(time.time()), body.content),
    }
    try:
        return await _post(endpoint, target, body.content, headers, tls)
    except (aiohttp.ClientError, OSError, ValueError) as exc:  # ValueError: of what yarl makes of a URL
        return Result(Fate.AGAIN, None, _reason(exc, endpoint.timeout_s))


async def _post(
    endpoint: Endpoint, target: Target, content: bytes, headers: dict[str, str], tls: ssl.SSLContext
) -> Result:
    connector = aiohttp.TCPConnector(
        ssl=tls, force_close=True, use_dns_cache=False, socket_factory=guarded_socket(allowed=target.allowed)
    )
    timeout = aiohttp.ClientTimeout(
        total=endpoint.timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, endpoint.timeout_s)
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            trust_env=False,
            auto_decompress=False,  # a small answer could become a huge one
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session,
        session.post(target.url, data=content, headers=headers, allow_redirects=False) as response,
    ):
        fate = fate_of(response.status)
        excerpt = await _excerpt(response, target)
        response.close()  # what is left of the answer is not read
        return Result(
            fate,
            response.status,
            "" if fate is Fate.DELIVERED else f"answered {response.status}",
            retry_after_s(response.headers.get("Retry-After"), time.time()),
            excerpt,
        )


async def _excerpt(response: aiohttp.ClientResponse, target: Target) -> str:
    """Return the beginning of the answer to a refused message; it may repeat what it was sent."""
    if response.status < 300:
        return ""
    read = b""
    with suppress(aiohttp.ClientError, OSError):
        read = await response.content.read(ANSWER_BYTES_MAX)
    return clean(_hidden(read.decode(errors="replace"), target))


def _hidden(text: str, target: Target) -> str:
    """Return `text` without what of the URL may be a secret, whole or in parts, nor the routing key.

    What was read may end within one: its beginning is taken away too.
    """
    forms = sorted(_secret_forms(target), key=lambda form: (-len(form), form))
    text = re.sub("|".join(map(re.escape, forms)), HIDDEN, text, flags=re.IGNORECASE)
    lowered = text.lower()
    for form in forms:
        for length in range(len(form) - 1, SECRET_CHARACTERS_MIN - 1, -1):
            if lowered.endswith(form[:length].lower()):
                return text[: -len(form[:length])] + HIDDEN
    return text


def _secret_forms(target: Target) -> set[str]:
    """Return the texts to be hidden, each as it is written and as a server reads it; never empty."""
    parts = urlsplit(target.url)
    path = parts.path.lstrip("/")
    whole = f"{path}?{parts.query}"
    raw = [target.url, whole, path, parts.query, *_SEPARATORS.split(whole)]
    # A server may read + as a blank.
    forms = {form for piece in raw for form in (piece, unquote(piece), unquote_plus(piece))}
    found = {form for form in forms if len(form) >= SECRET_CHARACTERS_MIN}
    return found | {target.routing_key} if target.routing_key else found


def _reason(exc: Exception, timeout_s: float) -> str:
    """Return what went wrong in our own words: those of the library may hold the URL."""
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return "the host's name is not known"
    if isinstance(exc, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError)):
        return "the certificate or the TLS connection is not to be trusted"
    if isinstance(exc, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(exc, aiohttp.ClientConnectorError):
        if isinstance(exc.os_error, RefusedAddressError):
            return f"refused: {exc.os_error}"
        number = exc.os_error.errno
        return f"no connection: {os.strerror(number) if number else 'at none of its addresses'}"
    return f"the connection failed: {type(exc).__name__}"
