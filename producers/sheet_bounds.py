"""How large the sheets of a workbook are, told from their XML before a reader makes room for them.

The reader holds a sheet as a full rectangle, 32 bytes a cell: one cell in the last corner of an otherwise
empty sheet would ask for 512 GiB. What a sheet says about its own size is not believed.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

COLUMNS_MAX = 10_000
CELLS_MAX = 1 << 25  # a gigabyte; 32 columns in as many rows as a sheet can have
CHUNK_BYTES = 1 << 20
TAG_BYTES_MAX = 16 << 20
DEPTH_MAX = 1_000

_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SHEET = b"sheetData"  # without it the reader finds no cell in a part
# As every common program writes a cell; other ways are read by the parser, which takes three times as long.
_CELL = re.compile(rb'<c r="([A-Z]{1,3}[1-9][0-9]{0,7})"(?: [st]="[0-9A-Za-z]{1,9}"){0,2}/?>')
_ODD_CELL, _PREFIXED_CELL = re.compile(rb"<c[\t\r\n/>]"), re.compile(rb":c[\s/>]")
_REFERENCE = re.compile(r"([A-Za-z]{1,6})([0-9]{1,12})", re.ASCII)
_ROW = re.compile(r"[0-9]{1,12}", re.ASCII)


class SheetError(ValueError):
    """A sheet that is not read; the words follow the file's name."""


def check_sheets(path: Path) -> None:
    """Raise SheetError where a sheet of a workbook is too large or cannot be read."""
    with zipfile.ZipFile(path) as archive:
        names = {name.casefold() for name in archive.namelist()}
        if not names.isdisjoint({"content.xml", "xl/workbook.bin"}):
            raise SheetError("is a workbook of two kinds at once")
        for member in archive.infolist():
            try:
                if not any(_SHEET in chunk for chunk in _overlapping(archive, member)):
                    continue
                if not _is_plain_and_small(archive, member):
                    _Scan().read(_chunks(archive, member))
            except (NotImplementedError, RuntimeError, zlib.error, EOFError) as exc:
                raise SheetError(f"has a part that cannot be unpacked: {exc}") from exc


def _chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(member) as file:
        yield from iter(lambda: file.read(CHUNK_BYTES), b"")


def _overlapping(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the chunks of a part, each with the end of the one before."""
    end = b""
    for chunk in _chunks(archive, member):
        yield end + chunk
        end = chunk[-len(_SHEET) :]


def _is_plain_and_small(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Return whether all cells of a sheet are written plainly and lie within the bounds.

    Cells without a value count too, so False says only that it is not known.
    """
    columns: set[bytes] = set()
    rows, rest = 0, b""
    for chunk in _chunks(archive, member):
        whole, bracket, rest = (rest + chunk).rpartition(b">")
        whole += bracket
        found = _CELL.findall(whole)
        if len(found) != whole.count(b"<c ") or len(rest) > CHUNK_BYTES:
            return False
        if _ODD_CELL.search(whole) or _PREFIXED_CELL.search(whole):
            return False
        references = b" ".join(found)
        columns.update(references.translate(None, b"0123456789").split())
        rows = max(rows, *map(int, set(references.translate(None, _LETTERS).split())), 0)
    width = max((_column(name.decode()) for name in columns), default=0)
    return width <= COLUMNS_MAX and rows * width <= CELLS_MAX


def _column(letters: str) -> int:
    """Return the number of a column, 1 for A."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - 64
    return number


class _Scan:
    """Follows the cells of a sheet as the reader does: one without a reference is next to the one before."""

    def __init__(self) -> None:
        self._row, self._column = 0, 0
        self._rows, self._columns = 0, 0
        self._at = 0, 0
        self._depth = 0

    def read(self, chunks: Iterator[bytes]) -> None:
        """Read a whole sheet; raises SheetError."""
        # The reader takes the bytes as they are, whatever encoding the sheet claims.
        parser = expat.ParserCreate("UTF-8")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartDoctypeDeclHandler = _refuse_doctype
        taken = 0
        try:
            for chunk in chunks:
                parser.Parse(chunk)
                taken += len(chunk)
                if taken - parser.CurrentByteIndex > TAG_BYTES_MAX:
                    raise SheetError("has a sheet with a tag that does not end")
            parser.Parse(b"", True)
        except expat.ExpatError as exc:
            raise SheetError(f"has a sheet that is no XML: {exc}") from exc

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise SheetError("has a sheet that is nested too deeply")
        kind = name.rpartition(":")[2]
        if kind == "c":
            self._cell(attributes.get("r"))
        elif kind in {"v", "is"}:
            self._value()
        elif kind == "row":
            self._begin_row(attributes.get("r"))

    def _end(self, _name: str) -> None:
        self._depth -= 1

    def _begin_row(self, number: str | None) -> None:
        if number is None:
            self._row += 1
        elif _ROW.fullmatch(number):
            self._row = int(number)
        else:
            raise SheetError(f"has a row {number[:20]!r}")
        self._column = 0

    def _cell(self, reference: str | None) -> None:
        if reference is None:
            self._column += 1
            self._at = self._row, self._column
        elif found := _REFERENCE.fullmatch(reference):
            self._column = _column(found[1])
            self._at = int(found[2]), self._column
        else:
            raise SheetError(f"has a cell {reference[:20]!r}")

    def _value(self) -> None:
        """Take the present cell into account: the reader leaves out those without a value."""
        row, column = self._at
        self._rows, self._columns = max(self._rows, row), max(self._columns, column)
        if self._columns > COLUMNS_MAX:
            raise SheetError(f"has a sheet of more than {COLUMNS_MAX:,} columns")
        if self._rows * self._columns > CELLS_MAX:
            raise SheetError(
                f"has a sheet of {self._rows:,} rows and {self._columns:,} columns, "
                f"more than {CELLS_MAX:,} cells"
            )


def _refuse_doctype(*_: object) -> NoReturn:
    raise SheetError("has a sheet with a document type, which no workbook has")
