"""Evidently in its child process: the answers are those of the function, through all its deaths."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from model_frames import customers, pairs

from streams.detectors.interface import COMPARED_COLUMNS
from streams.evidently_child import ComparisonFailed, EvidentlyChild
from streams.evidently_protocol import from_arrow, make_request

TIMEOUT_S = 300

# Evidently divides by zero on the way and its plots warn by the dozen; its answers are what is tested.
pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning", "ignore::DeprecationWarning", r"ignore:R\^2 score"
)


def request(current, reference, **changes):
    given = {"drift_share": 0.5, "rows_max": 20_000, "regression": None, "html": None}
    return make_request(current, reference, **{**given, **changes})


def test_a_workspace_is_filled_once_a_window_and_a_failure_costs_nothing(tmp_path):
    workspace, taken = tmp_path / "workspace", tmp_path / "taken"
    taken.write_text("a file, where a directory is wanted")
    current, reference = customers(1, 200), customers(2, 200)
    first, second = 1_306_108_800, 1_306_713_600

    async def scenario(child):
        results = [
            await child.compare(
                request(current, reference, workspace=place, project="clv-drift", window_end=end)
            )
            for place, end in ((workspace, first), (workspace, first), (workspace, second), (taken, first))
        ]
        assert all(result == results[0] for result in results)

    with_child(tmp_path, scenario)
    assert "NotADirectoryError" in (tmp_path / "log" / "child.log").read_text()
    # Evidently's own layout, looked at without its import of many seconds.
    (project,) = workspace.glob("*/metadata.json")
    assert '"clv-drift"' in project.read_text()
    assert len(list(project.parent.glob("snapshots/*.json"))) == 2


@pytest.fixture(scope="module")
def report():
    """The module under test; its import takes some ten seconds."""
    from streams import evidently_report

    return evidently_report


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
    given = {"drift_share": 0.5, "html": None}
    assert bare == again == report.compare(current, reference, regression=None, **given)
    both = report.RegressionPairs(*pairs(5))
    assert full == report.compare(current, reference, regression=both, **given)
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
    with pytest.raises(ComparisonFailed, match=r"3 tries: the child gave no answer in 0.2 s$"):
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
        assert child.wait(timeout=120) == 0
        assert child.stdout.read() == b""


PARENT = """
import asyncio, sys
from pathlib import Path
from streams.evidently_child import EvidentlyChild

async def main():
    child = EvidentlyChild(log_path=Path(sys.argv[1]), timeout_s=300)
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
    assert gone_within(pid, 120)
