"""Another name in a customer's place: the figures go on as they were, and nothing leads back."""

import pytest
from line_factory import DAY_S, MONDAY, Entry, apply, entry, mark, shop, state_config
from line_factory import settings as short_settings

from streams import checkpoints, erase
from streams.checkpoints import Ledger, StateUnusableError, load, renamed
from streams.partition import PartitionState
from streams.snapshots import decode_chunk, encode_part, named
from streams.snapshots import renamed as renamed_message
from streams.state_config import StateConfig
from streams.transactions import Control, encode_line

OTHER = "erased-0011223344556677"
CONFIG = state_config(segment_lines_max=10_000)
DAYS = 40


@pytest.fixture(scope="module")
def log():
    lines = shop(3, days=DAYS, customers=50, orders_a_day=12, start=MONDAY)
    return [Entry(encode_line(line), []) for line in lines]


@pytest.fixture(scope="module")
def who(log):
    """The customer with the most to be told: somebody of the first day."""
    state = PartitionState(0, CONFIG)
    apply(state, log, 0, 30)
    return state.words.customers.texts[0]


def stored(log, stop):
    """The live records of the state topic after `stop` lines, and the messages of the windows closed."""
    state, ledger, store, messages = PartitionState(0, CONFIG), Ledger(), {}, []
    for cut in apply(state, log, 0, stop).cuts:
        store |= dict(ledger.commit(cut, state.words))
        messages += [record for part in cut.parts for record in encode_part(part, 1)]
    return {key: value for key, value in store.items() if value is not None}, messages


def closed_from(store, log):
    """What the windows show that close after the state in `store`, without the customers' names."""
    state, _ = load(0, CONFIG, store)
    end = mark(MONDAY + (DAYS + 7) * DAY_S, Control.END_OF_INPUT)
    rest = [*log, end]
    parts = [p for cut in apply(state, rest, state.read_offset + 1, len(rest)).cuts for p in cut.parts]
    tables = [decode_chunk(value).table for part in parts for _, value in encode_part(part, 1)]
    return [sorted(map(str, table.drop_columns(["CustomerID"]).to_pylist())) for table in tables]


def written(store, records):
    after = {**store, **dict(records)}
    return {key: value for key, value in after.items() if value is not None}


@pytest.mark.parametrize("piece_bytes", [900_000, 400])
def test_a_state_goes_on_with_the_same_figures(log, who, piece_bytes, monkeypatch):
    monkeypatch.setattr(checkpoints, "PIECE_BYTES", piece_bytes)
    # Lines of the customer that come later are those of somebody new: leave them out on both sides.
    mine = f'"CustomerID":"{who}"'.encode()
    store, _ = stored(log, len(log) // 2)
    unread = load(0, CONFIG, store)[0].read_offset + 1
    quiet = log[:unread] + [entry for entry in log[unread:] if mine not in entry.value]
    after = written(store, renamed(store, who, OTHER))
    before_state, _ = load(0, CONFIG, store)
    state, ledger = load(0, CONFIG, after)
    assert (who in state.words.customers, OTHER in state.words.customers) == (False, True)
    code, old = state.words.customers[OTHER], before_state.words.customers[who]
    assert state.windows.lifetime.spend[code] == before_state.windows.lifetime.spend[old]
    assert not any(who in str(value) for value in state.words.customers)
    assert len(after) == 1 + sum(ledger.lines.values()) + sum(ledger.lifetime.values())
    shown, expected = closed_from(after, quiet), closed_from(store, quiet)
    assert len(expected) > 2
    assert shown == expected


def refused_far_ahead(log, config, *customers):
    """The live records after garbage from the far future of `customers`, with a checkpoint behind it."""
    far = [
        entry(MONDAY + 4_000 * DAY_S * (i + 2), CustomerID=name, InvoiceNo=f"far{i}")
        for i, name in enumerate(customers)
    ]
    state, ledger, store = PartitionState(0, config), Ledger(), {}
    records = [*log[:100], *far]
    # What is no line fills the segment up; a good one would make the guard forget.
    records += [Entry(None, [])] * config.segment_lines_max
    for cut in apply(state, records, 0, len(records)).cuts:
        store |= dict(ledger.commit(cut, state.words))
    return {key: value for key, value in store.items() if value is not None}


def test_who_is_remembered_for_a_refused_line_alone_is_renamed_too(log, monkeypatch):
    conf = short_settings(partitions=1)
    config = StateConfig.of(conf)
    monkeypatch.setattr(erase, "read_live", lambda *_: store)
    store = refused_far_ahead(log, config, "garbage", "other", "garbage")
    assert [who for _, who in load(0, config, store)[0].guard.witnesses] == ["garbage", "other", "garbage"]
    assert erase._in_state(conf, 0, "garbage")
    records = renamed(store, "garbage", OTHER)
    assert [key for key, _ in records] == [key for key in store if key.endswith(b"/head")]
    store = written(store, records)
    assert [who for _, who in load(0, config, store)[0].guard.witnesses] == [OTHER, "other", OTHER]
    assert not erase._in_state(conf, 0, "garbage")
    assert erase._in_state(conf, 0, "other")
    assert renamed(store, "garbage", OTHER) == []


def test_who_is_not_in_a_state_changes_nothing(log):
    store, _ = stored(log, len(log))
    assert renamed(store, "nobody", OTHER) == []
    assert renamed({}, "nobody", OTHER) == []


def test_a_damaged_state_is_refused(log, who):
    store, _ = stored(log, len(log))
    key = next(key for key in store if b"/lines/" in key)
    with pytest.raises(StateUnusableError, match="damaged or incomplete"):
        renamed({**store, key: b"x"}, who, OTHER)


def test_a_message_is_as_it_was_but_for_the_name(log, who):
    _, messages = stored(log, len(log))
    kinds = set()
    for _, value in messages:
        told, other = decode_chunk(value), decode_chunk(renamed_message(value, who, OTHER))
        ids = told.table["CustomerID"].to_pylist()
        assert other.table["CustomerID"].to_pylist() == [OTHER if one == who else one for one in ids]
        assert other.table.drop_columns(["CustomerID"]).equals(told.table.drop_columns(["CustomerID"]))
        assert other.table.schema == told.table.schema
        assert other.meta == told.meta
        assert (named(value, who), named(renamed_message(value, who, OTHER), who)) == (who in ids, False)
        kinds |= {told.kind} if who in ids else set()
    assert kinds == {"rows", "lines"}


def test_what_is_no_message_is_refused():
    assert not named(b"x", "a")
    with pytest.raises(ValueError, match="snapshot message"):
        renamed_message(b"x", "a", "b")
