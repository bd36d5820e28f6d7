"""Parts of windows as messages: equal parts, equal bytes; nothing lost on the way, none too large."""

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_factory import DAY_S, Entry, apply, line, mark, shop, state_config

from models.features import FEATURES_VERSION, NUMERIC_FEATURES
from models.holdout import customer_hash
from streams import snapshots
from streams.closing import SAMPLE_KEY, sample_of
from streams.partition import PartitionState
from streams.snapshots import decode_chunk, encode_part
from streams.transactions import Control, encode_line

CUSTOMERS = 300
CONFIG = state_config(segment_lines_max=10_000)


def log_of(lines):
    last = max(datetime.fromisoformat(item["InvoiceDate"]).replace(tzinfo=UTC) for item in lines)
    end = mark(int(last.timestamp()), Control.END_OF_INPUT)
    return [*(Entry(encode_line(item), []) for item in lines), end]


def parts_of(lines, config=CONFIG):
    log = log_of(lines)
    state = PartitionState(0, config)
    return [part for cut in apply(state, log, 0, len(log)).cuts for part in cut.parts]


@pytest.fixture(scope="module")
def parts():
    return parts_of(shop(3, days=30, customers=CUSTOMERS, orders_a_day=30))


def tables(part, kind):
    chunks = [decode_chunk(value) for _, value in encode_part(part, 1)]
    return pa.concat_tables(
        [
            c.table.cast(pa.schema([(f.name, plain(f.type)) for f in c.table.schema]))
            for c in chunks
            if c.kind == kind
        ]
    )


def plain(kind):
    return pa.string() if pa.types.is_dictionary(kind) else kind


def test_the_columns_of_a_message(parts):
    rows = tables(parts[-1], "rows")
    assert set(NUMERIC_FEATURES) | {"CustomerID", "Country"} <= set(rows.column_names)
    assert {name for name in rows.column_names if name.endswith("_14d")} == {
        f"{name}_14d"
        for name in (
            "Frequency",
            "Monetary",
            "AvgQuantity",
            "TotalQuantity",
            "AvgUnitPrice",
            "NumOrders",
            "NumProducts",
        )
    }
    assert rows["CustomerID"].to_pylist() == sorted(rows["CustomerID"].to_pylist())
    assert tables(parts[-1], "lines").column_names == [
        "event_time",
        "CustomerID",
        "InvoiceNo",
        "StockCode",
        "Country",
        "Quantity",
        "PriceThousandths",
    ]


def test_the_same_bytes_whoever_encodes(parts):
    """Codes differ from process to process; they must not show."""
    lines = shop(3, days=30, customers=CUSTOMERS, orders_a_day=30)
    log = log_of(lines)
    state = PartitionState(0, CONFIG)
    noise = [
        encode_line(line(CustomerID=str(99_999 - i), InvoiceNo=f"z{i}", Country="Japan")) for i in range(50)
    ]
    state.decoder.decode(noise, [[]] * len(noise))
    again = [part for cut in apply(state, log, 0, len(log)).cuts for part in cut.parts]
    assert [encode_part(part, 1) for part in again] == [encode_part(part, 1) for part in parts]


def test_chunks_together_are_the_part(parts, monkeypatch):
    whole = parts[2]
    rows, lines = tables(whole, "rows"), tables(whole, "lines")
    assert len(encode_part(whole, 1)) == 2
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 4_000)
    records = encode_part(whole, 1)
    assert len(records) > 8
    chunks = [decode_chunk(value) for _, value in records]
    assert [(c.number, c.count) for c in chunks] == [(i, len(chunks)) for i in range(len(chunks))]
    assert [key for key, _ in records] == [
        f"{chunks[0].meta['window_end']}/0/{i}".encode() for i in range(len(chunks))
    ]
    assert tables(whole, "rows") == rows
    assert tables(whole, "lines") == lines
    # The metadata stands in every message: a little more than the limit is what a message may have.
    assert max(len(value) for _, value in records) < 4_000 + 4_000


def test_a_partition_without_customers_says_so():
    (part,) = [p for p in parts_of([line(CustomerID=None)]) if p.partial]
    chunks = [decode_chunk(value) for _, value in encode_part(part, 1)]
    assert [chunk.table.num_rows for chunk in chunks] == [0, 0]
    assert chunks[0].meta["totals"]["lines"] == 1
    assert chunks[0].meta["totals"]["customers"] == 0
    assert chunks[0].table.schema.field("Country").type == pa.string()


def test_money_is_exact_in_decimal_units():
    prices = [0.1] * 10 + [0.001]
    part = parts_of([line(UnitPrice=price) for price in prices])[-1]
    assert tables(part, "rows")["Monetary"].to_pylist() == [1.001]


@pytest.mark.parametrize("value", [b"", b"{}", b"ARROW1", b"\xff\xff\xff\xff", b"\xff" * 100])
def test_what_is_no_snapshot_is_refused(value):
    with pytest.raises(ValueError, match="not a snapshot"):
        decode_chunk(value)


def test_a_table_that_is_none_of_ours_and_other_features_are_refused(parts):
    sink = pa.BufferOutputStream()
    table = pa.table({"a": [1]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match="not a snapshot"):
        decode_chunk(bytes(sink.getvalue()))
    _, value = encode_part(parts[0], 1)[0]
    chunk = decode_chunk(value)
    other = snapshots._to_bytes(chunk.table, {**chunk.meta, "features_version": FEATURES_VERSION + 1})
    with pytest.raises(ValueError, match=f"version {FEATURES_VERSION + 1}"):
        decode_chunk(other)
    assert json.loads(json.dumps(chunk.meta)) == chunk.meta


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=200), st.integers(1, 50))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_sample_is_the_smallest_hashes(numbers, sample_max):
    ids = [str(number) for number in sorted(numbers)]
    sample = sample_of(ids, sample_max)
    hashes = customer_hash(ids, SAMPLE_KEY)
    assert len(sample.order) == min(len(ids), sample_max)
    assert sorted([*sample.order, *sample.rest]) == list(range(len(ids)))
    assert [ids[i] for i in sample.order] == sorted(ids[i] for i in sample.order)
    assert (sample.bound is None) == (len(ids) <= sample_max)
    if sample.bound is not None:
        assert (hashes[sample.order] <= sample.bound).all()
        assert (hashes[sample.rest] > sample.bound).all()
        assert (np.diff(hashes[sample.rest].astype(float)) >= 0).all()
    # Adding customers only ever pushes others out: nobody outside the sample comes in.
    more = [*ids, *(str(number) for number in range(10**7, 10**7 + 20))]
    later = {more[i] for i in sample_of(more, sample_max).order}
    assert later & set(ids) <= {ids[i] for i in sample.order}


def test_a_sampled_part_has_true_totals_and_the_lines_of_its_sample(parts):
    lines = shop(3, days=30, customers=CUSTOMERS, orders_a_day=30)
    sampled = parts_of(lines, state_config(segment_lines_max=10_000, sample_customers_max=40))
    assert [part.totals for part in sampled] == [part.totals for part in parts]
    for few, all_of_them in zip(sampled, parts, strict=True):
        rows, every = tables(few, "rows").to_pandas(), tables(all_of_them, "rows").to_pandas()
        assert len(rows) == 40
        expected = every[every["CustomerID"].isin(rows["CustomerID"])].reset_index(drop=True)
        assert rows.equals(expected)
        found = tables(few, "lines").to_pandas()
        whole = tables(all_of_them, "lines").to_pandas()
        hashes = customer_hash(whole["CustomerID"].tolist(), SAMPLE_KEY)
        assert found.equals(whole[hashes <= np.uint64(few.sample_bound)].reset_index(drop=True))


def test_the_grid_is_mondays(parts):
    ends = [part.window_end for part in parts]
    assert ends == list(range(ends[0], ends[-1] + 1, 7 * DAY_S))
    assert all((end // DAY_S + 4) % 7 == 1 for end in ends)  # 1 January 1970 was a Thursday
