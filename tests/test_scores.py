"""Scores as functions: deciles, messages, what is sent anew and who is gone."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_factory import apply, shop, state_config
from small_shop import shop as small_shop
from small_shop import short_settings
from stream_run import backfilled
from test_snapshots import log_of

from models.fitted import predict
from models.intervals import interval
from models.registry import Registry
from streams import cloudevents
from streams.partition import PartitionState
from streams.score_book import Champion, NewestRows, ScoreBook, champion_in
from streams.scores import decile_cuts, decile_of, score_messages
from streams.snapshots import decode_chunk, encode_part, encode_rows
from streams.state_config import StateConfig

TEXT = "customers=3000,days=150,seed=3"
SETTINGS = short_settings(sample_customers_max=300)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def results(registry):
    return backfilled(small_shop(text=TEXT), SETTINGS, registry)


def parts_of(config):
    log = log_of(shop(3, days=30, customers=300, orders_a_day=30))
    return [part for cut in apply(PartitionState(0, config), log, 0, len(log)).cuts for part in cut.parts]


# -- deciles ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicted", "weight", "cuts"),
    [
        (range(1, 11), [1] * 10, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ([5.0], [3.0], [5] * 9),
        ([1, 2], [1, 9], [1, *[2] * 8]),  # one stands for a tenth, the other for the rest
        ([0, 0, 0, 7], [1] * 4, [*[0] * 7, 7, 7]),
    ],
)
def test_cuts_part_the_weight_into_tenths(predicted, weight, cuts):
    assert decile_cuts(np.array(predicted, float), np.array(weight, float)) == cuts


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_cuts_rise_whatever_is_predicted(predicted):
    cuts = decile_cuts(np.array(predicted), np.ones(len(predicted)))
    assert cuts == sorted(cuts)
    assert len(cuts) == 9


def test_amounts_fall_into_tenths_from_the_least_to_the_most():
    assert decile_of(np.array([0.0, 10.0, 10.01, 89.99, 90.0, 1e9]), range(10, 100, 10)).tolist() == [
        1, 2, 2, 9, 10, 10,
    ]  # fmt: skip


# -- rows of everyone ----------------------------------------------------------


def test_the_rows_hold_everyone_while_the_snapshot_holds_the_sample():
    wanted = state_config(segment_lines_max=10_000, sample_customers_max=50, rest_wanted=True)
    everyone = parts_of(replace(wanted, sample_customers_max=1_000))
    for part, whole in zip(parts_of(wanted), everyone, strict=True):
        rows = pa.concat_tables([decode_chunk(value).table for _, value in encode_rows(part, 1)])
        assert len(part.columns["CustomerID"]) == min(50, len(whole.columns["CustomerID"]))
        if part.partial:  # of a week that is not over: nobody is scored by it
            assert part.rest is None
            continue
        expected = pa.concat_tables([decode_chunk(value).table for _, value in encode_rows(whole, 1)])
        assert rows.sort_by("CustomerID").equals(expected.sort_by("CustomerID"))


def test_rows_that_nobody_asks_for_change_nothing_else():
    config = state_config(segment_lines_max=10_000, sample_customers_max=50)
    plain, more = parts_of(config), parts_of(replace(config, rest_wanted=True))
    assert all(part.rest is None for part in plain)
    assert any(part.rest is not None for part in more)
    assert [encode_part(part, 1) for part in plain] == [encode_part(part, 1) for part in more]


def test_a_checkpoint_does_not_depend_on_whether_scores_are_wanted():
    off, on = (StateConfig.of(short_settings(scores=wanted)) for wanted in (False, True))
    assert off.as_stored == on.as_stored
    assert off.differences(on.as_stored) == []


# -- messages ------------------------------------------------------------------


def test_a_score_says_what_the_model_says_of_the_row(results, registry):
    served = [e["data"] for e in results.evaluations if not e["data"]["partial"]][-1]
    assert served["customers"] > served["sampled_customers"] == 300
    assert len(results.scores) == served["customers"]
    model, card = Registry(registry).load(served["model_version"])
    rows = results.snapshots[-2].rows.to_pandas().set_index("CustomerID", drop=False)
    predicted = predict(model, rows)
    low, high = interval(model.intervals, predicted, model.level)
    for i, customer in enumerate(rows.index):
        event = cloudevents.decode(results.scores[customer])
        data = event["data"]
        assert event["subject"] == data["customer"] == customer
        assert data["predicted_spend"] == pytest.approx(predicted[i], abs=0.005)
        assert (data["low"], data["high"]) == pytest.approx((low[i], high[i]), abs=0.005)
        assert data["model_version"] == card.version == served["model_version"]
        assert data["window_end"] == served["window_end"]
        assert data["horizon_days"] == SETTINGS.horizon_days


def test_the_tenths_hold_a_tenth_each(results):
    deciles = [cloudevents.decode(value)["data"]["decile"] for value in results.scores.values()]
    shares = np.bincount(deciles, minlength=11)[1:] / len(deciles)
    assert shares == pytest.approx([0.1] * 10, abs=0.05)  # cut on a sample of 300


def test_ids_are_those_of_the_content(results):
    ids = [cloudevents.decode(value)["id"] for value in results.scores.values()]
    assert len(set(ids)) == len(ids)


def test_without_intervals_there_is_none(results, registry):
    version = results.evaluations[-1]["data"]["model_version"]
    model, card = Registry(registry).load(version)
    rows = results.snapshots[-2].rows
    messages = score_messages(
        rows, replace(model, intervals=None), card, [1.0] * 9, window_end=0, source="/x"
    )
    data = cloudevents.decode(next(messages)[1])["data"]
    assert (data["low"], data["high"], data["coverage"]) == (None, None, None)
    assert list(score_messages(rows.slice(0, 0), model, card, [1.0] * 9, window_end=0, source="/x")) == []


def test_no_model_no_scores(tmp_path):
    conf = short_settings(reference_weeks=100)
    assert backfilled(small_shop(text="customers=200,days=60,seed=3"), conf, tmp_path).scores == {}


# -- what is sent ---------------------------------------------------------------


def test_an_evaluation_names_the_champion(results):
    event = results.evaluations[-1]
    end, champion = champion_in(cloudevents.encode(event))
    assert cloudevents.iso(end) == event["data"]["window_end"]
    assert champion == Champion(
        event["data"]["model_version"], tuple(event["data"]["predicted"]["decile_cuts"])
    )
    assert champion_in(cloudevents.encode(results.evaluations[0]))[1] is None


@pytest.mark.parametrize("value", [b"", b"{}", b'{"type":"x","data":{}}', b"[" * 100_000])
def test_what_is_no_evaluation_is_refused(value):
    with pytest.raises(ValueError, match=r".+"):
        champion_in(value)


def test_the_newest_window_counts_whatever_the_order():
    config = state_config(segment_lines_max=10_000, rest_wanted=True)
    old, new = (encode_rows(part, 1) for part in parts_of(config)[:2])
    rows = NewestRows()
    assert not rows.whole
    for _, value in [*new, *old]:
        rows.add(value)
    assert rows.whole
    assert rows.window_end == decode_chunk(new[0][1]).window_end
    assert (
        sum(table.num_rows for table in rows.tables()) == decode_chunk(new[0][1]).meta["totals"]["customers"]
    )
    with pytest.raises(ValueError, match="not a snapshot"):
        rows.add(b"garbage")


def test_only_what_differs_is_news_and_who_left_is_named(results):
    book = ScoreBook()
    first, second, third = list(results.scores.items())[:3]
    book.read(first[0].encode(), first[1])
    book.read(third[0].encode(), third[1])
    book.read(third[0].encode(), None)  # a tombstone
    assert book.window_end == cloudevents.from_iso(cloudevents.decode(first[1])["data"]["window_end"])
    assert not book.news(*first)
    assert book.news(*second)
    assert not book.news(*second)
    assert book.news(first[0], b"other")
    assert book.gone({second[0]}) == [first[0]]
    assert len(book) == 1
    with pytest.raises(ValueError, match=r".+"):
        book.read(b"1", b"{}")
