"""Reading Online Retail in the forms in which people have it."""

import gzip
import hashlib
import zipfile
from datetime import datetime

import pytest

from producers import fields
from producers.source import SURPLUS, read_lines, row_count, source_identity
from streams.errors import ExitCode, UserError
from streams.transactions import FIELDS, encode_line

HEADER = ",".join(FIELDS)
FIRST = {
    "InvoiceNo": "536365",
    "StockCode": "85123A",
    "Description": "WHITE HANGING HEART",
    "Quantity": 6,
    "InvoiceDate": "2010-12-01T08:26:00",
    "UnitPrice": 2.55,
    "CustomerID": "17850",
    "Country": "United Kingdom",
}
ROW = "536365,85123A,WHITE HANGING HEART,6,01-12-2010 08:26,2.55,17850,United Kingdom"


def write(path, *rows, header=HEADER, encoding="utf-8"):
    path.write_bytes("\r\n".join([header, *rows, ""]).encode(encoding))
    return path


def one(path):
    [line] = read_lines(path)
    return line


def refused(path) -> UserError:
    with pytest.raises(UserError) as caught:
        list(read_lines(path))
    assert caught.value.code is ExitCode.INPUT
    assert str(path) in caught.value.message
    return caught.value


def test_a_line_has_the_types_of_the_record(tmp_path):
    line = one(write(tmp_path / "a.csv", ROW))
    assert line == FIRST
    assert tuple(line) == FIELDS


@pytest.mark.parametrize("date", ["01-12-2010 08:26", "2010-12-01 08:26:00", "2010-12-01T08:26"])
def test_dates_that_need_no_context(tmp_path, date):
    assert one(write(tmp_path / "a.csv", ROW.replace("01-12-2010 08:26", date))) == FIRST


def test_columns_in_any_order_with_other_names_and_a_byte_order_mark(tmp_path):
    header = "Country,Customer ID,Price,InvoiceDate,Quantity,Description,StockCode,Invoice,Extra"
    row = "United Kingdom,17850.0,2.55,01-12-2010 08:26,6,WHITE HANGING HEART,85123A,536365,x"
    assert one(write(tmp_path / "a.csv", row, header=header, encoding="utf-8-sig")) == FIRST


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path, separator):
    path = write(tmp_path / "a.csv", ROW.replace(",", separator), header=HEADER.replace(",", separator))
    assert one(path) == FIRST


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_pound_sign_late_in_the_file_reads_the_same_in_both_encodings(tmp_path, encoding):
    rows = [ROW] * 5_000 + [ROW.replace("WHITE", "£40 CAFÉ")]
    assert list(read_lines(write(tmp_path / "a.csv", *rows, encoding=encoding)))[-1]["Description"] == (
        "£40 CAFÉ HANGING HEART"
    )


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("CustomerID", "", None),
        ("Description", "", None),
        ("Quantity", "-6", -6),
        ("Quantity", "6.0", 6),
        ("UnitPrice", "-11062.06", -11062.06),
        ("UnitPrice", "0", 0.0),
        ("InvoiceNo", "C536365", "C536365"),
        # What cannot be parsed stays as it came, for the worker to refuse.
        ("Quantity", "6.5", "6.5"),
        ("Quantity", "six", "six"),
        ("UnitPrice", "nan", "nan"),
        ("UnitPrice", "£2", "£2"),
        ("InvoiceDate", "31-02-2011 08:26", "31-02-2011 08:26"),
        ("InvoiceDate", "", ""),
    ],
)
def test_values_of_a_field(tmp_path, field, text, value):
    texts = dict(zip(FIELDS, ROW.split(","), strict=True)) | {field: text}
    path = write(tmp_path / "a.csv", ROW, ",".join(texts.values()))
    assert list(read_lines(path))[-1] == FIRST | {field: value}


def test_rows_that_are_too_short_or_too_long_are_forwarded_as_text(tmp_path):
    short, long = "536365,85123A,X,6", ROW + ",surplus"
    lines = list(read_lines(write(tmp_path / "a.csv", ROW, short, "", long)))
    assert len(lines) == 3
    assert lines[1] == {"InvoiceNo": "536365", "StockCode": "85123A", "Description": "X", "Quantity": "6"}
    assert lines[2][SURPLUS] == ["surplus"]
    assert (
        lines[2]["Quantity"] == "6"
    )  # not a number: the worker must refuse a row whose columns may be shifted


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["12/1/2010 8:26", "12/13/2010 9:00"], "2010-12-01T08:26:00"),
        (["1/12/2010 8:26", "13/12/2010 9:00"], "2010-12-01T08:26:00"),
        (["12/1/10 8:26", "12/13/10 9:00"], "2010-12-01T08:26:00"),
        # One odd row does not decide for all the others.
        (
            ["01-12-2010 08:26", "01-31-2010 08:26", "14-12-2010 08:26", "15-12-2010 08:26"],
            "2010-12-01T08:26:00",
        ),
    ],
)
def test_day_or_month_first_is_settled_by_the_rows_that_show_it(tmp_path, rows, expected):
    path = write(tmp_path / "a.csv", *(ROW.replace("01-12-2010 08:26", date) for date in rows))
    assert next(read_lines(path))["InvoiceDate"] == expected


def test_dates_that_can_be_read_both_ways_are_refused(tmp_path):
    path = write(
        tmp_path / "a.csv", *(ROW.replace("01-12-2010 08:26", f"1/{day}/2011 8:26") for day in (2, 3))
    )
    assert "1/2/2011 8:26" in refused(path).message


def test_the_date_order_stops_looking_when_it_is_settled():
    seen = []
    texts = (seen.append(text) or text for text in ["13-12-2010 08:26"] * 1_000)
    assert fields.date_order(texts) is fields.DateOrder.DAY_FIRST
    assert len(seen) <= fields.DATE_VOTES + 1


# -- files that cannot be used ------------------------------------------------------------------------------


def test_missing_columns_are_named_with_those_found(tmp_path):
    error = refused(write(tmp_path / "a.csv", "1,2", header="InvoiceNo,Preis"))
    assert "Quantity, InvoiceDate, UnitPrice, CustomerID, Country" in error.message
    assert "'Preis'" in error.message
    assert "lacks the columns StockCode" in error.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (HEADER.encode() + b"\n", "no rows"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "lacks the columns"),
        (b"\x00" * 100, "not a CSV"),
        (gzip.compress(b"\x00" * (4 << 20)), "not a CSV"),
        (gzip.compress(f"{HEADER}\r\n{ROW}\r\n".encode() * 2_000)[:-40], "is cut off"),
        (b"\x1f\x8b and then nothing of gzip", "is damaged"),
        (b"PK\x03\x04 and then nothing of zip", "is a damaged or incomplete workbook"),
    ],
)
def test_files_that_are_no_input(tmp_path, content, words):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(content)
    assert words in refused(path).message


def test_a_zip_archive_is_not_a_workbook(tmp_path):
    path = tmp_path / "online+retail.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Online Retail.xlsx", "x")
    assert "unpack it (inside: Online Retail.xlsx)" in refused(path).message


def test_a_workbook_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("producers.tables.WORKBOOK_BYTES_MAX", 10_000)
    path = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
        archive.writestr("xl/worksheets/sheet1.xml", " " * 20_000)
    assert "unpacks to more than" in refused(path).message


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("producers.tables.ROW_CHARS_MAX", 1_000)
    path = write(tmp_path / "a.csv", ROW, "x" * 2_000)
    assert "line 3 has more than 1000 characters" in refused(path).message


def test_a_directory_and_a_missing_file(tmp_path):
    assert "is a directory" in refused(tmp_path).message
    assert "there is no file" in refused(tmp_path / "none.csv").message


# -- workbooks ----------------------------------------------------------------------------------------------


def test_a_workbook_reads_as_the_csv_does(tmp_path):
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["notes"])
    for title, invoice in (("Year 2009-2010", 489434), ("Year 2010-2011", "C536379")):
        sheet = book.create_sheet(title)
        sheet.append(["Invoice", *FIELDS[1:5], "Price", "Customer ID", "Country"])
        when = datetime(2010, 12, 1, 8, 26)  # noqa: DTZ001
        sheet.append([invoice, 22423, None, -6, when, 2.55, 17850, "EIRE"])
    book.save(tmp_path / "a.xlsx")
    lines = list(read_lines(tmp_path / "a.xlsx"))
    assert [line["InvoiceNo"] for line in lines] == ["489434", "C536379"]
    assert lines[0] == {
        "InvoiceNo": "489434",
        "StockCode": "22423",
        "Description": None,
        "Quantity": -6,
        "InvoiceDate": "2010-12-01T08:26:00",
        "UnitPrice": 2.55,
        "CustomerID": "17850",
        "Country": "EIRE",
    }
    assert isinstance(lines[0]["Quantity"], int)


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ("xl/worksheets/sheet1.xml", "WorksheetNotFound: Sheet"),
        ("_rels/.rels", "File not found '_rels/.rels'"),
    ],
)
def test_a_workbook_that_lacks_a_part(tmp_path, lacking, said):
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(FIELDS)
    book.save(tmp_path / "whole.xlsx")
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as whole, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as part:
        for name in set(whole.namelist()) - {lacking}:
            part.writestr(name, whole.read(name))
    message = refused(tmp_path / "a.xlsx").message
    assert "is not a workbook that can be read" in message
    assert said in message


# -- identity -----------------------------------------------------------------------------------------------


def test_the_identity_is_of_content_and_scenarios(tmp_path):
    path, copy = write(tmp_path / "a.csv", ROW), write(tmp_path / "b.csv", ROW)
    other = write(tmp_path / "c.csv", ROW, ROW)
    assert source_identity(path) == source_identity(copy)
    assert len({source_identity(path), source_identity(other), source_identity(path, "price")}) == 3
    assert len(source_identity(path)) >= 16
    assert set(source_identity(path)) <= set("0123456789abcdef")


# -- the real data ------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_the_real_data_set_to_the_line(online_retail):
    lines = list(read_lines(online_retail))
    assert len(lines) == row_count(online_retail) == 541_909
    assert sum(line["Quantity"] * round(line["UnitPrice"] * 1000) for line in lines) == 9_747_747_934
    assert sum(line["CustomerID"] is None for line in lines) == 135_080
    assert sum(line["Description"] is None for line in lines) == 1_454
    assert sum(line["InvoiceNo"].startswith("C") for line in lines) == 9_288
    assert len({line["CustomerID"] for line in lines} - {None}) == 4_372
    assert len({line["InvoiceNo"] for line in lines}) == 25_900
    assert [lines[0]["InvoiceDate"], lines[-1]["InvoiceDate"]] == [
        "2010-12-01T08:26:00",
        "2011-12-09T12:50:00",
    ]
    assert any("£40.00" in (line["Description"] or "") for line in lines)
    digests = {hashlib.sha256(encode_line(line)).digest() for line in lines}
    assert len(lines) - len(digests) == 5_268
