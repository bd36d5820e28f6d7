"""Evidently's comparison: its summary, its strictness, and the child process through its deaths."""

import asyncio
import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from streams.detectors.interface import COMPARED_COLUMNS, NUMERIC_UNITS
from streams.evidently_child import ComparisonFailed, EvidentlyChild
from streams.evidently_protocol import from_arrow, make_request

TIMEOUT_S = 120

# Evidently divides by zero on the way and its plots warn by the dozen; its answers are what is tested.
pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning", "ignore::DeprecationWarning", r"ignore:R\^2 score"
)


def customers(seed, n, *, scale=1.0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.lognormal(3, 1, n) * scale for name in NUMERIC_UNITS})
    return frame.assign(Country=rng.choice(["United Kingdom", "France", "Spain"], n, p=[0.9, 0.07, 0.03]))


def pairs(seed):
    rng = np.random.default_rng(seed)
    target = rng.lognormal(5, 1, 300)
    return (target, target + 10, target[:200], target[:200] - 20)


def request(current, reference, **changes):
    given = {"drift_share": 0.5, "rows_max": 20_000, "regression": None, "html": None}
    return make_request(current, reference, **{**given, **changes})


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


# -- the child


def with_child(tmp_path, scenario, *, timeout_s=TIMEOUT_S):
    """Run an async scenario with a child; it is gone afterwards."""

    async def run():
        child = EvidentlyChild(log_path=tmp_path / "log" / "child.log", timeout_s=timeout_s)
        try:
            return await scenario(child)
        finally:
            await child.stop()
            assert child.pid is None

    return asyncio.run(run())


async def started(child):
    """Wait until the child has a process, and return its id."""
    while child.pid is None:  # noqa: ASYNC110  (the handle has no event for it)
        await asyncio.sleep(0.01)
    return child.pid


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that nobody has reaped yet is dead too.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def gone_within(pid, seconds):
    deadline = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_frames_survive_the_pipe():
    frame = customers(1, 50).assign(CustomerID="17850")
    message = request(frame, frame)
    pd.testing.assert_frame_equal(from_arrow(message.current), frame[list(COMPARED_COLUMNS)])


@pytest.mark.slow
def test_the_child_answers_as_the_function_does_and_outlives_a_failure(report, tmp_path):
    current, reference = customers(2, 300, scale=1.5), customers(1, 200)
    html = tmp_path / "report.html"

    async def scenario(child):
        await child.start()
        pid = child.pid
        bare = await child.compare(request(current, reference))
        with pytest.raises(ComparisonFailed, match=r"3 tries: ValueError.*empty column"):
            await child.compare(request(current.head(0), reference))
        full, again = await asyncio.gather(
            child.compare(request(current, reference, regression=pairs(5), html=html)),
            child.compare(request(current, reference)),
        )
        assert child.pid == pid
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 10
        return pid, bare, full, again

    pid, bare, full, again = with_child(tmp_path, scenario)
    assert bare == again == compare(report, current, reference)
    assert full == compare(report, current, reference, regression=report.RegressionPairs(*pairs(5)))
    assert html.stat().st_size > 1_000_000
    assert not alive(pid)
    assert "Traceback" in (tmp_path / "log" / "child.log").read_text()


@pytest.mark.slow
def test_a_child_that_is_killed_or_interrupted_is_replaced(tmp_path):
    message = request(customers(2, 200), customers(1, 200))

    async def scenario(child):
        await child.start()
        pids = [child.pid]
        os.kill(child.pid, signal.SIGKILL)  # between two requests
        after_kill = await child.compare(message)
        pids.append(child.pid)
        # A comparison cancelled half way leaves its answer in the pipe: that child is not to be used again.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(child.compare(request(customers(3, 900), customers(4, 900))), 0.1)
        assert not alive(pids[-1])
        again = asyncio.create_task(child.compare(message))
        pids.append(await started(child))
        os.kill(child.pid, signal.SIGKILL)  # under a request, which starts it once more
        after_cancel = await again
        pids.append(child.pid)
        return pids, after_kill, after_cancel

    pids, after_kill, after_cancel = with_child(tmp_path, scenario)
    assert len(set(pids)) == 4
    assert after_kill == after_cancel
    assert not any(alive(pid) for pid in pids)


def test_a_child_that_is_too_slow_fails_after_three_tries(tmp_path):
    message = request(customers(2, 50), customers(1, 50))
    with pytest.raises(
        ComparisonFailed, match=r"3 tries: the child gave no answer in 0.2 s; see .*child.log"
    ):
        with_child(tmp_path, lambda child: child.compare(message), timeout_s=0.2)
    with pytest.raises(ComparisonFailed, match=r"no answer in 0.2 s"):
        with_child(tmp_path, lambda child: child.start(), timeout_s=0.2)


def test_stop_ends_a_start_under_way_for_good(tmp_path):
    async def scenario(child):
        starting = asyncio.create_task(child.start())
        pid = await started(child)
        await child.stop()
        with pytest.raises(ComparisonFailed):
            await starting
        with pytest.raises(ComparisonFailed, match="the child was stopped"):
            await child.compare(request(customers(2, 50), customers(1, 50)))
        return pid

    assert not alive(with_child(tmp_path, scenario))


def test_the_child_dies_when_its_stdin_closes_even_while_it_starts():
    child = subprocess.Popen(
        [sys.executable, "-m", "streams.evidently_child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with contextlib.ExitStack() as stack:
        stack.callback(child.wait)
        stack.callback(child.kill)
        child.stdin.close()
        assert child.wait(timeout=30) == 0
        assert child.stdout.read() == b""


PARENT = """
import asyncio, sys
from pathlib import Path
from streams.evidently_child import EvidentlyChild

async def main():
    child = EvidentlyChild(log_path=Path(sys.argv[1]), timeout_s=120)
    starting = asyncio.create_task(child.start())
    while child.pid is None:
        await asyncio.sleep(0.01)
    print(child.pid, flush=True)
    await starting
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_the_child_dies_with_a_parent_that_is_killed(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "child.log")], stdout=subprocess.PIPE, text=True
    )
    try:
        pid = int(parent.stdout.readline())
        assert alive(pid)
    finally:
        parent.kill()
        parent.wait()
    assert gone_within(pid, 30)
