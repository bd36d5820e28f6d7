"""Evidently's verdicts as detectors: what a comparison says, and what it says where there is none."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from line_factory import records_of, settings, shop
from model_frames import customers

from models.registry import Registry
from streams import backfill, batch_models, cloudevents
from streams.carry import Carry, Serving
from streams.comparisons import ComparisonKey, Wanted
from streams.detectors import DetectionContext, make_detector, make_detectors
from streams.detectors.interface import COMPARED_COLUMNS
from streams.errors import ExitCode, UserError
from streams.grid import from_iso, iso
from streams.inline_comparison import inline_comparisons
from streams.settings import Settings
from streams.topics import catalogue
from streams.watch import Reader
from streams.watch_model import View

END, REFERENCE_END = from_iso("2011-06-06T00:00:00Z"), from_iso("2011-03-07T00:00:00Z")
BOTH = ("evidently_dataset", "evidently_any")
P_VALUE = {"method": "K-S p_value", "score": 0.4, "threshold": 0.05, "drift": False}


def comparison(**drifted) -> dict:
    """Return a comparison in which columns have the p-values given, and drift where those are small."""
    columns = {name: dict(P_VALUE) for name in COMPARED_COLUMNS}
    for name, score in drifted.items():
        columns[name] |= {"score": score, "drift": None if score is None else score < 0.05}
    count = sum(column["drift"] is True for column in columns.values())
    return {
        "status": "compared",
        "dataset_drift": count >= 5,
        "drifted_columns": count,
        "share": count / 9,
        "drift_share": 0.5,
        "columns": columns,
    }


def context(found, **changes) -> DetectionContext:
    given = {
        "window_end": END,
        "current": customers(1, 200, scale=2.0),
        "reference": customers(2, 300),
        "reference_window_end": REFERENCE_END,
        "partial": False,
        "comparison": found,
    }
    return DetectionContext(**{**given, **changes})


def verdicts(found, **changes) -> list:
    """Return the verdicts of the dataset's detector and of the one on any column."""
    return [make_detector(name, Settings()).judge(context(found, **changes))[0] for name in BOTH]


def test_one_column_is_a_drift_to_one_and_half_of_them_to_the_other():
    dataset, any_column = verdicts(comparison(Monetary=0.01))
    assert (dataset.drift, dataset.statistic, dataset.threshold) == (False, 1 / 9, 0.5)
    assert dataset.causes == ()
    assert (any_column.drift, any_column.statistic, any_column.threshold) == (True, 1.0, 1.0)
    assert [cause.feature for cause in any_column.causes] == ["Monetary"]
    many = dict.fromkeys(COMPARED_COLUMNS[:5], 0.01)
    dataset, any_column = verdicts(comparison(**many))
    assert dataset.drift is any_column.drift is True
    assert dataset.causes == any_column.causes
    assert (dataset.drifted_columns, dataset.columns, any_column.statistic) == (5, 9, 5.0)
    assert [verdict.drift for verdict in verdicts(comparison())] == [False, False]


def test_causes_are_ranked_by_how_far_their_scores_are_past_the_threshold():
    found = comparison(Recency=0.04, Monetary=0.0, Frequency=0.001)
    found["columns"]["Country"] = {
        "method": "Jensen-Shannon distance",
        "score": 0.9,
        "threshold": 0.1,
        "drift": True,
    }
    _, verdict = verdicts(found)
    assert [cause.feature for cause in verdict.causes] == ["Monetary", "Frequency", "Country", "Recency"]


def test_effects_are_those_of_the_rows():
    given = context(comparison(Monetary=0.01, Country=0.02))
    (_, verdict) = verdicts(given.comparison)
    money, country = verdict.causes
    assert money.effect == np.median(given.current["Monetary"]) - np.median(given.reference["Monetary"]) > 0
    assert (money.unit, money.scale_weeks) == ("currency", 13)
    shares = [side["Country"].value_counts(normalize=True) for side in (given.current, given.reference)]
    most = (shares[0] - shares[1]).abs().idxmax()
    assert country.segment == f"Country={most}"
    assert country.effect == pytest.approx(100 * (shares[0] - shares[1])[most])


def test_a_column_without_a_score_is_neither_drifted_nor_quiet():
    _, verdict = verdicts(comparison(Recency=None))
    assert (verdict.drift, verdict.reason) == (None, "Evidently has no finite score of Recency")
    _, verdict = verdicts(comparison(Recency=None, Monetary=0.01))
    assert verdict.drift is True


@pytest.mark.parametrize(
    ("found", "changes", "reason"),
    [
        (None, {}, "Evidently did not compare the window"),
        ({"status": "failed", "reason": "it died"}, {}, "Evidently's comparison failed: it died"),
        ({"status": "no_reference"}, {}, "Evidently's comparison has the status no_reference"),
        (
            comparison(Monetary=0.01),
            {"partial": True},
            "the window is partial: the input ended before it did",
        ),
    ],
)
def test_without_a_comparison_it_cannot_tell(found, changes, reason):
    assert [(verdict.drift, verdict.reason) for verdict in verdicts(found, **changes)] == [(None, reason)] * 2


def test_they_judge_evaluations_only_where_one_of_them_acts():
    named = ("baseline", *BOTH)
    idle = Settings(detectors=named, acting_detector="baseline")
    assert [detector.name for detector in make_detectors(idle)] == ["baseline"]
    acting = Settings(detectors=named, acting_detector="evidently_any")
    assert [detector.name for detector in make_detectors(acting)] == list(named)


# -- what is asked ---------------------------------------------------------------


def test_a_request_says_what_is_wanted_and_nothing_else():
    serving = (Serving(REFERENCE_END, "a1"), Serving(END, "b2"))
    carry = Carry(window_end=END, reference_end=REFERENCE_END, serving=serving, first_requested=5)
    wanted = Wanted.of(carry)
    event = wanted.to_event("/here/")
    assert Wanted.from_event(json.loads(json.dumps(event)), "/here/") == wanted
    assert event == Wanted.of(carry).to_event("/here/")
    assert (wanted.champion, wanted.served_at(END - 1)) == ("b2", "a1")
    answer = wanted.answer("failed", reason="none")
    assert answer["model_version"] == "b2"
    assert ComparisonKey.told(answer) == wanted.key == (END, REFERENCE_END)


@pytest.mark.parametrize("spoil", ["source", "type", "data"])
def test_what_is_no_request_is_refused(spoil):
    event = Wanted(window_end=END, reference_end=None).to_event("/here/")
    event[spoil] = {"window_end": iso(END)} if spoil == "data" else "/another/"
    with pytest.raises(ValueError, match="request"):
        Wanted.from_event(event, "/here/")


def test_the_terminal_view_takes_a_request_for_no_comparison():
    view, conf = View("evidently_any"), Settings()
    request = cloudevents.encode(Wanted(window_end=END, reference_end=None).to_event("/here/"))
    record = SimpleNamespace(topic=catalogue(conf).comparisons.name, value=request, offset=0)
    Reader(None, conf, view)._note(record)
    assert (view.comparisons, view.unreadable) == ({}, 0)


# -- without Kafka -----------------------------------------------------------------


def backfilled(tmp_path, **changes):
    conf = settings(reports_dir=tmp_path / "reports", **changes)
    lines = shop(6, days=65, customers=120, orders_a_day=18)
    found = backfill.run(records_of(lines, conf, 1), conf, Registry(tmp_path / "models"))
    return [event["data"] for event in found.evaluations]


def test_a_comparison_that_fails_cannot_tell_and_the_run_goes_on(tmp_path):
    """A child that is given no time to start, three times a window."""
    acting = {"detectors": ("evidently_any", "baseline"), "acting_detector": "evidently_any"}
    found = backfilled(tmp_path, **acting, comparison_timeout_s=0.01)
    alone = backfilled(tmp_path, detectors=("baseline",))
    asked = [data for data in found if data["verdicts"] and not data["partial"]]
    assert len(asked) >= 2
    for data in asked:
        verdict = data["verdicts"]["evidently_any"]
        assert (verdict["drift"], verdict["reason"]) == (
            None,
            "Evidently's comparison failed: no comparison in 3 tries: the child gave no answer in 0.01 s",
        )
    assert found[-1]["verdicts"]["evidently_any"]["reason"].startswith("the window is partial")
    assert [data["verdicts"].get("baseline") for data in found] == [
        data["verdicts"].get("baseline") for data in alone
    ]


def test_named_without_acting_they_change_nothing_and_start_nothing(tmp_path):
    named = backfilled(tmp_path, detectors=("baseline", *BOTH))
    assert named == backfilled(tmp_path, detectors=("baseline",))
    assert not (tmp_path / "reports").exists()


def test_a_place_that_the_child_cannot_log_to_is_refused(tmp_path):
    (tmp_path / "reports").write_text("no directory")
    with pytest.raises(UserError, match="reports_dir") as refused:
        backfilled(tmp_path, detectors=BOTH, acting_detector="evidently_any")
    assert refused.value.code is ExitCode.STORAGE


def test_detect_has_the_window_compared_where_evidently_acts(tmp_path):
    conf = settings(
        registry_dir=tmp_path / "models",
        reports_dir=tmp_path / "reports",
        detectors=("baseline", *BOTH),
        acting_detector="evidently_any",
        comparison_timeout_s=0.01,
    )
    records = list(records_of(shop(6, days=65, customers=120, orders_a_day=18), conf, 1))
    version = batch_models.train_on(records, conf).card.version
    found = batch_models.detect_in(records, conf, version=version)
    assert found.drift is None
    assert found.verdicts["evidently_any"].reason.startswith("Evidently's comparison failed: no comparison")
    idle = conf.model_copy(update={"acting_detector": "baseline"})
    assert set(batch_models.detect_in(records, idle, version=version).verdicts) == {"baseline"}


@pytest.mark.slow
def test_what_evidently_says_of_frames_is_what_the_detectors_say(tmp_path):
    conf = Settings(
        detectors=BOTH, acting_detector="evidently_any", drift_share=0.9, reports_dir=tmp_path / "reports"
    )
    wanted = Wanted(window_end=END, reference_end=REFERENCE_END)
    reference = customers(1, 400)
    alike, moved = customers(2, 400), customers(3, 400)
    moved["Monetary"] *= 5
    with inline_comparisons(conf) as comparisons:
        quiet = comparisons.compared(wanted, alike, reference)
        drifted = comparisons.compared(wanted, moved, reference)
        failed = comparisons.compared(wanted, moved.head(0), reference)
    assert quiet["drifted_columns"] == 0
    given = {"current": moved, "reference": reference}
    assert [verdict.drift for verdict in verdicts(quiet)] == [False, False]
    dataset, any_column = verdicts(drifted, **given)
    assert (dataset.drift, any_column.drift) == (False, True)
    assert any_column.causes[0].feature == "Monetary"
    assert "3 tries: ValueError" in verdicts(failed, **given)[0].reason
