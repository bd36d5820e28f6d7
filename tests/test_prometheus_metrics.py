"""Metrics made for panels and alerts: causes, confirmed drifts, mute detectors, actions, the gate."""

from copy import deepcopy

import pytest
from drift_story import story, story_settings
from test_metrics_page import full_retrain, full_worker, samples

from streams.decisions import Outcome
from streams.grid import from_iso
from streams.metrics import WorkerMetrics
from streams.metrics_table import DRIFT_TYPES
from streams.metrics_views import CauseView

ACTING = story_settings().acting_detector


def shown(*events):
    """The metrics of a worker that has read these evaluations."""
    metrics = WorkerMetrics(story_settings())
    for event in events:
        metrics.observe_evaluation(event)
    metrics.evaluations_loaded()
    return samples(metrics)


def drifted():
    """The newest whole window of the story, in which a drift is confirmed."""
    return story().evaluations[-2]


def cause(feature, segment, effect=1.0, weeks=4):
    return {
        "feature": feature,
        "scale_weeks": weeks,
        "segment": segment,
        "effect": effect,
        "unit": "pieces",
    }


def test_causes_are_shown_with_their_rank_and_effect():
    causes = drifted()["data"]["verdicts"][ACTING]["causes"]
    assert causes
    found = shown(drifted())
    for rank, told in enumerate(causes, start=1):
        labels = [told["feature"], str(told["scale_weeks"]), "all"]
        assert found["clv_drift_cause_rank", *sorted(labels)] == rank
        assert found["clv_drift_cause_effect", *sorted([*labels, told["unit"]])] == told["effect"]


def test_a_cause_takes_one_series_however_many_countries_there_are():
    causes = [
        cause("Country", f"Country={name}", effect) for name, effect in (("France", 5.0), ("EIRE", 3.0))
    ]
    ranked = CauseView.ranked([cause("AvgQuantity", "same customers"), *causes])
    assert [(found.scope, found.rank, found.effect) for found in ranked] == [
        ("same customers", 1, 1.0),
        ("Country", 2, 5.0),
    ]


def test_without_drift_there_are_no_causes():
    quiet = next(event for event in story().evaluations if event["data"]["state"] == "quiet")
    found = shown(quiet)
    assert "clv_drift_cause_rank" not in {name for name, *_ in found}
    assert {found["clv_drift_confirmed", kind] for kind in DRIFT_TYPES} == {0}


def test_how_near_each_feature_came_to_the_threshold_is_shown():
    event = deepcopy(drifted())
    event["data"]["verdicts"][ACTING]["strengths"] = {
        "Monetary": {"13": 0.25, "1": 1.5},
        "orders": {"4": 0.0},
    }
    found = shown(event)
    assert {(*labels, value) for (name, *labels), value in found.items() if name == "clv_drift_strength"} == {
        ("13", "Monetary", 0.25),
        ("1", "Monetary", 1.5),
        ("4", "orders", 0.0),
    }


def test_evaluations_of_an_earlier_release_say_nothing_of_it():
    event = deepcopy(drifted())
    del event["data"]["verdicts"][ACTING]["strengths"]
    found = shown(event)
    assert found["clv_drift_confirmed", "data"] == 1
    assert "clv_drift_strength" not in {name for name, *_ in found}


def test_a_confirmed_drift_is_shown_by_its_type():
    policies = drifted()["data"]["carry"]["policies"]
    found = shown(drifted())
    for kind in DRIFT_TYPES:
        assert found["clv_drift_confirmed", kind] == (policies[kind]["state"] == "confirmed")
    assert found["clv_drift_confirmed", "data"] == 1


@pytest.mark.parametrize(
    ("drift", "partial", "missing"), [(None, False, 1), (None, True, 0), (True, False, 0), (False, False, 0)]
)
def test_a_mute_detector_is_told_from_an_input_that_ended(drift, partial, missing):
    event = deepcopy(drifted())
    event["data"]["verdicts"][ACTING]["drift"] = drift
    event["data"]["partial"] = partial
    found = shown(event)
    assert found["clv_verdict_missing",] == missing
    assert found["clv_window_partial",] == partial


def test_a_reference_that_grows_after_a_promotion_is_no_missing_verdict():
    event = deepcopy(drifted())
    event["data"]["verdicts"][ACTING]["drift"] = None
    end = from_iso(event["data"]["window_end"])
    least = story_settings().reference_least_s
    found = {}
    for weeks in (0, 1):
        event["data"]["carry"]["reference_start"] = end - least + weeks * 7 * 86_400
        found[weeks] = shown(event)
    told = [(it["clv_verdict_missing",], it["clv_reference_growing",]) for it in found.values()]
    assert told == [(1, 0), (0, 1)]


def test_before_the_reference_no_verdict_is_missing():
    first = story().evaluations[0]
    assert not first["data"]["verdicts"]
    assert ("clv_verdict_missing",) not in shown(first)


def test_the_last_action_stays_until_the_next_one():
    asked = [event for event in story().evaluations if event["data"]["action"] != "none"]
    found = shown(*story().evaluations)
    assert story().evaluations[-1]["data"]["action"] == "none"
    assert found["clv_last_action_info", asked[-1]["data"]["action"]] == 1
    # In whatever order the log is read.
    assert shown(*reversed(story().evaluations)) == found


def test_every_outcome_is_counted_from_zero():
    """A counter that appears with its first event would hide that event from every rate."""
    found = shown(story().evaluations[0])
    assert {found["clv_decisions_total", outcome.value] for outcome in Outcome} == {0}
    assert found["clv_drift_detected_total", "data"] == 0


def test_the_gate_shows_what_it_decided_by():
    gates = [event["data"]["gate"] for event in story().decisions if event["data"]["gate"] is not None]
    found = samples(full_retrain())
    for model in ("champion", "challenger"):
        assert found["clv_gate_performance", *sorted((model, "nmae"))] == gates[-1][model]["nmae"]
    assert found["clv_gate_probability_better",] == gates[-1]["probability_better"]
    assert found["clv_gate_probability_required",] == gates[-1]["probability_required"]


def test_the_estimate_stands_beside_what_matured():
    data = story().evaluations[-1]["data"]
    found = samples(full_worker())
    for days, estimate in data["error_estimates"].items():
        assert found["clv_model_error_estimated", *sorted((days, "mae"))] == estimate["mae"]
        assert ("clv_model_performance_matured", *sorted((days, "mae"))) in found
    assert data["error_estimates"]
