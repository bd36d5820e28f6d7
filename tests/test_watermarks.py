"""The event time of a feed: who moves it, who is refused, and what a first line may do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_factory import HOUR_S, MONDAY, apply, entry, mark, state_config

from streams.partition import PartitionState
from streams.transactions import Control
from streams.watermarks import JumpGuard

DAY_S = 86_400
JUMP_S = 30 * DAY_S


def guard(confirm=3):
    return JumpGuard(jump_max_s=JUMP_S, jump_confirm_lines=confirm)


def feed(lines, found=None):
    """Feed (day, customer) pairs; return what was admitted."""
    found = found or guard()
    return [found.admits(int(day * DAY_S), customer) for day, customer in lines], found


def steady(first, days, start=0):
    return [(first + day, f"c{start + day % 7}") for day in range(days)]


@pytest.mark.parametrize(
    ("lines", "admitted", "largest_day"),
    [
        pytest.param([(100, "a"), (130, "b")], "11", 130, id="as far ahead as a line may be"),
        pytest.param([(100, "a"), (100, "b"), (130.01, "b")], "110", 100, id="a second further"),
        pytest.param([(100, "a"), (99, "b"), (20, "c")], "111", 100, id="what lies behind is admitted"),
        pytest.param(
            [(100, "a"), (101, "b"), (200, "c"), (200, "d"), (200, "e"), (200, "f")],
            "110001",
            200,
            id="after a season: three agree, the fourth counts",
        ),
        pytest.param(
            [(100, "a"), (101, "b"), (200, "c"), (190, "d"), (215, "e"), (210, "f")],
            "110001",
            210,
            id="they need not agree to the day",
        ),
        pytest.param(
            [(100, "a"), (101, "b")] + [(200, "c")] * 20,
            "11" + "0" * 20,
            101,
            id="one customer cannot confirm himself",
        ),
        pytest.param(
            [(100, "a"), (101, "b"), (200, "c"), (200, "d"), (200, "c"), (200, "d"), (200, "e"), (200, "d")],
            "11000000",
            101,
            id="three others are needed",
        ),
        pytest.param(
            [(100, "a"), (101, "b"), (200, "c"), (300, "d"), (400, "e"), (500, "f"), (600, "g")],
            "1100000",
            101,
            id="garbage that does not agree",
        ),
        pytest.param(
            [(100, "a"), (101, "b")] + [item for i in range(9) for item in ((900, f"g{i}"), (102, "a"))],
            "11" + "01" * 9,
            102,
            id="garbage strewn among good lines never adds up",
        ),
        pytest.param(
            [(900, "a"), (100, "b"), (100, "c"), (101, "d"), (101, "e"), (102, "f")],
            "111111",
            102,
            id="a first line from the future is overruled",
        ),
        pytest.param(
            [(5, "a"), (100, "b"), (100, "c"), (100, "d"), (101, "e"), (101, "f")],
            "100011",
            101,
            id="a first line from the past costs the lines that overrule it",
        ),
    ],
)
def test_table(lines, admitted, largest_day):
    found, after = feed(lines)
    assert "".join("01"[one] for one in found) == admitted
    assert after.largest == largest_day * DAY_S


def test_the_first_line_alone_is_not_trusted():
    _, found = feed([(100, "a")])
    assert not found.anchored
    _, found = feed([(100, "a"), (101, "a")])
    assert found.anchored
    assert found.settled()


def test_the_earliest_time_is_that_of_lines_that_agree():
    """It says where the grid of a partition begins, so garbage must not reach it."""
    _, found = feed([(100, "a"), (99, "b"), (98, "c")])
    assert found.earliest == 99 * DAY_S  # anchored by the second line; what comes later is late
    _, found = feed([(900, "a"), (100, "b"), (98, "c"), (101, "d"), (101, "e")])
    assert (found.earliest, found.largest) == (98 * DAY_S, 101 * DAY_S)
    _, found = feed([(5, "a"), (100, "b"), (98, "c"), (101, "d"), (101, "e")])
    assert (found.earliest, found.largest) == (98 * DAY_S, 101 * DAY_S)


def test_a_first_line_at_the_epoch_is_a_time_like_any_other():
    _, found = feed([(0, "a"), (1, "b")])
    assert found.earliest == 0
    assert found.anchored


def test_a_watermark_is_believed_without_witnesses():
    found = guard()
    found.advance(500 * DAY_S)
    assert found.anchored
    admitted, _ = feed([(500, "a"), (530, "b"), (561, "c")], found)
    assert admitted == [True, True, False]
    found.advance(540 * DAY_S)
    assert found.largest == 540 * DAY_S
    assert found.settled()
    found.advance(10 * DAY_S)
    assert found.largest == 540 * DAY_S


def test_a_watermark_sets_aside_a_first_line_far_from_it():
    _, found = feed([(5, "a")])
    found.advance(100 * DAY_S)
    assert found.earliest == 100 * DAY_S
    _, found = feed([(900, "a")])  # the only line of a partition: nothing may close up to it
    found.advance(100 * DAY_S)
    assert (found.earliest, found.largest) == (100 * DAY_S, 100 * DAY_S)
    _, found = feed([(99, "a")])
    found.advance(100 * DAY_S)
    assert found.earliest == 99 * DAY_S


YEAR_2199 = 7_226_582_400


def read_by_a_partition(between):
    """The state after two good weeks, `between`, and two more good weeks."""
    good = [
        entry(MONDAY + i * HOUR_S, CustomerID=str(i % 7), source="shop", seq=i + 1) for i in range(28 * 24)
    ]
    log = [*good[: 14 * 24], *between, *good[14 * 24 :]]
    state = PartitionState(0, state_config())
    apply(state, log, 0, len(log))
    return state


def test_no_line_from_the_far_future_moves_the_clock():
    """Not even many of one customer; the threat model says so."""
    far = [entry(YEAR_2199, CustomerID="x", InvoiceNo=str(i)) for i in range(20)]
    state = read_by_a_partition(far)
    assert state.guard.largest == MONDAY + (28 * 24 - 1) * HOUR_S
    assert (state.counters.late, state.counters.dead) == (0, len(far))


@pytest.mark.parametrize("kind", list(Control))
def test_one_control_record_from_the_far_future_ends_the_monitoring(kind):
    """It is believed: the threat model names it as what the right to write the input topic allows."""
    state = read_by_a_partition([mark(YEAR_2199, kind)])
    assert state.guard.largest == YEAR_2199
    assert (state.counters.late, state.counters.dead) == (14 * 24, 0)


def test_one_line_with_a_huge_number_makes_repetitions_of_those_that_follow():
    """The same: who may write the input topic may number lines in any source's name."""
    state = read_by_a_partition([entry(MONDAY + 14 * 24 * HOUR_S, source="shop", seq=10**17)])
    assert state.counters.duplicate == 14 * 24
    assert state.guard.largest == MONDAY + 14 * 24 * HOUR_S


LINES = st.lists(st.tuples(st.integers(0, 600), st.sampled_from("abcdefgh")), max_size=60)


@given(LINES, st.integers(0, 60))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_state_is_all_there_is(lines, at):
    whole, expected = feed(lines)
    first, found = feed(lines[:at])
    resumed = guard()
    resumed.restore(found.state())
    second, after = feed(lines[at:], resumed)
    assert first + second == whole
    assert after.state() == expected.state()


@given(LINES)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_an_anchored_time_never_goes_back(lines):
    found = guard()
    before = None
    for day, customer in lines:
        admitted = found.admits(day * DAY_S, customer)
        if before is not None:
            assert found.largest >= before
            # What is refused changes nothing but the memory of it.
            assert admitted or found.largest == before
        before = found.largest if found.anchored else None
        assert found.earliest <= found.largest
        assert len(found.witnesses) <= 8 * found.jump_confirm_lines


@given(st.lists(st.integers(-20 * DAY_S, 29 * DAY_S), min_size=2, max_size=60), st.data())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_garbage_between_good_lines_changes_nothing(steps, data):
    """Far-off lines, each followed by a good one, neither count nor move the time."""
    now, good = 400 * DAY_S, []
    for i, step in enumerate(steps):
        now = max(now + step, 400 * DAY_S)
        good.append((now / DAY_S, f"c{i % 5}"))
    _, alone = feed(good)
    far = st.floats(3_000, 9_000, allow_nan=False)
    mixed, garbage = good[:2], []
    for item in good[2:]:
        garbage.append((data.draw(far), data.draw(st.sampled_from("xyz"))))
        mixed += [garbage[-1], item]
    admitted, found = feed(mixed)
    assert found.state() == alone.state()
    assert sum(admitted) == len(good)


@given(st.integers(31, 3_000), st.integers(1, 5))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_season_costs_exactly_the_lines_that_confirm_it(gap_days, confirm):
    found = guard(confirm)
    lines = steady(100, 20) + [(119 + gap_days + i / 10, f"s{i}") for i in range(20)]
    admitted, found = feed(lines, found)
    assert admitted == [True] * 20 + [False] * confirm + [True] * (20 - confirm)
