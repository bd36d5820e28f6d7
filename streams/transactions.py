"""The transaction record: one JSON line item a Kafka record, its key, its headers, the control records."""

import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

# The names of the Online Retail data set; every producer writes them.
FIELDS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
REQUIRED_FIELDS = tuple(field for field in FIELDS if field != "Description")

ID_CHARS_MAX = 256

# Headers of a record. `source` names the replay's input by content, `seq` is the row's number in it (from 1).
HEADER_SOURCE = "source"
HEADER_SEQ = "seq"
HEADER_CONTROL = "control"

Headers = list[tuple[str, bytes]]


class Control(StrEnum):
    """What a control record says; its header `control` carries the kind, its value is JSON."""

    WATERMARK = "watermark"  # {"event_time": largest event time of the source so far, epoch seconds}
    END_OF_INPUT = "end_of_input"  # {"event_time": the same}: closes the current window as partial


def record_headers(source: str, seq: int) -> Headers:
    """Return the headers of row `seq` of `source`."""
    return [(HEADER_SOURCE, source.encode()), (HEADER_SEQ, b"%d" % seq)]


def control_headers(kind: Control, source: str, seq: int) -> Headers:
    """Return the headers of a control record that follows row `seq` of `source`."""
    return [(HEADER_CONTROL, kind.value.encode()), *record_headers(source, seq)]


def control_value(event_time: int) -> bytes:
    """Return the value of a control record; `event_time` in epoch seconds (UTC)."""
    return b'{"event_time":%d}' % event_time


def encode_line(line: dict[str, Any]) -> bytes:
    """Return a line as the bytes of a record: compact JSON, `FIELDS` first."""
    ordered = {name: line[name] for name in FIELDS if name in line}
    ordered.update((name, value) for name, value in line.items() if name not in ordered)
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False, allow_nan=True).encode()


def record_key(customer_id: str | None, invoice_no: str) -> bytes:
    """Return the key of a line: the canonical customer id, or the invoice where the customer is unknown."""
    return (customer_id or invoice_no).encode()


def canonical_customer_id(raw: object) -> str | None:
    """Return the customer id as text, `17850` for 17850, 17850.0, "17850" and "17850.0"; None where unknown.

    Raises ValueError on what cannot be an id (a fraction, NaN, a list).
    """
    if raw is None:
        return None
    if isinstance(raw, bool):
        raise ValueError("CustomerID is a boolean")
    if isinstance(raw, int):
        return str(raw)
    if isinstance(raw, float):
        if raw.is_integer():
            return str(int(raw))
        raise ValueError(f"CustomerID {raw!r} is not whole")
    if isinstance(raw, str):
        text = raw.strip()
        if text.endswith(".0") and text[:-2].isdigit():
            text = text[:-2]
        return text or None
    raise ValueError(f"CustomerID is a {type(raw).__name__}")


def header_map(headers: Iterable[tuple[str, bytes]] | None) -> dict[str, bytes]:
    """Return headers as a mapping; the last of a repeated name counts."""
    return dict(headers or ())
