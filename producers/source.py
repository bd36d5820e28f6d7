"""A file to lines, the fields in the record's JSON types: Online Retail, or another's by a mapping."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from producers import fields
from producers.lines import SURPLUS, Line, Memo
from producers.parquet_table import PARQUET_MAGIC, parquet_rows
from producers.tables import ZIP_MAGIC, Table, open_binary, readable, starts_with, tables, unusable
from streams.errors import ExitCode, UserError
from streams.mapped_lines import LineMapper
from streams.mapping import Mapping, near
from streams.transactions import FIELDS

# Where `replay` looks when it is given no input, in this order.
DEFAULT_INPUTS = (
    Path("data/Online_Retail.csv.gz"),
    Path("data/Online_Retail.csv"),
    Path("data/Online Retail.xlsx"),
)

# So many rows are looked at for one that tells how dates are written, and held in memory meanwhile; fewer
# where they are large. A field takes some 50 bytes beside its characters.
DATE_ROWS_MAX = 200_000
DATE_BYTES_MAX = 256 << 20
FIELD_BYTES = 50

# Column names of Online Retail and Online Retail II, without case, blanks and underscores.
_FIELD_OF = {name.casefold(): name for name in FIELDS} | {"invoice": "InvoiceNo", "price": "UnitPrice"}


def read_lines(path: Path, mapping: Mapping | None = None) -> Iterator[Line]:
    """Return the lines of an Online Retail file, or of any by a mapping, in the file's order.

    The file is checked before this returns and read as the iterator is; a CSV file takes bounded memory. A
    workbook's sheets follow one another, sheets without the columns are passed over. A field that cannot be
    parsed keeps its text; a row that is too short lacks fields, one that is too long has `Surplus` besides.

    Raises UserError (INPUT) for a file that cannot be used, and on the way where it turns out damaged.
    """
    lines = _lines(path) if mapping is None else _mapped_lines(path, mapping)
    # Reading the first line checks the file: an error belongs to the call, not to the loop over it.
    first = next(lines, None)
    if first is None:
        raise unusable(path, "has the columns, but no rows")
    return itertools.chain([first], lines)


def source_identity(path: Path, fingerprint: str = "") -> str:
    """Return the name of an input by content, 20 hex digits.

    `fingerprint` is that of what is made of it (scenarios, a mapping): the same bytes and it, the same name.
    """
    with readable(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(f"{digest} {fingerprint}".encode()).hexdigest()[:20]


def row_count(path: Path) -> int | None:
    """Return about how many rows a file has, for a progress bar; None for a workbook."""
    with readable(path):
        if starts_with(path, ZIP_MAGIC):
            return None
        if starts_with(path, PARQUET_MAGIC):
            return parquet_rows(path)
        with open_binary(path) as file:
            blocks = iter(lambda: file.read(1 << 20), b"")
            return max(0, sum(block.count(b"\n") for block in blocks) - 1)


def _lines(path: Path) -> Iterator[Line]:
    """Yield the lines of every table that has the columns; raises UserError where none has."""
    usable, other = 0, []
    with readable(path):
        for table in tables(path):
            places = column_places(table.header)
            if len(places) == len(FIELDS):
                usable += 1
                order, rows = _date_order(path, table, places["InvoiceDate"])
                yield from RowReader(table.header, order).lines(rows)
            else:
                other.append(table.header)
    if not usable:
        raise lacks_fields(path, max(other, key=lambda names: len(column_places(names)), default=[]))


def lacks_fields(path: Path, header: list[str]) -> UserError:
    """Return the error for a file without the columns of Online Retail."""
    missing = ", ".join(name for name in FIELDS if name not in column_places(header))
    found = ", ".join(ascii(name[:40]) for name in header[:20])
    return unusable(path, f"lacks the columns {missing}; found: {found or 'none'}")


def ambiguous_dates(path: Path, exc: fields.AmbiguousDatesError) -> UserError:
    """Return the error for dates of which no row shows whether the day or the month stands first."""
    return UserError(
        f"the dates of {path}, such as {exc}, may be day first or month first: no row tells",
        hint="write them as 2010-12-31 08:26, or give a mapping with [dates] formats",
        code=ExitCode.INPUT,
    )


def _mapped_lines(path: Path, mapping: Mapping) -> Iterator[Line]:
    """Yield the lines of every table that has the columns of the mapping; raises UserError where none has."""
    usable, other = False, []
    with readable(path):
        for table in tables(path, mapping.csv, typed=True):
            if missing_columns(table.header, mapping):
                other.append(table.header)
            else:
                usable = True
                yield from MappedRowReader(table.header, mapping).lines(table.rows)
    if not usable:
        raise lacks_columns(path, min(other, key=lambda names: len(missing_columns(names, mapping))), mapping)


def missing_columns(header: list[str], mapping: Mapping) -> list[str]:
    """Return the columns of a mapping that a header has not; blanks around a name do not count."""
    there = {name.strip() for name in header}
    return [name for name in mapping.names if name.strip() not in there]


def lacks_columns(path: Path, header: list[str], mapping: Mapping) -> UserError:
    """Return the error for a file without the columns of the mapping, near names beside those missing."""
    names = [name.strip() for name in header]
    missing = ", ".join(f"{name!r}{near(name, names)}" for name in missing_columns(header, mapping))
    found = ", ".join(ascii(name[:40]) for name in names[:20])
    return UserError(
        f"{path} lacks the columns {missing}, which the mapping names; found: {found or 'none'}",
        hint="correct [columns] in the mapping; `clv-drift check` shows what is found",
        code=ExitCode.INPUT,
    )


def column_places(header: list[str]) -> dict[str, int]:
    """Return the place of each field that the header names; the first of two counts."""
    found: dict[str, int] = {}
    for place, name in enumerate(header):
        plain = name.strip().casefold().replace(" ", "").replace("_", "")
        if plain in _FIELD_OF:
            found.setdefault(_FIELD_OF[plain], place)
    return found


def _date_order(path: Path, table: Table, place: int) -> tuple[fields.DateOrder, Iterator[list[str]]]:
    """Return how a table writes its dates, and all its rows (those looked at are kept meanwhile)."""
    seen: list[list[str]] = []

    def dates() -> Iterator[str]:
        held = 0
        for row in itertools.islice(table.rows, DATE_ROWS_MAX):
            seen.append(row)
            if place < len(row):
                yield row[place]
            held += sum(map(len, row)) + FIELD_BYTES * len(row)
            if held > DATE_BYTES_MAX:
                return

    try:
        order = fields.date_order(dates())
    except fields.AmbiguousDatesError as exc:
        raise ambiguous_dates(path, exc) from exc
    return order, itertools.chain(seen, table.rows)


class RowReader:
    """Turns the rows of a table of Online Retail into lines; what the fields become is remembered."""

    def __init__(self, header: list[str], order: fields.DateOrder) -> None:
        self._places = column_places(header)
        self._width = len(header)
        self._quantities, self._prices = Memo(fields.quantity), Memo(fields.price)
        self._customers = Memo(fields.customer)
        self._dates = Memo(lambda text: fields.invoice_date(text, order))

    def lines(self, rows: Iterable[list[str]]) -> Iterator[Line]:
        """Yield a line for each row; a blank row is none."""
        quantities, prices, customers, dates = self._quantities, self._prices, self._customers, self._dates
        places, width = self._places, self._width
        invoice, stock, words, count, date, price, who, country = (places[name] for name in FIELDS)
        for row in rows:
            if len(row) == width:
                yield {
                    "InvoiceNo": row[invoice],
                    "StockCode": row[stock],
                    "Description": row[words] or None,
                    "Quantity": quantities[row[count]],
                    "InvoiceDate": dates[row[date]],
                    "UnitPrice": prices[row[price]],
                    "CustomerID": customers[row[who]],
                    "Country": row[country],
                }
            elif row:
                yield _malformed(row, places, width)


class MappedRowReader:
    """Turns the rows of a table of another shop into lines."""

    def __init__(self, header: list[str], mapping: Mapping) -> None:
        names = [name.strip() for name in header]
        self._at = [names.index(name.strip()) for name in mapping.names]
        self._width = len(header)
        self._mapper = LineMapper(mapping)
        self._first = {
            field: names.index(columns[0].strip())
            for field in FIELDS
            if (columns := mapping.columns_of(field))
        }

    def lines(self, rows: Iterable[list[Any]]) -> Iterator[Line]:
        """Yield a line for each row; a blank row is none."""
        at, width, line = self._at, self._width, self._mapper.line
        for row in rows:
            if len(row) == width:
                yield line([row[place] for place in at])[0]
            elif row:
                yield _malformed(row, self._first, width)


def _malformed(row: list[Any], places: dict[str, int], width: int) -> Line:
    """Return the line of a row that is too short or too long.

    Values may stand in the wrong columns: they go on as text, for the worker to refuse by name.
    """
    line: Line = {name: row[place] for name, place in places.items() if place < len(row)}
    surplus = row[width:]
    return line | {SURPLUS: surplus} if any(surplus) else line
