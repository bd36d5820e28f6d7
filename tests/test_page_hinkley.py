"""The Page-Hinkley test: as river's, with its state as numbers, and it says how far and since when."""

import json
import random

import pytest
from river.drift import PageHinkley as RiverPageHinkley

from streams.page_hinkley import PageHinkley


def values(seed, *, before=400, after=200, shift=0.0):
    rng = random.Random(seed)
    return [rng.gauss(0, 1) for _ in range(before)] + [rng.gauss(shift, 1) for _ in range(after)]


def alarms(stream, **parameters):
    """Where it fires; after an alarm a new test begins, as river's does."""
    found, test = [], PageHinkley(**parameters)
    for i, value in enumerate(stream):
        if test.update(value, i):
            found.append(i)
            test = PageHinkley(**parameters)
    return found


@pytest.mark.parametrize("shift", [0.0, 0.5, -0.5, 2.0, -2.0])
@pytest.mark.parametrize("seed", range(5))
def test_it_fires_where_rivers_does(seed, shift):
    stream = values(seed, shift=shift)
    river, found = RiverPageHinkley(min_instances=1, delta=0.1, threshold=15.0, alpha=1.0), []
    for i, value in enumerate(stream):
        river.update(value)
        if river.drift_detected:
            found.append(i)
    assert alarms(stream, delta=0.1, threshold=15.0) == found
    assert bool([i for i in found if i >= 400]) or shift == 0.0


@pytest.mark.parametrize(("shift", "sign"), [(1.0, 1), (-1.0, -1)])
def test_it_says_how_far_and_since_when(shift, sign):
    test = PageHinkley(delta=0.1, threshold=40.0)
    found = [(i, told) for i, value in enumerate(values(3, shift=shift)) if (told := test.update(value, i))]
    i, told = found[0]
    assert told.size * sign == pytest.approx(1.0, abs=0.4)  # of the mean so far, which follows
    assert 380 <= told.onset <= 410
    assert told.onset + told.values - 1 == i
    assert told.statistic > 40.0


def test_values_that_stay_alike_are_no_change():
    assert alarms([5.0] * 1000, delta=0.0, threshold=1e-9) == []


@pytest.mark.parametrize("cut", [0, 1, 250, 410])
def test_it_goes_on_from_what_is_stored(cut):
    stream = values(1, shift=0.4)
    whole, first = PageHinkley(delta=0.1, threshold=1e9), PageHinkley(delta=0.1, threshold=1e9)
    for i, value in enumerate(stream):
        whole.update(value, i)
        if i < cut:
            first.update(value, i)
    second = PageHinkley(delta=0.1, threshold=1e9)
    second.restore(json.loads(json.dumps(first.stored())))
    for i, value in enumerate(stream[cut:], cut):
        second.update(value, i)
    assert second.stored() == whole.stored()
