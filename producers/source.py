"""The Online Retail file to lines, the fields in the record's JSON types."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from producers import fields
from producers.lines import Line, Memo
from producers.tables import ZIP_MAGIC, Table, open_binary, readable, starts_with, tables, unusable
from streams.errors import ExitCode, UserError
from streams.transactions import FIELDS

# Where `replay` looks when it is given no input, in this order.
DEFAULT_INPUTS = (
    Path("data/Online_Retail.csv.gz"),
    Path("data/Online_Retail.csv"),
    Path("data/Online Retail.xlsx"),
)

# Values of a row beyond the header's columns go under this name: the row is malformed, and nothing is lost.
SURPLUS = "Surplus"

# So many rows are looked at for one that tells how dates are written, and held in memory meanwhile.
DATE_ROWS_MAX = 200_000

# Column names of Online Retail and Online Retail II, without case, blanks and underscores.
_FIELD_OF = {name.casefold(): name for name in FIELDS} | {"invoice": "InvoiceNo", "price": "UnitPrice"}


def read_lines(path: Path) -> Iterator[Line]:
    """Return the lines of an Online Retail file, in the file's order.

    The file is checked before this returns and read as the iterator is; a CSV file takes bounded memory. A
    workbook's sheets follow one another, sheets without the columns are passed over. A field that cannot be
    parsed keeps its text; a row that is too short lacks fields, one that is too long has `Surplus` besides.

    Raises UserError (INPUT) for a file that cannot be used, and on the way where it turns out damaged.
    """
    lines = _lines(path)
    # Reading the first line checks the file: an error belongs to the call, not to the loop over it.
    first = next(lines, None)
    if first is None:
        raise unusable(path, "has the columns, but no rows")
    return itertools.chain([first], lines)


def source_identity(path: Path, scenario_fingerprint: str = "") -> str:
    """Return the name of an input by content, 20 hex digits: the same bytes and scenarios, the same name."""
    with readable(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(f"{digest} {scenario_fingerprint}".encode()).hexdigest()[:20]


def row_count(path: Path) -> int | None:
    """Return about how many rows a CSV file has, for a progress bar; None for a workbook."""
    with readable(path):
        if starts_with(path, ZIP_MAGIC):
            return None
        with open_binary(path) as file:
            blocks = iter(lambda: file.read(1 << 20), b"")
            return max(0, sum(block.count(b"\n") for block in blocks) - 1)


def _lines(path: Path) -> Iterator[Line]:
    """Yield the lines of every table that has the columns; raises UserError where none has."""
    usable, other = 0, []
    with readable(path):
        for table in tables(path):
            places = _places(table.header)
            if len(places) == len(FIELDS):
                usable += 1
                order, rows = _date_order(path, table, places["InvoiceDate"])
                yield from _convert(rows, places, len(table.header), order)
            else:
                other.append(table.header)
    if not usable:
        header = max(other, key=lambda names: len(_places(names)), default=[])
        missing = ", ".join(name for name in FIELDS if name not in _places(header))
        found = ", ".join(ascii(name[:40]) for name in header[:20])
        raise unusable(path, f"lacks the columns {missing}; found: {found or 'none'}")


def _places(header: list[str]) -> dict[str, int]:
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
        for row in itertools.islice(table.rows, DATE_ROWS_MAX):
            seen.append(row)
            if place < len(row):
                yield row[place]

    try:
        order = fields.date_order(dates())
    except fields.AmbiguousDatesError as exc:
        raise UserError(
            f"the dates of {path}, such as {exc}, may be day first or month first: no row tells",
            hint="write them as 2010-12-31 08:26",
            code=ExitCode.INPUT,
        ) from exc
    return order, itertools.chain(seen, table.rows)


def _convert(
    rows: Iterable[list[str]], places: dict[str, int], width: int, order: fields.DateOrder
) -> Iterator[Line]:
    """Turn rows of `width` columns into lines."""
    quantities, prices, customers = Memo(fields.quantity), Memo(fields.price), Memo(fields.customer)
    dates = Memo(lambda text: fields.invoice_date(text, order))
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
        elif row:  # a blank line is no row
            # Values may stand in the wrong columns: they go on as text, for the worker to refuse by name.
            line: Line = {name: row[places[name]] for name in FIELDS if places[name] < len(row)}
            yield line | {SURPLUS: row[width:]} if any(row[width:]) else line
