"""Files to tables of text: CSV, gzipped CSV, Excel workbooks; told apart by their first bytes."""

import codecs
import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from streams.errors import ExitCode, UserError

GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"
SEPARATORS = ",;\t"

HEADER_CHARS_MAX = 1 << 20
ROW_CHARS_MAX = 64 << 20
WORKBOOK_BYTES_MAX = 4 << 30  # uncompressed; that of UCI takes a tenth


class Table(NamedTuple):
    """A header and the rows under it, as text; a row may be shorter or longer than the header."""

    header: list[str]
    rows: Iterator[list[str]]


def unusable(path: Path, why: str) -> UserError:
    """Return the error for a file that is no input."""
    hint = "expected the Online Retail data as .csv, .csv.gz or .xlsx"
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
    except OSError as exc:
        raise UserError(f"cannot read {path}: {exc.strerror or exc}", code=ExitCode.INPUT) from exc


def tables(path: Path) -> Iterator[Table]:
    """Return the tables of a file: one of a CSV file, one a sheet of a workbook.

    Read each table before asking for the next. Raises UserError (INPUT) for what is no such file.
    """
    with readable(path):
        if not path.exists():
            raise UserError(f"there is no file {path}", hint="give the path of the data", code=ExitCode.INPUT)
        if not path.is_file():
            raise unusable(path, "is a directory" if path.is_dir() else "is not a regular file")
        if path.stat().st_size == 0:
            raise unusable(path, "is empty")
        yield from _workbook(path) if starts_with(path, ZIP_MAGIC) else _csv(path)


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


def _csv(path: Path) -> Iterator[Table]:
    with (
        open_binary(path) as binary,
        io.TextIOWrapper(binary, "utf-8-sig", errors="producers.latin-1", newline="") as file,
    ):
        head = file.readline(HEADER_CHARS_MAX)
        if len(head) == HEADER_CHARS_MAX or "\0" in head:
            raise unusable(path, "is not a CSV file: its first line is not a header of columns")
        separator = max(SEPARATORS, key=head.count)
        header = next(csv.reader([head], delimiter=separator), [])
        # One field may hold a whole row, and a field without its closing quote the rows after it.
        csv.field_size_limit(ROW_CHARS_MAX)
        yield Table(header, csv.reader(_short_lines(path, file), delimiter=separator))


def _short_lines(path: Path, file: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines of a file, refusing one that would fill the memory (a bomb of zeros is one line)."""
    for number, line in enumerate(iter(lambda: file.readline(ROW_CHARS_MAX), ""), 2):
        if len(line) == ROW_CHARS_MAX:
            raise unusable(path, f"is not a CSV file: line {number} has more than {ROW_CHARS_MAX} characters")
        yield line


# -- Excel -----------------------------------------------------------------------------------------------


def _workbook(path: Path) -> Iterator[Table]:
    # Only a workbook needs the reader, and most inputs are CSV.
    from python_calamine import CalamineError, CalamineWorkbook  # noqa: PLC0415

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "xl/workbook.xml" not in names:
            inside = ", ".join(names[:3]) or "nothing"
            raise unusable(path, f"is a zip archive, not a workbook; unpack it (inside: {inside})")
        if sum(member.file_size for member in archive.infolist()) > WORKBOOK_BYTES_MAX:
            raise unusable(path, f"unpacks to more than {WORKBOOK_BYTES_MAX >> 30} GiB")
    try:
        with CalamineWorkbook.from_path(path) as book:
            for name in book.sheet_names:
                rows = map(_texts, book.get_sheet_by_name(name).iter_rows())
                yield Table(next(rows, []), rows)
    except CalamineError as exc:
        # Some of these errors say no more than a sheet's name: their class tells what about it.
        raise _damaged(path, f"is not a workbook that can be read: {type(exc).__name__}: {exc}") from exc


def _texts(cells: Iterable[object]) -> list[str]:
    return [cell if isinstance(cell, str) else _text(cell) for cell in cells]


@lru_cache(maxsize=200_000, typed=True)
def _text(cell: object) -> str:
    """Return a cell as a CSV file would hold it: Excel keeps 536365 as 536365.0."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime):
        # The fraction of a day is a binary one: half a second less than the minute is that minute.
        return (cell + timedelta(milliseconds=500)).replace(microsecond=0).isoformat()
    return str(cell)
