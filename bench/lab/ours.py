"""Our own detectors on a stream and on what became of it: how each window was judged, at what cost."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from streams.detectors import DetectionContext, Verdict, make_detector
from streams.settings import Settings

from .frames import customer_frame
from .past import StreamHistory
from .streams import AFTER_ONSET, ONSET_WEEK, REFERENCE_WEEKS, START, WATCHED, WEEK_S, Stream, end_of

QUIET = "quiet"


class Judged(NamedTuple):
    """What was said of the window that ends with `week`; `onset_week` is the number of weeks before it."""

    week: int
    drift: bool | None
    causes: tuple[tuple[str, int, str], ...]  # feature, length of the window in weeks, segment
    onset_week: float | None
    cpu_s: float


@dataclass
class Watched:
    """What was said of a stream (under `QUIET`) and of its variants (under their names)."""

    calibration_cpu_s: float = 0.0
    judged: dict[str, list[Judged]] = field(default_factory=dict)


# A base stream and its variants, which are the same up to the onset: the reference is calibrated once.
Watcher = Callable[[Stream, Iterable[tuple[str, Stream]]], Watched]


def watch_baseline(base: Stream, variants: Iterable[tuple[str, Stream]]) -> Watched:
    """Let the baseline detector watch; it needs no calibration and remembers nothing."""
    detector = make_detector("baseline", Settings())
    reference = customer_frame(base, REFERENCE_WEEKS)

    def judged(stream: Stream, weeks: Iterable[int]) -> Iterator[Judged]:
        for week in weeks:
            current = customer_frame(stream, week)
            ends = end_of(np.array([week, REFERENCE_WEEKS])).tolist()
            context = DetectionContext(
                window_end=ends[0],
                current=current,
                reference=reference,
                reference_window_end=ends[1],
                partial=False,
            )
            begun = time.process_time()
            verdict, _ = detector.judge(context)
            yield _judged(week, verdict, time.process_time() - begun)

    watched = Watched()
    watched.judged[QUIET] = list(judged(base, WATCHED))
    for name, stream in variants:
        watched.judged[name] = list(judged(stream, AFTER_ONSET))
    return watched


def watch_calibrated(base: Stream, variants: Iterable[tuple[str, Stream]]) -> Watched:
    """Let the calibrated detector watch; one calibration serves all variants, as they share the reference."""
    settings = Settings()
    detector = make_detector("calibrated", settings)
    first, last = (int(end_of(np.array(week))) for week in (1, REFERENCE_WEEKS))

    def judged(history: StreamHistory, weeks: Iterable[int]) -> Iterator[Judged]:
        for week in weeks:
            window = history.windows[int(end_of(np.array(week)))]
            context = DetectionContext(
                window_end=window.window_end,
                current=window.rows,
                reference=history.windows[last].rows,
                reference_window_end=last,
                partial=False,
                history=history,
                reference_ends=tuple(range(first, last + 1, WEEK_S)),
            )
            begun = time.process_time()
            verdict, _ = detector.judge(context)
            yield _judged(week, verdict, time.process_time() - begun)

    history = StreamHistory(base, REFERENCE_WEEKS + 1)
    begun = time.process_time()
    next(judged(history, [REFERENCE_WEEKS + 1]))
    watched = Watched(calibration_cpu_s=time.process_time() - begun)
    history = StreamHistory(base, WATCHED[-1], shared=history)
    watched.judged[QUIET] = list(judged(history, WATCHED))
    shared = history.up_to(ONSET_WEEK)
    for name, stream in variants:
        changed = StreamHistory(stream, AFTER_ONSET[-1], shared=shared)
        watched.judged[name] = list(judged(changed, AFTER_ONSET))
    return watched


def _judged(week: int, verdict: Verdict, cpu_s: float) -> Judged:
    causes = tuple((cause.feature, cause.scale_weeks, cause.segment) for cause in verdict.causes)
    onset_week = None if verdict.onset is None else (verdict.onset - START) / WEEK_S
    return Judged(week, verdict.drift, causes, onset_week, cpu_s)


WATCHERS: dict[str, Watcher] = {"calibrated": watch_calibrated, "baseline": watch_baseline}


def watch(stream: Stream, name: str) -> list[Judged]:
    """Let a detector of ours watch one stream."""
    return WATCHERS[name](stream, ()).judged[QUIET]
