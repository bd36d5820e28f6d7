"""Records to columns: every line is validated here, once, or becomes a dead letter with its reason."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from models.features import DAY_S, MONEY_SCALE
from models.lines import Lines
from streams.mapped_lines import LineMapper, nested
from streams.mapping import Mapping
from streams.pseudonyms import Pseudonyms
from streams.sources import Identities, IdentityReader, RawHeaders
from streams.transactions import (
    HEADER_CONTROL,
    HEADER_SOURCE,
    ID_CHARS_MAX,
    Control,
    canonical_customer_id,
)
from streams.vocabulary import UNKNOWN, Interner, Vocabulary

LINE_BYTES_MAX = 65_536  # a line item is some 200 bytes; what is larger is no line item
AMOUNT_MAX = 10**13  # thousandths a line: sums of 900,000 such lines still fit 64 bits
QUANTITY_MAX = 2**31 - 1
PRICE_MAX = 10.0**10
# So many records at a time become columns: what a row is made of is then still in the processor's cache.
BLOCK_RECORDS = 400
YEAR_MAX = 2199

Id = Annotated[str, Meta(min_length=1, max_length=ID_CHARS_MAX)]


_EPOCH, _EPOCH_NAIVE = datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1)  # noqa: DTZ001  (UTC by definition)
_DAYS_MAX = (datetime(YEAR_MAX + 1, 1, 1, tzinfo=UTC) - _EPOCH).days


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line item as it stands in a record; other fields are allowed and ignored."""

    InvoiceNo: Id
    StockCode: Id
    Quantity: Annotated[int, Meta(ge=-QUANTITY_MAX, le=QUANTITY_MAX)]
    InvoiceDate: str
    UnitPrice: Annotated[float, Meta(ge=-PRICE_MAX, le=PRICE_MAX)]
    CustomerID: str | int | float | None
    Country: Id
    Description: str | None = None


class ControlValue(msgspec.Struct, frozen=True):
    """The value of a control record."""

    event_time: Annotated[int, Meta(ge=0, le=int(datetime(YEAR_MAX, 12, 31, tzinfo=UTC).timestamp()))]


@dataclass(frozen=True)
class DeadLetter:
    """A record that is not accepted: its position in the batch, and why in the words of a person."""

    position: int
    reason: str


@dataclass(frozen=True)
class ControlRecord:
    """A control record at `position`; `event_time` in epoch seconds."""

    position: int
    kind: Control
    event_time: int


@dataclass(frozen=True)
class Decoded:
    """A batch of `size` records as columns; `positions` says which record each row of `lines` was."""

    size: int
    positions: NDArray[np.int64]
    lines: Lines  # customer is `UNKNOWN` where the record names none
    controls: list[ControlRecord]
    dead: list[DeadLetter]
    origin: Identities


class Decoder:
    """Decodes the records of one partition into codes of `vocabulary`.

    With a mapping, records of foreign producers are read by it; those of a replay are lines already. With
    `pseudonyms` a customer gets another name here, and no reason tells an id; who has one keeps it.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        mapping: Mapping | None = None,
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self._customers = _CustomerCodes(vocabulary.customers, pseudonyms)
        self._ids_shown = pseudonyms is None
        self._times = _Times()
        self._decode = msgspec.json.Decoder(Line).decode
        self._decode_control = msgspec.json.Decoder(ControlValue).decode
        self._foreign = None if mapping is None else ForeignLines(mapping, ids_shown=self._ids_shown)

    def decode(self, values: Sequence[bytes | None], headers: Sequence[RawHeaders]) -> Decoded:
        """Decode records given as parallel sequences, in the order of the log."""
        origin = IdentityReader()
        controls: list[ControlRecord] = []
        dead: list[DeadLetter] = []
        blocks, places = [Lines.empty()], [np.empty(0, np.int64)]
        for start in range(0, len(values), BLOCK_RECORDS):
            refused_before = len(dead)
            special = [start + i for i in origin.read(headers[start : start + BLOCK_RECORDS])]
            found = self._controls(values, headers, special, dead) if special else []
            positions = list(range(start, min(start + BLOCK_RECORDS, len(values))))
            if special:
                skip = {record.position for record in found} | {
                    letter.position for letter in dead[refused_before:]
                }
                positions = [i for i in positions if i not in skip]
            if self._foreign is None:
                rows = self._rows(values, positions, dead)
            else:
                rows = self._told_singly(values, headers, positions, dead)
            lines, at = self._columns(rows, positions, dead)
            controls += found
            blocks.append(lines)
            places.append(at)
        dead.sort(key=lambda letter: letter.position)
        return Decoded(
            len(values), np.concatenate(places), Lines.concat(blocks), controls, dead, origin.identities()
        )

    def _controls(
        self,
        values: Sequence[bytes | None],
        headers: Sequence[RawHeaders],
        special: list[int],
        dead: list[DeadLetter],
    ) -> list[ControlRecord]:
        """Return the control records among `special`, the records whose headers are not a plain line's."""
        controls = []
        for position in special:
            kind = dict(headers[position]).get(HEADER_CONTROL)
            if kind is None:
                continue
            try:
                said = self._decode_control(values[position] or b"")
                controls.append(ControlRecord(position, Control(kind.decode()), said.event_time))
            except RecursionError:
                dead.append(DeadLetter(position, "control record: nested too deeply"))
            except (msgspec.DecodeError, ValueError) as exc:
                dead.append(DeadLetter(position, f"control record: {exc}"))
        return controls

    def _rows(
        self, values: Sequence[bytes | None], positions: list[int], dead: list[DeadLetter]
    ) -> list[Line]:
        """Decode the values at `positions`; those that fail leave `positions` and join `dead`."""
        decode = self._decode
        try:
            # The common case in one pass: nothing is None, too long or malformed.
            chosen = [values[i] for i in positions]
            if max(map(len, chosen), default=0) <= LINE_BYTES_MAX:  # type: ignore[arg-type]
                return [decode(value) for value in chosen]  # type: ignore[arg-type]
        except (TypeError, ValueError, RecursionError):
            pass  # told line by line below
        return self._told_singly(values, None, positions, dead)

    def _told_singly(
        self,
        values: Sequence[bytes | None],
        headers: Sequence[RawHeaders] | None,
        positions: list[int],
        dead: list[DeadLetter],
    ) -> list[Line]:
        """Do as `_rows`, a record at a time; by `headers` the mapping knows whose record it is."""
        rows, good = [], []
        for i in positions:
            ours = self._foreign is None or headers is None or HEADER_SOURCE in dict(headers[i])
            decode = self._decode if ours or self._foreign is None else self._foreign.decode
            try:
                rows.append(decode(_checked(values[i])))
            except UnicodeDecodeError:
                dead.append(DeadLetter(i, "not UTF-8"))
            except RecursionError:
                dead.append(DeadLetter(i, "nested too deeply"))
            except (msgspec.DecodeError, ValueError) as exc:
                dead.append(DeadLetter(i, str(exc)))
            else:
                good.append(i)
        positions[:] = good
        return rows

    def _columns(
        self, rows: list[Line], positions: list[int], dead: list[DeadLetter]
    ) -> tuple[Lines, NDArray[np.int64]]:
        """Turn rows into columns; rows whose values cannot be right join `dead`."""
        at = np.array(positions, np.int64)
        words = self.vocabulary
        time = np.fromiter(map(self._times.__getitem__, [row.InvoiceDate for row in rows]), np.int64)
        customer = np.fromiter(map(self._customers.__getitem__, [row.CustomerID for row in rows]), np.int32)
        quantity = np.array([row.Quantity for row in rows], np.int64)
        unit_price = np.array([row.UnitPrice for row in rows], np.float64)
        price = np.rint(unit_price * MONEY_SCALE).astype(np.int64)
        checks = (
            (time == _Times.BAD, "InvoiceDate", "is not an ISO date and time from 1970 to 2199"),
            (customer == _CustomerCodes.BAD, "CustomerID", f"is no id of at most {ID_CHARS_MAX} characters"),
            # Exact where the number is the double nearest to a whole count of thousandths.
            (price / MONEY_SCALE != unit_price, "UnitPrice", "has more than 3 decimals"),
            (
                np.abs(quantity * unit_price * MONEY_SCALE) > AMOUNT_MAX,
                "UnitPrice",
                "times Quantity is out of range",
            ),
        )
        good = np.ones(len(rows), bool)
        for fails, field, words_for in checks:
            for i in np.flatnonzero(fails & good):
                # Where columns are shifted, the id stands in another field.
                value = repr(str(getattr(rows[i], field))[:80]) if self._ids_shown else "(withheld)"
                dead.append(DeadLetter(int(at[i]), f"{field} {value} {words_for}"))
            good &= ~fails
        if not good.all():
            rows = [row for row, fine in zip(rows, good, strict=True) if fine]
            at, time, customer, quantity, price = (
                at[good],
                time[good],
                customer[good],
                quantity[good],
                price[good],
            )
        lines = Lines(
            time=time,
            customer=customer,
            invoice=words.invoices.codes([row.InvoiceNo for row in rows]),
            product=words.products.codes([row.StockCode for row in rows]),
            country=words.countries.codes([row.Country for row in rows]),
            quantity=quantity,
            price=price,
        )
        return lines, at


class ForeignLines:
    """Lines of records whose fields have the names and forms of another shop."""

    def __init__(self, mapping: Mapping, *, ids_shown: bool) -> None:
        self._names = mapping.names
        self._ids_shown = ids_shown
        self._mapper = LineMapper(mapping)

    def decode(self, value: bytes) -> Line:
        """Return the line of a record; raises ValueError or RecursionError where it is none."""
        record = msgspec.json.decode(value)
        if not isinstance(record, dict):
            raise ValueError("the record is no JSON object")
        line, problems = self._mapper.line([nested(record, name) for name in self._names])
        if problems:
            raise ValueError("; ".join(f"{field}: {self._told(why)}" for field, why in problems))
        return msgspec.convert(line, Line)

    def _told(self, why: str) -> str:
        return why if self._ids_shown else "(withheld) cannot be read"


def _checked(value: bytes | None) -> bytes:
    """Return `value`; raise ValueError where it cannot be a line at all."""
    if value is None:
        raise ValueError("the record has no value")
    if len(value) > LINE_BYTES_MAX:
        raise ValueError(f"{len(value)} bytes are more than a line may have ({LINE_BYTES_MAX})")
    return value


class _CustomerCodes(dict[str | int | float | None, int]):
    """Codes by the id as it came; 17850, 17850.0 and "17850" lead to one code.

    Holds a bounded number of bounded texts beside the customers that there are: an id can be written in
    endless ways, with ever more blanks.
    """

    BAD = -2
    _SPARE_MAX = 200_000

    def __init__(self, customers: Interner, pseudonyms: Pseudonyms | None) -> None:
        super().__init__({None: UNKNOWN})
        self._customers = customers
        self._pseudonyms = pseudonyms

    def __missing__(self, raw: str | float) -> int:
        try:
            text = canonical_customer_id(raw)
        except ValueError:
            return self.BAD
        if text is None:
            return UNKNOWN
        if len(text) > ID_CHARS_MAX:
            return self.BAD
        name = text if self._pseudonyms is None else self._pseudonyms.of(text)
        code = self._customers[name]
        if not isinstance(raw, str) or len(raw) <= ID_CHARS_MAX:
            if len(self) > len(self._customers) + self._SPARE_MAX:
                self.clear()
                self[None] = UNKNOWN
            self[raw] = code
        return code


class _Times(dict[str, int]):
    """Epoch seconds by the text of a date; texts repeat, for an invoice has many lines."""

    BAD = np.iinfo(np.int64).min
    _SIZE_MAX = 200_000
    # Spelled out, because what `fromisoformat` accepts grows with Python's versions.
    _ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?", re.ASCII)

    def __missing__(self, text: str) -> int:
        seconds = self._parse(text)
        # What is no date may be a text of any length, and need not come again.
        if seconds != self.BAD:
            if len(self) >= self._SIZE_MAX:
                self.clear()
            self[text] = seconds
        return seconds

    def _parse(self, text: str) -> int:
        if not self._ISO.fullmatch(text):
            return self.BAD
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return self.BAD
        since = moment - (_EPOCH if moment.tzinfo else _EPOCH_NAIVE)
        return since.days * DAY_S + since.seconds if 0 <= since.days < _DAYS_MAX else self.BAD
