"""The streams that policies are tried on: their windows, and what every model would have erred in each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.features import DAY_S
from models.fitted import FrameError, TrainedModel, predict
from models.metrics import performance
from producers import scenarios
from producers.batch_input import batch_records
from producers.inputs import Input, file_input, synthetic_input
from streams.backfill import Windows
from streams.history import History
from streams.joining import Snapshot
from streams.retraining import train_best, training_frame
from streams.settings import Settings

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """A stream to watch a model on: its name, what happens, and how to read it."""

    name: str
    what: str
    inject: tuple[str, ...]
    source: Callable[[tuple[str, ...]], Input]


def courses(path: Path | None, weeks: int, seed: int) -> list[Course]:
    """Return the courses: of the real year, where there is one, and of a synthetic shop of `weeks` weeks."""
    found = []
    if path is not None:
        found += [Course(f"real, {name}", what, inject, _file(path)) for name, what, inject in _REAL]
    shop = f"customers=4000,days={weeks * 7},seed={seed}"
    return found + [Course(f"synthetic, {name}", what, inject, _shop(shop)) for name, what, inject in _LONG]


_REAL = (
    ("quiet", "the year as it was", ()),
    ("orders fall", "40% of the orders are not placed from 2011-06-13 on", ("orders:-40%@2011-06-13",)),
    ("prices rise", "all prices +40% from 2011-06-13 on", ("price:+40%@2011-06-13",)),
    (
        "mix shifts",
        "newcomers, and the largest customers buy three times as much, from 2011-06-13 on",
        ("newcomers:25%@2011-06-13", "whales:3x@2011-06-13"),
    ),
    ("a corrupt month", "prices ten times too high in July", ("price:+900%@2011-07-04..2011-08-01",)),
)
_LONG = (
    ("quiet", "nothing happens", ()),
    ("orders fall", "40% of the orders are not placed from 2011-08-01 on", ("orders:-40%@2011-08-01",)),
    ("prices rise", "all prices +40% from 2011-08-01 on", ("price:+40%@2011-08-01",)),
    (
        "mix shifts",
        "newcomers, and the largest customers buy three times as much, from 2011-08-01 on",
        ("newcomers:25%@2011-08-01", "whales:3x@2011-08-01"),
    ),
    ("a corrupt month", "prices ten times too high in August", ("price:+900%@2011-08-01..2011-08-29",)),
    ("lost lines", "a third of the lines is lost in August", ("basket:-33%@2011-08-01..2011-08-29",)),
)


def _file(path: Path) -> Callable[[tuple[str, ...]], Input]:
    return lambda inject: file_input(path, [scenarios.parse(text) for text in inject])


def _shop(shop: str) -> Callable[[tuple[str, ...]], Input]:
    return lambda inject: synthetic_input(shop, [scenarios.parse(text) for text in inject])


class Watched:
    """A course's windows, and the error that any model makes in each of them.

    `judged` are the window ends, from `first` (the first window with a model) on, whose labels over the
    served horizon the stream goes on to show.
    """

    def __init__(self, course: Course, settings: Settings) -> None:
        self.course = course
        self.settings = settings
        records = batch_records(settings, course.source(course.inject))
        self.snapshots: list[Snapshot] = list(Windows(settings).feed(records))
        self.whole = History()
        for snapshot in self.snapshots:
            self.whole.add(snapshot)
        self._models: dict[int, TrainedModel | None] = {}

    @cached_property
    def ends(self) -> list[int]:
        """Ends of the whole windows."""
        return [s.window_end for s in self.snapshots if not s.partial]

    @cached_property
    def labelled(self) -> dict[int, pd.DataFrame]:
        """The rows of each window whose labels are known at the end, by its end."""
        last, horizon_s = self.ends[-1], self.settings.horizon_days * DAY_S
        return {
            end: self.whole.labelled(end, horizon_s=horizon_s, at=last)
            for end in self.whole.matured(horizon_s=horizon_s, at=last)
        }

    def histories(self) -> Iterator[History]:
        """Yield the history after each window, as far as it was known then; one object, growing."""
        history = History()
        for snapshot in self.snapshots:
            history.add(snapshot)
            yield history

    def trained(self, at: int) -> TrainedModel | None:
        """Return the model that a retrain at window end `at` gives, None without labels."""
        if at not in self._models:
            frame = training_frame(self.whole, at=at, settings=self.settings)
            try:
                found = (
                    None if frame.empty else train_best(frame, self.settings.estimators, self.settings.seed)
                )
            except FrameError:
                found = None
            self._models[at] = found
        return self._models[at]

    def errors(self, model: TrainedModel, ends: list[int]) -> Floats:
        """Return the nMAE of a model in each of the windows `ends`, shape (n,)."""
        return np.array([nmae(self.labelled[end], predict(model, self.labelled[end])) for end in ends])


def nmae(rows: pd.DataFrame, predicted: Floats) -> float:
    """Return the nMAE of predictions for labelled rows, NaN where nobody spent."""
    value = performance(rows["label"], predicted, rows["SampleWeight"])["nmae"]
    return np.nan if value is None else value
