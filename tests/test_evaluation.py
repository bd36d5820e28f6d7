"""Evaluations: a function of the windows, the decisions and what the last one left, whatever else happens."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest
from evaluation_stream import CONF, Stream, decision, events_of
from line_factory import DAY_S, MONDAY, WEEK_S, shop, windows_of
from model_frames import labelled_frame

from models.card import card_of
from models.registry import Registry
from models.training import holdout_performance, train
from streams import cloudevents
from streams.carry import Carry
from streams.decisions import Decision, DecisionLog, Outcome
from streams.draft import DETECTED, REFERENCE_READY
from streams.grid import iso
from streams.model_cache import ModelCache

DRIFT_FROM = MONDAY + 10 * WEEK_S


@pytest.fixture(scope="module")
def quiet():
    """Windows of a shop in which nothing happens, the last one partial."""
    return windows_of(shop(6, days=75, customers=120, orders_a_day=18), CONF)


@pytest.fixture(scope="module")
def drifting():
    """The same shop, prices three times higher from the tenth week on."""
    lines = shop(6, days=110, customers=120, orders_a_day=18, price_factor=3.0, price_from=DRIFT_FROM)
    return windows_of(lines, CONF)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return Registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def versions(registry):
    """Two versions in the registry, each trained on other customers."""
    found = []
    for seed in (1, 2):
        frame = labelled_frame(seed=seed)
        model = train(frame, "tweedie_glm", 42)
        metrics = holdout_performance(model, frame)
        registry.save(model, card_of(model, horizon_days=CONF.horizon_days, metrics=metrics), frame.head(5))
        found.append(model.version)
    return found


def promoting(version):
    return lambda request: decision(Outcome.PROMOTED, request, version)


# -- the course of a stream ----------------------------------------------------


def test_warming_reference_quiet(quiet, registry):
    data = Stream(registry).run(quiet)
    states = [item["state"] for item in data]
    # 28 days are seen with the fourth window; after six weeks there is a reference.
    assert states[:6] == ["warming"] * 3 + ["reference"] * 3
    assert set(states[6:]) <= {"quiet", "suspected"}
    assert [item["reference_end"] for item in data[:6]] == [None] * 5 + [iso(quiet[5].window_end)]
    assert all(item["verdicts"] == {} for item in data[:6])
    assert all("baseline" in item["verdicts"] for item in data[6:])


def test_the_reference_asks_for_a_model_that_serves_a_week_later(quiet, registry, versions):
    stream = Stream(registry, promoting(versions[0]))
    data = stream.run(quiet)
    (ready,) = events_of(stream, REFERENCE_READY)
    assert ready["data"]["window_end"] == iso(quiet[5].window_end)
    assert ready["data"]["effective_from"] == iso(quiet[6].window_end)
    assert data[5]["action"] == "retrain"
    assert ready["id"] in data[5]["events"]
    assert [item["model_version"] for item in data] == [None] * 6 + [versions[0]] * (len(data) - 6)
    event_id, _ = stream.log.by_request[ready["id"]]
    assert [item["applied_decisions"] for item in data] == [[]] * 6 + [[event_id]] + [[]] * (len(data) - 7)
    # Estimated until labels of a window that the model served have matured, two weeks later.
    status = [item["performance"].get("14", {}).get("status") for item in data]
    assert status[6:10] == ["estimated", "estimated", "matured", "matured"]
    assert data[8]["performance"]["14"]["window_end"] == iso(quiet[6].window_end)
    assert data[8]["predicted"]["horizon_days"] == 14


@pytest.mark.parametrize("outcome", [Outcome.EXPIRED, Outcome.KEPT])
def test_without_a_promotion_nothing_serves(quiet, registry, outcome):
    stream = Stream(registry, lambda request: decision(outcome, request))
    data = stream.run(quiet)
    assert stream.requests
    assert all(item["model_version"] is None and item["predicted"] is None for item in data)
    event_id, _ = stream.log.by_request[stream.requests[0].request_id]
    assert data[6]["applied_decisions"] == [event_id]
    assert stream.requests[0].request_id not in {r["request_id"] for r in data[6]["carry"]["pending"]}


def test_a_drift_is_suspected_confirmed_and_answered(drifting, registry, versions):
    answers = iter(versions)
    stream = Stream(registry, lambda request: decision(Outcome.PROMOTED, request, next(answers, versions[1])))
    data = stream.run(drifting)
    states = {item["window_end"]: item["state"] for item in data}
    onset = min(end for end, state in states.items() if state in {"suspected", "confirmed"})
    assert onset in {iso(DRIFT_FROM + WEEK_S), iso(DRIFT_FROM + 2 * WEEK_S)}
    detected = events_of(stream, DETECTED)[0]["data"]
    assert detected["onset"] == onset
    assert detected["action"] == "retrain"
    assert "Monetary" in {cause["feature"] for cause in detected["causes"]}
    assert detected["model_version"] == versions[0]
    # The model and the reference change together, a week after the request; the runs begin anew.
    asked = detected["window_end"]
    follows = [item for item in data if item["window_end"] > asked]
    assert follows[0]["model_version"] == versions[1]
    assert follows[0]["reference_end"] == asked
    runs = follows[0]["carry"]["policies"]["data"]
    assert runs["drift_run"] + runs["quiet_run"] <= 1


def test_a_partial_window_cannot_tell(quiet, registry):
    data = Stream(registry).run(quiet)
    assert data[-1]["partial"]
    assert data[-1]["verdicts"]["baseline"]["drift"] is None
    assert "partial" in data[-1]["verdicts"]["baseline"]["reason"]
    assert data[-1]["state"] == data[-2]["state"]


def test_split_customers_cannot_tell(drifting, registry):
    """Though the window drifts, the state stays: a run is neither lengthened nor ended."""
    split = [
        replace(s, split_customers=("12346", "17850")) if s.window_end > DRIFT_FROM else s for s in drifting
    ]
    data = Stream(registry).run(split)
    for item in [item for item in data if item["window_end"] > iso(DRIFT_FROM)]:
        verdict = item["verdicts"]["baseline"]
        assert verdict["drift"] is None
        assert "two partitions: 12346, 17850" in verdict["reason"]
        assert item["split_customers"] == 2
        assert item["state"] == "quiet"


# -- decisions -------------------------------------------------------------------


def test_a_promotion_by_hand_takes_effect_at_the_next_window(quiet, registry, versions):
    stream = Stream(registry)
    stream.run(quiet[:3])
    made = decision(Outcome.PROMOTED, version=versions[0], window_end=quiet[2].window_end)
    assert stream.tell(made)
    data = stream.run(quiet[3:])
    assert [item["model_version"] for item in data] == [versions[0]] * len(data)
    assert [len(item["applied_decisions"]) for item in data][:2] == [1, 0]
    back = decision(Outcome.ROLLED_BACK, version=versions[1], window_end=quiet[-1].window_end)
    assert stream.tell(back)


def test_of_two_decisions_by_hand_the_later_serves(quiet, registry, versions):
    stream = Stream(registry)
    stream.run(quiet[:2])
    for nonce, version in enumerate((versions[0], versions[1], versions[0])):
        stream.tell(decision(Outcome.PROMOTED, version=version, nonce=str(nonce)))
    stream.tell(decision(Outcome.ROLLED_BACK, version=versions[1]))
    data = stream.run(quiet[2:4])
    assert data[0]["model_version"] == versions[1]
    assert len(data[0]["applied_decisions"]) == 4


def test_a_decision_by_hand_keeps_the_reference(quiet, registry, versions):
    stream = Stream(registry)
    stream.run(quiet[:7])
    stream.tell(decision(Outcome.PROMOTED, version=versions[0], window_end=quiet[6].window_end))
    assert stream.run(quiet[7:8])[0]["reference_end"] == iso(quiet[5].window_end)


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_model_that_cannot_be_loaded_is_refused_and_the_champion_stays(quiet, registry, versions, by_hand):
    missing = "0123456789abcdef"
    stream = Stream(registry, promoting(missing))
    stream.run(quiet[:2])
    stream.tell(decision(Outcome.PROMOTED, version=versions[0]))
    stream.run(quiet[2:6])
    if by_hand:
        stream.tell(decision(Outcome.PROMOTED, version=missing))
    data = stream.run(quiet[6:])
    assert missing in data[0]["model_refused"]
    assert [item["model_version"] for item in data] == [versions[0]] * len(data)
    # Nothing else stops: the window has its verdict, the champion its predictions.
    assert data[0]["verdicts"]["baseline"]["drift"] is not None
    assert data[0]["predicted"] is not None
    assert data[1]["model_refused"] is None
    assert data[0]["reference_end"] == iso(quiet[5].window_end)


def test_a_damaged_model_is_refused(quiet, versions, registry, tmp_path):
    """One byte of the file changed: its sha256 differs."""
    shutil.copytree(registry.directory, tmp_path / "copy")
    model = tmp_path / "copy" / versions[1] / "model.skops"
    damaged = bytearray(model.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    model.write_bytes(bytes(damaged))
    stream = Stream(Registry(tmp_path / "copy"))
    stream.tell(decision(Outcome.PROMOTED, version=versions[0]))
    stream.tell(decision(Outcome.PROMOTED, version=versions[1]))
    data = stream.run(quiet[:1])
    assert data[0]["model_version"] == versions[0]
    assert versions[1] in data[0]["model_refused"]


def test_a_retired_model_that_is_gone_does_not_silence_the_champion(quiet, registry, versions, tmp_path):
    """Labels of windows that it served mature later; it cannot be scored, but the champion still predicts."""
    shutil.copytree(registry.directory, tmp_path / "copy")
    stream = Stream(Registry(tmp_path / "copy"))
    stream.tell(decision(Outcome.PROMOTED, version=versions[0]))
    stream.run(quiet[:1])
    stream.tell(decision(Outcome.PROMOTED, version=versions[1]))
    stream.run(quiet[1:2])
    shutil.rmtree(tmp_path / "copy" / versions[0])
    stream.evaluator.load = ModelCache(Registry(tmp_path / "copy")).load
    data = stream.run(quiet[2:3])[0]
    assert versions[0] in data["model_refused"]
    assert data["predicted"] is not None


def test_the_first_decision_on_a_request_stands(quiet, registry, versions):
    stream = Stream(registry, promoting(versions[0]))
    stream.run(quiet[:6])
    (request,) = stream.carry.pending
    expired = decision(Outcome.EXPIRED, request)
    assert stream.tell(expired)
    assert not stream.tell(decision(Outcome.PROMOTED, request, versions[0]))
    assert stream.log.refused == 1
    # The first one, sent again after a crash, is the same decision and no second one.
    assert not stream.tell(expired)
    assert stream.log.refused == 1
    stream.decide = lambda _: expired
    assert stream.run(quiet[6:7])[0]["model_version"] is None


def test_a_decision_survives_its_event(versions):
    made = decision(Outcome.PROMOTED, version=versions[0], nonce="1")
    made = replace(made, request_id="r", gate={"p": 0.5}, card={"version": versions[0]})
    event = json.loads(cloudevents.encode(made.to_event("/test")))
    assert Decision.from_event(event) == made
    assert made.to_event("/test")["id"] != replace(made, nonce="2").to_event("/test")["id"]


def damaged_decisions():
    good = decision(Outcome.PROMOTED, version="0123456789abcdef").to_event("/test")
    yield "no id", {name: value for name, value in good.items() if name != "id"}
    yield "no data", {name: value for name, value in good.items() if name != "data"}
    yield "data is a list", good | {"data": []}
    for name, value in {
        "outcome": "perhaps",
        "version": None,
        "window_end": 5,
        "request_id": ["r"],
        "reason": ...,
    }.items():
        data = {key: item for key, item in good["data"].items() if key != name}
        yield f"{name} is {value}", good | {"data": data if value is ... else data | {name: value}}
    yield "kept by hand", decision(Outcome.KEPT).to_event("/test")
    yield "window_end is no time", good | {"data": good["data"] | {"window_end": "yesterday"}}


@pytest.mark.parametrize("event", [pytest.param(event, id=name) for name, event in damaged_decisions()])
def test_what_is_no_decision_is_refused(event):
    """A stranger's record in the log must not stop the evaluations."""
    log = DecisionLog()
    with pytest.raises(ValueError, match=r"."):
        log.add(0, event)
    assert log == DecisionLog()


# -- the same bytes ---------------------------------------------------------------


def test_a_second_run_gives_the_same_bytes(drifting, registry, versions):
    runs = [Stream(registry, promoting(versions[0])) for _ in range(2)]
    for stream in runs:
        stream.run(drifting)
    assert runs[0].bytes() == runs[1].bytes()
    assert sum(len(one.events) for one in runs[0].out) > 1


def test_ids_come_from_content(drifting, registry):
    stream = Stream(registry)
    stream.run(drifting)
    messages = [e for one in stream.out for e in [*one.events, one.evaluation]]
    ids = [message["id"] for message in messages]
    assert len(set(ids)) == len(ids)
    for message in messages:
        decoded = cloudevents.decode(cloudevents.encode(message))
        assert decoded == json.loads(json.dumps(message))
        assert cloudevents.content_id(decoded["type"], decoded["data"]) == decoded["id"]
        assert decoded["time"] == decoded["data"]["window_end"]
        assert decoded["specversion"] == "1.0"


def test_no_clock_and_no_order_of_keys_in_an_id():
    data = {"b": 1, "a": {"y": 2, "x": [1.5, None]}}
    turned = {"a": {"x": [1.5, None], "y": 2}, "b": 1}
    assert cloudevents.content_id("k", data) == cloudevents.content_id("k", turned)
    assert cloudevents.content_id("k", data) != cloudevents.content_id("l", data)


@pytest.mark.parametrize(
    "value", [b"", b"x", b"[]", b"{}", b'{"type":"t"}', b'{"type":"t","data":1}', b"\xff", b"[" * 9_000]
)
def test_what_is_no_event_is_refused(value):
    with pytest.raises(ValueError, match="not"):
        cloudevents.decode(value)


def test_a_carry_that_is_none_is_refused():
    with pytest.raises(msgspec.ValidationError):
        Carry.from_dict({"serving": [{"since": "monday", "version": "a"}]})


def test_the_distance_of_requests(drifting, registry):
    """Kept again and again: asked again only after the cooldown."""
    stream = Stream(registry, lambda request: decision(Outcome.KEPT, request))
    stream.run(drifting)
    asked = sorted(request.requested_at for request in stream.requests)
    assert len(asked) > 2
    assert min(b - a for a, b in pairwise(asked)) >= DAY_S * 7
