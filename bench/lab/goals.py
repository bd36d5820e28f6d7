"""What our acting detector is to reach, and whether it did."""

from collections.abc import Iterator
from typing import NamedTuple

from .drifts import GROWING, SUDDEN
from .score import Rate, Score

FOUND_MIN = {"full": 0.99, "half": 0.95, "quarter": 0.70}
DELAY_MAX_WEEKS = {SUDDEN: 2, GROWING: 5}  # at full strength


class Goal(NamedTuple):
    """A goal in words, what was measured in words, whether it is met, whether it is missed beyond chance."""

    words: str
    measured: str
    met: bool
    missed_surely: bool


def promise(score: Score) -> Iterator[Goal]:
    """Yield the goals about false alarms, which hold for any shop."""
    yield _at_most("windows with a false alarm", score.false_windows, 0.005)
    yield _at_most("quiet streams with any alarm", score.alarmed_streams, 0.05)
    upper = score.alarmed_streams.high
    yield Goal("the same, upper end of the interval: at most 8%", f"{upper:.1%}", upper <= 0.08, False)


def goals(score: Score) -> Iterator[Goal]:
    """Yield all goals that the streams watched can tell of; they are set for shops of the real one's size."""
    yield from promise(score)
    for strength, least in FOUND_MIN.items():
        if strength in score.found:
            yield _at_least(f"found within 13 weeks at {strength} strength", score.found[strength], least)
    for pace, most in DELAY_MAX_WEEKS.items():
        if f"full-{pace}" in score.delay_weeks:
            delay = score.delay_weeks[f"full-{pace}"]
            met = delay is not None and delay <= most
            measured = "more than 13" if delay is None else f"{delay:g}"
            words = f"median delay, {pace} at full strength: at most {most} weeks"
            yield Goal(words, measured, met, not met)
    if score.first_cause_right.trials:
        yield _at_least("the first cause named is a right one", score.first_cause_right, 0.95)
    if score.onset_near.trials:
        yield _at_least("onset named within 2 weeks of the true one", score.onset_near, 0.80)
    window_ms, calibration_s = score.cpu_ms_a_window, score.calibration_s
    yield Goal("CPU a window: at most 5 ms", f"{window_ms:.1f} ms", window_ms <= 5, False)
    yield Goal("CPU a calibration: at most 3 s", f"{calibration_s:.1f} s", calibration_s <= 3, False)


def _at_most(words: str, found: Rate, most: float) -> Goal:
    return Goal(f"{words}: at most {most:.1%}", percent(found), found.share <= most, found.low > most)


def _at_least(words: str, found: Rate, least: float) -> Goal:
    return Goal(f"{words}: at least {least:.0%}", percent(found), found.share >= least, found.high < least)


def percent(found: Rate) -> str:
    """Return a rate with its interval, percent."""
    if not found.trials:
        return "-"
    return f"{100 * found.share:.1f}% ({100 * found.low:.1f} to {100 * found.high:.1f})"
