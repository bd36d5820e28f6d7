"""Window parts as Arrow messages: rows of customers, then the lines that were folded, in chunks."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta

from models.features import FEATURES_VERSION
from models.lines import Codes
from streams.arrow_bounds import check_stream
from streams.closing import Columns, WindowPart
from streams.grid import from_iso, iso

CHUNK_BYTES = 900_000
_META = b"clv"
_PARTITIONS_MAX, _CHUNKS_MAX, _COLUMNS_MAX = 100_000, 100_000, 500
_SECONDS_MAX = 2**40
_LINE_TYPES = {
    "event_time": pa.timestamp("s", "UTC"),
    "CustomerID": pa.string(),
    "InvoiceNo": pa.string(),
    "StockCode": pa.string(),
    "Country": pa.string(),
    "Quantity": pa.int64(),
    "PriceThousandths": pa.int64(),
}
# One thread: columns are small, and handing them to others costs more than compressing them.
_OPTIONS = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1), use_threads=False)


@dataclass(frozen=True)
class Chunk:
    """One message of a part; `meta` is the same in all of them but for `kind` and `chunk`."""

    window_end: int
    partition: int
    number: int
    count: int
    kind: str  # "rows" or "lines"
    meta: dict[str, Any]
    table: pa.Table


def encode_part(part: WindowPart, partitions: int) -> list[tuple[bytes, bytes]]:
    """Return a part as (key, value) records; the same part gives the same bytes, whoever encodes it."""
    tables = [("rows", table) for table in _split(_rows_table(part.columns))]
    tables += [("lines", table) for table in _split(_lines_table(part))]
    return _records(part, partitions, tables, f"{iso(part.window_end)}/{part.partition}")


def encode_rows(part: WindowPart, partitions: int) -> list[tuple[bytes, bytes]]:
    """Return the rows of all customers of a part as (key, value) records, sampled or not.

    The keys are the same in every window, so that compaction leaves the rows of the newest one.
    """
    tables = [("rows", table) for table in _split(_rows_table(part.columns))]
    if part.rest is not None:
        tables += [("rows", table) for table in _split(_rows_table(part.rest))]
    return _records(part, partitions, tables, str(part.partition))


def _records(
    part: WindowPart, partitions: int, tables: list[tuple[str, pa.Table]], key: str
) -> list[tuple[bytes, bytes]]:
    meta = {
        "window_end": iso(part.window_end),
        "partition": part.partition,
        "partitions": partitions,
        "partial": part.partial,
        "after": None if part.after is None else iso(part.after),
        "earliest_s": part.earliest,
        "totals": part.totals,
        "sample_bound": part.sample_bound,
        "features_version": FEATURES_VERSION,
    }
    records = []
    for number, (kind, table) in enumerate(tables):
        chunk = {**meta, "kind": kind, "chunk": number, "chunks": len(tables)}
        records.append((f"{key}/{number}".encode(), _to_bytes(table, chunk)))
    return records


def decode_chunk(value: bytes) -> Chunk:
    """Return the chunk in a message; raises ValueError on anything else."""
    try:
        check_stream(value)
        with pa.ipc.open_stream(value) as reader:
            table = reader.read_all()
        told = json.loads(table.schema.metadata[_META])
        head = msgspec.convert(told, _Head)
        if head.features_version != FEATURES_VERSION:
            raise ValueError(f"features of version {head.features_version}, not {FEATURES_VERSION}")
        # Arrow follows the numbers of a dictionary unchecked: a wrong one would read foreign memory.
        table.validate(full=True)
        _check_columns(table, head.kind)
        return Chunk(
            window_end=from_iso(head.window_end),
            partition=head.partition,
            number=head.chunk,
            count=head.chunks,
            kind=head.kind,
            meta=head.checked(told),
            table=table.replace_schema_metadata(None),
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, OverflowError, RecursionError) as exc:
        raise ValueError(f"not a snapshot message: {exc!r}") from exc


def named(value: bytes, name: str) -> bool:
    """Whether a customer of that name is in a message of rows or lines; one that is none has nobody."""
    try:
        ids = decode_chunk(value).table["CustomerID"]
    except ValueError:
        return False
    return bool(pc.any(pc.equal(ids.cast(pa.string()), name)).as_py())


def renamed(value: bytes, name: str, other: str) -> bytes:
    """Return a message in which a customer has another name, and all else is as it was.

    Raises ValueError on bytes that are no message.
    """
    chunk = decode_chunk(value)
    place = chunk.table.column_names.index("CustomerID")
    column = chunk.table.column(place)
    if pa.types.is_dictionary(column.type):
        parts = [
            pa.DictionaryArray.from_arrays(part.indices, _replaced(part.dictionary, name, other))
            for part in column.chunks
        ]
        column = pa.chunked_array(parts, column.type)
    else:
        column = _replaced(column, name, other)
    return _to_bytes(chunk.table.set_column(place, "CustomerID", column), chunk.meta)


def _replaced(texts: Any, name: str, other: str) -> Any:
    return pc.if_else(pc.equal(texts, name), other, texts)


class _Head(msgspec.Struct, frozen=True):
    """What the metadata of a message must hold."""

    window_end: str
    partition: Annotated[int, Meta(ge=0, le=_PARTITIONS_MAX)]
    partitions: Annotated[int, Meta(ge=1, le=_PARTITIONS_MAX)]
    partial: bool
    after: str | None
    earliest_s: Annotated[int, Meta(ge=-_SECONDS_MAX, le=_SECONDS_MAX)] | None
    totals: dict[str, int]
    sample_bound: Annotated[int, Meta(ge=0)] | None
    features_version: int
    kind: Literal["rows", "lines"]
    chunk: Annotated[int, Meta(ge=0)]
    chunks: Annotated[int, Meta(ge=1, le=_CHUNKS_MAX)]

    def checked(self, told: dict[str, Any]) -> dict[str, Any]:
        """Return what was told, if it holds together; raises ValueError."""
        if self.chunk >= self.chunks:
            raise ValueError(f"chunk {self.chunk} of {self.chunks}")
        if self.after is not None and from_iso(self.after) >= from_iso(self.window_end):
            raise ValueError(f"a window that ends at {self.window_end}, after one that ends at {self.after}")
        if not {"lines", "customers"} <= self.totals.keys():
            raise ValueError("totals without lines or customers")
        if any(abs(total) >= 2**63 for total in self.totals.values()) or (self.sample_bound or 0) >= 2**64:
            raise ValueError("a number beyond 64 bits")
        return told


def _check_columns(table: pa.Table, kind: str) -> None:
    """Raise ValueError unless the columns have the types of ours and no holes."""
    names = table.column_names
    if len(set(names)) != len(names) or len(names) > _COLUMNS_MAX:
        raise ValueError("columns that are told twice, or too many")
    if kind == "lines" and names != list(_LINE_TYPES):
        raise ValueError(f"lines with the columns {names[:20]}")
    for name, column in zip(names, table.columns, strict=True):
        plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if kind == "lines":
            fits = plain == _LINE_TYPES[name]
        elif name in {"CustomerID", "Country"}:
            fits = plain == pa.string()
        else:
            fits = plain in {pa.int64(), pa.float64()}
        if not fits or column.null_count:
            raise ValueError(
                f"a column {name[:40]!r} of type {column.type}, {column.null_count} values missing"
            )
        if plain == pa.float64() and not math.isfinite(float(np.sum(column.to_numpy()))):
            raise ValueError(f"a column {name[:40]!r} with a value that is no number")
    if kind == "rows" and not {"CustomerID", "Country"} <= set(names):
        raise ValueError("rows without CustomerID or Country")


def _rows_table(columns: Columns) -> pa.Table:
    # An empty list of texts would otherwise become a column of nulls.
    texts = {name: pa.array(columns[name], pa.string()) for name in ("CustomerID", "Country")}
    return pa.table(columns | texts)


def _lines_table(part: WindowPart) -> pa.Table:
    lines, texts = part.lines, part.line_ids
    return pa.table(
        {
            "event_time": pa.array(lines.time, pa.int64()).cast(pa.timestamp("s", "UTC")),
            "CustomerID": _dictionary(lines.customer, texts.customers),
            "InvoiceNo": _dictionary(lines.invoice, texts.invoices),
            "StockCode": _dictionary(lines.product, texts.products),
            "Country": _dictionary(lines.country, texts.countries),
            "Quantity": lines.quantity,
            "PriceThousandths": lines.price,
        }
    )


def _dictionary(codes: Codes, texts: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(texts, pa.string()))


def _split(table: pa.Table) -> Iterator[pa.Table]:
    """Yield `table` in as few halves of halves as fit a message each."""
    if table.num_rows > 1 and table.nbytes > CHUNK_BYTES and len(_to_bytes(table, {})) > CHUNK_BYTES:
        half = table.num_rows // 2
        yield from _split(_compacted(table.slice(0, half)))
        yield from _split(_compacted(table.slice(half)))
    else:
        yield table


def _compacted(table: pa.Table) -> pa.Table:
    """Return `table` with dictionaries that hold only what its rows use."""
    for i, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):
            plain = column.cast(pa.string()).combine_chunks()
            table = table.set_column(i, table.field(i).name, plain.dictionary_encode())
    return table


def _to_bytes(table: pa.Table, meta: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    schema = table.schema.with_metadata({_META: json.dumps(meta, sort_keys=True).encode()})
    with pa.ipc.new_stream(sink, schema, options=_OPTIONS) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata))
    return bytes(sink.getvalue())
