"""What one partition's scores are and what they ought to be: the difference is what is published."""

from collections.abc import Iterator
from hashlib import blake2b

import msgspec
import pyarrow as pa

from streams import cloudevents
from streams.carry import EVALUATION
from streams.grid import from_iso
from streams.scores import SCORE
from streams.snapshots import decode_chunk


class Champion(msgspec.Struct, frozen=True):
    """With what the customers of a window are scored."""

    version: str
    cuts: tuple[float, ...]  # that part the window's predictions into tenths


def champion_in(value: bytes) -> tuple[int, Champion | None]:
    """Return the window end of an evaluation, and the model that served it with its deciles (None: none did).

    Raises ValueError on anything that is no evaluation.
    """
    event = cloudevents.decode(value)
    data = event["data"]
    try:
        if event["type"] != EVALUATION:
            raise ValueError(f"a message of type {event['type']}")
        end, version, predicted = from_iso(data["window_end"]), data["model_version"], data["predicted"]
        if version is None or predicted is None or "decile_cuts" not in predicted:
            return end, None
        return end, msgspec.convert({"version": version, "cuts": predicted["decile_cuts"]}, Champion)
    except (KeyError, TypeError) as exc:
        raise ValueError(f"not an evaluation: {exc!r}") from exc


class NewestRows:
    """The rows of a partition's newest window, as they come in chunks; they stay encoded until asked for."""

    def __init__(self) -> None:
        self.window_end: int | None = None
        self._chunks: dict[int, bytes] = {}
        self._count = 0

    def add(self, value: bytes) -> None:
        """Take a message of the topic; one of an older window is passed over. Raises ValueError on others."""
        chunk = decode_chunk(value)
        if chunk.kind != "rows":
            raise ValueError("lines where rows are expected")
        if self.window_end is not None and chunk.window_end < self.window_end:
            return
        if chunk.window_end != self.window_end:
            self.window_end, self._count, self._chunks = chunk.window_end, chunk.count, {}
        elif chunk.count != self._count:
            raise ValueError(f"a window of {chunk.count} chunks that has {self._count}")
        self._chunks[chunk.number] = value

    @property
    def whole(self) -> bool:
        """Whether every chunk of the newest window is here."""
        return self.window_end is not None and len(self._chunks) == self._count

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows, a chunk at a time."""
        chunks = [self._chunks[number] for number in range(self._count)]  # a newer window may come meanwhile
        for value in chunks:
            yield decode_chunk(value).table


class ScoreBook:
    """Which score of each customer stands in a partition, by a digest of its bytes.

    So a score that stands there already is not sent again, whoever sent it, and who left is known.
    """

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}
        self.window_end: int | None = None  # the newest of which a score stands there

    def __len__(self) -> int:
        return len(self._digests)

    def read(self, key: bytes, value: bytes | None) -> None:
        """Take note of a record of the log, in its order; raises ValueError on one that is no score."""
        if value is None:
            self._digests.pop(key.decode(), None)
            return
        event = cloudevents.decode(value)
        try:
            if event["type"] != SCORE:
                raise ValueError(f"a message of type {event['type']}")
            end = from_iso(event["data"]["window_end"])
        except (KeyError, TypeError) as exc:
            raise ValueError(f"not a score: {exc!r}") from exc
        self.window_end = end if self.window_end is None else max(self.window_end, end)
        self._digests[key.decode()] = _digest(value)

    def news(self, customer: str, value: bytes) -> bool:
        """Note a score; return whether it says other than what stands there."""
        digest = _digest(value)
        if self._digests.get(customer) == digest:
            return False
        self._digests[customer] = digest
        return True

    def gone(self, present: set[str]) -> list[str]:
        """Forget everyone who is not `present`; return who that is, sorted."""
        left = sorted(self._digests.keys() - present)
        for customer in left:
            del self._digests[customer]
        return left


def _digest(value: bytes) -> bytes:
    return blake2b(value, digest_size=8).digest()
