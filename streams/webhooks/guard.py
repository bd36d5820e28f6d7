"""The guard against requests to where nobody outside should get: which URL and which address is allowed.

The address is checked where the socket is made, for every attempt and for the very address that is connected
to. So a name that is looked up twice, or answers something else the second time, changes nothing.
"""

import re
import socket
from collections.abc import Callable, Collection
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

AddrInfo = tuple[Any, Any, int, str, tuple[Any, ...]]

# Addresses in which an IPv4 address is wrapped: RFC 6052 (two prefixes), RFC 4291 (compatible).
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
# Of the special-purpose registries (RFC 6890), what some releases of Python take for public.
_SPECIAL = tuple(
    map(
        ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "2001::/23", "3fff::/20", "5f00::/16"),
    )
)


class RefusedError(ValueError):
    """A URL that is not to be asked; says why, never the URL itself."""


class RefusedAddressError(OSError):
    """An address that is not to be connected to."""


def check_url(url: str, allow_hosts: Collection[str]) -> SplitResult:
    """Return the parts of `url`, or raise RefusedError: only https, or a host that is allowed by name."""
    if re.search(r"[\x00-\x20\x7f-\x9f\\]", url):
        raise RefusedError("it has white space, a backslash or control characters in it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise RefusedError("it is no URL") from exc
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in {"https", "http"} or not host or port == 0:
        raise RefusedError("it is no https URL with a host")
    if parts.username is not None or parts.password is not None:
        raise RefusedError("a login in it would be sent, and shown: a secret has a place of its own")
    allowed = is_allowed(host, allow_hosts)
    if parts.scheme == "http" and not allowed:
        raise RefusedError(f"{host}: http is for hosts in allow_hosts only")
    _check_literal(host, allowed=allowed)
    return parts


def is_allowed(host: str, allow_hosts: Collection[str]) -> bool:
    """Return whether `host` is named in `allow_hosts`; no patterns."""
    wanted = host.lower().rstrip(".")
    return wanted in {name.lower().strip("[]").rstrip(".") for name in allow_hosts}


def _check_literal(host: str, *, allowed: bool) -> None:
    """Refuse hosts that are addresses, where they are not public or not written as addresses are."""
    if "%" in host:
        raise RefusedError("its host has a zone or an escape in it")
    try:
        address = ip_address(host)
    except ValueError:
        # Resolvers take 127.1, 0x7f000001 and 017700000001 for addresses.
        if re.fullmatch(r"\d+|0x[0-9a-f]*", host.rpartition(".")[2], re.IGNORECASE) or ":" in host:
            raise RefusedError(f"{host} is a number, and no address in its usual form") from None
        if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", host, re.IGNORECASE):
            raise RefusedError("its host is no name (international names in their xn-- form)") from None
        return
    if not allowed and not is_public(address):
        raise RefusedError(f"{host} is not a public address; allow_hosts may name it")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one of the open network, and so are all that are wrapped in it."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        wrapped = _wrapped(address)
        if wrapped is not None:
            return is_public(wrapped)
    if any(address in network for network in _SPECIAL if network.version == address.version):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _wrapped(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or address in _COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _NAT64_LOCAL:  # whatever is behind it, it is this network's own
        return IPv4Address("127.0.0.1")
    return None


def guarded_socket(*, allowed: bool) -> Callable[[AddrInfo], socket.socket]:
    """Return what makes the socket of a connection: for a public address, or for any of an `allowed` host."""

    def make(info: AddrInfo) -> socket.socket:
        family, kind, protocol, _, place = info
        if not allowed and not is_public(ip_address(str(place[0]).partition("%")[0])):
            # In the same words for each address of a host: those are joined to one error then.
            raise RefusedAddressError("the host's address is not public; allow_hosts may name it")
        return socket.socket(family, kind, protocol)

    return make
