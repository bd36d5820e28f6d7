"""The parts of the retrain consumer: requests, the history they are answered from, the child process."""

import os
import signal
import time
from itertools import islice

import msgspec
import pytest
from retrain_story import NOWHERE, Story, gone

from streams.carry import Purpose, Request, Rival
from streams.grid import from_iso
from streams.history import History
from streams.remedies import Action
from streams.retrain import PAUSE_MAX_S, pauses, request_in
from streams.retrain_answer import NoSuchWindowError, WindowNotThereError, history_until
from streams.retrain_child import Failed, Later, Training
from streams.settings import Settings

WAIT_S = 120


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    return Story(tmp_path_factory.mktemp("told") / "registry")


# -- requests -----------------------------------------------------------------------------------------------


def event(**changes):
    data = {
        "action": "retrain",
        "window_end": "2011-02-14T00:00:00Z",
        "effective_from": "2011-02-21T00:00:00Z",
        "model_version": None,
        "onset": None,
        "rival": None,
    }
    return {"id": "e1", "type": "clv.reference.ready.v1", "data": data | changes}


def test_a_request_is_read_from_its_event():
    first = request_in(event())
    assert first == Request("e1", from_iso("2011-02-14T00:00:00Z"), from_iso("2011-02-21T00:00:00Z"), None)
    assert request_in(event(model_version="7d137e3f9881cd29")).champion == "7d137e3f9881cd29"
    later = request_in(event(action="recalibrate", onset="2011-01-31T00:00:00Z"))
    assert (later.action, later.onset) == (Action.RECALIBRATE, from_iso("2011-01-31T00:00:00Z"))
    rival = {"version": "7d137e3f9881cd29", "purpose": "rollback", "since": 1_296_432_000}
    assert request_in(event(action="review", rival=rival)).rival == Rival(
        version="7d137e3f9881cd29", purpose=Purpose.ROLLBACK, since=1_296_432_000
    )


@pytest.mark.parametrize("action", ["none", "ask", None])
def test_other_events_ask_for_no_model(action):
    assert request_in(event(action=action, effective_from=None)) is None


@pytest.mark.parametrize(
    "changes",
    [{"effective_from": None}, {"window_end": "soon"}, {"model_version": 7}, {"window_end": 5}, {"rival": 5}],
)
def test_a_request_that_is_not_whole_is_refused(changes):
    with pytest.raises(ValueError, match="not a request"):
        request_in(event(**changes))


def test_requests_of_the_evaluator_are_read_back(story):
    carried = {
        msgspec.convert(request, Request)
        for evaluation in story.results.evaluations
        for request in evaluation["data"]["carry"]["pending"]
    }
    assert set(story.requests) == carried


def test_pauses_grow_within_bounds():
    waits = list(islice(pauses(), 20))
    assert waits == sorted(waits)
    assert 0 < waits[0] < 1
    assert waits[-1] == waits[-2] == PAUSE_MAX_S


# -- history ------------------------------------------------------------------------------------------------


def values(story):
    return [value for _, value in story.snapshots]


def whole_history(story) -> History:
    history = History()
    for snapshot in story.results.snapshots:
        history.add(snapshot)
    return history


@pytest.mark.parametrize("windows_max", [1, 2, 52])
@pytest.mark.parametrize("number", [0, 1])
def test_what_is_forgotten_or_comes_later_does_not_change_the_answer(story, windows_max, number, monkeypatch):
    # Five weeks are looked back, so that something is forgotten in a story of eleven.
    monkeypatch.setattr("streams.retention.LOOK_BACK_HOPS", 0)
    monkeypatch.setattr("streams.retention.MATURED_WINDOWS_MIN", 1)
    request = story.requests[number]
    conf = story.settings.model_copy(update={"training_windows_max": windows_max})
    history = history_until(request.requested_at, values(story), conf, pytest.fail)
    whole = whole_history(story)
    assert max(history.windows) == request.requested_at < max(whole.windows)
    if (number, windows_max) == (1, 1):
        assert min(history.windows) > min(whole.windows)
    assert story.answered(request, windows_max, history) == story.answered(request, windows_max, whole)


def test_the_history_waits_for_its_window_in_every_partition(story):
    end = story.requests[0].requested_at
    both = values(story)
    with pytest.raises(WindowNotThereError, match="2011-02-14"):
        history_until(end, both[: len(both) // 2], story.settings, pytest.fail)


def test_a_window_that_never_was_is_not_waited_for(story):
    between = story.requests[0].requested_at - 86_400
    with pytest.raises(NoSuchWindowError, match="2011-02-13"):
        history_until(between, values(story), story.settings, pytest.fail)


def test_damaged_messages_and_tombstones_are_passed_over(story):
    end = story.requests[0].requested_at
    refused = []
    messages = [None, b"", b"no snapshot", *values(story)]
    history = history_until(end, messages, story.settings, refused.append)
    assert len(refused) == 2
    assert max(history.windows) == end


# -- child --------------------------------------------------------------------------------------------------


def reply_of(training):
    deadline = time.monotonic() + WAIT_S
    while (reply := training.reply()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return reply


REQUEST = Request("e1", from_iso("2011-02-14T00:00:00Z"), from_iso("2011-02-21T00:00:00Z"), None)


def test_a_child_without_a_broker_asks_for_patience():
    with Training(Settings(bootstrap_servers=NOWHERE, broker_wait_s=0.5), REQUEST) as training:
        reply = reply_of(training)
    assert isinstance(reply, Later)
    assert NOWHERE in reply.reason


def test_a_child_that_is_killed_has_failed():
    with Training(Settings(bootstrap_servers=NOWHERE), REQUEST) as training:
        os.kill(training.pid, signal.SIGKILL)
        assert reply_of(training) == Failed("the training process ended by signal 9")


def test_a_child_that_takes_too_long_has_failed_and_is_ended():
    with Training(Settings(bootstrap_servers=NOWHERE, training_timeout_s=0.1), REQUEST) as training:
        reply = reply_of(training)
        assert not gone(training.pid)
    assert reply == Failed("the training gave no answer in 0.1 s")
    assert gone(training.pid)
