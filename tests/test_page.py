"""What the live page knows: the logs folded, in any order, however often, within bounds."""

import copy
import json
import random
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from itertools import groupby

import pytest
from drift_story import story

from streams.settings import Settings
from streams.watch_model import WARNINGS_KEPT
from streams.web.follower import Follower
from streams.web.page_model import (
    LETTER_KINDS_MAX,
    OTHER_KINDS,
    STEPS_MAX,
    WARNINGS_SHOWN,
    WINDOWS_MAX,
    PageModel,
    Published,
    letter_kind,
)
from streams.web.window_row import TEXT_MAX

COMPARED = {
    "status": "compared",
    "reference_end": None,
    "dataset_drift": True,
    "drifted_columns": 5,
    "columns": {"a": 1, "b": 2},
}


def compared(window_end):
    return {"type": "clv.comparison.v1", "data": {"window_end": window_end, **COMPARED}}


def notes(model):
    """Every message of the story with what takes it."""
    results = story()
    return [
        *((model.note_evaluation, event) for event in results.evaluations),
        *((model.note_event, event) for event in results.events),
        *((lambda e, at=at: model.note_decision(at, e), event) for at, event in enumerate(results.decisions)),
        *(
            (model.note_comparison, compared(event["data"]["window_end"]))
            for event in results.evaluations[-3:]
        ),
    ]


def told(model, before=None, reports=()):
    published = model.publish(before or Published(), reports=list(reports))
    return published, json.loads(published.since(before.revision if before else 0))


def full_model():
    model = PageModel("baseline")
    for note, event in notes(model):
        note(event)
    return model


def test_every_window_is_told_with_its_verdict_and_causes():
    _, state = told(full_model())
    data = [event["data"] for event in story().evaluations]
    assert [row["end"] for row in state["windows"]] == [it["window_end"][:10] for it in data]
    row, like = state["windows"][-2], data[-2]
    verdict = like["verdicts"]["baseline"]
    assert row["verdict"]["statistic"] == verdict["statistic"]
    assert row["verdict"]["threshold"] == verdict["threshold"]
    assert row["verdict"]["causes"] == verdict["causes"][:5]
    assert row["performance"]["14"]["mae"] == like["performance"]["14"]["mae"]
    assert row["comparison"] == {"status": "compared", "drift": True, "drifted": 5, "columns": 2}
    assert state["model"]["version"] == data[-1]["model_version"]


def test_actions_are_told_newest_first_each_with_its_reason():
    _, state = told(full_model())
    steps = state["steps"]
    assert [step["day"] for step in steps] == sorted((step["day"] for step in steps), reverse=True)
    decisions = [step for step in steps if step["kind"] == "decision"]
    assert {step["reason"] for step in decisions} == {e["data"]["reason"] for e in story().decisions}
    assert all(step["gate"]["customers"] > 0 for step in decisions if step["outcome"] == "promoted")
    requests = [step for step in steps if step["kind"] == "request"]
    assert len(requests) == sum(e["data"]["action"] == "retrain" for e in story().events)
    first = next(step for step in reversed(steps) if step["kind"] == "request")
    assert first["decided"]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_logs_and_repetitions_do_not_matter(seed):
    """Each log comes in its order, the logs in any order, and again after a loss of the connection."""
    model = PageModel("baseline")
    logs = [list(log) for _, log in groupby(notes(model), key=lambda item: item[0].__name__)]
    chance = random.Random(seed)
    while any(logs):
        note, event = chance.choice([log for log in logs if log]).pop(0)
        note(event)
    for note, event in notes(model):
        note(event)
    assert told(model)[1] == told(full_model())[1]


def test_only_what_changed_is_told_again():
    model = full_model()
    first, _ = told(model)
    assert model.publish(first, reports=[]) is first
    model.note_comparison(compared(story().evaluations[0]["data"]["window_end"]))
    second, change = told(model, first)
    assert [row["end"] for row in change["windows"]] == [story().evaluations[0]["data"]["window_end"][:10]]
    assert set(change) == {"windows"}
    third, change = told(model, second, reports=["2011-06-06"])
    assert change == {"windows": [], "reports": ["2011-06-06"]}
    # Whoever was away since the first revision gets both.
    away = json.loads(third.since(first.revision))
    assert (len(away["windows"]), away["reports"]) == (1, ["2011-06-06"])


def test_it_does_not_grow_without_bounds():
    model = PageModel("baseline")
    like, step = story().evaluations[-2], story().events[-1]
    for number in range(WINDOWS_MAX + 50):
        event = copy.copy(like)
        end = (datetime(1980, 1, 7, tzinfo=UTC) + timedelta(weeks=number)).strftime("%Y-%m-%dT00:00:00Z")
        event["data"] = {**like["data"], "window_end": end, "action_reason": "x" * 10_000}
        model.note_evaluation(event)
        model.note_event({**step, "id": str(number), "data": {**step["data"], "action": "none"}})
        model.note_warning(warning(end[:10], end, signal="x" * 10_000))
        model.note_dead_letter(
            "partition 0, offset 1", f"the field {chr(65 + number % 26) * (number // 26)} is odd"
        )
    published, state = told(model)
    assert len(state["windows"]) == WINDOWS_MAX
    assert len(published.rows) == WINDOWS_MAX
    assert len(state["windows"][0]["action_reason"]) == TEXT_MAX
    assert len(state["steps"]) == STEPS_MAX
    assert state["letters"]["read"] == WINDOWS_MAX + 50
    assert state["letters"]["kinds"][0]["kind"] == OTHER_KINDS
    assert len(model._letters) == LETTER_KINDS_MAX + 1
    assert len(state["warnings"]["newest"]) == WARNINGS_SHOWN
    assert len(model.warnings) == WARNINGS_KEPT
    assert len(published.since(0)) < 4_000_000


def test_dead_letters_are_counted_by_reason_without_their_values():
    model = PageModel("baseline")
    for place, reason in (
        ("partition 0, offset 3", "Quantity 'three' is no number"),
        ("partition 1, offset 9", 'Quantity "it\'s" is no number'),
        ("partition 1, offset 10", "UnitPrice 1.2345 has more than 3 decimals"),
    ):
        model.note_dead_letter(place, reason)
    kinds = told(model)[1]["letters"]["kinds"]
    assert [(kind["kind"], kind["count"]) for kind in kinds] == [
        ("Quantity … is no number", 2),
        ("UnitPrice … has more than … decimals", 1),
    ]
    assert kinds[0]["latest"] == 'partition 1, offset 9: Quantity "it\'s" is no number'
    assert letter_kind("x" * 1_000).endswith("…")


def test_a_reader_that_fails_says_so_and_reads_anew(monkeypatch):
    """Whatever made it fail: the page must not go on looking alive."""
    settings = Settings()
    found = Follower(settings)
    ran = []

    def follow(_, model):
        ran.append(model)
        if len(ran) == 1:
            raise RuntimeError("what nobody thought of")
        model.waiting_for = ""
        found._publish(model)
        found.close()

    monkeypatch.setattr("streams.web.follower.open_consumer", lambda _: nullcontext())
    monkeypatch.setattr("streams.web.follower.PageReader", lambda *_: None)
    monkeypatch.setattr("streams.web.follower.FAILED_S", 0.2)
    monkeypatch.setattr(found, "_follow", follow)
    said = b"".join(chunk for _, chunk in zip(range(4), found.events(""), strict=False)).decode()
    assert "could not be shown" in said
    assert len(ran) == 2


def test_a_rival_that_is_none_is_refused_with_its_message():
    model = full_model()
    before, _ = told(model)
    event = copy.deepcopy(story().evaluations[-1])
    event["data"]["rival"] = {"version": "x"}
    with pytest.raises(KeyError):
        model.note_evaluation(event)
    assert model.publish(before, reports=[]) is before


def warning(day, window_end, *, partition=0, signal="orders", change=0.25):
    finding = {"signal": signal, "change": change, "onset": "2011-05-30T00:00:00Z", "statistic": 61.0}
    data = {
        "partition": partition,
        "day": f"{day}T00:00:00Z",
        "window_end": window_end,
        "findings": [finding],
    }
    return {"type": "clv.warning.v1", "data": data}


def test_warnings_are_told_newest_first_with_what_became_of_their_window():
    model = full_model()
    last = story().evaluations[-2]["data"]
    model.note_warning(warning("2011-06-01", last["window_end"], partition=1))
    model.note_warning(warning("2099-01-02", "2099-01-05T00:00:00Z", signal="x" * 1_000))
    shown = told(model)[1]["warnings"]
    assert shown["open"] == 1
    assert [(it["day"], it["partition"], it["state"]) for it in shown["newest"]] == [
        ("2099-01-02", 0, None),
        ("2011-06-01", 1, last["state"]),
    ]
    assert shown["newest"][1]["findings"] == [{"signal": "orders", "change": 0.25, "onset": "2011-05-30"}]
    assert len(shown["newest"][0]["findings"][0]["signal"]) == TEXT_MAX


def test_a_warning_is_no_longer_open_once_its_window_is_evaluated():
    model = PageModel("baseline")
    evaluation = story().evaluations[0]
    model.note_warning(warning("2010-12-01", evaluation["data"]["window_end"]))
    first, before = told(model)
    model.note_evaluation(evaluation)
    after = told(model, first)[1]
    assert (before["warnings"]["open"], after["warnings"]["open"]) == (1, 0)
    assert after["warnings"]["newest"][0]["state"] == evaluation["data"]["state"]


@pytest.mark.parametrize(
    "broken", [{}, {"data": {}}, {"data": {"window_end": 3, "verdicts": []}, "type": "x", "id": "y"}]
)
def test_a_message_that_is_none_changes_nothing(broken):
    model = full_model()
    before, _ = told(model)
    for note in (
        model.note_evaluation,
        model.note_event,
        model.note_comparison,
        model.note_warning,
        lambda e: model.note_decision(99, e),
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            note(broken)
    assert model.publish(before, reports=[]) is before
