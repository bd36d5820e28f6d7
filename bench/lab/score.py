"""Counting: false alarms, what was found and when, whether causes and onsets were right; with intervals."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from scipy import special

from .drifts import DRIFTS, GROWING, STRENGTHS, SUDDEN, Variant
from .ours import QUIET
from .results import Alarm, Course
from .streams import AFTER_ONSET, ONSET_WEEK

ONSET_NEAR_WEEKS = 2
LEVEL = 0.95


class Rate(msgspec.Struct, frozen=True):
    """So many of so many, and the interval that covers the true share with a probability of 95%."""

    hits: int
    trials: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Hits of trials; not a number where there were none."""
        return self.hits / self.trials if self.trials else math.nan


def rate(clusters: Iterable[tuple[int, int]]) -> Rate:
    """Return the rate over clusters, each given as (hits, trials): trials of one seed are not independent.

    The interval is Clopper's and Pearson's (1934) at the effective number of trials, after Korn and Graubard
    (1998): trials divided by how much more the clusters vary than independent trials would. Where all or none
    hit, that cannot be seen, and a cluster counts as one trial.

    >>> rate([(0, 27)] * 100).high < 0.037, rate([(1, 1)] * 3).low < 0.3
    (True, True)
    """
    counted = [(hits, trials) for hits, trials in clusters if trials]
    hits, trials = (sum(column) for column in zip(*counted, strict=True)) if counted else (0, 0)
    if not trials:
        return Rate(0, 0, 0.0, 1.0)
    share, groups = hits / trials, len(counted)
    effective = float(groups)
    if 0 < share < 1 and groups > 1:
        squares = sum((some - share * of) ** 2 for some, of in counted)
        independent = share * (1 - share) * trials
        effective = trials / max(1.0, groups / (groups - 1) * squares / independent)
    return Rate(hits, trials, *clopper_pearson(share * effective, effective))


def clopper_pearson(hits: float, trials: float) -> tuple[float, float]:
    """Return the interval of a share at the 95% level, for whole or effective numbers.

    >>> [round(limit, 4) for limit in clopper_pearson(5, 100)]
    [0.0164, 0.1128]
    """
    tail = (1 - LEVEL) / 2
    low = special.betaincinv(hits, trials - hits + 1, tail) if hits > 0 else 0.0
    high = special.betaincinv(hits + 1, trials - hits, 1 - tail) if hits < trials else 1.0
    return float(low), float(high)


class Seen(NamedTuple):
    """A drift that was watched, and the first alarm at which it counts as found."""

    seed: int
    variant: Variant
    alarm: Alarm | None

    @property
    def delay_weeks(self) -> float:
        """Weeks from the onset to the end of the window found; infinite where it was not."""
        return math.inf if self.alarm is None else self.alarm.week - ONSET_WEEK


class Score(msgspec.Struct, frozen=True):
    """One method on one population."""

    quiet_streams: int
    false_windows: Rate
    alarmed_streams: Rate
    unjudged_windows: Rate
    found: dict[str, Rate]  # by strength, both paces
    found_by: dict[str, Rate]  # by `drift-strength-pace`
    found_by_week: dict[str, list[float]]  # by strength: share found 1, 2, ... weeks after the onset
    delay_weeks: dict[str, float | None]  # by `strength-pace`: median, None where fewer than half were found
    first_cause_right: Rate
    onset_near: Rate
    named_first: dict[str, dict[str, int]]  # by drift: what was named first, how often
    cpu_ms_a_window: float  # the median stream's
    calibration_s: float  # the median seed's


def score(courses: Mapping[int, Mapping[str, Course]], calibrations_s: Sequence[float] = ()) -> Score:
    """Count what a method said: courses by seed and by the name of the stream."""
    quiet = {seed: streams[QUIET] for seed, streams in courses.items()}
    seen = list(_seen(courses))
    caught = [one for one in seen if one.alarm is not None]
    cpu_s = [course.cpu_s_a_window for streams in courses.values() for course in streams.values()]
    return Score(
        quiet_streams=len(quiet),
        false_windows=rate(
            (len(course.alarms), course.windows - len(course.unjudged)) for course in quiet.values()
        ),
        alarmed_streams=rate((int(bool(course.alarms)), 1) for course in quiet.values()),
        unjudged_windows=rate((len(course.unjudged), course.windows) for course in quiet.values()),
        found={s: _share(_of(seen, strength=s), _is_found) for s in STRENGTHS if _of(seen, strength=s)},
        found_by={
            str(v): _share([one for one in seen if one.variant == v], _is_found)
            for v in sorted({one.variant for one in seen})
        },
        found_by_week={
            s: [_within(_of(seen, strength=s), week - ONSET_WEEK) for week in AFTER_ONSET]
            for s in STRENGTHS
            if _of(seen, strength=s)
        },
        delay_weeks={
            f"{s}-{p}": _median([one.delay_weeks for one in _of(seen, strength=s, pace=p)])
            for s in STRENGTHS
            for p in (SUDDEN, GROWING)
            if _of(seen, strength=s, pace=p)
        },
        first_cause_right=_share([one for one in caught if one.alarm and one.alarm.causes], _names_a_cause),
        onset_near=_share(
            [one for one in caught if one.alarm and one.alarm.onset_week is not None], _is_near_onset
        ),
        named_first={drift: _named_first(caught, drift) for drift in DRIFTS},
        cpu_ms_a_window=1e3 * statistics.median(cpu_s),
        calibration_s=statistics.median(calibrations_s) if calibrations_s else 0.0,
    )


def _seen(courses: Mapping[int, Mapping[str, Course]]) -> Iterator[Seen]:
    for seed, streams in courses.items():
        for name, course in streams.items():
            if name != QUIET:
                yield Seen(seed, Variant.parse(name), course.first_alarm())


def _of(seen: Iterable[Seen], *, strength: str, pace: str = "") -> list[Seen]:
    return [one for one in seen if one.variant.strength == strength and pace in {"", one.variant.pace}]


def _share(seen: Iterable[Seen], holds: Callable[[Seen], bool]) -> Rate:
    """Return the share of drifts of which something holds; those of one seed are a cluster."""
    clusters: dict[int, tuple[int, int]] = {}
    for one in seen:
        hits, trials = clusters.get(one.seed, (0, 0))
        clusters[one.seed] = hits + holds(one), trials + 1
    return rate(clusters.values())


def _is_found(one: Seen) -> bool:
    return one.alarm is not None


def _names_a_cause(one: Seen) -> bool:
    """Whether the first cause named is one that the drift moves."""
    assert one.alarm is not None
    return one.alarm.causes[0][0] in DRIFTS[one.variant.drift].causes


def _is_near_onset(one: Seen) -> bool:
    assert one.alarm is not None
    assert one.alarm.onset_week is not None
    return abs(one.alarm.onset_week - ONSET_WEEK) <= ONSET_NEAR_WEEKS


def _within(seen: Sequence[Seen], weeks: int) -> float:
    return sum(one.delay_weeks <= weeks for one in seen) / len(seen)


def _median(delays: Sequence[float]) -> float | None:
    middle = statistics.median_high(delays)
    return middle if math.isfinite(middle) else None


def _named_first(caught: Iterable[Seen], drift: str) -> dict[str, int]:
    """Return how often each feature was named first for a drift, the commonest first."""
    named: dict[str, int] = {}
    for one in caught:
        if one.variant.drift == drift and one.alarm is not None and one.alarm.causes:
            feature = one.alarm.causes[0][0]
            named[feature] = named.get(feature, 0) + 1
    return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))
