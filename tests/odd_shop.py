"""The lines of any shop as a German till writes them, and the mapping that reads them back."""

import csv
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from streams.mapping import Mapping, load_mapping

EXAMPLE = Path(__file__).resolve().parent.parent / "config" / "mapping.example.toml"
BERLIN = ZoneInfo("Europe/Berlin")
HEADER = (
    "Filiale",
    "Belegnr",
    "Belegdatum",
    "Kundennr",
    "Land",
    "Artikelnr",
    "Bezeichnung",
    "Retoure",
    "Menge",
    "Einzelpreis",
)


def example() -> Mapping:
    """The example that the project gives; it is written for this till."""
    return load_mapping(EXAMPLE)


def german(number: float) -> str:
    """1234.5 as `1.234,50`; a third decimal is kept."""
    text = f"{number:,.3f}"
    text = text.removesuffix("0")
    return text.translate({ord(","): ".", ord("."): ","})


def local(text: str) -> str:
    """A line's time (UTC) as a clock in Berlin shows it, to the minute."""
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return moment.astimezone(BERLIN).strftime("%d.%m.%Y %H:%M")


def row(line: dict[str, Any]) -> list[str]:
    """One line of ours as a row of the till: a return has a flag, its quantity no sign."""
    returned = line["Quantity"] < 0
    return [
        "Filiale 1",
        line["InvoiceNo"],
        local(line["InvoiceDate"]),
        line["CustomerID"] or "",
        line["Country"],
        line["StockCode"],
        line["Description"] or "",
        "J" if returned else "N",
        f"{abs(line['Quantity'])}",
        german(line["UnitPrice"]),
    ]


def text_of(lines: Iterable[dict[str, Any]]) -> str:
    """The export: a header, a row for each line, semicolons, ends of line as on Windows."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=";")
    writer.writerow(HEADER)
    writer.writerows(map(row, lines))
    return file.getvalue()


def write(path: Path, lines: Iterable[dict[str, Any]]) -> Path:
    path.write_bytes(text_of(lines).encode("cp1252"))
    return path


def record(line: dict[str, Any]) -> dict[str, Any]:
    """The row as a topic has it, each field under the name of its column."""
    return dict(zip(HEADER, row(line), strict=True))
