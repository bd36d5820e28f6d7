"""Files to tables: CSV, gzipped CSV, Excel workbooks, Parquet; told apart by their first bytes."""

import codecs
import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from producers.follow_rows import ROW_CHARS_MAX as LONG_ROW_CHARS_MAX
from producers.follow_rows import ROW_LINES_MAX
from producers.parquet_table import PARQUET_MAGIC, ParquetError, read_parquet
from producers.sheet_bounds import COLUMNS_MAX, SheetError, check_sheets
from streams.errors import ExitCode, UserError
from streams.mapping import Csv

GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"
SEPARATORS = ",;\t"

HEADER_CHARS_MAX = 1 << 20
ROW_CHARS_MAX = 64 << 20
WORKBOOK_BYTES_MAX = 4 << 30  # uncompressed; that of UCI takes a tenth


class Table(NamedTuple):
    """A header and the rows under it, as text; a row may be shorter or longer than the header.

    Where typed cells were asked for, those of a workbook and of Parquet are numbers, dates, None besides.
    """

    header: list[str]
    rows: Iterator[list[Any]]


def unusable(path: Path, why: str) -> UserError:
    """Return the error for a file that is no input."""
    hint = (
        "expected the Online Retail data as .csv, .csv.gz, .xlsx or .parquet, or --mapping FILE for another's"
    )
    return UserError(f"{path} {why}", hint=hint, code=ExitCode.INPUT)


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} {why}", hint="fetch or copy it anew", code=ExitCode.INPUT)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what reading raises into words about the file."""
    try:
        yield
    except EOFError as exc:
        raise _damaged(path, "is cut off: its compressed data end too early") from exc
    except zipfile.BadZipFile as exc:
        raise _damaged(path, f"is a damaged or incomplete workbook: {exc}") from exc
    except (zlib.error, gzip.BadGzipFile) as exc:
        raise _damaged(path, f"is damaged: {exc}") from exc
    except csv.Error as exc:
        raise unusable(path, f"is not a CSV file: {exc}") from exc
    except ParquetError as exc:
        raise _damaged(path, str(exc)) from exc
    except UnicodeError as exc:
        raise UserError(
            f"{path} is not in the encoding that the mapping says: {exc}",
            hint="set [csv] encoding to the one the export is written in",
            code=ExitCode.INPUT,
        ) from exc
    except OSError as exc:
        raise UserError(f"cannot read {path}: {exc.strerror or exc}", code=ExitCode.INPUT) from exc


def tables(path: Path, dialect: Csv | None = None, *, typed: bool = False) -> Iterator[Table]:
    """Return the tables of a file: one of a CSV or Parquet file, one a sheet of a workbook.

    `dialect` is that of a CSV file, None for the usual one; `typed` leaves numbers and dates as they are.
    Read each table before asking for the next. Raises UserError (INPUT) for what is no such file.
    """
    for table in _tables(path, dialect, typed):
        if len(table.header) > COLUMNS_MAX:
            raise unusable(path, f"has {len(table.header):,} columns, more than {COLUMNS_MAX:,}")
        yield table


def _tables(path: Path, dialect: Csv | None, typed: bool) -> Iterator[Table]:
    with readable(path):
        if not path.exists():
            raise UserError(f"there is no file {path}", hint="give the path of the data", code=ExitCode.INPUT)
        if not path.is_file():
            raise unusable(path, "is a directory" if path.is_dir() else "is not a regular file")
        if path.stat().st_size == 0:
            raise unusable(path, "is empty")
        if starts_with(path, ZIP_MAGIC):
            yield from _workbook(path, _cells if typed else _texts)
        elif starts_with(path, PARQUET_MAGIC):
            header, rows = read_parquet(path)
            yield Table(header, map(_cells if typed else _texts, rows))
        else:
            yield from _csv(path, dialect)


def starts_with(path: Path, magic: bytes) -> bool:
    """Return whether a file starts with these bytes."""
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def open_binary(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """Open a file's bytes, unpacked where it is gzipped."""
    if starts_with(path, GZIP_MAGIC):
        return gzip.open(path, "rb")
    return path.open("rb")


# -- CSV -------------------------------------------------------------------------------------------------


def _latin_1(error: UnicodeError) -> tuple[str, int]:
    """Read what is not UTF-8 as ISO-8859-1: right for a file in either, and for one glued from both."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("producers.latin-1", _latin_1)


def text_codec(dialect: Csv | None) -> tuple[str, str]:
    """Return the encoding of a CSV file, and what is done with bytes that are not in it."""
    if dialect is None or codecs.lookup(dialect.encoding).name == "utf-8":
        return "utf-8-sig", "producers.latin-1"
    return dialect.encoding, "strict"


def reader_options(path: Path, head: str, dialect: Csv | None) -> dict[str, Any]:
    """Return the options of `csv.reader` for a file whose first line is `head`; raises UserError (INPUT)."""
    if len(head) >= HEADER_CHARS_MAX or "\0" in head:
        raise unusable(path, "is not a CSV file: its first line is not a header of columns")
    return (dialect or Csv()).reader_options(max(SEPARATORS, key=head.count))


def _csv(path: Path, dialect: Csv | None) -> Iterator[Table]:
    encoding, errors = text_codec(dialect)
    with (
        open_binary(path) as binary,
        io.TextIOWrapper(binary, encoding, errors=errors, newline="") as file,
    ):
        head = file.readline(HEADER_CHARS_MAX)
        options = reader_options(path, head, dialect)
        header = next(csv.reader([head], **options), [])
        # One field may hold a whole row, and a field without its closing quote the rows after it.
        csv.field_size_limit(ROW_CHARS_MAX)
        yield Table(header, iter(_ShortRows(path, file, options)))


class _ShortRows:
    """The rows of a CSV file; one that would fill the memory raises UserError (a bomb of zeros is one line).

    A row over several lines has the bounds that it has in a followed file: beyond them a quote is not closed.
    """

    def __init__(self, path: Path, file: io.TextIOWrapper, options: dict[str, Any]) -> None:
        self._path = path
        self._file = file
        self._options = options
        self._row_lines, self._row_chars = 0, 0

    def __iter__(self) -> Iterator[list[str]]:
        for row in csv.reader(self._lines(), **self._options):
            self._row_lines, self._row_chars = 0, 0
            yield row

    def _lines(self) -> Iterator[str]:
        for number, line in enumerate(iter(lambda: self._file.readline(ROW_CHARS_MAX), ""), 2):
            self._row_lines += 1
            self._row_chars += len(line)
            if len(line) == ROW_CHARS_MAX:
                raise self._refused(f"line {number} has more than {ROW_CHARS_MAX} characters")
            if self._row_chars > LONG_ROW_CHARS_MAX or self._row_lines > ROW_LINES_MAX:
                self._check_long(number, line)
            yield line

    def _check_long(self, number: int, line: str) -> None:
        """Refuse a row beyond the bounds, and a long line whose fields would take gigabytes."""
        if self._row_lines > 1:
            first = number - self._row_lines + 1
            raise self._refused(f"a row begins in line {first} and has no end, a quote in it is not closed")
        if line.count(self._options["delimiter"]) >= COLUMNS_MAX:
            raise self._refused(f"line {number} has more than {COLUMNS_MAX:,} fields")

    def _refused(self, why: str) -> UserError:
        return unusable(self._path, f"is not a CSV file: {why}")


# -- Excel -----------------------------------------------------------------------------------------------


def _workbook(path: Path, read: Callable[[Iterable[object]], list[Any]]) -> Iterator[Table]:
    # Only a workbook needs the reader, and most inputs are CSV.
    from python_calamine import CalamineError, CalamineWorkbook  # noqa: PLC0415

    try:
        _check_archive(path)
        check_sheets(path)
    except SheetError as exc:
        raise unusable(path, str(exc)) from exc
    except (UnicodeError, NotImplementedError) as exc:
        raise _damaged(path, f"is a damaged or incomplete workbook: {exc}") from exc
    try:
        with CalamineWorkbook.from_path(path) as book:
            if not book.sheet_names:
                raise unusable(path, "is a workbook without a sheet")
            for name in book.sheet_names:
                rows = book.get_sheet_by_name(name).iter_rows()
                yield Table(_texts(next(rows, [])), map(read, rows))
    except CalamineError as exc:
        # Some of these errors say no more than a sheet's name: their class tells what about it.
        raise _damaged(path, f"is not a workbook that can be read: {type(exc).__name__}: {exc}") from exc


def _check_archive(path: Path) -> None:
    """Raise UserError for a zip archive that is no workbook, or is too large for one."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "xl/workbook.xml" not in names:
            inside = ", ".join(names[:3]) or "nothing"
            raise unusable(path, f"is a zip archive, not a workbook; unpack it (inside: {inside})")
        if sum(member.file_size for member in archive.infolist()) > WORKBOOK_BYTES_MAX:
            raise unusable(path, f"unpacks to more than {WORKBOOK_BYTES_MAX >> 30} GiB")


def _texts(cells: Iterable[object]) -> list[str]:
    return [cell if isinstance(cell, str) else _text(cell) for cell in cells]


def _cells(cells: Iterable[object]) -> list[object]:
    return [_whole_second(cell) if isinstance(cell, datetime) else cell for cell in cells]


def _whole_second(moment: datetime) -> datetime:
    """Return a time of a sheet: the fraction of a day is a binary one, half a second less is that minute."""
    try:
        return (moment + timedelta(milliseconds=500)).replace(microsecond=0)
    except (OverflowError, ValueError):  # at the end of what a time can be
        return moment.replace(microsecond=0)


def _text(cell: object) -> str:
    """Return a cell as a CSV file would hold it."""
    # Bytes may be long, and are no more often the same than texts are.
    return str(cell) if isinstance(cell, bytes) else _number_text(cell)


@lru_cache(maxsize=200_000, typed=True)
def _number_text(cell: object) -> str:
    """Return a number or time as text: Excel keeps 536365 as 536365.0."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        moment = _whole_second(cell)
        return (moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment).isoformat()
    return str(cell)
