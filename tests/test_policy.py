"""The policy as a table: what each run of verdicts makes of the state."""

import json

import msgspec
import pytest

from models.features import DAY_S
from streams.policy import PolicyState, State, after_promotion, step

WEEK_S = 7 * DAY_S
START = 1_300_000_000
LETTERS = {"q": State.QUIET, "s": State.SUSPECTED, "c": State.CONFIRMED, "r": State.RESOLVED}
VERDICTS = {"1": True, "0": False, "?": None}


def run(verdicts, *, confirm=2, resolve=2, state=None, first=0):
    """Feed a string of verdicts, one a week; return the steps."""
    steps = []
    state = state or PolicyState()
    for week, letter in enumerate(verdicts, start=first):
        taken = step(
            state,
            window_end=START + week * WEEK_S,
            drift=VERDICTS[letter],
            confirm_windows=confirm,
            resolve_windows=resolve,
        )
        steps.append(taken)
        state = taken.state
    return steps


@pytest.mark.parametrize(
    ("verdicts", "states", "numbers"),
    [
        ("0000", "qqqq", {}),
        ("0100", "qsqq", {}),
        ("0101", "qsqs", {}),
        ("0110", "qscc", {}),
        ("01100", "qsccr", {}),
        ("011000", "qsccrq", {}),
        ("011001", "qsccrs", {}),
        ("0110011", "qsccrsc", {}),
        ("011111111", "qsccccccc", {}),
        ("011010100", "qsccccccr", {}),  # one window without drift does not resolve
        ("1?1", "ssc", {}),
        ("11?0?0?0", "scccc" + "r" * 2 + "q", {}),
        ("????", "qqqq", {}),
        ("1", "c", {"confirm": 1}),
        ("1011", "crcc", {"confirm": 1, "resolve": 1}),
        ("111", "ssc", {"confirm": 3}),
    ],
)
def test_runs_of_verdicts(verdicts, states, numbers):
    steps = run(verdicts, **numbers)
    assert [taken.state.state for taken in steps] == [LETTERS[letter] for letter in states]
    before = State.QUIET
    for taken in steps:
        assert taken.changed == (taken.state.state is not before)
        before = taken.state.state


def test_onset_is_the_first_window_of_the_drift():
    steps = run("0011001")
    onsets = [taken.state.onset for taken in steps]
    third, seventh = START + 2 * WEEK_S, START + 6 * WEEK_S
    assert onsets == [None, None, third, third, third, third, seventh]


def test_cannot_tell_leaves_the_very_same_state():
    state = run("011")[-1].state
    taken = run("?", state=state, first=20)[0]
    assert taken.state == state
    assert not taken.changed


def test_after_a_promotion_both_runs_start_again():
    confirmed = run("11")[-1].state
    promoted = after_promotion(confirmed)
    assert (promoted.state, promoted.onset, promoted.drift_run) == (State.CONFIRMED, START, 0)
    assert [taken.state.drift_run for taken in run("11", state=promoted, first=10)] == [1, 2]
    # And a quiet window counted before the promotion no longer helps to resolve.
    nearly = after_promotion(run("0", state=confirmed, first=2)[-1].state)
    assert [taken.state.state for taken in run("00", state=nearly, first=3)] == [
        State.CONFIRMED,
        State.RESOLVED,
    ]


def test_state_survives_json_in_every_state():
    for taken in run("0110010"):
        assert PolicyState.from_dict(json.loads(json.dumps(taken.state.to_dict()))) == taken.state


@pytest.mark.parametrize(
    "change",
    [
        {"state": "angry"},
        {"state": "quiet", "onset": 5},
        {"state": "confirmed", "onset": None},
        {"drift_run": 1, "quiet_run": 1},
        {"onset": "yesterday"},
        {"surprise": 1},
    ],
)
def test_a_state_that_cannot_be_is_refused(change):
    with pytest.raises(msgspec.ValidationError):
        PolicyState.from_dict({**PolicyState().to_dict(), **change})


def test_a_state_that_lacks_a_field_is_refused():
    values = PolicyState().to_dict()
    del values["quiet_run"]
    with pytest.raises(msgspec.ValidationError, match="quiet_run"):
        PolicyState.from_dict(values)
