"""What is asked for, as a table: the drift so far, what the labels show, what was tried."""

import json

import msgspec
import pytest

from streams.remedies import Action, Episode, Evidence, choose

ONSET = 1_300_000_000
RULES = {"harm_gate": True, "min_matured_windows": 4, "cooling": False}
NONE, RECALIBRATE, RETRAIN, ASK = Action.NONE, Action.RECALIBRATE, Action.RETRAIN, Action.ASK


def evidence(**known):
    found = {"drift": True, "harm": False, "blind": False, "matured_short": 0, "matured_long": 0}
    return Evidence(**(found | known))


def episode(*tried, harmed=True):
    return Episode(onset=ONSET, harmed=harmed, tried=tried)


@pytest.mark.parametrize(
    ("lasting", "known", "rules", "action"),
    [
        (None, {"harm": True, "matured_long": 9}, {}, NONE),
        # No harm, no remedy, however long the customers drift.
        (episode(harmed=False), {"matured_short": 9, "matured_long": 9}, {}, NONE),
        (episode(harmed=False), {"matured_long": 9, "blind": True}, {}, ASK),
        (episode(harmed=False), {"matured_long": 3, "blind": True}, {}, NONE),
        (episode(ASK, harmed=False), {"matured_long": 9, "blind": True}, {}, NONE),
        (episode(harmed=False), {"matured_long": 9, "blind": True, "drift": False}, {}, NONE),
        # Harm on the short labels: the level first, once.
        (episode(), {"harm": True}, {}, NONE),
        (episode(), {"harm": True, "matured_short": 1}, {}, RECALIBRATE),
        (episode(), {"harm": True, "matured_short": 1}, {"cooling": True}, NONE),
        (episode(), {"matured_short": 5}, {}, NONE),
        (episode(RECALIBRATE), {"harm": True, "matured_short": 5, "matured_long": 3}, {}, NONE),
        # Labels to train on have matured.
        (episode(), {"harm": True, "matured_short": 9, "matured_long": 4}, {}, RETRAIN),
        (episode(RECALIBRATE), {"matured_long": 4}, {}, RETRAIN),  # the level alone was a stopgap
        (episode(), {"matured_long": 4}, {}, NONE),
        (episode(RECALIBRATE), {"matured_long": 4}, {"cooling": True}, NONE),
        (episode(), {"harm": True}, {"min_matured_windows": 0}, RETRAIN),
        # The retrain did not help.
        (episode(RETRAIN), {"matured_long": 9}, {}, NONE),
        (episode(RETRAIN), {"harm": True, "matured_long": 9}, {}, ASK),
        (episode(RETRAIN, ASK), {"harm": True, "matured_long": 9}, {}, RETRAIN),
        (episode(RETRAIN, ASK), {"matured_long": 9}, {}, NONE),
        # Without the harm gate a confirmed drift of the customers is as good as harm.
        (episode(harmed=False), {"matured_short": 1}, {"harm_gate": False}, RECALIBRATE),
        (episode(harmed=False), {"matured_long": 4}, {"harm_gate": False}, RETRAIN),
        (episode(harmed=False), {"matured_long": 4, "drift": False}, {"harm_gate": False}, NONE),
    ],
)
def test_what_is_asked_for(lasting, known, rules, action):
    choice = choose(lasting, evidence(**known), **(RULES | rules))
    assert choice.action is action
    assert choice.reason


def test_an_action_counts_once():
    tried = episode().having_tried(RECALIBRATE).having_tried(RETRAIN).having_tried(RETRAIN)
    assert tried.tried == (RECALIBRATE, RETRAIN)


def test_an_episode_survives_json():
    lasting = episode(RECALIBRATE, RETRAIN)
    assert msgspec.convert(json.loads(msgspec.json.encode(lasting)), Episode) == lasting
