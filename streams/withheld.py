"""Dead letters where customers have other names: what of a refused record may be shown, under which key."""

import msgspec

from streams.mapped_lines import nested
from streams.mapping import Mapping
from streams.pseudonyms import Pseudonyms
from streams.sources import RawHeaders
from streams.transactions import (
    FIELDS,
    HEADER_CONTROL,
    HEADER_SEQ,
    HEADER_SOURCE,
    canonical_customer_id,
)

_OURS = frozenset({HEADER_CONTROL, HEADER_SEQ, HEADER_SOURCE})
_TYPES: dict[str, tuple[type, ...]] = {
    "InvoiceNo": (str, int),
    "StockCode": (str, int),
    "Quantity": (int, float),
    "InvoiceDate": (str,),
    "UnitPrice": (int, float),
    "Country": (str,),
}
_PLAIN = (str, int, float, bool)
_BYTES_MAX = 65_536  # a longer record is no line: it is not looked into

Shown = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def shown_letter(
    value: bytes | None, headers: RawHeaders, pseudonyms: Pseudonyms, mapping: Mapping | None
) -> Shown:
    """Return (key, value, headers) of a refused record as it may stand in the topic of dead letters.

    Of the value the fields of a line stay, the customer's id hashed; other fields may hold anything and go.
    Where no id can be read, the value is withheld, and its size stands instead. Of the headers those of a
    replay stay. The key is the customer's name, None where there is none: a foreign key may hold anything.
    """
    kept = [(name, said) for name, said in headers if name in _OURS]
    if value is None:
        return None, None, kept
    foreign = None if HEADER_SOURCE in dict(headers) else mapping
    fields = _fields(value, FIELDS if foreign is None else foreign.names)
    ids: tuple[str, ...] = ("CustomerID",)
    nullable: tuple[str, ...] = ("CustomerID", "Description")
    if foreign is not None:
        ids = foreign.columns_of("CustomerID")
        nullable = (*ids, *foreign.columns_of("Description"))
    if fields is None or not _whole(fields, nullable, FIELDS if foreign is None else foreign.names):
        return None, _withheld(value), kept
    key = None
    for name in ids:
        try:
            customer = canonical_customer_id(fields.get(name))
        except ValueError:
            return None, _withheld(value), kept
        if customer is not None:
            fields[name] = pseudonyms.of(customer)
            key = pseudonyms.of(customer).encode()
    shown = {name: _shown(name, told) for name, told in fields.items()}
    return key, msgspec.json.encode(shown), kept


def _fields(value: bytes, names: tuple[str, ...]) -> dict[str, object] | None:
    """Return the fields `names` of a JSON object that are there; None where there is nothing of the kind."""
    if len(value) > _BYTES_MAX:
        return None
    try:
        record = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    return {name: told for name in names if (told := nested(record, name)) is not None} or None


def _whole(fields: dict[str, object], nullable: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """Return whether every field is there that a line needs: else columns may be shifted."""
    return all(name in fields or name in nullable for name in names)


def _shown(name: str, told: object) -> object:
    """Return a field as it may stand there; what is not of the field's type may be anything."""
    return told if isinstance(told, _TYPES.get(name, _PLAIN)) else "withheld"


def _withheld(value: bytes) -> bytes:
    return msgspec.json.encode({"withheld": "no customer id can be read in it", "bytes": len(value)})
