"""A Parquet file as a table, a thousand rows at a time."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARQUET_MAGIC = b"PAR1"
BATCH_ROWS = 1_000
# A group of rows is unpacked column by column: this much and more is no table of line items.
GROUP_BYTES_MAX = 2 << 30
# A text is stored once and meant by any number of rows, so what a file takes says little of its rows.
VALUE_BYTES_MAX = 1 << 20
ARRAY_BYTES_MAX = 256 << 20  # of a column's values in a batch
FIXED_BYTES_MAX = 4_096  # of a value whose size is the column's


class ParquetError(ValueError):
    """A Parquet file that cannot be read; the words follow its name."""


def read_parquet(path: Path) -> tuple[list[str], Iterator[list[object]]]:
    """Return the columns' names and the rows with their values as Python objects; a NaN is a missing value.

    Columns of lists and structures are left out. Raises ParquetError, also on the way.
    """
    import pyarrow as pa  # noqa: PLC0415  (most inputs are CSV)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            fields = [field for field in file.schema_arrow if _is_flat(field.type)]
            texts = [field.name for field in fields if _is_text(field.type)]
            _check_sizes(file)
            names = [field.name for field in fields]
            wanted = None if len(fields) == len(file.schema_arrow) else names
    except (pa.ArrowException, OSError, UnicodeError) as exc:
        raise ParquetError(f"is a damaged or incomplete Parquet file: {_first_line(exc)}") from exc

    def rows() -> Iterator[list[object]]:
        try:
            # Texts come as places in a list of them, else each row would have its own copy.
            with pq.ParquetFile(path, read_dictionary=texts) as file:
                columns = [_Column() for _ in names]
                for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                    values = [
                        column.values(found)
                        for column, found in zip(columns, _found(batch, names), strict=True)
                    ]
                    for row in zip(*values, strict=True):
                        yield [None if isinstance(v, float) and math.isnan(v) else v for v in row]
        except (pa.ArrowException, OSError) as exc:
            raise ParquetError(f"is damaged: {_first_line(exc)}") from exc

    return names, rows()


def parquet_rows(path: Path) -> int:
    """Return how many rows a Parquet file says it has; raises ParquetError."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as exc:
        raise ParquetError(f"is a damaged or incomplete Parquet file: {_first_line(exc)}") from exc


class _Column:
    """Turns a column's batches into Python objects; rows with the same text share it."""

    def __init__(self) -> None:
        self._dictionary: Any = None
        self._words: list[object] = []

    def values(self, column: Any) -> list[object]:
        """Return the values of a batch; raises ParquetError or pa.ArrowException."""
        import pyarrow as pa  # noqa: PLC0415

        try:
            column.validate(full=True)
            if not pa.types.is_dictionary(column.type):
                found: list[object] = _bounded(column).to_pylist()
                return found
            self._learn(column.dictionary)
            words = self._words
            return [None if place is None else words[place] for place in column.indices.to_pylist()]
        except (pa.ArrowException, ParquetError):
            raise
        except (ValueError, OverflowError) as exc:
            raise ParquetError(f"has a value that cannot be read: {_first_line(exc)}") from exc

    def _learn(self, dictionary: Any) -> None:
        import pyarrow.compute as pc  # noqa: PLC0415

        if self._dictionary is not None and self._dictionary.equals(dictionary):
            return
        if _is_text(_bounded(dictionary).type) and len(dictionary):
            longest = pc.max(pc.binary_length(dictionary)).as_py() or 0
            if longest > VALUE_BYTES_MAX:
                raise ParquetError(f"has a value of {longest:,} bytes, more than {VALUE_BYTES_MAX:,}")
        self._words = dictionary.to_pylist()
        self._dictionary = dictionary


def _found(batch: Any, names: list[str]) -> list[Any]:
    """Return the columns of a batch; raises ParquetError where they are not those that were asked for."""
    if batch.schema.names != names:
        raise ParquetError("has columns that cannot be told apart by their names")
    found: list[Any] = batch.columns
    return found


def _bounded(array: Any) -> Any:
    """Return an array of Arrow that is small enough to become Python objects; raises ParquetError."""
    if array.nbytes > ARRAY_BYTES_MAX:
        raise ParquetError(f"has a column of which a few rows take more than {ARRAY_BYTES_MAX >> 20} MiB")
    return array


def _check_sizes(file: Any) -> None:
    """Raise ParquetError for a file that says of itself that it would fill the memory."""
    meta = file.metadata
    # The sizes of single columns are not asked for: of a damaged file that ends the process, in Arrow 26.
    sizes = (meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
    if max(sizes, default=0) > GROUP_BYTES_MAX:
        raise ParquetError(f"has a group of rows that unpacks to more than {GROUP_BYTES_MAX >> 30} GiB")
    for place in range(len(file.schema)):
        column = file.schema.column(place)
        if column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > FIXED_BYTES_MAX:
            raise ParquetError(f"has values of {column.length:,} bytes, more than {FIXED_BYTES_MAX:,}")


def _is_flat(kind: Any) -> bool:
    """Return whether a column holds one plain value a row, and not values of any number and size."""
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
        return not pa.types.is_nested(kind) and not _is_text(kind)
    if pa.types.is_dictionary(kind):
        return _is_flat(kind.value_type)
    return not pa.types.is_nested(kind)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary_view(kind)
    )


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0][:200]
