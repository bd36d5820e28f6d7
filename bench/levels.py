"""One level for all customers, or one for each segment.

On the streams of `bench/retraining.py`, with the model trained at the end of the reference: each week its
level is set anew on the newest window whose short labels are known (`monitor_horizon_days`), by the customers
who are not held out, for all at once or for each segment. What is printed is the mean nMAE over 90 days, of
the windows that the stream goes on to show the labels of.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from courses.streams import Course, Floats, Watched, courses, nmae

from models.features import DAY_S
from models.fitted import TrainedModel, predict
from models.holdout import is_holdout
from streams.challenge import segments
from streams.settings import Settings

Segments = Callable[[pd.DataFrame, Floats], npt.NDArray[np.str_]]
DRAW = 200  # customers of a segment at which its own level and that of all count the same
GROUPS = 5


def everyone(rows: pd.DataFrame, _: Floats) -> npt.NDArray[np.str_]:
    return np.full(len(rows), "all")


def by_country(rows: pd.DataFrame, _: Floats) -> npt.NDArray[np.str_]:
    at_home = next(iter(segments(rows, Settings()).values()))
    return np.where(at_home, "home", "abroad")


def by_age(rows: pd.DataFrame, _: Floats) -> npt.NDArray[np.str_]:
    return np.where(segments(rows, Settings())["new customers"], "new", "old")


def by_prediction(_: pd.DataFrame, predicted: Floats) -> npt.NDArray[np.str_]:
    bounds = np.quantile(predicted, np.arange(1, GROUPS) / GROUPS)
    return np.searchsorted(bounds, predicted).astype(str)


WAYS: dict[str, Segments] = {
    "one for all": everyone,
    "home and abroad": by_country,
    "new and old customers": by_age,
    "fifths by prediction": by_prediction,
}


def levels(segment: npt.NDArray[np.str_], spent: Floats, promised: Floats) -> dict[str, float]:
    """Return the level of each segment: what came over what was promised, drawn towards that of all."""
    whole = spent.sum() / promised.sum()
    found = {}
    for name in np.unique(segment):
        rows = segment == name
        own = spent[rows].sum() / promised[rows].sum() if promised[rows].sum() > 0 else 0.0
        share = rows.sum() / (rows.sum() + DRAW)
        found[str(name)] = float(whole ** (1 - share) * own**share) if own > 0 else float(whole)
    return found


class Levelled:
    """A model on a course, whose level is set anew on short labels."""

    def __init__(self, course: Course, settings: Settings, trained: int | None) -> None:
        self.settings = settings
        self.watched = Watched(course, settings)
        self.first = self.watched.ends[(trained or settings.reference_weeks) - 1]
        self.judged = [end for end in self.watched.labelled if end > self.first]
        model = self.watched.trained(self.first)
        assert model is not None
        self.model: TrainedModel = model
        newest = self.newest(self.first - settings.horizon_days * DAY_S)
        # What a short horizon brings of the long one, as the first model's own labels have it.
        self.scale = self.short(newest)["label"].sum() / self.watched.labelled[newest]["label"].sum()

    def newest(self, at: int) -> int:
        """Return the newest window end up to `at`."""
        return max(end for end in self.watched.ends if end <= at)

    def short(self, end: int) -> pd.DataFrame:
        """Return the rows of a window with what its customers spent over the short horizon."""
        horizon_s = self.settings.monitor_horizon_days * DAY_S
        return self.watched.whole.labelled(end, horizon_s=horizon_s, at=self.watched.ends[-1])

    def mean(self, way: Segments | None) -> float:
        """Return the mean nMAE over the judged windows; None is the model as it was."""
        found = []
        for end in self.judged:
            rows = self.watched.labelled[end]
            predicted = predict(self.model, rows)
            if way is not None:
                at = self.newest(end - self.settings.monitor_horizon_days * DAY_S)
                past = self.short(at)
                past = past[~is_holdout(past["CustomerID"])]
                promised = predict(self.model, past)
                found_levels = levels(
                    way(past, promised), past["label"].to_numpy(np.float64), self.scale * promised
                )
                named = way(rows, predicted)
                predicted = predicted * np.array([found_levels.get(str(name), 1.0) for name in named])
            found.append(nmae(rows, predicted))
        return float(np.nanmean(found))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weeks", type=int, default=90, help="length of the synthetic streams")
    parser.add_argument("--seed", type=int, default=1, help="seed of the synthetic shop")
    parser.add_argument("--trained", type=int, help="week at whose end the model is trained; the reference's")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="courses with such a word")
    options = parser.parse_args()
    named = os.environ.get("ONLINE_RETAIL")
    print("| stream | as it was | " + " | ".join(WAYS) + " |")
    print("| --- | ---: | " + "---: | " * len(WAYS))
    for course in courses(Path(named) if named else None, options.weeks, options.seed):
        if not any(word in course.name for word in options.only):
            continue
        levelled = Levelled(course, Settings(), options.trained)
        cells = [f"{levelled.mean(way):.3f}" for way in (None, *WAYS.values())]
        print(f"| {course.name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
