"""Every record becomes a row, a control record or a dead letter with its reason, and nothing raises."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_factory import MONDAY, line

from streams.decode import LINE_BYTES_MAX, Decoder
from streams.transactions import Control, control_headers, control_value, encode_line, record_headers
from streams.vocabulary import UNKNOWN, Vocabulary

GOOD = encode_line(line())


def decode(*records, decoder=None):
    """Decode (value, headers) pairs or bare values."""
    pairs = [record if isinstance(record, tuple) else (record, []) for record in records]
    decoder = decoder or Decoder(Vocabulary())
    return decoder.decode([value for value, _ in pairs], [headers for _, headers in pairs])


def raw(**changes):
    """The JSON of a line in which each value of `changes` stands as written."""
    text = json.dumps(line() | dict.fromkeys(changes, "@"))
    for name, value in changes.items():
        text = text.replace(f'"{name}": "@"', f'"{name}": {value}')
    return text.encode()


def lacking(name):
    return encode_line({key: value for key, value in line().items() if key != name})


REFUSED = {
    "no value": (None, "no value"),
    "empty": (b"", "truncated"),
    "not JSON": (b"InvoiceNo,StockCode", "malformed"),
    "an array": (b"[1,2]", "Expected `object`"),
    "half a line": (GOOD[:40], "truncated"),
    "two lines": (GOOD + GOOD, "malformed"),
    "no CustomerID": (lacking("CustomerID"), "CustomerID"),
    "no Quantity": (lacking("Quantity"), "Quantity"),
    "no Country": (lacking("Country"), "Country"),
    "empty Country": (raw(Country='""'), "Country"),
    "null InvoiceNo": (raw(InvoiceNo="null"), "InvoiceNo"),
    "numeric InvoiceNo": (raw(InvoiceNo="536365"), "InvoiceNo"),
    "long StockCode": (raw(StockCode='"' + "x" * 257 + '"'), "StockCode"),
    "Quantity as text": (raw(Quantity='"6"'), "Quantity"),
    "half a piece": (raw(Quantity="1.5"), "Quantity"),
    "no piece count": (raw(Quantity="null"), "Quantity"),
    "10^12 pieces": (raw(Quantity="1000000000000"), "Quantity"),
    "10^30 pieces": (raw(Quantity="1" + "0" * 30), "Quantity"),
    "price NaN": (raw(UnitPrice="NaN"), "malformed"),
    "price Infinity": (raw(UnitPrice="-Infinity"), "malformed"),
    "price 1e400": (raw(UnitPrice="1e400"), "UnitPrice"),
    "price as text": (raw(UnitPrice='"2.55"'), "UnitPrice"),
    "price of 4 decimals": (raw(UnitPrice="2.5505"), "UnitPrice '2.5505' has more than 3 decimals"),
    "a thousandth's third": (raw(UnitPrice="0.0003"), "more than 3 decimals"),
    "amount beyond 64 bits": (
        raw(UnitPrice="9999999999.999", Quantity="2000000000"),
        "times Quantity is out of range",
    ),
    "id true": (raw(CustomerID="true"), "CustomerID"),
    "id a list": (raw(CustomerID="[17850]"), "CustomerID"),
    "id with a fraction": (raw(CustomerID="17850.5"), "CustomerID '17850.5'"),
    "id 1e300": (raw(CustomerID="1e300"), "CustomerID"),
    "id of 5000 digits": (raw(CustomerID="1" * 5000), "CustomerID"),
    "long id": (raw(CustomerID='"' + "7" * 257 + '"'), "CustomerID"),
    "day first": (raw(InvoiceDate='"01-12-2010 08:26"'), "InvoiceDate '01-12-2010 08:26'"),
    "slashes": (raw(InvoiceDate='"12/1/2010 8:26"'), "InvoiceDate"),
    "a date alone": (raw(InvoiceDate='"2010-12-01"'), "InvoiceDate"),
    "no such day": (raw(InvoiceDate='"2010-02-30T08:26:00"'), "InvoiceDate"),
    "no such hour": (raw(InvoiceDate='"2010-02-03T25:26:00"'), "InvoiceDate"),
    "year 3010": (raw(InvoiceDate='"3010-12-01T08:26:00"'), "from 1970 to 2199"),
    "year 1969": (raw(InvoiceDate='"1969-12-31T23:59:59"'), "InvoiceDate"),
    "1969 by its zone": (raw(InvoiceDate='"1970-01-01T00:30:00+01:00"'), "InvoiceDate"),
    "year 1 with a zone": (raw(InvoiceDate='"0001-01-01T00:00:00+05:00"'), "InvoiceDate"),
    "epoch seconds": (raw(InvoiceDate="1291191960"), "InvoiceDate"),
    "foreign digits": (raw(InvoiceDate='"２０１０-12-01T08:26:00"'), "InvoiceDate"),
    "70 kB": (raw(Description=f'"{"x" * 70_000}"'), "more than a line may have"),
    "Latin-1": (raw(Country='"Autriche é"').decode().encode("latin-1"), "UTF-8"),
    "half a surrogate pair": (raw(CustomerID='"\\ud800"'), "surrogate"),
    "nested too deeply": (raw(Extra="0")[:-1] + b',"x":' + b"[" * 9_000 + b"]" * 9_000 + b"}", "nested"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_value_is_a_dead_letter_with_its_reason(name):
    value, reason = REFUSED[name]
    found = decode(GOOD, value, GOOD)
    (letter,) = found.dead
    assert letter.position == 1
    assert reason in letter.reason
    # The lines around it count; the refused one leaves no trace in the columns.
    assert found.positions.tolist() == [0, 2]
    assert len(found.lines) == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2010-12-01T08:26:00", 1_291_191_960),
        ("2010-12-01 08:26:00", 1_291_191_960),
        ("2010-12-01T08:26", 1_291_191_960),
        ("2010-12-01T08:26:00Z", 1_291_191_960),
        ("2010-12-01T08:26:00.999999", 1_291_191_960),
        ("2010-12-01T09:26:00+01:00", 1_291_191_960),
        ("2010-11-30T22:56:00-09:30", 1_291_191_960),
        ("1970-01-01T00:00:00", 0),
        ("2199-12-31T23:59:59", 7_258_118_399),
    ],
)
def test_dates(text, seconds):
    found = decode(raw(InvoiceDate=json.dumps(text)))
    assert not found.dead
    assert found.lines.time.tolist() == [seconds]


def test_one_customer_however_the_id_is_written():
    words = Vocabulary()
    spelled = ["17850", "17850.0", '"17850"', '"17850.0"', '" 17850 "', "1.785e4"]
    found = decode(*[raw(CustomerID=text) for text in spelled], decoder=Decoder(words))
    assert not found.dead
    assert found.lines.customer.tolist() == [0] * len(spelled)
    assert words.customers.texts == ["17850"]


def test_who_is_unknown_and_who_is_another():
    words = Vocabulary()
    found = decode(
        *[raw(CustomerID=t) for t in ("null", '""', '"  "', '"017850"', "-1")], decoder=Decoder(words)
    )
    assert not found.dead
    assert found.lines.customer.tolist() == [UNKNOWN] * 3 + [0, 1]
    assert words.customers.texts == ["017850", "-1"]


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [
        ("2.55", 2550),
        ("0.1", 100),
        ("0.001", 1),
        ("3", 3000),
        ("-11062.06", -11_062_060),
        ("-0.0", 0),
        ("1e3", 10**6),
    ],
)
def test_money_is_whole_thousandths(text, thousandths):
    found = decode(raw(UnitPrice=text))
    assert not found.dead
    assert found.lines.price.tolist() == [thousandths]


@given(st.integers(-(10**9), 10**9))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_every_price_of_three_decimals_survives(thousandths):
    text = f"{'-' if thousandths < 0 else ''}{abs(thousandths) // 1000}.{abs(thousandths) % 1000:03d}"
    assert decode(raw(UnitPrice=text)).lines.price.tolist() == [thousandths]


def test_other_fields_are_ignored_and_a_line_of_the_largest_size_is_taken():
    filler = LINE_BYTES_MAX - len(raw(Description='""'))
    found = decode(raw(Description=f'"{"x" * filler}"'), encode_line(line() | {"Shop": {"id": [1, 2]}}))
    assert not found.dead
    assert decode(raw(Description=f'"{"x" * (filler + 1)}"')).dead


def test_headers_identify_a_row():
    found = decode(
        (GOOD, record_headers("a", 7)),
        (GOOD, [("seq", b"8"), ("traceparent", b"00"), ("source", b"a")]),
        (GOOD, record_headers("b", 1)),
        (GOOD, []),
        (GOOD, [("source", b"a")]),
        (GOOD, [("source", b"a"), ("seq", b"-1")]),
        (GOOD, [("source", b"a"), ("seq", b"9" * 30)]),
        (GOOD, [("source", b"a" * 129), ("seq", b"1")]),
    )
    assert not found.dead
    assert found.origin.names == ["a", "b"]
    assert found.origin.source.tolist() == [0, 0, 1, -1, -1, -1, -1, -1]
    assert found.origin.seq[:3].tolist() == [7, 8, 1]


@pytest.mark.parametrize(
    "headers",
    [
        [("source", None), ("seq", None)],
        [("source", b"a"), ("seq", None)],
        [("source", None), ("seq", b"1")],
        [("seq", None), ("source", b"a"), ("x", b"")],
        [("control", None)],
    ],
)
def test_a_header_without_a_value_identifies_nothing(headers):
    """Kafka allows headers without a value; a foreign producer may send them."""
    found = decode((GOOD, headers))
    assert not found.dead
    assert len(found.lines) == 1
    assert found.origin.source.tolist() == [-1]


def test_sources_that_are_not_text_stay_apart():
    """Two names that no text can hold must not become one: a line of the second would count as repeated."""
    found = decode((GOOD, [("source", b"\xff"), ("seq", b"1")]), (GOOD, [("source", b"\xfe"), ("seq", b"1")]))
    assert found.origin.source.tolist() == [0, 1]
    assert len(set(found.origin.names)) == 2


def test_control_records():
    headers = control_headers(Control.WATERMARK, "a", 3)
    found = decode(
        GOOD,
        (control_value(MONDAY), headers),
        (control_value(5), control_headers(Control.END_OF_INPUT, "a", 3)),
    )
    assert [(c.position, c.kind, c.event_time) for c in found.controls] == [
        (1, Control.WATERMARK, MONDAY),
        (2, Control.END_OF_INPUT, 5),
    ]
    # A control record repeats the row before it: it must not pass for that row.
    assert found.origin.source.tolist() == [-1, -1, -1]
    assert found.positions.tolist() == [0]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, b"watermark"),
        (b"", b"watermark"),
        (b"{}", b"watermark"),
        (b'{"event_time":"x"}', b"watermark"),
        (b'{"event_time":-1}', b"watermark"),
        (b'{"event_time":99999999999}', b"watermark"),
        (b'{"event_time":1.5}', b"end_of_input"),
        (b'{"event_time":1}', b"rewind"),
        (b'{"event_time":1}', b""),
        (b'{"event_time":1}', b"\xff"),
        (b'{"event_time":1,"x":' + b"[" * 9_000 + b"]" * 9_000 + b"}", b"watermark"),
        (GOOD, b"watermark"),
    ],
)
def test_a_bad_control_record_is_a_dead_letter(value, kind):
    found = decode((value, [("control", kind)]), GOOD)
    (letter,) = found.dead
    assert letter.position == 0
    assert letter.reason.startswith("control record:")
    assert not found.controls
    assert found.positions.tolist() == [1]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NEARLY_LINES = st.fixed_dictionaries(
    {},
    optional={
        name: JSON_VALUES | st.just(value) | st.sampled_from([0, 1e16, -1, "2010-12-01T08:26:00", "x.0"])
        for name, value in line().items()
    },
).map(lambda found: json.dumps(line() | found).encode())
VALUES = (
    st.none()
    | st.binary(max_size=40)
    | NEARLY_LINES
    | st.sampled_from([value for value, _ in REFUSED.values()])
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["source", "seq", "control", "other"]),
        st.none() | st.binary(max_size=4) | st.sampled_from([b"1", b"2", b"watermark", b"end_of_input"]),
    ),
    max_size=3,
)


@given(st.lists(st.tuples(VALUES, HEADERS), max_size=8))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_whatever_comes_is_accounted_for(records):
    decoder = Decoder(Vocabulary())
    found = decode(*records, decoder=decoder)
    places = [letter.position for letter in found.dead]
    places += [control.position for control in found.controls] + found.positions.tolist()
    assert sorted(places) == list(range(len(records))) == list(range(found.size))
    assert len(found.lines) == len(found.positions)
    assert all(letter.reason for letter in found.dead)
    assert (np.diff(found.positions) > 0).all()
    # A second look says the same, and so does looking at one record at a time.
    singly = [decode(record, decoder=decoder) for record in records]
    assert [bool(one.dead) for one in singly] == [
        i in {d.position for d in found.dead} for i in range(len(records))
    ]
    assert [t for one in singly for t in one.lines.time.tolist()] == found.lines.time.tolist()
    assert [c for one in singly for c in one.lines.customer.tolist()] == found.lines.customer.tolist()
