"""Who may read: whoever knows the token, where there is one, and no page of another site."""

import hmac
import ipaddress
from collections.abc import Mapping
from hashlib import blake2b
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

COOKIE = "clv_drift"


class Access:
    """Decides on requests to a server bound to `host`; `token` covers every path but `open_paths`."""

    open_paths = frozenset({"/healthz", "/readyz"})

    def __init__(self, host: str, token: str | None) -> None:
        self._host = host
        self._token = None if token is None else token.encode()

    def right_host(self, named: str | None) -> bool:
        """Return whether the Host header is one that a server on a loopback address may be called by.

        Else another site could give this address a name of its own, and read the page by it. A server that
        is bound elsewhere has names that nobody here knows: there, the token decides.
        """
        if not loopback(self._host):
            return True
        name = urlsplit(f"//{named or ''}").hostname or ""
        return name == self._host or loopback(name)

    def admits(self, path: str, query: str, headers: Mapping[str, str]) -> bool:
        """Return whether the request may be answered; `headers` by names in lower case."""
        if self._token is None or path in self.open_paths:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(bearer.strip().encode(errors="replace"), self._token):
            return True
        return self.by_query(query) or _same(_cookie(headers.get("cookie", "")), self._proof())

    def by_query(self, query: str) -> bool:
        """Return whether the query holds the token: then the answer sets the cookie."""
        given = parse_qs(query, max_num_fields=20).get("token", [""])[0] if "token=" in query else ""
        return self._token is not None and _same(given.encode(errors="replace"), self._token)

    def set_cookie(self) -> str:
        """Return the cookie that stands for the token; it does not hold it, and no script can read it."""
        return f"{COOKIE}={self._proof().decode()}; Path=/; HttpOnly; SameSite=Strict"

    def _proof(self) -> bytes:
        assert self._token is not None
        # Hashed first: a key has at most 64 bytes, a token any number.
        key = blake2b(self._token, digest_size=32).digest()
        return blake2b(b"cookie", key=key, digest_size=32).hexdigest().encode()


def _same(given: bytes, right: bytes) -> bool:
    return hmac.compare_digest(given, right)


def _cookie(header: str) -> bytes:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return b""
    return b"" if found is None else found.value.encode(errors="replace")


def loopback(host: str) -> bool:
    """Return whether a host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
