"""Window parts as Arrow messages: rows of customers, then the lines that were folded, in chunks."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from models.features import FEATURES_VERSION
from models.lines import Codes
from streams.closing import Columns, WindowPart
from streams.grid import from_iso, iso

CHUNK_BYTES = 900_000
_META = b"clv"
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
        with pa.ipc.open_stream(value) as reader:
            table = reader.read_all()
        meta = json.loads(table.schema.metadata[_META])
        if meta["features_version"] != FEATURES_VERSION:
            raise ValueError(f"features of version {meta['features_version']}, not {FEATURES_VERSION}")
        return Chunk(
            window_end=from_iso(meta["window_end"]),
            partition=int(meta["partition"]),
            number=int(meta["chunk"]),
            count=int(meta["chunks"]),
            kind=meta["kind"],
            meta=meta,
            table=table.replace_schema_metadata(None),
        )
    except (pa.ArrowException, OSError, KeyError, TypeError) as exc:
        raise ValueError(f"not a snapshot message: {exc!r}") from exc


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
