"""The terminal view: what it reads is what the topics say, it fits its width, and no text can command it."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from drift_story import PARTITIONS, story
from kafka import KafkaProducer
from line_factory import DAY_S, MONDAY, apply, entry, state_config
from rich.console import Console

from streams import cloudevents
from streams.checkpoints import Ledger, StateUnusableError, newest_head
from streams.errors import ExitCode
from streams.kafka_process import free_port
from streams.partition import PartitionState
from streams.topic_admin import ensure_topics
from streams.topics import catalogue
from streams.watch import watch
from streams.watch_model import View
from streams.watch_page import Page, clean

CLV_DRIFT = Path(sys.executable).parent / "clv-drift"
HOSTILE = "[bold red]x[/] \x1b[2J\x1b]0;owned\x07 \u202e[link=http://example.test]"


def told(windows=None):
    """The view after the story, or after its first windows."""
    view, results = View("baseline"), story()
    for event in results.evaluations[:windows]:
        view.note_evaluation(event)
    for event in results.events:
        view.note_event(event)
    for offset, event in enumerate(results.decisions):
        view.note_decision(offset, event)
    for event in results.evaluations[:windows]:
        view.note_comparison({"data": compared(event["data"]["window_end"], drifted=4)})
    return view


def compared(window_end, *, drifted):
    columns = {f"feature {number}": {} for number in range(9)}
    return {
        "window_end": window_end,
        "status": "compared",
        "dataset_drift": drifted >= 5,
        "drifted_columns": drifted,
        "columns": columns,
    }


def drawn(view, width=80, height=None):
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    console.print(Page(view, place="127.0.0.1:9092", height=height))
    return out.getvalue()


def checkpoints(count):
    """The records of the state topic after `count` days with a line each; state at the last one."""
    state, ledger = PartitionState(0, state_config()), Ledger()
    log = [entry(MONDAY + day * DAY_S, InvoiceNo=str(day)) for day in range(count + 2)]
    applied = apply(state, log, 0, len(log))
    return [record for cut in applied.cuts for record in ledger.commit(cut, state.words)]


# -- the fold -----------------------------------------------------------------


def test_the_view_of_the_story():
    view, results = told(), story()
    last = results.evaluations[-1]["data"]
    assert view.latest.state == last["state"] == "confirmed"
    assert view.latest.model_version == last["model_version"]
    assert view.serving_since == last["carry"]["serving"][-1]["since"]
    assert [w.customers for w in view.windows.values()] == [
        e["data"]["customers"] for e in results.evaluations
    ]
    assert view.last_decisions[-1].outcome == results.decisions[-1]["data"]["outcome"]
    assert view.pending == []
    assert view.unreadable == 0


def test_a_request_is_pending_until_its_decision():
    view, results = View("baseline"), story()
    requests = [event for event in results.events if event["data"]["action"] == "retrain"]
    for event in results.events:
        view.note_event(event)
    assert [asked.window_end for asked in view.pending] == [e["data"]["window_end"] for e in requests]
    view.note_decision(0, results.decisions[0])
    assert len(view.pending) == len(requests) - 1


def test_the_order_of_windows_does_not_matter():
    view = View("baseline")
    for event in reversed(story().evaluations):
        view.note_evaluation(event)
    assert view.latest == told().latest
    assert view.serving_since == told().serving_since


@pytest.mark.parametrize(
    "broken", [{}, {"window_end": "yesterday"}, {"verdicts": "none"}, {"performance": {"x": 1}}]
)
def test_a_message_that_is_no_evaluation_is_refused_and_changes_nothing(broken):
    view = told()
    latest = view.latest
    data = story().evaluations[-1]["data"] | broken if broken else {}
    with pytest.raises((KeyError, TypeError, ValueError)):
        view.note_evaluation({"data": data})
    assert view.latest == latest


def test_the_rate_is_over_the_last_seconds():
    feed = View("baseline").feed
    feed.note_ends(0.0, {0: 100, 1: 0})
    assert feed.rate is None
    feed.note_ends(2.0, {0: 150, 1: 50})
    assert feed.rate == 50
    for second in range(3, 30):
        feed.note_ends(float(second), {0: 150, 1: 50})
    assert feed.rate == 0


def test_the_newest_head_tells_the_counters_and_the_watermark():
    records = checkpoints(12)
    heads = [key for key, value in records if value is not None and key.endswith(b"/head")]
    assert len(heads) > 3
    feed = View("baseline").feed
    feed.note_head(0, newest_head(records))
    feed.note_head(0, newest_head(records[:9]))  # older: read later, says nothing
    feed.note_ends(0.0, {0: feed.heads[0]["read_offset"] + 1 + 5})
    counters = feed.counters
    assert counters.read == counters.on_time > 9
    assert feed.unread == 5
    assert feed.watermarks()[0] == feed.heads[0]["guard"]["largest"] - DAY_S


def test_a_partition_without_a_checkpoint_is_named():
    view = told()
    view.feed.note_head(0, newest_head(checkpoints(6)))
    view.feed.note_ends(0.0, {0: 10, 1: 10})
    assert "no checkpoint yet of partition 1" in drawn(view)


def test_no_head_is_none_and_a_damaged_one_is_refused():
    records = checkpoints(6)
    assert newest_head([]) is None
    assert newest_head([(key, value) for key, value in records if not key.endswith(b"/head")]) is None
    (key, value) = [(key, value) for key, value in records if value and key.endswith(b"/head")][-1]
    with pytest.raises(StateUnusableError, match="damaged"):
        newest_head([(key, value[:-3])])


# -- the page -----------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 80, 140, 200])
def test_no_line_is_wider_than_the_terminal(width):
    page = drawn(told(-1), width)
    assert max(map(len, page.splitlines())) <= width


def test_eighty_columns_say_what_matters():
    view = told(-1)
    page = drawn(view, 80)
    for word in (
        "confirmed",
        "2011-05-23",
        "yes",
        "no 4/9",
        view.latest.model_version,
        view.last_decisions[-1].outcome.value,
        "currency",
    ):
        assert word in page, word


def test_a_wide_terminal_shows_more():
    wide, narrow = drawn(told(-1), 140), drawn(told(-1), 80)
    for word in ("R2", "asks for", "retrain"):
        assert word in wide
    assert "asks for" not in narrow


def test_the_page_fits_a_small_terminal():
    assert len(drawn(told(-1), 80, height=24).splitlines()) <= 24


def test_an_empty_installation_says_what_is_missing():
    page = drawn(View("baseline"))
    for command in ("clv-drift replay", "no window evaluated yet", "no model serves yet"):
        assert command in page


def test_texts_of_others_are_shown_and_not_obeyed():
    view = View("baseline")
    event = cloudevents.decode(cloudevents.encode(story().evaluations[-2]))
    data = event["data"]
    data["state"] = data["model_version"] = data["model_refused"] = HOSTILE
    verdict = data["verdicts"]["baseline"]
    cause = {
        "feature": HOSTILE,
        "scale_weeks": 4,
        "segment": f"Country={HOSTILE}",
        "effect": 1.0,
        "unit": HOSTILE,
    }
    verdict |= {"drift": True, "causes": [cause]}
    view.note_evaluation(event)
    view.note_decision(0, {"id": "1", "data": story().decisions[0]["data"] | {"reason": HOSTILE}})
    page = drawn(view, 200)
    assert "[bold red]x[/]" in page
    assert not {"\x1b", "\x07", "\u202e"} & set(page)
    out = io.StringIO()
    Console(file=out, width=200, force_terminal=True, color_system=None).print(Page(view, place=HOSTILE))
    assert "\x1b[2J" not in out.getvalue()
    assert "\x1b]" not in out.getvalue()


def test_clean_keeps_what_can_be_read():
    assert clean("Österreich £5") == "Österreich £5"
    assert clean("a\nb\x1b\u200b") == "a\ufffdb\ufffd\ufffd"


# -- the broker ---------------------------------------------------------------


def write_story(settings):
    """Write the story and some checkpoints to the topics, as the worker does."""
    topics, results = catalogue(settings), story()
    records = [
        (spec.name, 0, event["id"].encode(), cloudevents.encode(event))
        for spec, events in (
            (topics.evaluations, results.evaluations),
            (topics.events, results.events),
            (topics.models, results.decisions),
        )
        for event in events
    ]
    records += [(topics.comparisons.name, 0, b"2011-05-23T00:00:00Z", b"not JSON")]
    records += [(topics.state.name, 0, key, value) for key, value in checkpoints(20)]
    records += [(topics.transactions.name, number % PARTITIONS, None, b"{}") for number in range(30)]
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    sent = [
        producer.send(topic, key=key, value=value, partition=partition)
        for topic, partition, key, value in records
    ]
    producer.flush()
    for future in sent:
        future.get(timeout=60)
    producer.close()


def once(settings, width=140):
    out = io.StringIO()
    watch(settings, Console(file=out, width=width), once=True)
    return out.getvalue()


@pytest.mark.broker
def test_one_snapshot_of_the_topics(settings, monkeypatch):
    monkeypatch.setattr("streams.watch.ANSWER_MAX_MS", 60_000)
    settings = settings.model_copy(update={"partitions": PARTITIONS})
    page = once(settings)
    assert "waiting: no topic" in page
    assert f"{settings.topic_prefix}clv.evaluations" in page
    ensure_topics(settings)
    assert "no transactions yet" in once(settings)
    write_story(settings)
    page = once(settings)
    assert "30 records in the topic, 0/s arriving" in page, page
    assert "on time" in page
    assert story().evaluations[-1]["data"]["model_version"] in page
    assert story().decisions[-1]["data"]["outcome"] in page
    assert "1 unreadable" in page


def clv_drift(*arguments, **environment):
    return subprocess.run(
        [CLV_DRIFT, *arguments],
        env={**os.environ, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.broker
def test_the_command_prints_plain_text_without_a_terminal(settings):
    ended = clv_drift(
        "watch",
        CLV_DRIFT_BOOTSTRAP_SERVERS=settings.bootstrap_servers,
        CLV_DRIFT_TOPIC_PREFIX=settings.topic_prefix,
        CLV_DRIFT_BROKER_WAIT_S="60",
    )
    assert ended.returncode == ExitCode.OK, ended.stderr
    assert "clv-drift topics" in ended.stdout
    assert "\x1b" not in ended.stdout
    assert ended.stderr == ""


def test_without_a_broker_it_says_so():
    address = f"127.0.0.1:{free_port()}"
    ended = clv_drift("watch", "--once", CLV_DRIFT_BOOTSTRAP_SERVERS=address, CLV_DRIFT_BROKER_WAIT_S="1")
    assert ended.returncode == ExitCode.BROKER
    assert address in ended.stderr
    assert "Traceback" not in ended.stderr
