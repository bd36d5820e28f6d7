"""Texts of others on a terminal: what commands print of a file is shown and not obeyed."""

import csv

import pytest
from line_factory import DAY_S, MONDAY, line
from small_shop import clv_drift, set_environment

from streams.transactions import FIELDS

HOSTILE = "\x1b]0;x\x07\x1b[2J<script>alert(1)</script>\u202e[bold red]x[/]\x9b31m\0"


def write(path, rows, header=FIELDS):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def hostile_rows():
    """Hostile in every field; most lines are whole, so that the texts get as far as they can."""
    for day in range(30):
        made = line(MONDAY + day * DAY_S, Description=HOSTILE, Country=HOSTILE, StockCode=HOSTILE)
        made |= {"CustomerID": f"{HOSTILE}{day % 3}", "InvoiceNo": f"{HOSTILE}{day}"}
        yield [made[name] for name in FIELDS]
        for name in ("Quantity", "UnitPrice", "InvoiceDate"):
            yield [(made | {name: HOSTILE})[field] for field in FIELDS]


@pytest.fixture
def said(capsys, monkeypatch, own_logging):
    set_environment(monkeypatch, partitions=1)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments):
        clv_drift(*arguments)
        out, err = capsys.readouterr()
        assert not {"\x1b", "\x07", "\u202e", "\x9b", "\0"} & set(out + err), ascii(out + err)[:2_000]
        return out + err

    return run


def test_a_check_shows_and_does_not_obey(said, tmp_path):
    told = said("check", write(tmp_path / "a.csv", hostile_rows()))
    assert "<script>" in told
    assert "[bold red]x[/]" in told


def test_a_refused_file_is_named_and_not_obeyed(said, tmp_path):
    path = write(tmp_path / "a.csv", hostile_rows(), header=(HOSTILE, *FIELDS[1:]))
    assert "is not a CSV file" in said("check", path)
    path = write(tmp_path / "a.csv", hostile_rows(), header=(HOSTILE.replace("\0", ""), *FIELDS[1:]))
    assert "InvoiceNo" in said("check", path)
    assert "error" in said("check", tmp_path / HOSTILE.replace("/", "").replace("\0", ""))


def test_a_backfill_takes_texts_as_texts(said, tmp_path):
    said("backfill", write(tmp_path / "a.csv", hostile_rows()), "--out", tmp_path / "out")
    letters = (tmp_path / "out" / "dead_letters.jsonl").read_bytes()
    assert letters.count(b"\n") == 90
    for name in ("dead_letters.jsonl", "evaluations.jsonl", "events.jsonl"):
        assert b"\x1b" not in (tmp_path / "out" / name).read_bytes()
