"""Small files that ask for much memory, each read by a process of its own: Arrow's and the workbook reader's
memory is not Python's, so what the process takes in all is what counts.
"""

import json
import subprocess
import sys

import odd_shop
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from line_factory import line
from test_hostile_input import HEADER, MIB, packed, refused, workbook

from producers import source
from producers.lines import MEMO_CHARS_MAX, Memo
from producers.sheet_bounds import CELLS_MAX, check_sheets
from producers.source import read_lines
from streams.decode import Decoder
from streams.errors import ExitCode
from streams.transactions import FIELDS, encode_line
from streams.vocabulary import Vocabulary

ROW = "536365,85123A,WHITE HEART,6,13-12-2010 08:26,2.55,17850,United Kingdom"

READ = """
import json, pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from producers.source import read_lines
from streams.errors import UserError
import pyarrow.parquet, python_calamine
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before, said, lines, LINES_MAX = peak(), "", 0, 10_000
try:
    for _ in read_lines(pathlib.Path(sys.argv[1])):
        lines += 1
        if lines == LINES_MAX:
            break
except UserError as exc:
    said = f"{int(exc.code)} {exc.message}"
print(json.dumps([said, lines, peak() - before]))
"""


def read_apart(path) -> tuple[str, int, int]:
    """What reading a file says, how many lines it gives, and the MiB that it takes beside the libraries'."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    said, lines, mib = json.loads(done.stdout)
    return said, lines, mib


def refused_below(mib, path) -> str:
    said, _, taken = read_apart(path)
    assert said.startswith(f"{int(ExitCode.INPUT)} "), said
    assert taken < mib
    return said


# -- workbooks ----------------------------------------------------------------------------------------------


def cells(row, values, *, first="A", form='<c r="{}{}" t="inlineStr"><is><t>{}</t></is></c>') -> bytes:
    made = [form.format(chr(ord(first) + at), row, value) for at, value in enumerate(values)]
    return f'<row r="{row}">{"".join(made)}</row>'.encode()


TABLE = cells(1, FIELDS) + cells(2, ROW.split(","))


def sheet(path, *rows):
    head = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    return workbook(
        path, (head, 1), (TABLE, 1), *((row, 1) for row in rows), (b"</sheetData></worksheet>", 1)
    )


FAR = {
    "the last corner": (b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>', "10,000 columns"),
    "a far column": (b'<row r="3"><c r="XFD20000"><v>1</v></c></row>', "10,000 columns"),
    "many rows": (b'<row r="3"><c r="AZ1048576"><v>1</v></c></row>', "1,048,576 rows and 52 columns"),
    "a row beyond all": (b'<row r="99999999999"><c><v>1</v></c></row>', "cells"),
    "another prefix": (b'<x:row xmlns:x="a"><x:c r="XFD9"><x:v>1</x:v></x:c></x:row>', "10,000 columns"),
    "other quotes": (b"<row><c a='>'\nr = 'XFD9'><v>1</v></c></row>", "10,000 columns"),
    "small letters": (b'<row><c r="xfd9"><v>1</v></c></row>', "10,000 columns"),
    "cells without a reference": (b'<row r="9">' + b"<c><v>1</v></c>" * 10_001 + b"</row>", "10,000 columns"),
    "next to one with": (b'<row r="9"><c r="NTP9"/><c><v>1</v></c></row>', "10,000 columns"),
    "two references": (b'<row><c r="A3" r="XFD9"><v>1</v></c></row>', "no XML"),
    "an entity": (b'<row><c r="&#88;FD1"><v>1</v></c></row>', "10,000 columns"),
    "no cell": (b'<row><c r="9"><v>1</v></c></row>', "a cell '9'"),
    "no row": (b'<row r="-9"><c/></row>', "a row '-9'"),
    "tags in tags": (b"<a>" * 2_000 + b"</a>" * 2_000 + b"<c/>", "nested too deeply"),
    "a tag without an end": (b"<c/><a b='" + b"x" * (40 * MIB) + b"'/>", "does not end"),
}


@pytest.mark.parametrize("name", FAR)
def test_a_sheet_is_measured_before_it_is_read(tmp_path, name):
    data, words = FAR[name]
    path = sheet(tmp_path / "a.xlsx", data)
    with pytest.raises(ValueError, match=words):
        check_sheets(path)


@pytest.mark.parametrize("name", ["the last corner", "a far column", "a row beyond all"])
def test_a_workbook_of_a_kilobyte_does_not_fill_the_memory(tmp_path, name):
    path = sheet(tmp_path / "a.xlsx", FAR[name][0])
    assert path.stat().st_size < 2_000
    assert FAR[name][1] in refused_below(50, path)


def test_a_sheet_within_the_bounds_takes_what_they_allow(tmp_path):
    honest = b"".join(cells(row, ROW.split(",")) for row in range(3, 103))
    last = f'<row r="{CELLS_MAX // 32}"><c r="AF{CELLS_MAX // 32}"><v>1</v></c></row>'
    said, lines, mib = read_apart(sheet(tmp_path / "a.xlsx", honest, last.encode()))
    assert (said, lines) == ("", 10_000)
    assert mib < 1_200


@pytest.mark.parametrize(
    "data",
    [
        b'<row r="1048576" s="1"><c r="XFD1048576" s="1"/></row>',  # formatted, without a value
        b'<row r="3"><c r="A3" t="n" s="1"><v>1</v></c></row>',
        b'<row r="3"><c r="A3"><v>1</v></c><c><v>2</v></c></row>',
        "".join(
            f'<row r="{n}"><c r="A{n}" t="str"><v>&lt;c é &gt;</v></c></row>' for n in range(3, 99)
        ).encode(),
    ],
)
def test_an_honest_sheet_is_read(tmp_path, data):
    assert next(iter(read_lines(sheet(tmp_path / "a.xlsx", data))))["InvoiceNo"] == "536365"


def test_a_sheet_under_any_name_is_measured(tmp_path):
    path = sheet(tmp_path / "a.xlsx", FAR["a far column"][0])
    moved = tmp_path / "b.xlsx"
    moved.write_bytes(path.read_bytes().replace(b"worksheets/sheet1.xml", b"worksheets/sheet1.bin"))
    with pytest.raises(ValueError, match="columns"):
        check_sheets(moved)


# -- Parquet ------------------------------------------------------------------------------------------------


def parquet(path, rows, **columns):
    values = dict(zip(FIELDS, ROW.split(","), strict=True))
    made = {name: pa.array([values[name]]).take(pa.array([0] * rows)) for name in FIELDS} | columns
    pq.write_table(pa.table(made), path, compression="zstd", row_group_size=rows, store_schema=False)
    assert path.stat().st_size < 100_000
    return path


def alike(value, rows):
    """A column of one value, which is never written out; as Parquet keeps it."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))


@pytest.mark.parametrize(("value", "rows"), [("x" * 300_000, 5_000), (b"x" * 300_000, 1_000)])
def test_a_long_text_in_all_rows_is_held_once(tmp_path, value, rows):
    """The rows refer to it: 5,000 times 300 kB would be 1.5 GB."""
    path = parquet(tmp_path / "a.parquet", rows, Description=alike(value, rows))
    said, lines, mib = read_apart(path)
    assert (said, lines) == ("", rows)
    assert mib < 200


def test_a_value_that_is_too_long(tmp_path):
    path = parquet(tmp_path / "a.parquet", 1_000, Description=alike("x" * (4 * MIB), 1_000))
    assert "a value of 4,194,304 bytes" in refused_below(200, path)


def test_columns_of_lists_are_left_out(tmp_path):
    """The elements of a list may all be one, and take nothing in the file."""
    many = pa.array([[None] * 1_000_000, *[[]] * 9], pa.list_(pa.null()))
    path = parquet(tmp_path / "a.parquet", 10, Tags=many, Shop=pa.array([{"id": "x"}] * 10))
    said, lines, mib = read_apart(path)
    assert (said, lines) == ("", 10)
    assert mib < 100
    path = parquet(tmp_path / "a.parquet", 10, Country=pa.array([["UK"]] * 10))
    assert "lacks the columns Country" in refused_below(100, path)


def test_columns_that_cannot_be_told_apart(tmp_path):
    """Two of one name are read; beside a column that is left out nobody knows which is which."""
    path = tmp_path / "a.parquet"
    names = [*FIELDS, "InvoiceNo"]
    columns = [pa.array([text]) for text in [*ROW.split(","), "other"]]
    pq.write_table(pa.Table.from_arrays(columns, names), path)
    assert [line["InvoiceNo"] for line in read_lines(path)] == ["536365"]
    pq.write_table(pa.Table.from_arrays([*columns, pa.array([[1]])], [*names, "Tags"]), path)
    assert "cannot be told apart" in refused(path)


# -- CSV ----------------------------------------------------------------------------------------------------


def test_a_row_without_an_end(tmp_path):
    path = packed(tmp_path / "a.csv.gz", (f'{HEADER}\n"a\n'.encode(), 1), (b'","a\n' * 200_000, 40))
    assert "a row begins in line 2 and has no end" in refused_below(50, path)


def test_a_line_of_nothing_but_fields(tmp_path):
    path = packed(tmp_path / "a.csv.gz", (f"{HEADER}\n{ROW}\n".encode(), 1), (b"xy," * MIB, 16), (b"\n", 1))
    assert "line 3 has more than 10,000 fields" in refused_below(200, path)


def test_a_long_text_in_a_line_is_a_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER}\n{ROW}\n{ROW.replace('HEART', 'x' * 2 * MIB)}\n")
    assert read_apart(path)[:2] == ("", 2)


def test_long_texts_are_not_remembered(tmp_path):
    path = tmp_path / "a.csv"
    texts = dict(zip(FIELDS, ROW.split(","), strict=True))
    with path.open("w") as file:
        file.write(f"{HEADER}\n{ROW}\n" + f"{ROW}\n" * 100)  # these settle how dates are written
        for number in range(1_000):
            long = f"{number}{'x' * 30_000}"
            row = texts | dict.fromkeys(["InvoiceDate", "CustomerID", "Quantity", "UnitPrice"], long)
            file.write(",".join(row.values()) + "\n")
    said, lines, mib = read_apart(path)
    assert (said, lines) == ("", 1_101)
    assert mib < 60


def test_few_rows_are_held_where_they_are_large(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "DATE_BYTES_MAX", 1_000)
    path = tmp_path / "a.csv"
    undecided = ROW.replace("13-12-2010", "later")
    path.write_text("\n".join([HEADER, *[undecided] * 50, ROW.replace("13-12-2010", "2/13/2010")]))
    *_, last = read_lines(path)
    assert last["InvoiceDate"] == "2/13/2010 08:26"  # which stood too far down to be looked at


def test_a_memo_returns_what_it_does_not_remember():
    memo = Memo(len)
    assert [memo["x" * size] for size in (1, MEMO_CHARS_MAX, MEMO_CHARS_MAX + 1)] == [1, 64, 65]
    assert len(memo) == 2


# -- records ------------------------------------------------------------------------------------------------


def test_an_id_in_endless_ways_of_writing_is_one_customer(monkeypatch):
    decoder = Decoder(Vocabulary())
    monkeypatch.setattr(decoder._customers, "_SPARE_MAX", 20, raising=False)
    ids = [f"{' ' * blanks}17850" for blanks in (*range(200), 40_000)] + [17850, 17850.0, "17850.0", None]
    found = decoder.decode([encode_line(line() | {"CustomerID": name}) for name in ids], [()] * len(ids))
    assert found.lines.customer.tolist() == [0] * (len(ids) - 1) + [-1]
    assert len(decoder._customers) <= 23
    assert max(len(name) for name in decoder._customers if isinstance(name, str)) <= 256


def test_dates_that_are_none_are_not_remembered():
    decoder = Decoder(Vocabulary())
    bad = [encode_line(line() | {"InvoiceDate": f"{number}{'x' * 10_000}"}) for number in range(50)]
    assert len(decoder.decode([*bad, *bad, encode_line(line())], [()] * 101).dead) == 100
    assert len(decoder._times) == 1


@pytest.mark.parametrize("field", ["Menge", "Einzelpreis"])
def test_numbers_of_thousands_of_digits_are_not_remembered(field):
    decoder = Decoder(Vocabulary(), odd_shop.example())
    values = [
        json.dumps(odd_shop.record(line()) | {field: 10**4_000 + number}).encode() for number in range(9)
    ]
    assert len(decoder.decode(values, [()] * 9).dead) == 9
    mapper = decoder._foreign._mapper
    assert mapper._decimal.cache_info().currsize + mapper._whole.cache_info().currsize <= 1
