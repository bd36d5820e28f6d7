"""A mapping: what a file may say, what each value becomes, what is refused and in which words."""

import json
from datetime import UTC, datetime

import odd_shop
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.decode import Decoder
from streams.errors import ExitCode, UserError
from streams.mapped_lines import LineMapper, nested
from streams.mapping import Dates, Mapping, Numbers, load_mapping
from streams.mapping_values import DateReader, NumberReader, UnreadableError
from streams.transactions import FIELDS, encode_line
from streams.vocabulary import Vocabulary

OWN = {name: name for name in FIELDS}


def mapping(**parts) -> Mapping:
    return Mapping.model_validate({"columns": OWN} | parts)


def line_of(values, **parts):
    chosen = mapping(**parts)
    row = {
        "InvoiceNo": "1",
        "StockCode": "a",
        "Description": "",
        "Quantity": "1",
        "InvoiceDate": "2011-01-03 10:00",
        "UnitPrice": "2.5",
        "CustomerID": "7",
        "Country": "X",
    } | values
    return LineMapper(chosen).line([row[name] for name in chosen.names])


def utc(text, **rules):
    return DateReader(Dates(**rules)).read([text])


# -- dates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rules", "expected"),
    [
        ("2011-01-03", {}, "2011-01-03T00:00:00"),
        ("2011-01-03T10:00:59.9", {}, "2011-01-03T10:00:59"),
        ("2011-01-03 10:00+02:00", {}, "2011-01-03T08:00:00"),
        ("03.01.2011 10:00", {"formats": ["%d.%m.%Y %H:%M"]}, "2011-01-03T10:00:00"),
        ("1/3/11 1:05 PM", {"formats": ["%m/%d/%y %I:%M %p"]}, "2011-01-03T13:05:00"),
        ("2011-01-03 10:00:00 +0100", {"formats": ["%Y-%m-%d %H:%M:%S %z"]}, "2011-01-03T09:00:00"),
        ("1294045200", {"formats": ["epoch_s"]}, "2011-01-03T09:00:00"),
        ("1294045200999", {"formats": ["epoch_ms"]}, "2011-01-03T09:00:00"),
        ("1294045200", {"formats": ["epoch_s"], "time_zone": "Europe/Berlin"}, "2011-01-03T09:00:00"),
        ("2011-01-03 10:00", {"time_zone": "Europe/Berlin"}, "2011-01-03T09:00:00"),
        ("2011-07-03 10:00", {"time_zone": "Europe/Berlin"}, "2011-07-03T08:00:00"),
        ("2011-10-30 02:30", {"time_zone": "Europe/Berlin"}, "2011-10-30T00:30:00"),
        ("2011-10-30 02:30", {"time_zone": "Europe/Berlin", "ambiguous": "second"}, "2011-10-30T01:30:00"),
        ("2011-03-27 02:30", {"time_zone": "Europe/Berlin"}, "2011-03-27T01:30:00"),
        (datetime(2011, 1, 3, 10), {"time_zone": "Europe/Berlin"}, "2011-01-03T09:00:00"),  # noqa: DTZ001
        (datetime(2011, 1, 3, 10, tzinfo=UTC), {"time_zone": "Europe/Berlin"}, "2011-01-03T10:00:00"),
        (1294045200, {"formats": ["epoch_s"]}, "2011-01-03T09:00:00"),
    ],
)
def test_dates(text, rules, expected):
    assert utc(text, **rules) == expected


@pytest.mark.parametrize(
    ("text", "rules", "words"),
    [
        ("yesterday", {}, "'yesterday' is no date as iso has it"),
        ("31.02.2011 10:00", {"formats": ["%d.%m.%Y %H:%M"]}, "no date as %d.%m.%Y"),
        ("2011-10-30 02:30", {"time_zone": "Europe/Berlin", "ambiguous": "refuse"}, "comes twice"),
        ("2011-03-27 02:30", {"time_zone": "Europe/Berlin", "nonexistent": "refuse"}, "does not exist"),
        ("1969-12-31 23:59", {}, "outside of the years"),
        ("0001-01-01 00:00", {"time_zone": "Asia/Tokyo"}, "outside of the years"),
        ("9" * 17, {"formats": ["epoch_s"]}, "no date"),
        (True, {}, "no date"),
        (None, {}, "no date"),
    ],
)
def test_dates_that_are_none(text, rules, words):
    with pytest.raises(UnreadableError, match=words):
        utc(text, **rules)


def test_date_and_time_in_two_columns():
    read = DateReader(Dates(formats=("%d.%m.%Y %H:%M",))).read
    assert read(["03.01.2011", " 10:00"]) == "2011-01-03T10:00:00"


# -- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "decimal", "thousands", "expected"),
    [
        ("2.5", ".", "", "2.5"),
        ("-1.234.567,891", ",", ".", "-1234567.891"),
        ("1234,5", ",", ".", "1234.5"),
        ("1'234.50", ".", "'", "1234.5"),
        ("12,", ",", "", "12"),
        (2.5, ",", ".", "2.5"),
    ],
)
def test_numbers(text, decimal, thousands, expected):
    from decimal import Decimal

    assert NumberReader(Numbers(decimal=decimal, thousands=thousands)).read(text) == Decimal(expected)


@pytest.mark.parametrize(
    "text", ["2,5", "1.2345,0", "1.23", "", "EUR 2", "nan", float("nan"), True, None, "1" * 41]
)
def test_numbers_that_are_none(text):
    rules = {"decimal": ".", "thousands": ","} if text == "2,5" else {"decimal": ",", "thousands": "."}
    with pytest.raises(UnreadableError):
        NumberReader(Numbers(**rules)).read(text)


@pytest.mark.parametrize("value", ["1.5", 1.5, 1e300, "x"])
def test_a_quantity_is_whole(value):
    with pytest.raises(UnreadableError):
        NumberReader(Numbers()).read_whole(value)


# -- lines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "returns", "quantity"),
    [
        ({"Quantity": "-2"}, {}, -2),
        ({"Quantity": "2", "InvoiceNo": "ST9"}, {"invoice_prefix": "ST"}, -2),
        ({"Quantity": "-2", "InvoiceNo": "ST9"}, {"invoice_prefix": "ST"}, -2),
        ({"Quantity": "2", "R": " j "}, {"column": "R", "values": ["J"]}, -2),
        ({"Quantity": "2", "R": "n"}, {"column": "R", "values": ["J"]}, 2),
        ({"Quantity": 2, "R": True}, {"column": "R", "values": ["true"]}, -2),
    ],
)
def test_returns_have_a_negative_quantity(values, returns, quantity):
    line, problems = line_of(values, returns=returns)
    assert (line["Quantity"], problems) == (quantity, [])


def test_a_negative_quantity_that_nothing_tells_may_be_refused():
    _, [(field, why)] = line_of({"Quantity": "-2"}, returns={"negative_quantity": False})
    assert field == "Quantity"
    assert "nothing says that it is a return" in why


@pytest.mark.parametrize(
    ("code", "price", "expected"), [("EUR", "2.5", 2.5), ("CHF", "2.5", 2.6), ("chf", "0.001", 0.001)]
)
def test_a_currency_is_kept_and_its_factor_applied(code, price, expected):
    currency = {"code": "EUR", "column": "C", "factors": {"CHF": 1.04}}
    line, problems = line_of({"C": code, "UnitPrice": price}, currency=currency)
    assert (line["UnitPrice"], line["Currency"], problems) == (expected, code.upper(), [])


def test_a_price_beyond_all_digits_is_refused_whatever_the_factor():
    currency = {"code": "VND", "column": "C", "factors": {"KWD": 83_000}}
    _, [(field, why)] = line_of({"C": "KWD", "UnitPrice": "9" * 21}, currency=currency)
    assert field == "UnitPrice"
    assert "is no price" in why


def test_a_currency_without_a_factor_is_refused():
    line, [(field, why)] = line_of({"C": "USD"}, currency={"code": "EUR", "column": "C"})
    assert (field, why) == ("UnitPrice", "a price in 'USD'; the mapping knows EUR")
    assert decoded(encode_line(line)).dead[0].reason.startswith("Expected `float`")


@pytest.mark.parametrize("field", ["Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "InvoiceNo"])
def test_what_cannot_be_read_is_a_dead_letter_on_both_ways(field):
    """Also where the bad value would be a good one for the worker: 2011-01-03T10:00 in a file of epochs."""
    bad = {"InvoiceDate": "2011-01-03T10:00", "CustomerID": 1.5, "InvoiceNo": ["1"]}.get(field, "7,5")
    line, problems = line_of(
        {field: bad} | ({} if field == "InvoiceDate" else {"InvoiceDate": 1294045200}),
        dates={"formats": ["epoch_s"]},
    )
    assert [name for name, _ in problems] == [field]
    assert field in decoded(encode_line(line)).dead[0].reason


def decoded(*values, mapping=None, headers=()):
    return Decoder(Vocabulary(), mapping).decode(list(values), [headers] * len(values))


texts = st.text(st.characters(codec="cp1252", exclude_categories=["C"]), min_size=1, max_size=12).map(
    lambda text: text.strip() or "x"
)
lines = st.fixed_dictionaries(
    {
        "InvoiceNo": texts,
        "StockCode": texts,
        "Description": st.none() | texts,
        "Quantity": st.integers(-(10**6), 10**6),
        "InvoiceDate": st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001
        .filter(lambda moment: moment.month not in {3, 10})  # the clock is changed in these months
        .map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:00")),
        "UnitPrice": st.integers(0, 10**9).map(lambda thousandths: thousandths / 1000),
        "CustomerID": st.none() | st.integers(1, 99_999).map(str),
        "Country": texts,
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(lines, min_size=1, max_size=5))
def test_an_odd_shape_and_back_gives_the_same_lines(tmp_path_factory, given_lines):
    from producers.source import read_lines

    path = odd_shop.write(tmp_path_factory.mktemp("odd") / "till.csv", given_lines)
    assert list(read_lines(path, odd_shop.example())) == [line | {"Currency": "EUR"} for line in given_lines]


# -- the worker's decoder -----------------------------------------------------------------------------------

LINE = {
    "InvoiceNo": "536365",
    "StockCode": "85123A",
    "Description": None,
    "Quantity": -6,
    "InvoiceDate": "2010-12-01T08:26:00",
    "UnitPrice": 1234.5,
    "CustomerID": "17850",
    "Country": "United Kingdom",
}


def test_a_foreign_record_is_the_line_that_it_means():
    words, ours = Vocabulary(), Vocabulary()
    foreign = Decoder(words, odd_shop.example()).decode([json.dumps(odd_shop.record(LINE)).encode()], [()])
    own = Decoder(ours).decode([encode_line(LINE)], [()])
    assert not foreign.dead
    for name in ("time", "customer", "invoice", "product", "country", "quantity", "price"):
        assert getattr(foreign.lines, name).tolist() == getattr(own.lines, name).tolist(), name
    assert words.customers.texts == ours.customers.texts == ["17850"]


def test_a_replayed_record_beside_a_foreign_one_is_a_line_already():
    headers = [("source", b"x"), ("seq", b"1")]
    found = decoded(encode_line(LINE), mapping=odd_shop.example(), headers=headers)
    assert (found.lines.quantity.tolist(), found.dead) == ([-6], [])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"[1]", "the record is no JSON object"),
        (b"{", "truncated"),
        (b"{}", "Quantity: nothing is no number"),
        (json.dumps(odd_shop.record(LINE) | {"Menge": "1,5"}).encode(), "Quantity: '1,5' is no whole number"),
        (json.dumps(odd_shop.record(LINE) | {"Belegnr": ""}).encode(), "InvoiceNo"),
        (b"\xff", "JSON is malformed"),
        (None, "the record has no value"),
    ],
)
def test_a_foreign_record_that_cannot_be_read_is_a_dead_letter(value, words):
    [letter] = decoded(value, mapping=odd_shop.example()).dead
    assert words in letter.reason


def test_nested_fields():
    record = {"order": {"id": 7, "by": {"id": "c"}}, "a.b": 1}
    assert [nested(record, name) for name in ("order.id", "order.by.id", "a.b", "order.x", "order.id.x")] == [
        7,
        "c",
        1,
        None,
        None,
    ]


# -- refused mappings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("x = [", "is not TOML"),
        ("", "columns: Field required"),
        (
            "[columns]\nInvoice = 'a'",
            "columns.Invoice: there is no such key (did you mean 'InvoiceNo'?); allowed",
        ),
        ("[columns]\nInvoiceNo = 'a'", "no column is named for StockCode, Quantity"),
        ("OWN\n[constants]\nCountry = 'X'", "Country: given in [columns] and in [constants]"),
        (
            "OWN\n[dates]\nformats = ['%H:%M']",
            "'%H:%M' does not tell the day; allowed: iso, epoch_s, epoch_ms",
        ),
        ("OWN\n[dates]\ntime_zone = 'Europe/Berlim'", "'Europe/Berlim' is no time zone; allowed"),
        ("OWN\n[dates]\ntime_zone = '../../etc/passwd'", "is no time zone; allowed"),
        (
            "OWN\n[dates]\nambiguous = 'third'",
            "dates.ambiguous: Input should be 'first', 'second' or 'refuse'",
        ),
        ("OWN\n[numbers]\ndecimal = ','\nthousands = ','", "decimal and thousands are both ','"),
        ("OWN\n[currency]\ncode = 'Euro'", "currency.code"),
        ("OWN\n[currency]\ncode = 'EUR'\nfactors = {USD = 0.9}", "factors need a column"),
        ("OWN\n[returns]\ncolumn = 'R'", "column and values go together"),
        ("OWN\n[csv]\nencoding = 'utf-99'", "'utf-99' is no encoding; allowed"),
        ("OWN\n[csv]\nencoding = 'rot13'", "'rot13' is no encoding; allowed"),
        ("OWN\n[csv]\ndelimiter = ';;'", "csv.delimiter"),
    ],
)
def test_a_refused_mapping_names_file_key_and_what_is_allowed(tmp_path, toml, words):
    own = "[columns]\n" + "\n".join(f"{name} = '{name}'" for name in FIELDS)
    path = tmp_path / "m.toml"
    path.write_text(toml.replace("OWN", own))
    with pytest.raises(UserError) as caught:
        load_mapping(path)
    assert caught.value.code is ExitCode.USAGE
    assert str(path) in caught.value.message
    assert words in caught.value.message


def test_a_mapping_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot read the mapping"):
        load_mapping(tmp_path / "none.toml")
