"""Checkpoints as records of the state topic, and the way back from those records to a state."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from models.lines import Lines
from streams.lifetime import Lifetime
from streams.partition import Cut, PartitionState
from streams.state_config import StateConfig
from streams.vocabulary import Interner, Vocabulary
from streams.window_state import Segment

PIECE_BYTES = 900_000  # a record stays below the 1 MB that brokers take by default
DIGEST_BYTES = 16
_CODEC = pa.Codec("lz4_raw")  # in and out in no time, and nearly as small: most of it is texts and zeros
_KEY = re.compile(rb"(\d{12})/(head|lines|lifetime)(?:/(\d{4}))?")
_COLUMNS = (("time", "<i8"), ("quantity", "<i8"), ("price", "<i8"))
_CODED = ("customer", "invoice", "product", "country")

# What unpacking raises on bytes that are not what was written.
_DAMAGE = (OSError, ValueError, RecursionError, msgspec.MsgspecError, pa.ArrowException)
_RATIO_MAX = 255  # lz4 packs no better than this
StateRecord = tuple[bytes, bytes | None]  # key, value; None is a tombstone


class StateUnusableError(Exception):
    """Stored state that cannot be continued: damaged, or made under other settings."""


@dataclass
class Ledger:
    """What is stored for a partition: pieces by checkpoint number; part of each head.

    A function of the partition's log like everything else in a head, so that a worker that lost its
    partition without knowing writes the same bytes under the same keys as its successor.
    """

    lines: dict[int, int] = field(default_factory=dict)  # pieces of each retained segment
    lifetime: dict[int, int] = field(default_factory=dict)  # pieces: the newest full copy, changes since
    head: int | None = None  # number of the newest checkpoint

    def commit(self, cut: Cut, words: Vocabulary) -> list[StateRecord]:
        """Return the records of a checkpoint in the order in which they must be written.

        The checkpoint counts from the moment its head, the last record with a value, is stored; what it
        made superfluous is deleted after that.
        """
        number = cut.number
        records: list[StateRecord] = []
        if cut.segment is not None:
            pieces = list(_pieces(_seal(_key(number, "lines"), _encode_segment(cut.segment, words))))
            self.lines[number] = len(pieces)
            records += [(_key(number, "lines", i), piece) for i, piece in enumerate(pieces)]
        superfluous: list[bytes] = []
        if cut.lifetime_full:
            superfluous += [
                _key(n, "lifetime", i) for n, count in self.lifetime.items() for i in range(count)
            ]
            self.lifetime = {}
        if cut.lifetime is not None:
            pieces = list(_pieces(_seal(_key(number, "lifetime"), msgspec.msgpack.encode(cut.lifetime))))
            self.lifetime[number] = len(pieces)
            records += [(_key(number, "lifetime", i), piece) for i, piece in enumerate(pieces)]
        retained = set(cut.head["segments"])
        for gone in [n for n in self.lines if n not in retained]:
            superfluous += [_key(gone, "lines", i) for i in range(self.lines.pop(gone))]
        if self.head is not None:
            superfluous.append(_key(self.head, "head"))
        self.head = number
        head = cut.head | {"lines": sorted(self.lines.items()), "lifetime": sorted(self.lifetime.items())}
        key = _key(number, "head")
        records.append((key, _seal(key, msgspec.msgpack.encode(head))))
        return records + [(key, None) for key in superfluous]


def load(
    partition: int, config: StateConfig, records: Mapping[bytes, bytes]
) -> tuple[PartitionState, Ledger] | None:
    """Return the newest state among `records` (the live keys of a partition of the state topic), or None.

    Raises StateUnusableError if its settings differ from `config` or a record that it needs is missing.
    """
    number = newest_number(records)
    if number is None:
        return None
    try:
        head = _head(records, number)
        differences = config.differences(head["config"])
        if differences:
            raise StateUnusableError(
                f"the stored state of partition {partition} was made under other settings: "
                + "; ".join(differences)
            )
        words = Vocabulary()
        segments = [
            _decode_segment(n, _gather(records, n, "lines", count), words) for n, count in head["lines"]
        ]
        lifetime = Lifetime.empty()
        for n, count in head["lifetime"]:
            table = msgspec.msgpack.decode(_gather(records, n, "lifetime", count))
            lifetime.put(words.customers.codes(table["id"]), table)
        state = PartitionState.restored(partition, config, head, words, segments, lifetime)
        return state, Ledger(dict(head["lines"]), dict(head["lifetime"]), number)
    except (*_DAMAGE, KeyError, IndexError, TypeError, AttributeError, OverflowError) as exc:
        raise StateUnusableError(
            f"checkpoint {number} of partition {partition} is damaged or incomplete: {exc!r}"
        ) from exc


def renamed(records: Mapping[bytes, bytes], name: str, other: str) -> list[StateRecord]:
    """Return the records that give a customer another name in the newest state among `records`.

    Empty where the customer is not in it. They must be written all or none: a block may have several pieces.
    The head names customers too: those of refused lines, which the jump guard remembers. Raises
    StateUnusableError if a record that is needed is missing or damaged.
    """
    number = newest_number(records)
    if number is None:
        return []
    changed: list[StateRecord] = []
    try:
        head = _head(records, number)
        witnesses = [witness for witness in head["guard"]["witnesses"] if witness[1] == name]
        for witness in witnesses:
            witness[1] = other
        for kind in ("lines", "lifetime"):
            for entry in head[kind]:
                n, count = entry
                block = msgspec.msgpack.decode(_gather(records, n, kind, count))
                texts = block["customer"]["texts"] if kind == "lines" else block["id"]
                if name not in texts:
                    continue
                texts[texts.index(name)] = other
                pieces = list(_pieces(_seal(_key(n, kind), msgspec.msgpack.encode(block))))
                entry[1] = len(pieces)
                changed += [(_key(n, kind, i), piece) for i, piece in enumerate(pieces)]
                changed += [(_key(n, kind, i), None) for i in range(len(pieces), count)]
    except (*_DAMAGE, KeyError, IndexError, TypeError, AttributeError) as exc:
        raise StateUnusableError(f"checkpoint {number} is damaged or incomplete: {exc!r}") from exc
    if changed or witnesses:
        key = _key(number, "head")
        changed.append((key, _seal(key, msgspec.msgpack.encode(head))))
    return changed


def newest_number(records: Iterable[bytes]) -> int | None:
    """Return the number of the newest checkpoint among the keys of a state topic, None without one."""
    matches = (match for match in map(_KEY.fullmatch, records) if match and match[2] == b"head")
    return max((int(match[1]) for match in matches), default=None)


def newest_head(records: Iterable[StateRecord]) -> dict[str, Any] | None:
    """Return the newest head among `records` of a partition of the state topic, None if none is there.

    A head that was deleted later counts too: what replaced it need not be among the records. Raises
    StateUnusableError if the newest is damaged.
    """
    heads = {key: value for key, value in records if value is not None and key.endswith(b"/head")}
    number = newest_number(heads)
    if number is None:
        return None
    try:
        return _head(heads, number)
    except _DAMAGE as exc:
        raise StateUnusableError(f"the head of checkpoint {number} is damaged: {exc!r}") from exc


def _head(records: Mapping[bytes, bytes], number: int) -> dict[str, Any]:
    key = _key(number, "head")
    return msgspec.msgpack.decode(_unseal(key, records[key]), type=dict[str, Any])


def _key(number: int, kind: str, piece: int | None = None) -> bytes:
    return f"{number:012d}/{kind}".encode() + (b"" if piece is None else b"/%04d" % piece)


def _pieces(data: bytes) -> Iterable[bytes]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


def _gather(records: Mapping[bytes, bytes], number: int, kind: str, count: int) -> bytes:
    return _unseal(_key(number, kind), b"".join(records[_key(number, kind, i)] for i in range(count)))


def _seal(name: bytes, data: bytes) -> bytes:
    """Return `data` compressed, bound to `name` by a digest: pieces that do not belong together show."""
    body = len(data).to_bytes(8, "little") + bytes(_CODEC.compress(data, asbytes=True))
    return _digest(name, body) + body


def _unseal(name: bytes, sealed: bytes) -> bytes:
    """Return what was sealed under `name`; raises ValueError on anything else."""
    digest, body = sealed[:DIGEST_BYTES], sealed[DIGEST_BYTES:]
    if digest != _digest(name, body):
        raise ValueError(f"{name.decode()} is not what was written under that name")
    size = int.from_bytes(body[:8], "little")
    if size > _RATIO_MAX * len(body):
        raise ValueError(f"{name.decode()} asks for {size:,} bytes, more than it can hold")
    return bytes(_CODEC.decompress(body[8:], decompressed_size=size, asbytes=True))


def _digest(name: bytes, body: bytes) -> bytes:
    return blake2b(name + b"\0" + body, digest_size=DIGEST_BYTES).digest()


def _encode_segment(segment: Segment, words: Vocabulary) -> bytes:
    """Return a segment with texts of its own: the codes of a process mean nothing to another."""
    lines = segment.lines
    block: dict[str, Any] = {name: getattr(lines, name).astype(dtype).tobytes() for name, dtype in _COLUMNS}
    for name, interner in _interners(words):
        numbers, texts = interner.numbered(getattr(lines, name))
        block[name] = {"texts": texts, "codes": numbers.astype("<i4").tobytes()}
    return msgspec.msgpack.encode(block)


def _decode_segment(number: int, data: bytes, words: Vocabulary) -> Segment:
    block = msgspec.msgpack.decode(data)
    columns: dict[str, Any] = {
        name: np.frombuffer(block[name], dtype).astype(np.int64) for name, dtype in _COLUMNS
    }
    columns |= {
        name: interner.codes(block[name]["texts"])[np.frombuffer(block[name]["codes"], "<i4")]
        for name, interner in _interners(words)
    }
    lines = Lines(**columns)
    return Segment(number, lines, int(lines.time.max()))


def _interners(words: Vocabulary) -> list[tuple[str, Interner]]:
    return list(zip(_CODED, (words.customers, words.invoices, words.products, words.countries), strict=True))
