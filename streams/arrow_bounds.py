"""How much memory an Arrow message asks for, known before anything is unpacked.

A buffer of a compressed message states its unpacked length in its first eight bytes, and Arrow takes that
much memory before it looks further: a message of 1 MB may ask for terabytes. What is read here are two tables
of Arrow's format in FlatBuffers (Message.fbs: RecordBatch, DictionaryBatch): where the buffers lie in a body.
"""

import struct

import pyarrow as pa

UNPACKED_BYTES_MAX = 64 * 1024 * 1024  # of a message; ours hold at most 1 MB packed
MESSAGES_MAX = 100
_DICTIONARY, _BATCH = 2, 3  # Message.header_type


def check_stream(value: bytes) -> None:
    """Raise ValueError or pa.ArrowException unless `value` is an Arrow stream of bounded size."""
    asked = 0
    # Endless only in the number of messages: each of them takes bytes of `value`.
    for count, message in enumerate(pa.ipc.MessageReader.open_stream(value), 1):
        if count > MESSAGES_MAX:
            raise ValueError(f"more than {MESSAGES_MAX} Arrow messages in one")
        body = message.body
        if body is not None and body.size:
            asked += _asked_for(message.metadata.to_pybytes(), memoryview(body))
        if asked > UNPACKED_BYTES_MAX:
            raise ValueError(f"it asks for {asked:,} bytes; {UNPACKED_BYTES_MAX:,} are allowed")


def _asked_for(metadata: bytes, body: memoryview) -> int:
    """Return how many bytes the buffers of a message have once unpacked; raises ValueError."""
    try:
        message = _Table(metadata, *_reference(metadata, 0))
        kind = message.number(1, "<B")
        header = message.table(2)
        if kind == _DICTIONARY:
            header = header.table(1)
        elif kind != _BATCH:
            raise ValueError(f"an Arrow message of type {kind} with a body")
        packed = header.has(3)
        return sum(
            _unpacked(body, offset, length) if packed else length for offset, length in header.buffers(2)
        )
    except struct.error as exc:
        raise ValueError(f"a damaged Arrow message: {exc}") from exc


def _unpacked(body: memoryview, offset: int, length: int) -> int:
    """Return the unpacked length that a buffer states; -1 there means that it is not packed."""
    if length == 0:
        return 0
    if offset < 0 or length < 8 or offset + length > len(body):
        raise ValueError("a buffer outside of its Arrow message")
    stated: int = struct.unpack_from("<q", body, offset)[0]
    if stated < -1:
        raise ValueError("a buffer of less than no bytes")
    return length if stated == -1 else stated


def _reference(data: bytes, at: int) -> tuple[int, int]:
    """Follow a FlatBuffers offset to a table; return where it and its list of fields begin."""
    table = at + struct.unpack_from("<I", data, at)[0]
    fields = table - struct.unpack_from("<i", data, table)[0]
    if fields < 0:
        raise ValueError("a damaged Arrow message: a table before its beginning")
    return table, fields


class _Table:
    """A table of FlatBuffers: its fields by their numbers."""

    def __init__(self, data: bytes, at: int, fields: int) -> None:
        self._data, self._at, self._fields = data, at, fields
        self._size = struct.unpack_from("<H", data, fields)[0]

    def _place(self, field: int) -> int:
        """Return where a field stands, 0 where it is left out."""
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return 0
        offset: int = struct.unpack_from("<H", self._data, self._fields + entry)[0]
        return self._at + offset if offset else 0

    def has(self, field: int) -> bool:
        """Return whether a field is there."""
        return self._place(field) != 0

    def number(self, field: int, form: str) -> int:
        """Return a number, 0 where it is left out."""
        place = self._place(field)
        return int(struct.unpack_from(form, self._data, place)[0]) if place else 0

    def table(self, field: int) -> "_Table":
        """Return the table that a field refers to."""
        place = self._place(field)
        if not place:
            raise ValueError("a damaged Arrow message: a header is missing")
        return _Table(self._data, *_reference(self._data, place))

    def buffers(self, field: int) -> list[tuple[int, int]]:
        """Return the (offset, length) of a list of buffers."""
        place = self._place(field)
        if not place:
            return []
        start = place + struct.unpack_from("<I", self._data, place)[0]
        count = struct.unpack_from("<I", self._data, start)[0]
        if count * 16 > len(self._data):
            raise ValueError("a damaged Arrow message: more buffers than it has room for")
        return [struct.unpack_from("<qq", self._data, start + 4 + 16 * i) for i in range(count)]
