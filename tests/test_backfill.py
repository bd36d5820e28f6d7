"""The stream over a file: exact to the line, the same for any number of partitions, replayed to the byte."""

import base64
import json
from collections import Counter, defaultdict
from itertools import takewhile

import pandas as pd
import pyarrow.parquet as pq
import pytest
from small_shop import DRIFT, shop, short_settings

from models.registry import Registry
from producers.batch_input import batch_records
from producers.feed import Record
from producers.inputs import file_input
from producers.lines import event_time
from streams import backfill, batch, cloudevents, model_cache, output
from streams.decisions import Decision, Outcome
from streams.errors import ExitCode, UserError
from streams.grid import from_iso, iso
from streams.settings import Settings
from streams.transactions import Control, control_headers, encode_line, record_headers

DAY_S = 86_400
TOPIC_FILES = (output.EVALUATIONS, output.EVENTS, output.DECISIONS, output.DEAD_LETTERS)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return short_settings(registry_dir=tmp_path_factory.mktemp("unused") / "registry")


@pytest.fixture(scope="module")
def drifting():
    return shop(DRIFT)


@pytest.fixture(scope="module")
def records(settings, drifting):
    return list(batch_records(settings, drifting))


@pytest.fixture(scope="module")
def results(tmp_path_factory, settings, records):
    """The results of the shop whose prices rise: the directory and the summary."""
    out = tmp_path_factory.mktemp("drifting") / "out"
    return out, batch.backfill(records, settings, out)


def events_in(path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def history(name, results) -> dict[str, dict]:
    return {event["data"]["window_end"]: event["data"] for event in events_in(results[0] / name)}


# -- what is found ---------------------------------------------------------------


def test_drift_is_found_in_its_first_week_and_confirmed_in_the_next(results):
    found = [event["data"] for event in events_in(results[0] / output.EVENTS)]
    states = [(data["window_end"], data["state"]) for data in found if data["drift_type"] == "data"]
    assert ("2011-04-04T00:00:00Z", "suspected") in states
    assert ("2011-04-11T00:00:00Z", "confirmed") in states
    assert [end for end, state in states if state == "suspected"] == ["2011-04-04T00:00:00Z"]
    evaluations = history(output.EVALUATIONS, results)
    causes = evaluations["2011-04-11T00:00:00Z"]["verdicts"]["baseline"]["causes"]
    assert causes[0]["feature"] == "AvgUnitPrice"
    assert causes[0]["effect"] > 0


def test_the_same_shop_without_the_change_stays_silent(settings, tmp_path):
    found = backfill.run(batch_records(settings, shop()), settings, Registry(tmp_path))
    assert {e["data"]["state"] for e in found.evaluations} == {"warming", "reference", "quiet"}
    assert {e["data"]["state"] for e in found.events} == {"reference"}


def test_the_summary_says_what_the_files_say(results):
    out, summary = results
    evaluations = events_in(out / output.EVALUATIONS)
    assert summary.windows == [event["data"]["window_end"] for event in evaluations]
    drifts = {
        e["data"]["window_end"] for e in evaluations if e["data"]["verdicts"].get("baseline", {}).get("drift")
    }
    assert {end for end, verdicts in summary.drifts if "baseline" in verdicts} == drifts != set()
    decisions = [event["data"] for event in events_in(out / output.DECISIONS)]
    assert [decision["outcome"] for decision in decisions] == ["promoted", "kept"]
    for name in ("outcome", "version", "window_end", "reason"):
        assert [d[name] for d in summary.decisions] == [d[name] for d in decisions]
    assert ("2011-04-11T00:00:00Z", "confirmed") in summary.states


# -- what is written -------------------------------------------------------------


def test_every_message_is_written_as_the_bytes_of_its_topic(results):
    for name in (output.EVALUATIONS, output.EVENTS, output.DECISIONS):
        lines = (results[0] / name).read_bytes().split(b"\n")
        assert lines.pop() == b""
        assert lines, name
        for line in lines:
            event = cloudevents.decode(line)
            assert cloudevents.encode(event) == line
            assert event["id"] == cloudevents.content_id(event["type"], event["data"])


def test_snapshots_hold_a_row_a_customer_in_order_and_true_figures(results, drifting, settings):
    path = results[0] / output.SNAPSHOTS
    evaluations = history(output.EVALUATIONS, results)
    assert pq.ParquetFile(path).num_row_groups == len(evaluations)
    frame = pd.read_parquet(path)
    assert list(frame.columns[:2]) == ["window_end", "CustomerID"]
    assert frame.columns[-1] == "SampleWeight"
    assert str(frame["window_end"].dt.tz) == "UTC"
    pairs = list(zip(frame["window_end"], frame["CustomerID"], strict=True))
    assert pairs == sorted(set(pairs))
    assert frame.groupby("window_end").size().tolist() == [data["customers"] for data in evaluations.values()]

    end = from_iso("2011-04-11T00:00:00Z")
    spent, orders = defaultdict(int), defaultdict(set)
    for _, line in drifting.lines():
        inside = end - settings.window_days * DAY_S <= event_time(line) < end
        if inside and line["CustomerID"] and line["Quantity"] > 0 and line["UnitPrice"] > 0:
            spent[line["CustomerID"]] += line["Quantity"] * round(line["UnitPrice"] * 1000)
            orders[line["CustomerID"]].add(line["InvoiceNo"])
    rows = frame[frame["window_end"] == pd.Timestamp(end, unit="s", tz="UTC")].set_index("CustomerID")
    assert rows["Monetary"].to_dict() == {customer: cents / 1000 for customer, cents in spent.items()}
    assert rows["NumOrders"].to_dict() == {customer: len(found) for customer, found in orders.items()}


def test_an_input_without_lines_gives_empty_files_with_the_same_columns(results, settings, tmp_path):
    summary = batch.backfill([], settings, tmp_path / "out")
    assert summary.windows == []
    assert summary.counters.read == 0
    schema = pq.read_schema(tmp_path / "out" / output.SNAPSHOTS)
    assert schema.equals(pq.read_schema(results[0] / output.SNAPSHOTS))


# -- nothing is lost, nothing depends on how it was read -------------------------


def test_every_record_is_accounted_for(settings, tmp_path):
    """I4 on an input with everything in it: repeated, late, unreadable and foreign records."""
    clean = list(batch_records(settings, shop(text="customers=300,days=70,seed=2")))
    last = clean[-1]
    third = len(clean) // 3
    old = clean[10]
    late = Record(old.key, old.value, record_headers("another", 1), 0, 1, old.event_time, None)
    broken = [b"{}", b"\xff\xfe", encode_line(json.loads(old.value) | {"Quantity": "six"})]
    dead = [Record(b"", value, [], 0, 0, None, None) for value in broken]
    foreign = Record(None, b"nothing", control_headers(Control.WATERMARK, "another", 1), 0, 0, None, None)
    records = [*clean[:third], *dead, *clean[third - 100 : -1], late, foreign, last]

    summary = batch.backfill(records, settings, tmp_path / "out")

    repeated = sum(record.control is None for record in clean[third - 100 : third])
    control = sum(record.control is not None for record in clean)
    counters = summary.counters
    assert counters.read == len(records)
    assert counters.duplicate + counters.control == repeated + control + (100 - repeated)
    assert counters.late == 1
    assert counters.dead == len(dead) + 1
    assert counters.on_time == len(clean) - control
    letters = events_in(tmp_path / "out" / output.DEAD_LETTERS)
    assert [letter.get("value") for letter in letters] == [
        "{}",
        None,
        broken[2].decode(),
        "nothing",
    ]
    assert base64.b64decode(letters[1]["value_base64"]) == broken[1]
    assert [letter["offset"] for letter in letters] == [third, third + 1, third + 2, len(records) - 2]
    assert all(letter["reason"] and letter["partition"] == 0 for letter in letters)


def test_the_number_of_partitions_does_not_show(results, settings, drifting, tmp_path):
    out = tmp_path / "out"
    records = batch_records(settings, drifting, partitions=3)
    summary = batch.backfill(records, settings, out, partitions=3)
    for name in (output.SNAPSHOTS, *TOPIC_FILES):
        assert (out / name).read_bytes() == (results[0] / name).read_bytes(), name
    assert summary.counters.on_time == results[1].counters.on_time
    assert summary.counters.control == 3 * results[1].counters.control


def test_the_size_of_the_batches_does_not_show(results, settings, drifting, tmp_path):
    records = batch_records(settings, drifting, partitions=2)
    found = backfill.run(records, settings, Registry(tmp_path), partitions=2, batch_lines=611)
    for name, events in ((output.EVALUATIONS, found.evaluations), (output.EVENTS, found.events)):
        assert [cloudevents.encode(event) for event in events] == (
            results[0] / name
        ).read_bytes().splitlines()


# -- following decisions ---------------------------------------------------------


def followed(results, settings, records, out, events):
    path = out.with_suffix(".jsonl")
    path.write_bytes(b"".join(cloudevents.encode(event) + b"\n" for event in events))
    asked = settings.model_copy(update={"registry_dir": results[0] / output.MODELS})
    return batch.backfill(records, asked, out, followed=path)


def test_followed_decisions_give_the_same_bytes_again(results, settings, records, tmp_path):
    given = events_in(results[0] / output.DECISIONS)
    assert "promoted" in {event["data"]["outcome"] for event in given}
    followed(results, settings, records, tmp_path / "out", given)
    for name in (output.SNAPSHOTS, *TOPIC_FILES):
        assert (tmp_path / "out" / name).read_bytes() == (results[0] / name).read_bytes(), name


def test_other_decisions_are_obeyed_and_hand_made_ones_wait_for_their_window(
    results, settings, records, tmp_path
):
    first, *_ = events_in(results[0] / output.DECISIONS)
    version = first["data"]["version"]
    kept = first["data"] | {"outcome": "kept", "version": None}
    seen = from_iso("2011-03-14T00:00:00Z")
    by_hand = Decision(Outcome.PROMOTED, "because", seen, version=version, nonce="1").to_event("/test")
    given = [first | {"data": kept}, by_hand]
    summary = followed(results, settings, records, tmp_path / "out", given)
    evaluations = events_in(tmp_path / "out" / output.EVALUATIONS)
    applied = [
        e["data"]["window_end"] for e in evaluations if by_hand["id"] in e["data"]["applied_decisions"]
    ]
    assert applied == ["2011-03-21T00:00:00Z"]
    served = {e["data"]["window_end"]: e["data"]["model_version"] for e in evaluations}
    assert served[iso(seen)] is None
    assert served[applied[0]] == version
    assert summary.missing_models == []
    assert events_in(tmp_path / "out" / output.DECISIONS)[:2] == given


def test_a_decision_on_a_model_that_is_gone_is_refused_by_name(results, settings, records, tmp_path):
    gone = Decision(Outcome.PROMOTED, "because", 0, version="0123456789abcdef", nonce="1").to_event("/test")
    summary = followed(results, settings, records, tmp_path / "out", [gone])
    assert summary.missing_models == ["0123456789abcdef"]
    first = events_in(tmp_path / "out" / output.EVALUATIONS)[0]["data"]
    assert "0123456789abcdef is not in the registry" in first["model_refused"]


def test_a_champion_that_is_damaged_on_the_way_stays_and_the_run_goes_on(
    settings, results, records, tmp_path, monkeypatch
):
    monkeypatch.setattr(model_cache, "KEPT_MAX", 0)  # each use reads the registry

    class Damaging(backfill.Results):
        def window(self, step):
            super().window(step)
            for version in filter(None, (made["data"]["version"] for made in step.decisions)):
                (tmp_path / version / "model.skops").write_bytes(b"damaged")

    found = Damaging()
    backfill.run_into(found, records, settings, Registry(tmp_path))
    first, *others = [event["data"] for event in found.decisions]
    assert others
    assert first["outcome"] == Outcome.PROMOTED
    assert {(data["outcome"], data["parent"]) for data in others} == {(Outcome.KEPT, first["version"])}
    for data in others:
        assert data["reason"].startswith(
            f"the champion cannot be loaded: model {first['version']} was altered"
        )
    assert len(found.evaluations) == len(history(output.EVALUATIONS, results))
    assert found.evaluations[-1]["data"]["model_version"] == first["version"]


@pytest.mark.parametrize("line", [b"no json", b"{}", b'{"type": "x", "data": {}}', b"[]"])
def test_a_file_of_decisions_that_is_none_is_refused_by_line(settings, tmp_path, line):
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(UserError, match="line 1 of") as refused:
        batch.backfill([], settings, tmp_path / "out", followed=path)
    assert refused.value.code == ExitCode.INPUT
    assert not (tmp_path / "out").exists()


# -- where it is written ---------------------------------------------------------


def test_results_are_not_overwritten_unless_asked(settings, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    batch.backfill([], settings, out)
    (out / output.EVENTS).write_text("of before")
    with pytest.raises(UserError, match="earlier backfill") as refused:
        batch.backfill([], settings, out)
    assert refused.value.code == ExitCode.USAGE
    assert (out / output.EVENTS).read_text() == "of before"
    batch.backfill([], settings, out, force=True)
    assert (out / output.EVENTS).read_text() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_with_other_files_is_never_replaced(settings, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(UserError, match=r"thesis\.tex"):
            batch.backfill([], settings, tmp_path, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_that_fails_leaves_what_was_there(settings, tmp_path):
    batch.backfill([], settings, tmp_path / "out")

    def damaged():
        yield from takewhile(lambda record: record.seq < 500, batch_records(settings, shop()))
        raise UserError("the file is damaged", code=ExitCode.INPUT)

    with pytest.raises(UserError, match="damaged"):
        batch.backfill(damaged(), settings, tmp_path / "out", force=True)
    assert pq.read_metadata(tmp_path / "out" / output.SNAPSHOTS).num_rows == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_place_that_cannot_be_written_is_named(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/out: Not a directory") as refused:
        batch.backfill([], settings, tmp_path / "file" / "out")
    assert refused.value.code == ExitCode.STORAGE


# -- the real data ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(900)
def test_a_year_of_online_retail_is_accounted_for_to_the_line(online_retail, tmp_path):
    settings = Settings(estimators=("tweedie_glm",), registry_dir=tmp_path / "registry")
    source = file_input(online_retail)
    controls = Counter()

    def counted():
        for record in batch_records(settings, source):
            controls[record.control is not None] += 1
            yield record

    summary = batch.backfill(counted(), settings, tmp_path / "out")
    counters = summary.counters
    assert (counters.on_time, counters.late, counters.duplicate, counters.dead) == (541_909, 0, 0, 0)
    assert counters.control == controls[True]
    assert counters.read == 541_909 + counters.control
    assert len(summary.windows) == 54
    evaluations = events_in(tmp_path / "out" / output.EVALUATIONS)
    assert sum(event["data"]["lines_week"] for event in evaluations) == 541_909
    assert [event["data"]["partial"] for event in evaluations] == [False] * 53 + [True]


@pytest.mark.slow
@pytest.mark.real_data
def test_partitions_do_not_show_in_a_slice_of_online_retail(online_retail, tmp_path):
    settings = short_settings(registry_dir=tmp_path / "registry")
    source = file_input(online_retail)
    for partitions in (1, 3):
        records = batch_records(settings, source, partitions=partitions, limit=100_000)
        batch.backfill(records, settings, tmp_path / str(partitions), partitions=partitions)
    for name in (output.SNAPSHOTS, *TOPIC_FILES):
        one, three = (tmp_path / directory / name for directory in "13")
        assert one.read_bytes() == three.read_bytes(), name
    assert pq.read_metadata(tmp_path / "1" / output.SNAPSHOTS).num_row_groups == 13
