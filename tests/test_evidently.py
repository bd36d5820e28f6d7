"""Evidently's comparison: its summary, and its strictness about the form of the answer."""

import base64
import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from model_frames import customers, pairs

from streams.detectors.interface import COMPARED_COLUMNS, NUMERIC_UNITS

# Evidently divides by zero on the way and its plots warn by the dozen; its answers are what is tested.
pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning", "ignore::DeprecationWarning", r"ignore:R\^2 score"
)


@pytest.fixture(scope="module")
def report():
    """The module under test; its import takes some ten seconds."""
    from streams import evidently_report

    return evidently_report


def compare(report, current, reference, **changes):
    given = {"drift_share": 0.5, "regression": None, "html": None}
    summary = report.compare(current, reference, **{**given, **changes})
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    return summary


# -- the summary


def test_drifted_customers_are_told_from_customers_drawn_alike(report):
    reference = customers(1, 400)
    drifted = compare(report, customers(2, 500, scale=2.0), reference)
    assert drifted["dataset_drift"] is True
    count = sum(column["drift"] for column in drifted["columns"].values())
    assert (drifted["drifted_columns"], drifted["share"]) == (count, count / 9)
    assert set(drifted["columns"]) == set(COMPARED_COLUMNS)
    for name in NUMERIC_UNITS:
        column = drifted["columns"][name]
        assert column["drift"] is True
        assert column["score"] < column["threshold"] == 0.05
        assert column["method"] == "K-S p_value"
    alike = compare(report, customers(3, 500), reference)
    assert alike["dataset_drift"] is False
    assert alike["drifted_columns"] == sum(column["drift"] for column in alike["columns"].values()) < 3


def test_a_distance_drifts_above_its_threshold_where_a_p_value_drifts_below(report):
    summary = compare(report, customers(2, 1500, scale=1.0).assign(Recency=1.0), customers(1, 1500))
    moved, still = summary["columns"]["Recency"], summary["columns"]["Monetary"]
    assert moved["method"] == still["method"] == "Wasserstein distance (normed)"
    assert (moved["drift"], still["drift"]) == (True, False)
    assert moved["score"] > moved["threshold"] > still["score"]


def test_drift_share_is_the_threshold_of_the_dataset(report):
    current, reference = customers(2, 300), customers(1, 300)
    current[["Recency", "Monetary", "NumOrders"]] *= 5
    assert compare(report, current, reference, drift_share=0.3)["dataset_drift"] is True
    assert compare(report, current, reference, drift_share=0.9)["dataset_drift"] is False


def test_regression_measures_both_sides_and_leaves_the_drift_alone(report):
    current, reference = customers(2, 250, scale=1.3), customers(1, 350)
    bare = compare(report, current, reference)
    summary = compare(report, current, reference, regression=report.RegressionPairs(*pairs(5)))
    assert summary["columns"] == bare["columns"]
    assert bare["regression"] is None
    ours = summary["regression"]
    assert ours["current"]["mae"] == pytest.approx(10)
    assert ours["reference"]["mae"] == pytest.approx(20)
    assert ours["reference"]["rmse"] == pytest.approx(20)
    target, prediction = pairs(5)[:2]
    r2 = 1 - ((target - prediction) ** 2).sum() / ((target - target.mean()) ** 2).sum()
    assert ours["current"]["r2"] == pytest.approx(r2)
    assert set(ours["current"]) == {"mean_error", "mae", "rmse", "mape_percent", "r2"}


def test_rows_are_capped_the_same_way_every_time(report):
    current, reference = customers(2, 900), customers(1, 700)
    capped = compare(report, current, reference, rows_max=300)
    assert capped["rows"] == {"current": 300, "reference": 300}
    rows = [np.linspace(0, len(frame) - 1, 300).astype(int) for frame in (current, reference)]
    by_hand = compare(report, current.iloc[rows[0]], reference.iloc[rows[1]])
    assert capped["columns"] == by_hand["columns"]


def test_the_same_frames_give_the_same_summary(report):
    current, reference = customers(2, 300), customers(1, 300)
    assert compare(report, current, reference) == compare(report, current, reference)


def test_constant_columns_and_new_countries_are_told_apart(report):
    current, reference = customers(2, 300), customers(1, 300)
    current["Recency"] = reference["Recency"] = 1.0
    current.loc[:40, "Country"] = "Atlantis"
    columns = compare(report, current, reference)["columns"]
    assert (columns["Recency"]["score"], columns["Recency"]["drift"]) == (1.0, False)
    assert (columns["Country"]["score"], columns["Country"]["drift"]) == (0.0, True)


@pytest.mark.parametrize("broken", [customers(1, 0), customers(1, 50).assign(Monetary=np.nan)])
def test_frames_that_cannot_be_compared_raise(report, broken):
    with pytest.raises(ValueError, match=r"empty|Monetary|Recency"):
        compare(report, broken, customers(1, 100))


def test_unequal_or_single_pairs_raise(report):
    frames = customers(1, 50), customers(2, 50)
    one = np.array([1.0])
    with pytest.raises(ValueError, match="1 targets and 1 predictions"):
        compare(report, *frames, regression=report.RegressionPairs(one, one, one, one))


# -- the HTML


def test_the_html_report_is_written_whole(report, tmp_path):
    path = tmp_path / "reports" / "2011-06-06.html"
    compare(report, customers(2, 100), customers(1, 100), html=path)
    text = path.read_text(encoding="utf-8")
    assert "<html" in text
    assert "Monetary" in text
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_report_that_cannot_be_written_raises_and_leaves_the_old_one(report, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("the last one")

    def full(_self, _target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        compare(report, customers(2, 100), customers(1, 100), html=path)
    assert path.read_text() == "the last one"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


HOSTILE = "</script><script>location='http://elsewhere/'</script><!--\u2028<img src=x onerror='1'>&lt;"


def hostile(seed):
    return customers(seed, 100).assign(Country=["Spain", HOSTILE] * 50)


def test_texts_of_the_data_reach_evidently_without_markup(report, tmp_path):
    path, snapshots = tmp_path / "report.html", []
    compare(report, hostile(1), hostile(2), html=path, on_snapshot=snapshots.append)
    page, kept = path.read_text(encoding="utf-8"), snapshots[0].dumps()
    said = json.dumps(HOSTILE.replace("<", "‹").replace(">", "›"))[1:-1]
    assert said in kept
    assert said.replace("&", "\\u0026") in page
    assert "<script>location" not in page + kept


def page_of(data="{}", more="", scripts="<script>1</script>" * 3):
    name = "metric_" + "0" * 32
    lines = f"    var {name} = {data};\n    var additional_graphs_{name} = {data};\n"
    return f'<head><meta charset="UTF-8"></head><script>\n{lines}</script>{scripts}{more}'


def test_the_data_in_the_html_says_the_same_escaped(report):
    data = json.dumps({HOSTILE: [HOSTILE, json.dumps({"nested": "\\<" + HOSTILE}), "\\", 'a"', "é"]})
    page = report.guarded(page_of(data))
    assert page.count("<script>") == page.count("</script>") == 4
    assert "<!--" not in page
    (line,) = (line for line in page.splitlines() if line.startswith("    var metric_"))
    assert not set("<>&\u2028\u2029") & set(line)
    assert json.loads(line.partition(" = ")[2].rstrip(";")) == json.loads(data)


def test_the_policy_names_each_script_and_no_host(report):
    page = report.guarded(page_of())
    head = page.partition("</head>")[0]
    assert head.startswith('<head><meta charset="UTF-8"><meta http-equiv="Content-Security-Policy" content="')
    assert head.count("'sha256-") == 4
    assert base64.b64encode(hashlib.sha256(b"1").digest()).decode() in head
    assert "default-src 'none'; script-src 'sha256-" in head
    assert "http:" not in head
    assert "unsafe-eval" not in head


@pytest.mark.parametrize(
    "page",
    [
        page_of("[<script>]"),  # not JSON
        page_of("{};alert(1);{}"),
        page_of().replace(" = {}", "={}", 1),
        page_of(more="<script>2</script>"),
        page_of(scripts=""),
        page_of(more=page_of()),
        page_of().replace("UTF-8", "utf-8"),
        "",
    ],
)
def test_html_of_another_form_raises(report, page):
    with pytest.raises(report.UnexpectedReportError, match="the HTML"):
        report.guarded(page)


# -- a change of Evidently's API never reads as "no drift"


@pytest.fixture(scope="module")
def raw(report):
    """What Evidently really answers."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=list(NUMERIC_UNITS), categorical_columns=["Country"])
    sides = [Dataset.from_pandas(customers(seed, 80), data_definition=definition) for seed in (1, 2)]
    return Report([DataDriftPreset()], include_tests=True).run(*sides).dict()


def _without_tests(answer):
    answer["tests"] = []


def _without_a_value(answer):
    del answer["metrics"][3]["value"]


def _without_a_column(answer):
    del answer["metrics"][3]


def _without_the_count(answer):
    del answer["metrics"][0]


def _another_type(answer):
    answer["metrics"][0]["config"]["type"] += "V3"


def _a_failed_test(answer):
    answer["tests"][4]["status"] = "ERROR"


def _a_count_of_its_own(answer):
    answer["metrics"][0]["value"]["count"] += 1


def _a_text_for_a_value(answer):
    answer["metrics"][2]["value"] = "low"


def _another_shape(answer):
    answer["metrics"] = {"drift": False}


@pytest.mark.parametrize(
    "spoil",
    [
        _without_tests,
        _without_a_value,
        _without_a_column,
        _without_the_count,
        _another_type,
        _a_failed_test,
        _a_count_of_its_own,
        _a_text_for_a_value,
        _another_shape,
    ],
)
def test_an_answer_of_another_form_raises(report, raw, spoil):
    answer = copy.deepcopy(raw)
    assert set(report.summarise_drift(answer)["columns"]) == set(COMPARED_COLUMNS)
    spoil(answer)
    with pytest.raises(report.UnexpectedReportError):
        report.summarise_drift(answer)


def test_a_score_that_is_not_finite_is_neither_drift_nor_quiet(report, raw):
    answer = copy.deepcopy(raw)
    metric = next(metric for metric in answer["metrics"] if metric["config"].get("column") == "Recency")
    metric["value"] = float("nan")
    column = report.summarise_drift(answer)["columns"]["Recency"]
    assert (column["score"], column["drift"]) == (None, None)
