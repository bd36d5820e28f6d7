"""Keyed hashes of customer ids: who is never trained on, who belongs to a sample.

A hash of the canonical id is the same in every process, on every machine, in every window; Python's own
`hash` is not. Two uses with one hash would be correlated (a sample of the smallest hashes holds some hold-out
customers too often), so each use brings a key of its own.
"""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

HOLDOUT_KEY = b"clv-drift/holdout/1"
HOLDOUT_MODULUS = 5

# Customers remembered between calls; a year of a large shop. An entry costs about 200 bytes.
CACHED_IDS_MAX = 1 << 18


@lru_cache(maxsize=CACHED_IDS_MAX)
def _hash_one(customer_id: str, key: bytes) -> int:
    return int.from_bytes(blake2b(customer_id.encode(), key=key, digest_size=8).digest(), "little")


def customer_hash(customer_ids: Iterable[str], key: bytes) -> npt.NDArray[np.uint64]:
    """Return the keyed 64-bit blake2b of each id, in the order given, shape (n,).

    Ids are canonical text (`17850`, never 17850 or 17850.0); anything but text raises ValueError, because
    it would hash to another customer. `key` is 1 to 64 bytes.

    >>> customer_hash(["17850", "13047"], b"demo")
    array([15227137790456830951,  1268829503804465325], dtype=uint64)
    """
    if not 1 <= len(key) <= 64:
        raise ValueError(f"the key of a customer hash has 1 to 64 bytes, not {len(key)}")
    hashes: list[int] = []
    for customer_id in customer_ids:
        if not isinstance(customer_id, str):
            raise ValueError(f"customer id {customer_id!r} is not text")
        hashes.append(_hash_one(customer_id, key))
    return np.array(hashes, dtype=np.uint64)


def is_holdout(customer_ids: Iterable[str], key: bytes = HOLDOUT_KEY) -> npt.NDArray[np.bool_]:
    """Return True for the customers no model is ever trained on, one in five, shape (n,)."""
    held_out: npt.NDArray[np.bool_] = customer_hash(customer_ids, key) % np.uint64(HOLDOUT_MODULUS) == 0
    return held_out
