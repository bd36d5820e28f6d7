"""Stored state is taken up whole or refused with its reason; its pieces are bounded."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_factory import DAY_S, HOUR_S, MONDAY, apply, entry, mark, state_config

from streams import checkpoints
from streams.checkpoints import Ledger, StateUnusableError, load
from streams.partition import PartitionState

START = MONDAY + 2 * DAY_S
PARTITION = 3


def log_of(records, *, step_s=HOUR_S, seed=0):
    rng = random.Random(seed)
    return [
        entry(
            START + i * step_s,
            CustomerID=str(rng.randrange(40)),
            InvoiceNo=f"i{rng.randrange(10**9)}",
            Description="x",
        )
        for i in range(records)
    ]


def stored(log, config, *, stop=None):
    """Return (live keys of the state topic, the state, its ledger) after `stop` records."""
    state, ledger, store = PartitionState(PARTITION, config), Ledger(), {}
    for cut in apply(state, log, 0, stop or len(log)).cuts:
        for key, value in ledger.commit(cut, state.words):
            if value is None:
                del store[key]  # a tombstone for what is not there would be a mistake of the ledger
            else:
                store[key] = value
    return store, state, ledger


@pytest.fixture(scope="module")
def store():
    """The live keys after three weeks of lines."""
    return stored(log_of(24 * 24), state_config())[0]


def test_nothing_stored_is_no_state():
    assert load(PARTITION, state_config(), {}) is None
    assert load(PARTITION, state_config(), {b"000000000001/lines/0000": b"x"}) is None


def test_the_store_holds_one_head_and_what_it_names(store):
    state, ledger = load(PARTITION, state_config(), store)
    assert [key for key in store if key.endswith(b"/head")] == [b"%012d/head" % ledger.head]
    kinds = {key.split(b"/")[1] for key in store}
    assert kinds == {b"head", b"lines", b"lifetime"}
    assert len(store) == 1 + sum(ledger.lines.values()) + sum(ledger.lifetime.values())
    assert sorted(ledger.lines) == [segment.number for segment in state.windows.segments]


def test_a_checkpoint_covers_the_records_up_to_its_cut():
    log = log_of(200)
    for stop in (30, 100, 200):
        store, state, _ = stored(log, state_config(), stop=stop)
        found, _ = load(PARTITION, state_config(), store)
        assert found.read_offset < stop
        assert found.read_offset <= state.read_offset == stop - 1
        assert found.counters.read == found.read_offset + 1
        apply(found, log, found.read_offset + 1, stop)
        assert found.counters == state.counters
        assert found.guard.state() == state.guard.state()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("partitions", 5),
        ("window_days", 28),
        ("mid_window_days", 7),
        ("window_hop_days", 14),
        ("lateness_s", 0),
        ("jump_max_days", 11),
        ("jump_confirm_lines", 3),
        ("segment_lines_max", 10),
        ("sample_customers_max", 7),
        ("state_format", 99),
        ("features_version", 99),
    ],
)
def test_other_settings_are_refused_by_name(store, setting, value):
    with pytest.raises(StateUnusableError) as caught:
        load(PARTITION, state_config(**{setting: value}), store)
    was = getattr(state_config(), setting)
    assert f"{setting} was {was!r} and is now {value!r}" in str(caught.value)
    assert f"partition {PARTITION}" in str(caught.value)


def test_every_missing_piece_is_noticed(store):
    for key in store:
        if key.endswith(b"/head"):
            continue
        rest = {name: value for name, value in store.items() if name != key}
        with pytest.raises(StateUnusableError, match="damaged or incomplete"):
            load(PARTITION, state_config(), rest)


def test_without_a_head_pieces_are_nothing(store):
    assert (
        load(PARTITION, state_config(), {k: v for k, v in store.items() if not k.endswith(b"head")}) is None
    )


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 255))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_changed_byte_is_noticed(store, which, where, flip):
    key = sorted(store)[which % len(store)]
    value = bytearray(store[key])
    value[where % len(value)] ^= flip
    with pytest.raises(StateUnusableError, match="damaged or incomplete"):
        load(PARTITION, state_config(), {**store, key: bytes(value)})


@given(st.integers(0, 10**6), st.binary(max_size=40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_piece_that_is_something_else_is_noticed(store, which, value):
    key = sorted(store)[which % len(store)]
    with pytest.raises(StateUnusableError, match="damaged or incomplete"):
        load(PARTITION, state_config(), {**store, key: value})


def test_a_piece_of_another_checkpoint_is_no_substitute(store):
    first, second = [key for key in sorted(store) if b"/lines/" in key][:2]
    with pytest.raises(StateUnusableError, match="damaged or incomplete"):
        load(PARTITION, state_config(), {**store, first: store[second]})


def test_a_large_segment_comes_in_pieces(monkeypatch):
    monkeypatch.setattr(checkpoints, "PIECE_BYTES", 1_000)
    log, config = log_of(3_000, step_s=20), state_config(segment_lines_max=1_000)
    state, ledger, store = PartitionState(PARTITION, config), Ledger(), {}
    seen = False
    for cut in apply(state, log, 0, len(log)).cuts:
        records = ledger.commit(cut, state.words)
        values = [(key, value) for key, value in records if value is not None]
        assert all(len(value) <= 1_000 for key, value in values if not key.endswith(b"/head"))
        # The head is the last value, so that a checkpoint in parts counts only when all are there.
        assert values[-1][0].endswith(b"/head")
        assert all(value is None for _, value in records[len(values) :])
        for written in range(1, len(values)):
            partial = store | dict(values[:written])
            before = load(PARTITION, config, partial)
            assert (before and before[1].head) == (cut.number - 1 if store else None)
        seen |= sum(b"/lines/" in key for key, _ in values) > 3
        for key, value in records:
            store.pop(key, None) if value is None else store.update({key: value})
    assert seen
    found, _ = load(PARTITION, config, store)
    apply(found, log, found.read_offset + 1, len(log))
    assert found.counters == state.counters


def test_keys_of_a_zombie_do_no_harm(store):
    """Pieces and heads of checkpoints long past, written again after they were deleted."""
    everything, state, ledger = {}, PartitionState(PARTITION, state_config()), Ledger()
    for cut in apply(state, log_of(24 * 24), 0, 24 * 24).cuts:
        everything |= {k: v for k, v in ledger.commit(cut, state.words) if v is not None}
    assert len(everything) > len(store)
    found, _ = load(PARTITION, state_config(), everything)
    expected, _ = load(PARTITION, state_config(), store)
    assert found.read_offset == expected.read_offset
    assert found.counters == expected.counters
    assert len(found.windows.segments) == len(expected.windows.segments)


def test_what_is_stored_stays_bounded():
    """A year of steady lines must not leave a year of segments or of changes to the figures."""
    log = log_of(365 * 6, step_s=4 * HOUR_S)
    config = state_config()
    sizes = [len(stored(log, config, stop=stop)[0]) for stop in (120 * 6, 240 * 6, 365 * 6)]
    assert max(sizes) < 1.5 * min(sizes)
    assert max(sizes) < 60


def test_a_restored_state_refuses_what_it_read_before():
    log = [entry(START + i * HOUR_S, source="a", seq=i + 1) for i in range(60)]
    store, _, _ = stored(log, state_config())
    found, _ = load(PARTITION, state_config(), store)
    first = found.read_offset + 1
    found.apply(range(first, first + len(log)), [e.value for e in log], [e.headers for e in log])
    assert found.counters.duplicate == first
    assert found.counters.on_time == len(log)


def test_unknown_keys_are_ignored(store):
    found, _ = load(PARTITION, state_config(), {**store, b"0/head": b"x", b"note": b"y"})
    assert found.partition == PARTITION


def test_marks_alone_make_a_state():
    store, state, _ = stored([mark(START), mark(START + 40 * DAY_S)], state_config())
    found, _ = load(PARTITION, state_config(), store)
    assert found.windows.closed_through == state.windows.closed_through
    assert found.counters.control == 2
