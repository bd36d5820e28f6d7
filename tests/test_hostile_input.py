"""Input that means harm: refused in words, in bounded memory, and nothing hangs."""

import gzip
import json
import tracemalloc
import zipfile
from contextlib import contextmanager

import odd_shop
import pytest
from line_factory import line

from producers import tables
from producers.follow import LineCutter
from producers.source import read_lines
from streams.decode import LINE_BYTES_MAX, Decoder
from streams.errors import ExitCode, UserError
from streams.transactions import FIELDS, encode_line
from streams.vocabulary import Vocabulary

MIB = 1 << 20
HEADER = ",".join(FIELDS)


@contextmanager
def memory_below(mib):
    """Fail where Python's objects take more at their peak."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mib * MIB, f"{peak / MIB:.0f} MiB"


def refused(path, mapping=None) -> str:
    with pytest.raises(UserError) as caught:
        list(read_lines(path, mapping))
    assert caught.value.code is ExitCode.INPUT
    return caught.value.message


def packed(path, *parts):
    """A gzipped file of (bytes, how often): a gigabyte of one byte takes a megabyte."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for data, times in parts:
            for _ in range(times):
                file.write(data)
    return path


# -- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_line_of_a_gigabyte_ends_in_words(tmp_path, monkeypatch, quote):
    monkeypatch.setattr(tables, "ROW_CHARS_MAX", 4 * MIB)  # the bound is 64 MiB; the way past it is the same
    path = packed(tmp_path / "a.csv.gz", (f"{HEADER}\n".encode() + quote, 1), (b"x" * MIB, 64), (b"\n", 1))
    with memory_below(40):
        assert "is not a CSV file" in refused(path)


def test_a_followed_line_without_an_end_is_dropped_as_it_comes():
    cutter = LineCutter("utf-8", "strict")
    block = b"x" * MIB
    with memory_below(8):
        assert not any(cutter.cut(block) for _ in range(256))
        [note] = cutter.cut(b"\n")
    assert len(note) < 300
    assert "268 435 356 characters" in note


def test_a_header_that_never_ends(tmp_path):
    with memory_below(20):
        assert "not a header of columns" in refused(packed(tmp_path / "a.csv.gz", (b"x," * MIB, 64)))


@pytest.mark.parametrize(
    ("columns", "words"), [(10**6, "not a header of columns"), (10**5, "100,000 columns")]
)
def test_a_million_columns(tmp_path, columns, words):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + ",x" * (columns - len(FIELDS)) + "\n")
    assert words in refused(path)
    path.write_text(";".join(["x"] * columns) + "\n")
    assert words in refused(path, odd_shop.example())


def workbook(path, *sheet, size=None):
    """A workbook by hand; `size` is what the archive claims that the sheet unpacks to."""
    names = {
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
        'officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" '
        'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">'
        '<sheets><sheet name="a" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
        'relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/'
        'relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, text in names.items():
            archive.writestr(name, text)
        with archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as file:
            for data, times in sheet:
                for _ in range(times):
                    file.write(data)
    return path


def test_a_workbook_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "WORKBOOK_BYTES_MAX", 32 * MIB)
    path = workbook(tmp_path / "a.xlsx", (b"<x/>" * (MIB // 4), 64))
    assert path.stat().st_size < MIB
    with memory_below(8):
        assert "unpacks to more than" in refused(path)


def test_a_workbook_that_lies_about_its_size_is_refused(tmp_path, monkeypatch):
    """The size in the archive's directory is what is asked for; a reader takes no more than that."""
    path = workbook(tmp_path / "a.xlsx", (b"<x/>" * (MIB // 4), 8))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    refused(path)


def test_bytes_that_are_not_in_the_encoding_end_in_words(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(odd_shop.text_of([line()]).encode() + b"\x81\xff\n")
    assert "is not in the encoding" in refused(path, odd_shop.example())


def test_a_parquet_file_that_is_none(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + b"\0" * 100)
    assert "Parquet" in refused(path)


# -- records ------------------------------------------------------------------------------------------------

DEEP = b"[" * 30_000 + b"]" * 30_000
HOSTILE = [
    DEEP,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    b'{"Quantity":' + DEEP + b"}",
    b'{"Menge":' + DEEP + b"}",
    b'{"Menge":1e999999999}',
    b'{"Menge":' + b"9" * 60_000 + b"}",
    b'{"Belegdatum":"' + b"9" * 60_000 + b'"}',
    b'{"Einzelpreis":"' + b"1." * 30_000 + b'"}',
    b"x" * (LINE_BYTES_MAX + 1),
    b"",
    b"\0",
    json.dumps({"Belegnr": {"$gt": ""}, "Menge": [], "Einzelpreis": {}, "Kundennr": [], "Land": []}).encode(),
]


@pytest.mark.parametrize("mapping", [None, odd_shop.example()], ids=["ours", "foreign"])
def test_records_that_mean_harm_are_dead_letters_one_by_one(mapping):
    good = json.dumps(odd_shop.record(line())).encode() if mapping else encode_line(line())
    decoder = Decoder(Vocabulary(), mapping)
    with memory_below(20):
        found = decoder.decode([good, *HOSTILE, good], [()] * (len(HOSTILE) + 2))
    assert [letter.position for letter in found.dead] == list(range(1, len(HOSTILE) + 1))
    assert found.positions.tolist() == [0, len(HOSTILE) + 1]
    assert all(letter.reason and len(letter.reason) < 1_000 for letter in found.dead)
