"""The numbers behind the page: every method's score, the verdicts on the real year; kept with the code."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from .contestants import FAMILIES, LAB, Method, methods
from .ours import Judged
from .runs import Plan
from .score import Score, score
from .streams import START, WEEK_S

FILE = LAB.parent / "detection.json"


class Row(msgspec.Struct, frozen=True):
    """A method on a population, and the seeds that it was measured on."""

    population: str
    family: str
    method: str
    first_seed: int
    drifted: int  # seeds that were given drifts
    score: Score

    @property
    def name(self) -> str:
        """The method as the tables call it."""
        return str(Method(self.family, self.method))


class Verdict(msgspec.Struct, frozen=True):
    """What the acting detector said of a window of the real year."""

    window_end: str
    drift: bool | None
    causes: tuple[tuple[str, int, str], ...]
    onset: str


class Summary(msgspec.Struct):
    """Everything that the page tells."""

    rows: list[Row] = []
    real_year: list[Verdict] = []
    real_year_by: str = ""  # the detector

    @staticmethod
    def stored(file: Path = FILE) -> "Summary":
        """Return what is kept; nothing where there is no file."""
        return msgspec.json.decode(file.read_bytes(), type=Summary) if file.exists() else Summary()

    def store(self, file: Path = FILE) -> None:
        """Write the file."""
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    def put(self, plan: Plan) -> list[Row]:
        """Score what is kept of a plan and put it in the place of what was known of its methods."""
        rows = scored(plan)
        replaced = {(row.population, row.name) for row in rows}
        order = [str(method) for method in methods()]
        self.rows = [row for row in self.rows if (row.population, row.name) not in replaced] + rows
        self.rows.sort(key=lambda row: (row.population != "real", row.population, order.index(row.name)))
        return rows


def scored(plan: Plan) -> list[Row]:
    """Return a row a method of what is kept of a plan's seeds; none where nothing is kept."""
    store = plan.store()
    found = {seed: store.load(seed, plan.streams(seed)) for seed in plan.seeds}
    results = {seed: result for seed, result in found.items() if result is not None}
    drifted = sum(1 for seed in results if plan.variants(seed))
    rows = []
    for method in FAMILIES[plan.family].methods if results else ():
        # A file may hold more than the plan asks for; then that is not counted.
        courses = {
            seed: {name: result.methods[method][name] for name in plan.streams(seed)}
            for seed, result in results.items()
        }
        calibrations_s = [result.calibration_cpu_s for result in results.values()]
        rows.append(
            Row(
                plan.population, plan.family, method, plan.seeds_from, drifted, score(courses, calibrations_s)
            )
        )
    return rows


def verdicts(judged: Sequence[Judged]) -> list[Verdict]:
    """Return verdicts with their dates."""
    return [
        Verdict(
            _day(window.week),
            window.drift,
            window.causes[:3],
            "" if window.onset_week is None else _day(window.onset_week),
        )
        for window in judged
    ]


def _day(weeks: float) -> str:
    return f"{datetime.fromtimestamp(START + weeks * WEEK_S, UTC):%Y-%m-%d}"
