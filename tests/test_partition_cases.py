"""The state of a partition in single cases: orders, old lines, bounds of windows, ends, sources."""

import random
from collections import Counter

import pytest
from line_factory import DAY_S, HOUR_S, MONDAY, WEEK_S, Entry, apply, entry, mark, state_config
from partition_run import START, one_pass

from streams.partition import PartitionState
from streams.transactions import Control


@pytest.fixture(autouse=True, scope="module")
def _frequent_full_copies():
    """Full copies of the lifetime figures come every 13 closes; here there are not so many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartitionState, "FULL_EVERY_CUTS", 2)
        yield


def state_after(log, **changes):
    return one_pass(log, state_config(**changes))


def test_lifetime_orders_count_an_invoice_once():
    """Its lines come in different segments, some after the window closed; a return is no order."""
    log = [
        entry(START, InvoiceNo="A"),
        entry(START, InvoiceNo="A", StockCode="other"),
        entry(START + 8 * DAY_S, InvoiceNo="B"),
        entry(START, InvoiceNo="A", StockCode="late"),
        entry(START + 8 * DAY_S, InvoiceNo="C", Quantity=-1),
        mark(START + 15 * DAY_S),
    ]
    run = state_after(log)
    orders = {end: list(part.columns["LifeOrders"]) for end, (part, _) in run.closed.items()}
    assert orders == {MONDAY + WEEK_S: [1], MONDAY + 2 * WEEK_S: [2]}
    assert run.state.counters.late == 1


def test_a_line_older_than_what_is_retained_adds_spend_but_no_order():
    log = [entry(START + 50 * DAY_S), entry(START + 50 * DAY_S), mark(START + 58 * DAY_S)]
    log += [entry(START, InvoiceNo="old", UnitPrice=100.0), mark(START + 66 * DAY_S)]
    part, _ = max(state_after(log, jump_max_days=90).closed.values(), key=lambda item: item[0].window_end)
    assert list(part.columns["LifeSpend"]) == [105.0]
    assert list(part.columns["LifeOrders"]) == [1]
    # The first purchase is the first purchase, however late it was told.
    assert list(part.columns["Tenure"]) == [(part.window_end - START) // DAY_S]


def test_the_bounds_of_a_window():
    """A line at the very end belongs to the next window, one at the start to this one."""
    end = MONDAY + 3 * WEEK_S
    log = [mark(MONDAY - DAY_S), entry(MONDAY - 1), entry(MONDAY, InvoiceNo="first")]
    log += [entry(end - 1, InvoiceNo="last"), entry(end, InvoiceNo="next"), mark(end + DAY_S)]
    part, offset = state_after(log, jump_max_days=90).closed[end]
    assert offset == len(log) - 1
    assert list(part.columns["NumOrders"]) == [2]
    assert list(part.columns["LifeOrders"]) == [3]
    assert list(part.columns["Recency"]) == [0]


def test_an_end_on_the_grid_closes_both_the_window_and_the_next():
    log = [entry(MONDAY + DAY_S), entry(MONDAY + WEEK_S), mark(MONDAY + WEEK_S, Control.END_OF_INPUT)]
    closed = state_after(log).closed
    assert {end: part.partial for end, (part, _) in closed.items()} == {
        MONDAY + WEEK_S: False,
        MONDAY + 2 * WEEK_S: True,
    }


def test_a_repeated_end_of_input_closes_nothing_twice():
    log = [entry(START), entry(START + DAY_S), mark(START + DAY_S, Control.END_OF_INPUT)]
    assert len(state_after(log).closed) == len(state_after([*log, log[-1], log[-1]]).closed) == 1


def test_a_long_gap_is_crossed_without_a_part_a_week():
    log = [entry(START), entry(START + DAY_S), mark(START + 4_000 * DAY_S)]
    assert len(state_after(log).closed) < 8


def test_a_cut_counts_before_the_lines_that_follow_it_in_a_batch():
    """A line is late or not by the windows closed before it, though they were closed in the same batch."""
    log = [
        entry(START),
        mark(START + 8 * DAY_S),
        entry(START + 1),
        mark(START + 9 * DAY_S),
        entry(START + 9 * DAY_S),
    ]
    for sizes in ((99,), (1,), (2,)):
        counters = one_pass(log, state_config(), sizes).state.counters
        assert (counters.on_time, counters.late) == (2, 1)


def test_garbage_alone_comes_to_a_checkpoint():
    """Or it would all be read, and refused, once more after a restart."""
    state = PartitionState(0, state_config(segment_lines_max=4))
    applied = apply(state, [Entry(b"{", [])] * 10, 0, 10)
    assert [cut.offset for cut in applied.cuts] == [3, 7]
    assert all(cut.segment is None and cut.parts == [] for cut in applied.cuts)
    assert (state.counters.dead, len(applied.refused)) == (10, 10)


def test_more_sources_than_are_remembered(monkeypatch):
    """Which sources are forgotten, and when, must not depend on the batches either."""
    monkeypatch.setattr("streams.sources.SOURCES_MAX", 3)
    rng = random.Random(1)
    log, seqs, now = [], Counter(), START
    for _ in range(150):
        source = f"s{rng.randrange(8)}"
        seqs[source] += rng.choice((0, 1, 1))
        now += 4 * HOUR_S
        log.append(entry(now, source=source, seq=max(1, seqs[source]), CustomerID=f"{rng.randrange(5)}"))
    whole, split = one_pass(log, state_config()), one_pass(log, state_config(), (1,))
    assert split.state.counters == whole.state.counters
    assert split.written == whole.written
    assert whole.state.counters.duplicate > 0


def test_invoices_are_forgotten_and_nothing_shows():
    """More invoices than the dictionary keeps, in batches that make it forget at different moments."""
    rng = random.Random(2)
    log, now = [], START
    for number in range(26_000):
        now += rng.randrange(400)
        log.append(entry(now, InvoiceNo=f"n{number}", CustomerID=str(rng.randrange(50))))
        if number % 9 == 0:  # the invoice goes on after others came between
            log.append(entry(now, InvoiceNo=f"n{max(0, number - 5)}", CustomerID=str(rng.randrange(50))))
    config = state_config(segment_lines_max=50_000)
    whole, split = one_pass(log, config), one_pass(log, config, (3_000, 777))
    assert len(whole.state.words.invoices.texts) == 26_000
    assert len(split.state.words.invoices.texts) < 20_000
    assert split.parts == whole.parts
    assert split.written == whole.written
