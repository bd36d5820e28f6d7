"""Remedies over a stream: seen harm, the level first, then a model, what is replaced, what comes back."""

import json
from dataclasses import replace

import pytest
from evaluation_stream import Stream, decision, events_of
from line_factory import DAY_S, MONDAY, WEEK_S, records_of, settings, shop, windows_of
from model_frames import labelled_frame

from models.card import card_of
from models.registry import Registry
from models.training import train
from streams import backfill
from streams.carry import Carry, Purpose, Rival
from streams.decisions import Decision, Outcome
from streams.draft import ACTION_REQUESTED, DETECTED
from streams.grid import iso
from streams.remedies import Action

CONF = settings(
    harm_gate=True,
    min_matured_windows=2,
    cooldown_days=7,
    confirm_windows=1,
    detectors=("baseline",),
    gate_probability=0.6,
)
FALL = MONDAY + 12 * WEEK_S
WEEKS = 24


@pytest.fixture(scope="module")
def lines():
    """A shop whose customers buy at half the prices from the twelfth week on."""
    return shop(6, days=WEEKS * 7, customers=600, orders_a_day=120, price_factor=0.5, price_from=FALL)


@pytest.fixture(scope="module")
def falling(lines):
    return windows_of(lines, CONF)


@pytest.fixture(scope="module")
def told(falling, tmp_path_factory):
    """The stream, answered as the retrain consumer answers."""
    stream = Stream(Registry(tmp_path_factory.mktemp("registry")), conf=CONF)
    stream.decide = stream.answer
    stream.run(falling)
    return stream


def evaluations(stream):
    return [one.evaluation["data"] for one in stream.out]


def actions(stream):
    return [(data["window_end"], data["action"]) for data in evaluations(stream) if data["action"] != "none"]


def test_the_level_comes_first_and_a_model_when_its_labels_have_matured(told):
    asked = [request.action for request in told.requests]
    which = asked.index(Action.RECALIBRATE)
    assert set(asked[:which]) == {Action.RETRAIN}  # the first model
    assert Action.RETRAIN in asked[which + 1 :]
    first, level = (told.log.by_request[r.request_id][1] for r in told.requests[which - 1 : which + 1])
    assert level.outcome is Outcome.PROMOTED
    assert level.card["recalibrates"] == first.version == level.parent
    assert level.card["level"] < 0.8
    # Not before a label from after the onset is known, which takes the short horizon.
    assert told.requests[which].requested_at >= FALL + CONF.monitor_horizon_days * DAY_S
    retrain = next(r for r in told.requests[which + 1 :] if r.action is Action.RETRAIN)
    matured = (CONF.horizon_days + 7 * CONF.min_matured_windows) * DAY_S
    assert retrain.requested_at >= retrain.onset + matured - WEEK_S


def test_the_level_helps(told):
    """On the first windows that both could have served."""
    beside = [data["rival"]["performance"] for data in evaluations(told) if data["rival"]]
    found = [figures["7"] for figures in beside if figures]
    assert found[0]["champion"]["nmae"] < found[0]["rival"]["nmae"]


def test_a_recalibration_keeps_the_reference_and_a_retrain_moves_it(told):
    by_end = {data["window_end"]: data for data in evaluations(told)}
    for request in (request for request in told.requests if request.champion is not None):
        made = told.log.by_request[request.request_id][1]
        before, after = by_end[iso(request.requested_at)], by_end[iso(request.effective_from)]
        moved = made.outcome is Outcome.PROMOTED and made.card["recalibrates"] is None
        if moved:
            assert after["reference_end"] == iso(request.requested_at)
            assert after["reference_start"] == iso(request.onset)
        else:
            assert after["reference_end"] == before["reference_end"]


def test_what_asks_stands_in_an_event_with_its_reason(told):
    for request in told.requests:
        (event,) = [e for one in told.out for e in one.events if e["id"] == request.request_id]
        assert event["data"]["action"] == request.action
        assert event["data"]["reason"]
        assert event["data"]["effective_from"] == iso(request.effective_from)
    # A drift is detected once; what is asked for later says so under a name of its own.
    data = [event for event in events_of(told, DETECTED) if event["data"]["drift_type"] == "data"]
    assert len({event["data"]["suspected_at"] for event in data}) == len(data)
    assert events_of(told, ACTION_REQUESTED)


def test_a_file_gives_the_same_evaluations(told, lines, tmp_path):
    results = backfill.run(records_of(lines, CONF, 2), CONF, Registry(tmp_path), partitions=2)
    assert [json.loads(json.dumps(e["data"])) for e in results.evaluations] == [
        json.loads(json.dumps(data)) for data in evaluations(told)
    ]


def test_no_harm_no_remedy(falling, tmp_path):
    """A rule that never sees harm: nothing is asked for, though the customers drift."""
    conf = CONF.model_copy(update={"acting_model_detector": "r2_drop", "r2_drop_threshold": 1e9})
    stream = Stream(Registry(tmp_path), conf=conf)
    stream.decide = stream.answer
    stream.run(falling[:18])
    assert {request.champion for request in stream.requests} == {None}  # the first model
    assert events_of(stream, DETECTED)


# -- rivals --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return Registry(tmp_path_factory.mktemp("rivals"))


@pytest.fixture(scope="module")
def models(registry):
    """A good model and the same at thirty times its level, both in the registry."""
    frame = labelled_frame()
    good = train(frame, "tweedie_glm", 42)
    bad = replace(good, version="bad0bad0bad0bad0", level=30.0)
    for model in (good, bad):
        registry.save(model, card_of(model, horizon_days=14, metrics={}, requested_at=None), frame.head(5))
    return good.version, bad.version


def served(registry, snapshots, answers, **changes):
    """Run a quiet stream whose first requests are answered with `answers`, the later ones by the gate."""
    conf = CONF.model_copy(update={"harm_gate": True, "retrain_every_days": 21, **changes})
    waiting = iter(answers)
    stream = Stream(registry, conf=conf)

    def decide(request):
        if request.action is Action.RETRAIN and (chosen := next(waiting, None)) is not None:
            outcome, version = chosen
            return decision(outcome, request, version)
        return stream.answer(request) if request.action is Action.REVIEW else decision(Outcome.KEPT, request)

    stream.decide = decide
    stream.run(snapshots)
    return stream


def test_a_promotion_that_turns_out_worse_is_rolled_back(falling, registry, models):
    good, bad = models
    stream = served(registry, falling[:13], [(Outcome.PROMOTED, good), (Outcome.PROMOTED, bad)])
    reviews = [request for request in stream.requests if request.action is Action.REVIEW]
    assert reviews[0].rival.version == good
    made = stream.log.by_request[reviews[0].request_id][1]
    assert (made.outcome, made.version) == (Outcome.ROLLED_BACK, good)
    versions = [data["model_version"] for data in evaluations(stream)]
    assert versions[-1] == good
    assert bad in versions


def test_a_model_in_shadow_serves_only_once_it_proves_better(falling, registry, models):
    good, bad = models
    shadowed = [(Outcome.PROMOTED, bad), (Outcome.SHADOWED, good)]
    stream = served(registry, falling[:13], shadowed, shadow_windows=1)
    versions = [data["model_version"] for data in evaluations(stream)]
    assert versions[-1] == good
    since = next(data["rival"] for data in evaluations(stream) if data["rival"])
    assert (since["version"], since["purpose"]) == (good, "shadow")
    # It never served beside the other way round: the worse one in shadow stays out.
    stream = served(
        registry, falling[:13], [(Outcome.PROMOTED, good), (Outcome.SHADOWED, bad)], shadow_windows=1
    )
    assert {data["model_version"] for data in evaluations(stream)} == {None, good}
    assert evaluations(stream)[-1]["rival"] is None


def test_a_rival_survives_the_carry():
    rival = Rival(version="bad0bad0bad0bad0", purpose=Purpose.SHADOW, since=5, retrained_at=4, onset=3)
    carry = Carry(rival=rival)
    assert Carry.from_dict(json.loads(json.dumps(carry.to_dict()))) == carry


# -- schedule and hand ---------------------------------------------------------------------------------------


def test_a_schedule_asks_every_so_many_days(falling, registry, models):
    stream = served(registry, falling[:12], [(Outcome.PROMOTED, models[0])])
    asked = [r.requested_at for r in stream.requests if r.action is Action.RETRAIN]
    assert len(asked) >= 2
    assert asked[1] - asked[0] >= 21 * DAY_S


def test_a_person_asks_for_a_retrain(falling, registry, models):
    stream = served(registry, falling[:9], [(Outcome.PROMOTED, models[0])], retrain_every_days=0)
    stream.tell(
        Decision(
            outcome=Outcome.REQUESTED, reason="a new price list", window_end=falling[8].window_end, nonce="1"
        )
    )
    stream.run(falling[9:10])
    assert actions(stream)[-1] == (iso(falling[9].window_end), "retrain")
    assert evaluations(stream)[-1]["action_reason"] == "asked for by hand"
