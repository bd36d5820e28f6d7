"""Who takes part: our detectors, and the programs in `peers/`, each with what its methods are."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from streams.settings import Settings

LAB = Path(__file__).resolve().parent
PROJECT = LAB.parent.parent
OURS = ("calibrated", "baseline")


@dataclass(frozen=True)
class Family:
    """Methods that one program runs; `settings` says what is not the program's own default."""

    name: str
    methods: dict[str, str]  # by the name in results: what is compared with what
    settings: str
    program: str = ""  # a file of `peers/`; none for our detectors
    packages: tuple[str, ...] = ()  # whose versions the page gives
    code: tuple[str, ...] = ()  # of our detectors: files and directories of the program
    reads: tuple[str, ...] = ()  # of our detectors: the settings that they go by

    @property
    def python(self) -> Path:
        """The interpreter of the environment that `make detection` sets up."""
        return PROJECT / f".venv-lab-{self.name}" / "bin" / "python"

    @property
    def requirements(self) -> Path:
        """The pins of that environment."""
        return LAB / f"requirements-{self.name}.txt"

    @property
    def sources(self) -> list[Path]:
        """The files on which the results depend, besides the streams'."""
        if self.program:
            peer = [LAB / "peers" / "task.py", LAB / "peers" / self.program]
            return [LAB / "frames.py", LAB / "others.py", *peer, self.requirements]
        paths = [PROJECT / name for name in ("models/features.py", *self.code)]
        files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
        return [LAB / "frames.py", LAB / "ours.py", LAB / "past.py", *files]

    def settings_read(self) -> dict[str, Any]:
        """Return the settings that a detector of ours goes by."""
        values = Settings()
        return {name: getattr(values, name) for name in self.reads}


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "calibrated",
            {"calibrated": "three scales against the whole reference"},
            "none",
            code=("streams/detectors/interface.py", "streams/detectors/calibrated"),
            reads=(
                "false_alarm_rate",
                "false_alarm_horizon_weeks",
                "reference_weeks_min",
                "seed",
                "window_days",
                "mid_window_days",
                "short_window_days",
            ),
        ),
        Family(
            "baseline",
            {"baseline": "K-S and chi-square with Benjamini-Hochberg at 5%, last reference window"},
            "none",
            code=(
                "streams/detectors/interface.py",
                "streams/detectors/baseline.py",
                "streams/detectors/statistics.py",
            ),
            reads=("false_discovery_rate", "window_days"),
        ),
        Family(
            "evidently",
            {
                "dataset": "the preset's verdict: at least half of the columns drifted",
                "any column": "any column's test of the preset fails",
            },
            "none",
            "evidently_preset.py",
            ("evidently",),
        ),
        Family(
            "nannyml",
            {
                "univariate": "Jensen-Shannon distance a column, chunks of 13 weeks; any alert",
                "univariate, weeks": "the same, chunks of one week",
                "reconstruction": "PCA reconstruction error, chunks of 13 weeks",
            },
            "none",
            "nannyml_chunks.py",
            ("nannyml",),
        ),
        Family(
            "alibi-detect",
            {
                "tests": "TabularDrift: K-S and chi-square, Bonferroni at 5%",
                "classifier": "ClassifierDrift: a random forest, out of bag, 5%",
            },
            "forest with leaves of ten customers",
            "alibi_tests.py",
            ("alibi-detect",),
        ),
        Family(
            "river",
            {
                "ADWIN": "six features of orders; any fires",
                "ADWIN, strict": "the same with delta 0.00001",
                "KSWIN": "six features of orders; any fires",
                "KSWIN, strict": "the same with alpha 0.000001",
            },
            "the strict ones as said, chosen on seeds for tuning",
            "river_orders.py",
            ("river",),
        ),
    )
}


class Method(NamedTuple):
    """One line of the table."""

    family: str
    name: str

    def __str__(self) -> str:
        return self.family if self.family == self.name else f"{self.family}: {self.name}"


def methods() -> Iterator[Method]:
    """Yield every method, ours first."""
    for family in FAMILIES.values():
        for name in family.methods:
            yield Method(family.name, name)
