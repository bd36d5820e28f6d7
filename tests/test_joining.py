"""Windows of the whole stream: the same for any number of partitions and any order of arrival."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from line_factory import DAY_S, MONDAY, WEEK_S, line, records_of, settings, shop, windows_of

from models.registry import Registry
from producers.partitions import partition_of
from streams import backfill
from streams.joining import Joiner
from streams.partition import PartitionState
from streams.snapshots import decode_chunk, encode_part
from streams.state_config import StateConfig
from streams.transactions import encode_line

CONF = settings()
LINES = shop(8, days=70, customers=90, orders_a_day=14)


def parts_by_partition(lines, conf, partitions):
    """The messages of each partition in their order, as `clv.snapshots` would hold them."""
    logs = [[] for _ in range(partitions)]
    for record in records_of(lines, conf, partitions):
        logs[record.partition].append(record)
    config = StateConfig.of(conf, partitions)
    messages = []
    for partition, log in enumerate(logs):
        state = PartitionState(partition, config)
        applied = state.apply(range(len(log)), [r.value for r in log], [r.headers for r in log])
        parts = [part for cut in applied.cuts for part in cut.parts]
        messages.append([value for part in parts for _, value in encode_part(part, partitions)])
    return messages


def joined(messages, partitions, sample_max=20_000):
    """What comes out, taking windows as they become whole."""
    joiner, out = Joiner(partitions, sample_max), []
    for message in messages:
        joiner.add(decode_chunk(message))
        out += joiner.pop()
    return out


def interleaved(by_partition, rng):
    """The messages of all partitions, each partition's in its order."""
    left = [list(messages) for messages in by_partition]
    while any(left):
        yield rng.choice([messages for messages in left if messages]).pop(0)


def assert_same(found, expected):
    assert [snapshot.window_end for snapshot in found] == [snapshot.window_end for snapshot in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == theirs, theirs.window_end


@pytest.mark.parametrize("partitions", [2, 5])
@pytest.mark.parametrize("sample_max", [20_000, 30])
def test_the_number_of_partitions_does_not_show(partitions, sample_max):
    conf = settings(sample_customers_max=sample_max)
    alone = windows_of(LINES, conf)
    assert len(alone) > 9
    assert_same(windows_of(LINES, conf, partitions=partitions, batch_lines=61), alone)
    if sample_max == 30:
        assert max(snapshot.rows.num_rows for snapshot in alone) == 30
        assert all(snapshot.totals["customers"] > 30 for snapshot in alone[1:])


def test_lines_in_disorder_within_the_lateness_do_not_show():
    """What arrives out of order, but before the watermark, is as if it had come in order."""
    rng = random.Random(4)
    # Each line comes up to 20 hours after its time; the watermark trails by 24.
    shuffled = [
        item for _, _, item in sorted((i / 14 + rng.random() * 0.8, i, x) for i, x in enumerate(LINES_BY_DAY))
    ]
    alone = windows_of(LINES_BY_DAY, CONF)
    assert shuffled != LINES_BY_DAY
    assert_same(windows_of(shuffled, CONF, partitions=3), alone)


# Fourteen lines a day, evenly: position then says time.
LINES_BY_DAY = [
    line(
        MONDAY + DAY_S * 2 + i * DAY_S // 14,
        CustomerID=str(i % 37),
        InvoiceNo=f"i{i // 3}",
        StockCode=f"p{i % 11}",
        UnitPrice=1.0 + i % 5,
    )
    for i in range(14 * 45)
]


def test_a_customer_line_a_week_is_enough():
    """Most partitions stay empty for weeks: the watermarks of the feed carry their time."""
    sparse = [
        line(MONDAY + week * WEEK_S + 3 * DAY_S, CustomerID="1", InvoiceNo=str(week)) for week in range(12)
    ]
    assert_same(windows_of(sparse, CONF, partitions=5), windows_of(sparse, CONF))


@given(st.randoms(use_true_random=False))
@hypothesis_settings(max_examples=8, deadline=None, derandomize=True)
def test_the_interleaving_of_partitions_does_not_show(rng):
    by_partition = PARTS
    expected = joined([message for messages in by_partition for message in messages], 3)
    assert_same(joined(interleaved(by_partition, rng), 3), expected)


@given(st.randoms(use_true_random=False))
@hypothesis_settings(max_examples=6, deadline=None, derandomize=True)
def test_messages_sent_again_do_not_show(rng):
    """After a crash the last messages of a partition come again, in their order."""
    by_partition = []
    for messages in PARTS:
        again = []
        for i, message in enumerate(messages):
            again.append(message)
            if rng.random() < 0.3:
                again += messages[max(0, i - rng.randrange(4)) : i + 1]
        by_partition.append(again)
    assert_same(joined(interleaved(by_partition, rng), 3), joined([m for ms in PARTS for m in ms], 3))


@given(st.randoms(use_true_random=False))
@hypothesis_settings(max_examples=6, deadline=None, derandomize=True)
def test_the_order_within_a_partition_does_not_show(rng):
    """A compacted log holds a part that was written again behind those that followed it."""
    messages = [message for messages in PARTS for message in messages]
    shuffled = rng.sample(messages, len(messages))
    assert_same(joined(shuffled, 3), joined(messages, 3))


PARTS = parts_by_partition(shop(9, days=50, customers=40, orders_a_day=6), CONF, 3)


def test_a_window_waits_for_the_last_partition():
    joiner = Joiner(3, 20_000)
    for partition in (0, 2):
        for message in PARTS[partition]:
            joiner.add(decode_chunk(message))
            assert list(joiner.pop()) == []
    assert joiner.waiting_for() == [1]
    for message in PARTS[1][:-1]:  # the last chunk of the last part is missing
        joiner.add(decode_chunk(message))
    out = list(joiner.pop())
    assert joiner.waiting_for() == [1]
    joiner.add(decode_chunk(PARTS[1][-1]))
    assert len(out) + len(list(joiner.pop())) == len(joined([m for ms in PARTS for m in ms], 3))
    assert joiner.waiting_for() == []


def test_a_part_of_another_partition_count_is_refused():
    with pytest.raises(ValueError, match="3 partitions where 4 are expected"):
        Joiner(4, 20_000).add(decode_chunk(PARTS[0][0]))


def test_a_customer_in_two_partitions_is_named():
    """A foreign producer may key by something else: the figures would be those of two half customers."""
    lines = [item for item in LINES if item["CustomerID"]][:400]
    conf, partitions = CONF, 2
    logs = [[], []]
    for i, item in enumerate(lines):
        logs[i % 2].append(encode_line(item))
    joiner, out = Joiner(partitions, 20_000), []
    for partition, log in enumerate(logs):
        state = PartitionState(partition, StateConfig.of(conf, partitions))
        applied = state.apply(range(len(log)), log, [[]] * len(log))
        for part in [part for cut in applied.cuts for part in cut.parts]:
            for _, value in encode_part(part, partitions):
                joiner.add(decode_chunk(value))
    out = list(joiner.pop())
    assert out
    for snapshot in out:
        ids = snapshot.rows["CustomerID"].to_pylist()
        assert set(snapshot.split_customers) == {who for who in ids if ids.count(who) > 1} != set()


def test_weights_carry_the_true_count():
    for snapshot in windows_of(LINES, settings(sample_customers_max=30), partitions=3):
        weights = snapshot.rows["SampleWeight"].to_pylist()
        assert sum(weights) == pytest.approx(snapshot.totals["customers"])
        assert len(set(weights)) == 1


def test_after_a_season_partitions_may_differ_only_by_lines_that_are_dead():
    """A gap longer than a jump: lines are accepted again once enough customers agree, and none vanishes."""
    conf = settings(jump_max_days=10)
    spring = shop(5, days=20, customers=30, orders_a_day=6)
    autumn = [
        item | {"InvoiceNo": f"s{item['InvoiceNo']}"}
        for item in shop(6, days=20, customers=30, orders_a_day=6, start=MONDAY + 100 * DAY_S)
    ]
    for partitions in (1, 4):
        windows = backfill.Windows(conf, partitions, 100)
        snapshots = list(windows.feed(records_of([*spring, *autumn], conf, partitions)))
        counters = [state.counters for state in windows.states]
        accepted, dead = sum(c.on_time + c.late for c in counters), sum(c.dead for c in counters)
        assert accepted + dead == len(spring) + len(autumn)
        assert 0 < dead < 40
        assert snapshots[-1].totals["lines"] + dead == len(autumn)


@pytest.mark.parametrize("partitions", [2, 5])
def test_evaluations_do_not_tell_the_partitions(partitions, tmp_path):
    lines = shop(8, days=80, customers=90, orders_a_day=14)
    one = backfill.run(records_of(lines, CONF, 1), CONF, Registry(tmp_path / "one"))
    many = backfill.run(
        records_of(lines, CONF, partitions),
        CONF,
        Registry(tmp_path / "many"),
        partitions=partitions,
        batch_lines=37,
    )
    assert_same(many.snapshots, one.snapshots)
    for name in ("evaluations", "events", "decisions"):
        found, expected = (json.dumps(getattr(run, name)) for run in (many, one))
        assert found == expected, name
    assert one.decisions


def test_keys_go_where_kafka_puts_them():
    """Two values of the default partitioner as Kafka's Java client computes them."""
    assert [partition_of(key, 100) for key in (b"21", b"foobar")] == [PARTITION_OF_21, PARTITION_OF_FOOBAR]


# murmur2 of "21" is -973932308 and of "foobar" -790332482; the sign bit is dropped.
PARTITION_OF_21 = (-973932308 & 0x7FFFFFFF) % 100
PARTITION_OF_FOOBAR = (-790332482 & 0x7FFFFFFF) % 100
