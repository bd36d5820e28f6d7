"""What detectors said, one small file a contestant and seed, so that a run can be taken up where it ended."""

import ast
import statistics
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import msgspec

from .contestants import LAB, Family
from .ours import Judged

HOME = LAB.parent / "results" / "detection"
_STREAMS = (LAB / "streams.py", LAB / "drifts.py")


class Alarm(msgspec.Struct, frozen=True, omit_defaults=True):
    """A window said to have drifted, with what was named as its causes and its onset."""

    week: int
    causes: tuple[tuple[str, int, str], ...] = ()
    onset_week: float | None = None


class Course(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a method said of the windows of one stream."""

    windows: int
    cpu_s_a_window: float  # of the median one; of the mean where they are judged together
    alarms: tuple[Alarm, ...] = ()
    unjudged: tuple[int, ...] = ()  # weeks of which it could not tell

    @staticmethod
    def of(judged: Sequence[Judged]) -> "Course":
        """Return the course in short: of each alarm the three leading causes."""
        return Course(
            windows=len(judged),
            cpu_s_a_window=round(statistics.median(window.cpu_s for window in judged), 6),
            alarms=tuple(
                Alarm(window.week, window.causes[:3], window.onset_week) for window in judged if window.drift
            ),
            unjudged=tuple(window.week for window in judged if window.drift is None),
        )

    def first_alarm(self) -> Alarm | None:
        """Return the first alarm."""
        return min(self.alarms, key=lambda alarm: alarm.week, default=None)


class Result(msgspec.Struct, frozen=True):
    """What the methods of a family said of a seed's streams: by method, by the stream's name."""

    fingerprint: str
    calibration_cpu_s: float
    methods: dict[str, dict[str, Course]]


class Store:
    """The files of one family and population; those that other code wrote do not count."""

    def __init__(self, family: Family, population: str, home: Path = HOME) -> None:
        self.directory = home / population / family.name
        self.fingerprint = fingerprint((*_STREAMS, *family.sources), str(family.settings_read()))

    def load(self, seed: int, streams: Iterable[str]) -> Result | None:
        """Return what is kept of a seed, if it covers all of `streams`."""
        file = self._file(seed)
        if not file.exists():
            return None
        result = msgspec.json.decode(file.read_bytes(), type=Result)
        wanted = set(streams)
        covers = all(wanted <= set(courses) for courses in result.methods.values())
        return result if covers and result.fingerprint == self.fingerprint else None

    def save(
        self, seed: int, methods: dict[str, dict[str, Course]], *, calibration_cpu_s: float = 0.0
    ) -> None:
        """Keep what was said of a seed's streams; a file is there whole or not at all."""
        file = self._file(seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(Result(self.fingerprint, calibration_cpu_s, methods)))
        fresh.replace(file)

    def _file(self, seed: int) -> Path:
        return self.directory / f"{seed}.json"


def fingerprint(sources: Iterable[Path], more: str = "") -> str:
    """Return a hash of what some files say; comments, docstrings and the form of Python code do not count."""
    digest = blake2b(more.encode(), digest_size=10)
    for source in sources:
        text = source.read_text()
        digest.update((_meaning(text) if source.suffix == ".py" else text).encode())
    return digest.hexdigest()


def _meaning(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)
