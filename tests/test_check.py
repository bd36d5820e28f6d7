"""`clv-drift check`: what it says of a file is what the stream makes of it."""

import json
from datetime import datetime

import odd_shop
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from line_factory import DAY_S, MONDAY, WEEK_S, line
from openpyxl import Workbook
from small_shop import clv_drift

from models.registry import Registry
from producers.batch_input import batch_records
from producers.check import examine
from producers.inputs import file_input
from producers.source import read_lines
from streams.backfill import run
from streams.errors import ExitCode
from streams.settings import Settings


def good_lines(weeks=(0, 1, 4)):
    for week in weeks:
        for number in range(20):
            yield line(
                MONDAY + week * WEEK_S + number * 7 * 3600,
                InvoiceNo=f"{week}-{number // 2}",
                CustomerID=None if number % 10 == 0 else str(number),
                Country="Norway" if number == 1 else "Germany",
                Quantity=-1 if number == 2 else number + 1,
                UnitPrice=0.0 if number == 3 else 1.25,
            )


@pytest.fixture
def till(tmp_path):
    return odd_shop.write(tmp_path / "till.csv", good_lines())


def mapped() -> Settings:
    return Settings(mapping=odd_shop.EXAMPLE)


def test_a_fine_file(till):
    found = examine(till, mapped())
    assert found.exit_code is ExitCode.OK
    assert (found.rows, found.customers, found.orders, found.without_customer) == (60, 18, 30, 6)
    assert (found.returns, found.prices_not_positive, found.duplicates, found.dead) == (3, 3, 0, 0)
    assert found.currencies == {"EUR": 60}
    assert found.countries == {"Germany": 57, "Norway": 3}
    assert (found.first_time, found.last_time) == ("2011-01-03T00:00:00", "2011-02-05T13:00:00")
    assert [(gap.start, gap.weeks) for gap in found.gaps] == [("2011-01-17", 2)]
    assert (found.weeks, found.weeks_needed) == (3, 26)
    assert found.columns.mapped["InvoiceNo"] == "Belegnr"


def test_dead_letters_are_those_of_the_stream(till, tmp_path):
    rows = till.read_text(encoding="cp1252").splitlines()
    rows[5] = rows[5].replace("1,25", "1,2555")
    rows[7] = rows[7].replace("1,25", "gratis")
    rows[8] = rows[8].replace("1,25", "umsonst")
    rows[9] = "Filiale 1;zu kurz"
    rows.append(rows[1])
    till.write_text("\n".join([*rows, ""]), encoding="cp1252")
    found = examine(till, mapped())
    assert found.exit_code is ExitCode.INPUT
    assert [letter.count for letter in found.dead_letters] == [2, 1, 1]
    assert (
        found.dead_letters[0].examples[0].startswith("row 7: Expected `float`, got `str` - at `$.UnitPrice`")
    )
    assert found.duplicates == 1

    source = file_input(till, mapping=mapped().field_mapping)
    results = run(batch_records(mapped(), source), mapped(), Registry(tmp_path / "registry"))
    assert len(results.dead_records) == found.dead
    told = " ".join(example for letter in found.dead_letters for example in letter.examples)
    assert all(record.reason in told for record in results.dead_records)


def test_a_line_from_the_far_future_would_be_a_dead_letter(tmp_path):
    lines = [*good_lines(), line(MONDAY + 4000 * DAY_S)]
    found = examine(odd_shop.write(tmp_path / "a.csv", lines), mapped())
    assert found.dead == 1
    assert "ahead" in found.dead_letters[0].reason


def test_missing_columns_come_with_near_names(till, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    till.write_text(
        till.read_text("cp1252").replace("Belegnr", "Beleg-Nr").replace("Land", "Region"), "cp1252"
    )
    assert clv_drift("check", till, "--mapping", odd_shop.EXAMPLE) == ExitCode.INPUT
    said = capsys.readouterr().out
    assert "Belegnr is missing (did you mean 'Beleg-Nr'?)" in said
    assert "Land is missing" in said
    assert clv_drift("check", till, "--json") == ExitCode.INPUT
    told = json.loads(capsys.readouterr().out)
    assert set(told["columns"]["missing"]) >= {"InvoiceNo", "Quantity"}
    assert clv_drift("replay", till, "--mapping", odd_shop.EXAMPLE) == ExitCode.INPUT
    assert "did you mean 'Beleg-Nr'" in capsys.readouterr().err


def test_the_report_of_a_person_and_of_a_program(till, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    rows = till.read_text("cp1252").replace("Germany", "[red]Land[/]")
    till.write_text(rows, "cp1252")
    assert clv_drift("check", till, "--mapping", odd_shop.EXAMPLE) == ExitCode.OK
    said = capsys.readouterr().out
    assert "no row would be a dead letter" in said
    assert "too few" in said
    assert "[red]Land[/] 57" in said
    assert clv_drift("check", till, "--mapping", odd_shop.EXAMPLE, "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["rows"] == 60


# -- the other kinds of file --------------------------------------------------------------------------------


def typed_rows():
    """The rows with cells as a workbook or Parquet has them: numbers, dates in Berlin's time."""
    for one in good_lines():
        cells = odd_shop.row(one)
        at = datetime.strptime(cells[2], "%d.%m.%Y %H:%M")  # noqa: DTZ007
        yield [
            *cells[:2],
            at,
            one["CustomerID"] and int(one["CustomerID"]),
            *cells[4:8],
            int(cells[8]),
            one["UnitPrice"],
        ]


def test_workbook_and_parquet_give_the_lines_of_the_csv_file(till, tmp_path):
    expected = list(read_lines(till, odd_shop.example()))
    book = Workbook()
    book.active.append(odd_shop.HEADER)
    for row in typed_rows():
        book.active.append(row)
    book.save(tmp_path / "till.xlsx")
    columns = zip(*typed_rows(), strict=True)
    table = pa.table(dict(zip(odd_shop.HEADER, map(list, columns), strict=True)))
    pq.write_table(table, tmp_path / "till.parquet")
    assert list(read_lines(tmp_path / "till.xlsx", odd_shop.example())) == expected
    assert list(read_lines(tmp_path / "till.parquet", odd_shop.example())) == expected


def test_parquet_of_the_default_shape_needs_no_mapping(tmp_path):
    lines = list(good_lines())
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "a.parquet")
    assert list(read_lines(tmp_path / "a.parquet")) == lines
