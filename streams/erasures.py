"""The customers who were erased, so that nobody scores them again: a list beside the models."""

import os
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from models.registry import RegistryStorageError

NAME = "erased.txt"


class Erasures:
    """A file of digests, one a line, in the registry's directory, which every process has.

    A digest tells a customer from others and shows no id. It is no secret: who has an id can look for it.
    """

    def __init__(self, registry_dir: Path) -> None:
        self.path = registry_dir / NAME

    def digests(self) -> frozenset[str]:
        """Return the digests of all who were erased; raises RegistryStorageError."""
        try:
            return frozenset(self.path.read_text(encoding="ascii").split())
        except FileNotFoundError:
            return frozenset()
        except (OSError, UnicodeDecodeError) as exc:
            raise _failed(self.path, "read", exc) from exc

    def add(self, customer: str) -> None:
        """Note a customer by the name that the topics have; raises RegistryStorageError."""
        if digest_of(customer) in self.digests():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="ascii") as file:  # one short write: two at once do not mix
                file.write(f"{digest_of(customer)}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise _failed(self.path, "written", exc) from exc


def digest_of(customer: str) -> str:
    """Return the digest of a customer, 32 hexadecimal digits."""
    return blake2b(customer.encode(), digest_size=16, person=b"clv-drift/erased").hexdigest()


def without(scored: Iterable[tuple[str, bytes]], erased: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """Return the (customer, message) of those who were not erased, given the digests of those who were."""
    if not erased:
        return iter(scored)
    return (item for item in scored if digest_of(item[0]) not in erased)


def _failed(path: Path, what: str, exc: Exception) -> RegistryStorageError:
    reason = (exc.strerror if isinstance(exc, OSError) else None) or exc
    return RegistryStorageError(f"{path} cannot be {what}: {reason}")
