"""Another shop's fields under our names: what a mapping file may say, and how it is read."""

import csv
import hashlib
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from streams.errors import ExitCode, UserError
from streams.transactions import FIELDS

MAPPING_BYTES_MAX = 1 << 20
OPTIONAL = frozenset({"Description"})
NAMED_FORMATS = ("iso", "epoch_s", "epoch_ms")

Name = Annotated[str, Field(min_length=1, max_length=200)]
CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
OneCharacter = Annotated[str, Field(min_length=1, max_length=1)]

# A moment whose parts all differ: what a pattern does not write, it does not read back.
_PROBE = datetime(2011, 12, 31, 22, 45)  # noqa: DTZ001  (only its parts count)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(_Part):
    """The column (of a topic: the JSON field, nested ones as `order.id`) of each of our fields."""

    InvoiceNo: Name | None = None
    StockCode: Name | None = None
    Description: Name | None = None
    Quantity: Name | None = None
    InvoiceDate: Name | Annotated[tuple[Name, ...], Field(min_length=1, max_length=4)] | None = None
    UnitPrice: Name | None = None
    CustomerID: Name | None = None
    Country: Name | None = None


class Constants(_Part):
    """What every line has where the shop writes no such column."""

    StockCode: Name | None = None
    Description: Name | None = None
    Quantity: int | None = None
    Country: Name | None = None


class Dates(_Part):
    """How a date is written; the first of `formats` that reads a text counts.

    A time without an offset is one of `time_zone`. Of the two that an hour set back has, `ambiguous` says
    which; one in the hour that is left out is read as by a clock not yet set `forward`, or refused.
    """

    formats: Annotated[tuple[Name, ...], Field(min_length=1)] = ("iso",)
    time_zone: str = "UTC"
    ambiguous: Literal["first", "second", "refuse"] = "first"
    nonexistent: Literal["forward", "refuse"] = "forward"

    @field_validator("formats")
    @classmethod
    def _readable(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        for text in formats:
            if text in NAMED_FORMATS:
                continue
            names = ", ".join(NAMED_FORMATS)
            allowed = f"{names}, or a pattern with day, month and year such as %d.%m.%Y %H:%M"
            try:
                probe = _PROBE.replace(tzinfo=UTC) if "%z" in text else _PROBE
                read = datetime.strptime(probe.strftime(text), text)  # noqa: DTZ007  (only the date counts)
            except (ValueError, OverflowError) as exc:
                raise ValueError(f"{text!r} is no date format ({exc}); allowed: {allowed}") from exc
            if read.date() != _PROBE.date():
                raise ValueError(f"{text!r} does not tell the day; allowed: {allowed}")
        return formats

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, ValueError) as exc:  # ZoneInfoNotFoundError is a KeyError of its own
            raise ValueError(_no_zone(name)) from exc
        except KeyError as exc:
            raise ValueError(_no_zone(name)) from exc
        return name


def _no_zone(name: str) -> str:
    return f"{name!r} is no time zone; allowed: a name of the IANA database such as Europe/Berlin, or UTC"


class Numbers(_Part):
    """How a number is written: `1.234,50` has the decimal `,` and the thousands `.`."""

    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'", "\u00a0", "\u202f", "\u2019"] = ""

    @model_validator(mode="after")
    def _differ(self) -> "Numbers":
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}; they must differ")
        return self


class Currency(_Part):
    """The currency of the shop, and how others come to it: by a fixed factor, or not at all.

    `column` tells the currency of a row; without it every row is in `code`.
    """

    code: CurrencyCode
    column: Name | None = None
    factors: dict[CurrencyCode, Annotated[Decimal, Field(gt=0, allow_inf_nan=False)]] = {}

    @model_validator(mode="after")
    def _sensible(self) -> "Currency":
        if self.factors and self.column is None:
            raise ValueError("factors need a column that tells the currency of a row")
        if self.code in self.factors:
            raise ValueError(f"factors has {self.code}, the shop's own currency; its factor is 1")
        return self


class Returns(_Part):
    """How a return is told: any of these makes the quantity negative, whatever sign the shop wrote."""

    negative_quantity: bool = True  # False: a negative quantity that nothing else tells is refused
    invoice_prefix: Name | None = None
    column: Name | None = None
    values: tuple[str, ...] = ()  # of `column`, compared without case and blanks

    @model_validator(mode="after")
    def _sensible(self) -> "Returns":
        if (self.column is None) != (not self.values):
            raise ValueError("column and values go together: the column, and what it says of a return")
        return self


class Csv(_Part):
    """The dialect of a CSV file; an empty `quote` means that nothing is quoted."""

    delimiter: OneCharacter | None = None  # None: the commonest of , ; and tab in the header
    encoding: str = "utf-8"
    quote: Annotated[str, Field(max_length=1)] = '"'

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            "a\n".encode(name).decode(name)  # fails where the name is unknown, or no encoding of text
        except (LookupError, UnicodeError, ValueError) as exc:
            raise ValueError(f"{name!r} is no encoding; allowed: utf-8, cp1252, latin-1, utf-16 ...") from exc
        return name

    @model_validator(mode="after")
    def _sensible(self) -> "Csv":
        if self.delimiter is not None and self.delimiter in {self.quote, "\n", "\r"}:
            raise ValueError(f"delimiter {self.delimiter!r} cannot be the quote or an end of line")
        return self

    def reader_options(self, delimiter: str) -> dict[str, object]:
        """Return the options of `csv.reader`; `delimiter` is what the header shows."""
        chosen = self.delimiter or delimiter
        if not self.quote:
            return {"delimiter": chosen, "quoting": csv.QUOTE_NONE}
        return {"delimiter": chosen, "quotechar": self.quote}


class Mapping(_Part):
    """How another shop's export or topic is read as ours."""

    columns: Columns
    constants: Constants = Constants()
    dates: Dates = Dates()
    numbers: Numbers = Numbers()
    currency: Currency | None = None
    returns: Returns = Returns()
    csv: Csv = Csv()

    @model_validator(mode="after")
    def _complete(self) -> "Mapping":
        fixed = {name for name in FIELDS if getattr(self.constants, name, None) is not None}
        named = {name for name in FIELDS if getattr(self.columns, name) is not None}
        if both := [name for name in FIELDS if name in fixed & named]:
            raise ValueError(f"{', '.join(both)}: given in [columns] and in [constants]; one of them")
        missing = [name for name in FIELDS if name not in fixed | named | OPTIONAL]
        if missing:
            allowed = ", ".join(Constants.model_fields)
            raise ValueError(
                f"columns.{missing[0]}: no column is named for {', '.join(missing)}; a constant in"
                f" [constants] may stand for {allowed}"
            )
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every column that is read, once each, in the order of our fields."""
        return tuple(dict.fromkeys(self._names()))

    @cached_property
    def fingerprint(self) -> str:
        """Name of the mapping by content, 16 hex digits: another mapping makes other lines."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def _names(self) -> Iterator[str]:
        for field in FIELDS:
            yield from self.columns_of(field)
        if self.currency is not None and self.currency.column is not None:
            yield self.currency.column
        if self.returns.column is not None:
            yield self.returns.column

    def columns_of(self, field: str) -> tuple[str, ...]:
        """Return the columns that one of our fields is read from; none for a constant."""
        found = getattr(self.columns, field)
        if found is None:
            return ()
        return found if isinstance(found, tuple) else (found,)


def load_mapping(path: Path) -> Mapping:
    """Read a mapping file; raises UserError (USAGE) that names the file, the key and what is allowed."""
    try:
        with path.open("rb") as file:
            content = file.read(MAPPING_BYTES_MAX + 1)
    except OSError as exc:
        raise UserError(
            f"cannot read the mapping {path}: {exc.strerror or exc}",
            hint="config/mapping.example.toml shows one",
            code=ExitCode.USAGE,
        ) from exc
    if len(content) > MAPPING_BYTES_MAX:
        raise UserError(
            f"the mapping {path} has more than {MAPPING_BYTES_MAX:,} bytes: it is none", code=ExitCode.USAGE
        )
    try:
        said = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as exc:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise UserError(f"the mapping {path} is not TOML: {exc}", code=ExitCode.USAGE) from exc
    try:
        return Mapping.model_validate(said)
    except ValidationError as exc:
        problems = "; ".join(_problem(error) for error in exc.errors())
        raise UserError(
            f"refused mapping {path}: {problems}",
            hint="config/mapping.example.toml shows every key",
            code=ExitCode.USAGE,
        ) from exc


def near(name: str, others: Sequence[str]) -> str:
    """Return words about the name among `others` that may have been meant, empty where none is near."""
    plain = {other.casefold(): other for other in reversed(others)}
    found = get_close_matches(name.casefold(), plain, n=1, cutoff=0.6)
    return f" (did you mean {plain[found[0]]!r}?)" if found else ""


def _problem(error: ErrorDetails) -> str:
    """Return what pydantic objects to, with the key; of an unknown key also those that there are."""
    where = ".".join(str(part) for part in error["loc"])
    own = error.get("ctx", {}).get("error")
    message = error["msg"] if own is None else str(own)
    if error["type"] == "extra_forbidden":
        known = list(_model_at(error["loc"][:-1]).model_fields)
        message = f"there is no such key{near(str(error['loc'][-1]), known)}; allowed: {', '.join(known)}"
    return f"{where}: {message}" if where else message


def _model_at(loc: Sequence[int | str]) -> type[BaseModel]:
    """Return the part of the mapping that a place in it stands for."""
    model: type[BaseModel] = Mapping
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is None:
            break
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
    return model
