"""Who may read: whoever knows the token, where there is one, and no page of another site."""

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from hashlib import blake2b
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

COOKIE = "clv_drift"
FIELDS_MAX = 20  # of a query in which the token is looked for


class UnreadableError(ValueError):
    """A Host header or a query that cannot be read; says which."""


class Access:
    """Decides on requests to a server bound to `host`; `token` covers every path but `open_paths`."""

    open_paths = frozenset({"/healthz", "/readyz"})

    def __init__(self, host: str, token: str | None) -> None:
        self._host = host
        self._token = None if token is None else token.encode()

    def right_host(self, named: str | None) -> bool:
        """Return whether the Host header is a name that no other site can have given to this address.

        Else a page of that site could read ours by it. A server on a loopback address is called by the names
        of this machine. One that is bound elsewhere has names that nobody here knows: the token decides, and
        where there is none, a name with dots, which anybody may own, must be the machine's. Raises
        UnreadableError.
        """
        try:
            name = (urlsplit(f"//{named or ''}").hostname or "").rstrip(".")
        except ValueError as exc:  # such as a bracket that is never closed
            raise UnreadableError("the Host header is no host") from exc
        if name == self._host.lower() or loopback(name):
            return True
        if loopback(self._host):
            return False
        if self._token is not None or not named:  # no browser leaves it out
            return True
        return "." not in name or _is_address(name) or name == socket.gethostname().lower()

    def admits(self, path: str, query: str, headers: Mapping[str, str]) -> bool:
        """Return whether the request may be answered; `headers` by names in lower case.

        Raises UnreadableError.
        """
        if self._token is None or path in self.open_paths:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(bearer.strip().encode(errors="replace"), self._token):
            return True
        return self.by_query(query) or _same(_cookie(headers.get("cookie", "")), self._proof())

    def by_query(self, query: str) -> bool:
        """Return whether the query holds the token: then the answer sets the cookie.

        Raises UnreadableError.
        """
        if self._token is None or "token=" not in query:
            return False
        try:
            given = parse_qs(query, max_num_fields=FIELDS_MAX).get("token", [""])[0]
        except ValueError as exc:
            raise UnreadableError(f"the query has more than {FIELDS_MAX} fields") from exc
        return _same(given.encode(errors="replace"), self._token)

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


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def loopback(host: str) -> bool:
    """Return whether a host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
