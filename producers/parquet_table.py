"""A Parquet file as a table, a few thousand rows at a time."""

import math
from collections.abc import Iterator
from pathlib import Path

PARQUET_MAGIC = b"PAR1"
BATCH_ROWS = 5_000
# A group of rows is unpacked column by column: this much and more is no table of line items.
GROUP_BYTES_MAX = 2 << 30


class ParquetError(ValueError):
    """A Parquet file that cannot be read; the words follow its name."""


def read_parquet(path: Path) -> tuple[list[str], Iterator[list[object]]]:
    """Return the columns' names and the rows with their values as Python objects; a NaN is a missing value.

    Raises ParquetError, also on the way.
    """
    import pyarrow as pa  # noqa: PLC0415  (most inputs are CSV)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as exc:
        raise ParquetError(f"is a damaged or incomplete Parquet file: {_first_line(exc)}") from exc
    meta = file.metadata
    sizes = (meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
    if max(sizes, default=0) > GROUP_BYTES_MAX:
        raise ParquetError(f"has a group of rows that unpacks to more than {GROUP_BYTES_MAX >> 30} GiB")

    def rows() -> Iterator[list[object]]:
        try:
            for batch in file.iter_batches(BATCH_ROWS):
                columns = [column.to_pylist() for column in batch.columns]
                for row in zip(*columns, strict=True):
                    yield [None if isinstance(v, float) and math.isnan(v) else v for v in row]
        except (pa.ArrowException, OSError) as exc:
            raise ParquetError(f"is damaged: {_first_line(exc)}") from exc

    return list(file.schema_arrow.names), rows()


def parquet_rows(path: Path) -> int:
    """Return how many rows a Parquet file says it has; raises ParquetError."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as exc:
        raise ParquetError(f"is a damaged or incomplete Parquet file: {_first_line(exc)}") from exc


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
