"""Records of a feed: keys, partitions, numbers, and the watermarks that nothing misleads."""

import random
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafka_murmur2

from producers import feed
from producers.feed import Place, records, start_time, unwritten
from producers.lines import event_time, numbered, time_text
from producers.partitions import murmur2, partition_of
from producers.scenarios import apply, parse
from producers.synthetic import Shop, Synthetic
from streams.transactions import Control, encode_line, header_map

DAY_S = 86_400
T0 = int(datetime(2010, 12, 1, 8, tzinfo=UTC).timestamp())


def line(time=T0, customer="17850", **fields):
    base = {
        "InvoiceNo": "536365",
        "StockCode": "85123A",
        "Description": None,
        "Quantity": 6,
        "InvoiceDate": time_text(time),
        "UnitPrice": 2.55,
        "CustomerID": customer,
        "Country": "EIRE",
    }
    return base | fields


def make(lines, partitions=2, **options):
    options = {"jump_max_days": 30, "jump_confirm_lines": 3} | options
    return list(records(numbered(lines), source="abc", partitions=partitions, **options))


def of_lines(found):
    return [record for record in found if record.control is None]


def marks(found, kind=Control.WATERMARK):
    return [record for record in found if record.control is kind]


@given(st.binary(max_size=40))
def test_the_hash_is_that_of_kafkas_clients(key):
    assert murmur2(key) == kafka_murmur2(key)


def test_the_partition_is_that_of_the_default_partitioner():
    for number in range(2_000):
        key = str(number).encode()
        assert partition_of(key, 7) == (kafka_murmur2(key) & 0x7FFFFFFF) % 7


def test_a_line_becomes_a_record_with_key_number_and_source():
    [record] = of_lines(make([line()]))
    assert record.key == b"17850"
    assert record.value == encode_line(line())
    assert record.headers == [("source", b"abc"), ("seq", b"1")]
    assert record.partition == partition_of(b"17850", 2)
    assert (record.seq, record.event_time) == (1, T0)


@pytest.mark.parametrize(
    ("customer", "invoice", "key"),
    [
        ("17850", "536365", b"17850"),
        ("17850.0", "536365", b"17850"),
        (17850, "536365", b"17850"),
        (None, "536365", b"536365"),
        ("", "536365", b"536365"),
        ("17850.5", "536365", b"17850.5"),
        (17850.5, "536365", b"17850.5"),
        ([1], "536365", b"[1]"),
        (None, 536365, b"536365"),
        (None, None, b""),
        (None, "", b""),
    ],
)
def test_keys(customer, invoice, key):
    assert feed.key_of(line(customer=customer, InvoiceNo=invoice)) == key


def test_a_line_without_any_text_still_has_a_key_and_a_partition():
    [record] = of_lines(make([{"Quantity": 1}]))
    assert record.key == b""
    assert record.event_time is None


@given(
    st.fixed_dictionaries(
        dict.fromkeys(
            ("InvoiceNo", "StockCode", "Country", "InvoiceDate"), st.text(st.characters(codec="utf-8"))
        )
        | {
            "Description": st.none() | st.text(st.characters(codec="utf-8")),
            "Quantity": st.integers(-(10**18), 10**18) | st.text(st.characters(codec="utf-8")),
            "UnitPrice": st.floats(),
            "CustomerID": st.none() | st.text(st.characters(codec="utf-8")),
        }
    )
)
@settings(max_examples=150)
def test_the_fast_encoder_gives_the_contracts_bytes(fields):
    whole = {name: fields[name] for name in line()}
    assert feed.encode(whole) == encode_line(whole)


# -- watermarks ---------------------------------------------------------------------------------------------


def test_watermarks_go_to_every_partition_first_and_as_time_passes():
    hours = [0, 1, 5, 6, 7, 13, 12, 30]
    found = make([line(T0 + hour * 3600) for hour in hours], partitions=3)
    assert [(mark.seq, (mark.clock - T0) // 3600) for mark in marks(found) if mark.partition == 0] == [
        (0, 0),
        (3, 6),
        (5, 13),
        (7, 30),
    ]
    assert [mark.partition for mark in marks(found)] == [0, 1, 2] * 4
    assert found[0].control is Control.WATERMARK
    mark = marks(found)[3]
    assert mark.value == b'{"event_time":%d}' % (T0 + 6 * 3600)
    assert header_map(mark.headers) == {"control": b"watermark", "source": b"abc", "seq": b"3"}


def test_the_end_of_input_goes_to_every_partition_unless_more_is_to_follow():
    found = make([line(), line(T0 + 60)], partitions=3)
    ends = marks(found, Control.END_OF_INPUT)
    assert found[-3:] == ends
    assert [(end.partition, end.seq, end.clock) for end in ends] == [(p, 2, T0 + 60) for p in range(3)]
    assert not marks(make([line()], end=False), Control.END_OF_INPUT)


def test_a_line_from_the_far_future_does_not_move_the_time():
    far = T0 + 4_000 * DAY_S
    found = make([line(), line(far, "1"), line(T0 + 60), line(far, "2")])
    assert [record.clock for record in of_lines(found)] == [T0, T0, T0 + 60, T0 + 60]
    assert marks(found, Control.END_OF_INPUT)[0].clock == T0 + 60


def test_a_closed_season_is_believed_when_enough_customers_agree():
    later = T0 + 60 * DAY_S
    found = make([line(), *(line(later + number, str(number)) for number in range(5))])
    assert [record.clock for record in of_lines(found)][-2:] == [later + 3, later + 4]


def test_lines_that_the_worker_will_refuse_do_not_move_the_time():
    bad = [
        line(T0 + DAY_S, Quantity="six"),
        line(T0 + DAY_S, UnitPrice="£2"),
        line(T0 + DAY_S, InvoiceDate="x"),
    ]
    assert of_lines(make([line(), *bad]))[-1].clock == T0


def test_a_first_line_with_a_wrong_date_misleads_nobody():
    good = [line(T0 + number, str(number)) for number in range(150)]
    for wrong in (T0 + 4_000 * DAY_S, T0 - 4_000 * DAY_S):
        found = make([line(wrong), *good])
        assert marks(found)[0].clock == T0
        assert of_lines(found)[-1].clock == T0 + 149


def test_the_start_is_the_earliest_time_near_the_median():
    lines = numbered([line(T0 + day * DAY_S) for day in (-400, -29, 0, 0, 1, 5_000)])
    assert start_time(lines, jump_max_s=30 * DAY_S) == T0 - 29 * DAY_S
    assert start_time(numbered([line(InvoiceDate="x")]), jump_max_s=DAY_S) is None


def test_rows_without_any_time_are_passed_on_in_order(monkeypatch):
    monkeypatch.setattr(feed, "START_ROWS_MAX", 5)
    found = make([line(InvoiceDate="?")] * 12 + [line()])
    assert [record.seq for record in of_lines(found)] == list(range(1, 14))
    assert marks(found)[0].seq == 10  # the look ahead that found a time began after two without any
    assert not [record for record in make([line(InvoiceDate="?")] * 12) if record.control]
    assert make([]) == []


def test_a_known_start_needs_no_look_ahead():
    seen = []
    lines = (seen.append(number) or (number, line(T0 + number)) for number in range(1, 500))
    stream = records(lines, source="a", partitions=1, jump_max_days=30, jump_confirm_lines=3, start=T0)
    assert next(stream).control is Control.WATERMARK
    assert seen == []
    assert next(stream).seq == 1
    assert seen == [1]


# -- numbers and resuming -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lines():
    return list(Synthetic(Shop(customers=300, days=60, seed=2)).lines())


def test_numbers_of_dropped_lines_are_missing_and_the_rest_rise_in_each_partition(lines):
    kept = list(apply([parse("basket:-30%@2010-12-10")], numbered(lines)))
    found = list(records(kept, source="a", partitions=4, jump_max_days=30, jump_confirm_lines=3))
    assert [record.seq for record in of_lines(found)] == [number for number, _ in kept]
    for partition in range(4):
        places = [record.place for record in found if record.partition == partition]
        assert all(a < b for a, b in pairwise(places))


def test_a_customer_stays_in_one_partition(lines):
    homes = {}
    for (_, original), record in zip(numbered(lines), of_lines(make(lines, partitions=5)), strict=True):
        if original["CustomerID"]:
            assert homes.setdefault(original["CustomerID"], record.partition) == record.partition
    assert set(homes.values()) == set(range(5))


@pytest.mark.parametrize("seed", range(20))
def test_a_replay_cut_anywhere_and_resumed_gives_each_partition_the_same_log(lines, seed):
    dice = random.Random(seed)
    whole = make(lines, partitions=4)
    logs = {p: [record for record in whole if record.partition == p] for p in range(4)}
    # Partitions are acknowledged each at its own pace, so each is cut at another place; some not begun.
    kept = {p: log[: dice.choice([0, 1, dice.randrange(len(log)), len(log)])] for p, log in logs.items()}
    written = {p: log[-1].place for p, log in kept.items() if log}
    rest = list(unwritten(make(lines, partitions=4), written))
    for p, log in logs.items():
        assert kept[p] + [record for record in rest if record.partition == p] == log


def test_places_compare_in_the_order_of_writing():
    assert Place(4) < feed.place(4, "watermark") < feed.place(4, "end_of_input") < Place(5)
    assert feed.place(4, None) == Place(4)


def test_event_times_are_those_the_worker_accepts():
    assert event_time({"InvoiceDate": "2010-12-01T08:00:00"}) == T0
    for text in ("2010-12-01", "01-12-2010 08:00", "1969-12-31T00:00:00", "2200-01-01T00:00:00", "", None, 5):
        assert event_time({"InvoiceDate": text}) is None
