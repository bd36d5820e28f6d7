"""Customers under other names: ids hashed with a key, the same ones for ever, which nobody leads back."""

import re
from hashlib import blake2b

PREFIX = "k1-"  # the way of hashing; so a name says that it is one, and is never hashed again
_DIGEST_BYTES = 16
_MEMO_MAX = 200_000
_PSEUDONYM = re.compile(rf"{PREFIX}[0-9a-f]{{{2 * _DIGEST_BYTES}}}", re.ASCII)


class Pseudonyms:
    """Gives each customer id another name: keyed BLAKE2b of 128 bits, as hexadecimal digits behind `PREFIX`.

    The name depends on the canonical id and on the key alone, so every process gives the same one.
    """

    def __init__(self, secret: bytes) -> None:
        # Hashed first: a key of BLAKE2b has at most 64 bytes, a secret any number.
        self._key = blake2b(secret, digest_size=32, person=b"clv-drift/ids").digest()
        self._known: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Pseudonyms({self.fingerprint})"

    @property
    def fingerprint(self) -> str:
        """What tells one key from another and says nothing else of it, 16 hexadecimal digits."""
        return blake2b(b"fingerprint", key=self._key, digest_size=8).hexdigest()

    def of(self, customer_id: str) -> str:
        """Return the name of a canonical id; what is such a name already is returned as it is."""
        known = self._known.get(customer_id)
        if known is None:
            if is_pseudonym(customer_id):
                return customer_id
            if len(self._known) >= _MEMO_MAX:
                self._known.clear()
            # A lone surrogate is no text that could be encoded otherwise; Kafka's JSON cannot bring one.
            data = customer_id.encode(errors="surrogatepass")
            known = PREFIX + blake2b(data, key=self._key, digest_size=_DIGEST_BYTES).hexdigest()
            self._known[customer_id] = known
        return known


def is_pseudonym(customer_id: str) -> bool:
    """Return whether an id has the form of those that `Pseudonyms` gives, by whatever key."""
    return _PSEUDONYM.fullmatch(customer_id) is not None
