"""The demo as a person runs it: one command, a summary at the end, nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import KAFKA_CACHE

from streams.kafka_process import free_port

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SHOP = "customers=2500,days=215,seed=3"


def start(home, *arguments):
    env = os.environ | {
        "CLV_DRIFT_KAFKA_CACHE_DIR": str(KAFKA_CACHE),
        "CLV_DRIFT_BROKER_WAIT_S": "60",
        "CLV_DRIFT_WORKER_PORT": str(free_port()),
        "CLV_DRIFT_RETRAIN_PORT": str(free_port()),
        "CLV_DRIFT_ESTIMATORS": '["tweedie_glm"]',
        "CLV_DRIFT_REPORT_EVERY": "4",
        "CLV_DRIFT_RETRAIN_EVERY_DAYS": "0",
        "COLUMNS": "300",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "demo", "--home", str(home), *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def left_running(home) -> list[str]:
    """Command lines of processes that name the demo's directory in their environment or arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        try:
            words = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it is gone
        if str(home).encode() in words:
            found.append(words.decode(errors="replace")[-200:])
    return found


def wait_until_none_runs(home) -> None:
    """Return when nothing of the demo runs: what a process leaves behind ends a moment after it."""
    until = time.monotonic() + 60
    while left := left_running(home):
        assert time.monotonic() < until, left
        time.sleep(0.2)


@pytest.mark.timeout(1200)
def test_a_demo_ends_with_a_summary_and_a_second_one_works(tmp_path):
    home = tmp_path / "demo"
    what = ("--synthetic", SHOP, "--speed", "max", "--inject", "price:+100%@2011-06-13")
    first = start(home, *what)
    said, _ = first.communicate(timeout=600)
    assert first.returncode == 0, said
    assert re.search(r"\d[\d,]+ read: \d[\d,]+ on time, 0 late, 0 duplicate", said), said
    assert "promoted, first model" in said
    assert re.search(r"injected\s+price:\+100%@2011-06-13:\s+confirmed at 2011-06", said), said
    assert list((home / "reports").glob("*.html"))
    wait_until_none_runs(home)

    second = start(home, *what)
    again, _ = second.communicate(timeout=300)
    assert second.returncode == 0, again
    # Nothing is sent or counted twice.
    counted = re.compile(r"lines\s+([\d,]+) read: ([\d,]+) on time")
    assert counted.search(again).groups() == counted.search(said).groups()


@pytest.mark.timeout(600)
def test_ctrl_c_stops_every_process(tmp_path):
    home = tmp_path / "demo"
    demo = start(home, "--synthetic", SHOP, "--speed", "400000")
    until = time.monotonic() + 300
    seen = ""
    while "warming" not in seen:
        assert time.monotonic() < until, seen
        seen += demo.stdout.readline()
    demo.send_signal(signal.SIGINT)
    said, _ = demo.communicate(timeout=180)
    assert demo.returncode == 130, said
    assert "Traceback" not in said
    wait_until_none_runs(home)
