"""Records that reached nobody are fetched again, once nobody is at work on any; and not over and over."""

from itertools import pairwise

import pytest
from faust.types import TP

from streams.consumption import Gate
from streams.stalls import LOOKS_MAX, StallWatch

LINES, PARTS = TP("lines", 0), TP("parts", 0)


class Bench:
    """A watch over owners that stand where the test says."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.offsets: dict[TP, int] = {}
        self.ends: dict[TP, int | None] = {}
        self.fetched: list[tuple[TP, int]] = []
        self.watch = StallWatch(
            self.gate,
            lambda: self.offsets,
            self.ends.get,
            lambda tp, offset: self.fetched.append((tp, offset)),
        )

    def stands(self, tp: TP, read_offset: int, *, passed: int | None = None, end: int | None = None) -> None:
        """Put an owner to `read_offset`; the gate has let pass up to `passed`, the log ends at `end`."""
        self.offsets[tp], self.ends[tp] = read_offset, end
        self.gate.open(tp, read_offset if passed is None else passed)

    def looks(self, times: int) -> list[tuple[TP, int]]:
        self.fetched.clear()
        for _ in range(times):
            self.watch.look()
        return list(self.fetched)


@pytest.fixture
def bench():
    return Bench()


@pytest.mark.parametrize(
    ("passed", "end", "helped"),
    [
        (41, 42, False),  # all is read
        (41, None, False),  # nothing is known of the log yet
        (50, 51, True),  # lost behind the gate
        (50, None, True),
        (41, 51, True),  # lost before the gate
    ],
)
def test_who_is_behind_is_helped_at_the_second_look(bench, passed, end, helped):
    bench.stands(LINES, 41, passed=passed, end=end)
    assert bench.looks(1) == []
    assert bench.looks(1) == ([(LINES, 41)] if helped else [])


def test_an_agent_at_work_is_left_alone_and_so_is_what_it_just_did(bench):
    bench.stands(LINES, 41, end=99)
    bench.looks(1)
    with bench.watch.taking("lines"):
        assert bench.looks(9) == []
    assert bench.looks(1) == []  # it may take the next batch at once
    assert bench.looks(1) == [(LINES, 41)]


def test_another_topics_agent_at_work_does_not_matter(bench):
    bench.stands(LINES, 41, end=99)
    bench.stands(PARTS, 7, end=9)
    with bench.watch.taking("parts"):
        assert bench.looks(2) == [(LINES, 41)]


def test_progress_begins_the_wait_anew(bench):
    for offset in range(5):
        bench.stands(LINES, offset, end=99)
        assert bench.looks(1) == []
    assert bench.looks(1) == [(LINES, 4)]


def test_a_closed_gate_is_left_alone_and_begins_anew(bench):
    bench.stands(LINES, 41, end=99)
    bench.gate.close(LINES)
    assert bench.looks(9) == []
    bench.stands(LINES, 41, end=99)
    assert bench.looks(1) == []  # it may take a moment once it is open


def test_an_owner_that_comes_back_is_looked_at_anew(bench):
    bench.stands(LINES, 41, end=99)
    bench.looks(1)
    del bench.offsets[LINES]
    bench.looks(1)
    bench.stands(LINES, 41, end=99)
    assert bench.looks(1) == []


def test_what_never_comes_is_asked_for_ever_more_rarely(bench):
    """A log may end in a transaction's marker, which no record shows."""
    bench.stands(LINES, 41, end=43)
    bench.looks(1)
    tries = [look for look in range(1, 200) if bench.looks(1)]
    assert tries[:6] == [1, 2, 4, 8, 16, 32]
    assert {b - a for a, b in pairwise(tries[6:])} == {LOOKS_MAX}
