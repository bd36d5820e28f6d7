"""Following a growing file: lines as they come, what becomes of the file, quotes, what is too long."""

import io
import os

import odd_shop
import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_factory import HOUR_S, MONDAY, line

from producers.follow import FollowedFile, FollowedPipe, LineCutter
from producers.follow_rows import ROW_LINES_MAX, RowAssembler
from producers.follow_session import _records
from producers.followed_feed import Begun, FollowedFeed
from streams.errors import ExitCode, UserError
from streams.settings import Settings
from streams.transactions import FIELDS, HEADER_CONTROL

COMMA = {"delimiter": ","}


# -- bytes to lines, lines to rows --------------------------------------------------------------------------


@given(st.text(max_size=60).map(lambda text: text.replace("\r", "")), st.lists(st.integers(1, 7), min_size=1))
def test_portions_make_no_difference_to_the_lines(text, sizes):
    data, cutter, lines = text.encode(), LineCutter("utf-8", "strict"), []
    for size in sizes * len(data):
        lines += cutter.cut(data[:size])
        data = data[size:]
    lines += cutter.cut(data, final=True)
    assert lines == list(io.StringIO(text, newline="\n"))


@pytest.mark.parametrize("portion", [1, 3, 1000])
def test_a_line_that_is_too_long_leaves_a_note(portion):
    cutter = LineCutter("utf-8", "strict", chars_max=300)
    data = b"a,b\n" + b"x," * 500 + b"\nc,d\n"
    lines = [line for i in range(0, len(data), portion) for line in cutter.cut(data[i : i + portion])]
    assert lines[0::2] == ["a,b\n", "c,d\n"]
    assert "900 characters more than a line may have" in lines[1]


rows_of_csv = st.lists(
    st.sampled_from(["a,b\n", '"x\ny",b\n', '5" nail,b\n', '"open,b\n', "\n", '"a""b",c\r\n'])
)


@given(rows_of_csv, st.integers(1, 5))
def test_portions_make_no_difference_to_the_rows(parts, portion):
    lines = io.StringIO("".join(parts), newline="\n").readlines()
    at_once = list(RowAssembler(COMMA).rows(lines, final=True))
    assembler, rows = RowAssembler(COMMA), []
    for start in range(0, len(lines), portion):
        rows += assembler.rows(lines[start : start + portion])
    rows += assembler.rows([], final=True)
    assert rows == at_once


def test_a_quote_never_closed_costs_one_line():
    lines = ['"open,b\n', *[f"{n},b\n" for n in range(2 * ROW_LINES_MAX)]]
    assembler = RowAssembler(COMMA)
    rows = list(assembler.rows(lines))
    assert rows[0] == ['"open,b']
    assert rows[1:] == [[f"{n}", "b"] for n in range(2 * ROW_LINES_MAX)]


# -- files --------------------------------------------------------------------------------------------------

HEADER = ",".join(FIELDS) + "\n"


def text(number, **changes):
    made = line(MONDAY + number * HOUR_S, InvoiceNo=str(number), **changes)
    return ",".join("" if made[name] is None else f"{made[name]}" for name in FIELDS) + "\n"


class Followed:
    """A file that a test writes, and what following it gives up to each pause."""

    def __init__(self, path, mapping=None):
        self.path = path
        self.file = FollowedFile(path, "utf-8-sig", "strict")
        self.items = FollowedFeed(path, self.file, mapping, jump_max_days=30).items()

    def news(self):
        found = []
        for item in self.items:
            if item is None:
                break
            found.append(item)
        return found

    def rows(self):
        return [(item[0], item[1].get("InvoiceNo")) for item in self.news() if not isinstance(item, Begun)]

    def add(self, text):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


@pytest.fixture
def followed(tmp_path):
    path = tmp_path / "till.csv"
    path.write_text("")
    found = Followed(path)
    yield found
    found.file.close()


def test_a_blank_row_does_not_name_a_file(tmp_path):
    names = set()
    for day in range(2):
        path = tmp_path / f"day-{day}.csv"
        path.write_text("")
        found = Followed(path)
        found.add(HEADER + "\n")
        assert [item for item in found.news() if isinstance(item, Begun)] == []
        found.add(text(day + 1))
        names |= {item.source for item in found.news() if isinstance(item, Begun)}
        found.file.close()
    assert len(names) == 2


def test_lines_come_once_their_newline_is_there(followed):
    assert followed.news() == []
    followed.add(HEADER[:10])
    assert followed.news() == []
    followed.add(HEADER[10:] + text(1)[:9])
    assert followed.news() == []
    followed.add(text(1)[9:])
    begun, (number, first) = followed.news()
    assert begun.start == MONDAY + HOUR_S
    assert (number, first["InvoiceNo"], first["Quantity"]) == (1, "1", 1)
    followed.add(text(2) + text(3, Description='"two\nlines"')[:-9])
    assert followed.rows() == [(2, "2")]
    followed.add(text(3, Description='"two\nlines"')[-9:])
    assert followed.rows() == [(3, "3")]


def test_a_file_that_was_replaced_is_read_to_its_end_first(followed):
    followed.add(HEADER + text(1))
    [old, _] = followed.news()
    followed.path.rename(followed.path.with_suffix(".1"))
    assert followed.news() == []
    with followed.path.with_suffix(".1").open("a") as file:
        file.write(text(2) + text(3).rstrip("\n"))
    followed.path.write_text(HEADER + text(4))
    found = followed.news()
    assert [item[1]["InvoiceNo"] for item in found if not isinstance(item, Begun)] == ["2", "3", "4"]
    [new] = [item for item in found if isinstance(item, Begun)]
    assert new.source != old.source
    assert found[-1][0] == 1


def test_a_file_that_was_begun_anew_starts_from_its_header(followed):
    followed.add(HEADER + text(1) + text(2))
    [begun, *_] = followed.news()
    followed.path.write_text(HEADER + text(1))
    again, (number, _) = followed.news()
    assert again == begun  # the same header and first row: the same input, its rows are not sent again
    assert number == 1


def test_a_row_too_long_for_a_line_goes_on_as_malformed(followed):
    followed.add(HEADER + text(1) + "x" * (1 << 20) + text(2) + text(3))
    [_, (_, first), (_, bad), (_, last)] = followed.news()
    assert (first["InvoiceNo"], last["InvoiceNo"]) == ("1", "3")
    assert set(bad) == {"InvoiceNo"}
    assert "more than a line may have" in bad["InvoiceNo"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1f\x8b1234", "no plain CSV file"),
        (b"a,b\n1,2\n", "lacks the columns InvoiceNo"),
        ((HEADER + text(1).replace("2011-01-03T01", "01/02/2011 01")).encode(), "day first or month first"),
    ],
)
def test_what_cannot_be_followed(tmp_path, content, words):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        Followed(path).news()
    assert caught.value.code is ExitCode.INPUT


def test_the_records_of_what_is_followed(followed):
    """A pause after a quarter of an hour or more is told to every partition; nothing is sent twice."""
    followed.add(HEADER + text(1) + text(2))
    begun = next(item for item in followed.items if item is not None)
    written = {}
    records = _records(Settings(partitions=2), begun, followed.items, 2, written)

    def more():
        found = []
        for record in records:
            if record is None:
                return found
            found.append((record.seq, record.control))
        return found

    first = more()
    assert [seq for seq, control in first if control is None] == [1, 2]
    assert [control for _, control in first[-2:]] == ["watermark", "watermark"]
    followed.add(text(3))
    assert [seq for seq, control in more() if control is None] == [3]
    followed.path.write_text(HEADER + text(1))
    assert more() == []
    followed.add(text(2) + text(3) + text(4))
    assert [seq for seq, control in more() if control is None] == [4]


def test_a_pipe_ends_with_watermarks_and_without_an_end_of_input():
    reading, writing = os.pipe()
    os.write(writing, (HEADER + text(1) + text(2).rstrip("\n")).encode())
    os.close(writing)
    fed = FollowedFeed(odd_shop.EXAMPLE, FollowedPipe(reading, "utf-8", "strict"), None, jump_max_days=30)
    items = fed.items()
    begun = next(item for item in items if item is not None)
    records = [r for r in _records(Settings(partitions=2), begun, items, 2, {}) if r is not None]
    os.close(reading)
    assert [r.seq for r in records if r.control is None] == [1, 2]
    assert {r.control for r in records if r.control is not None} == {"watermark"}
    assert [dict(r.headers).get(HEADER_CONTROL) for r in records[-2:]] == [b"watermark"] * 2
    assert records[-1].clock == MONDAY + 2 * HOUR_S
