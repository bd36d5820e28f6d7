"""A synthetic shop small enough for a test, settings that fit its few months, and its lines as a file."""

import csv
import json
import sys
from itertools import takewhile
from pathlib import Path

from producers import scenarios
from producers.inputs import Input, synthetic_input
from streams.cli import main
from streams.settings import ENV_PREFIX, Settings
from streams.transactions import FIELDS

SHOP = "customers=2000,days=150,seed=3"
DRIFT = "price:+60%@2011-03-28"

SHORT = {
    "window_days": 28,
    "mid_window_days": 14,
    "short_window_days": 7,
    "reference_weeks": 12,
    "acting_detector": "baseline",  # the calibrated one needs a longer reference
    "horizon_days": 28,
    "monitor_horizon_days": 14,
    "harm_gate": False,  # so short a story has no labels that could show harm
    "min_matured_windows": 0,
    "retrain_every_days": 0,
    "estimators": ("tweedie_glm",),
    "gate_resamples": 200,
}


def short_settings(**changes) -> Settings:
    """Windows of four weeks, a reference of twelve: five months show everything."""
    return Settings(**{**SHORT, **changes})


def shop(*inject: str, text: str = SHOP) -> Input:
    return synthetic_input(text, [scenarios.parse(change) for change in inject])


def rows_before(source: Input, date: str) -> int:
    """Return how many rows of `source` lie before `date` (as in 2011-03-28): a `--limit` of a replay."""
    return sum(1 for _ in takewhile(lambda item: item[1]["InvoiceDate"] < date, source.lines()))


def write_csv(path: Path, source: Input) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(line for _, line in source.lines())
    return path


def set_environment(monkeypatch, **changes) -> None:
    """Set `SHORT` and `changes` as a caller of the program does."""
    for name, value in {**SHORT, **changes}.items():
        text = json.dumps(value) if isinstance(value, tuple) else str(value)
        monkeypatch.setenv(ENV_PREFIX + name.upper(), text)


def clv_drift(*arguments: object) -> int:
    """Run the console script in this process; return its exit code."""
    before, sys.argv = sys.argv, ["clv-drift", *map(str, arguments)]
    try:
        main()
    except SystemExit as exc:
        return int(exc.code or 0)
    finally:
        sys.argv = before
    return 0
