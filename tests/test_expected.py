"""Expected events: which drift they explain, and that it then confirms nothing."""

from datetime import date

import pytest

from streams.aspects import Aspect, aspects_of
from streams.errors import UserError
from streams.expected import ExpectedEvent, explaining
from streams.settings import load_settings

DAY_S = 86_400
PEAK = ExpectedEvent(name="peak", start=date(1970, 1, 11), end=date(1970, 1, 20), aspects=("volume",))
SALE = ExpectedEvent(name="sale", start=date(1970, 1, 11), end=date(1970, 1, 11), aspects=("prices",))


@pytest.mark.parametrize(
    ("first_day", "last_day", "met"),
    [(0, 10, False), (0, 11, True), (15, 16, True), (19, 40, True), (20, 40, False)],
)
def test_an_event_meets_windows_that_hold_a_part_of_it(first_day, last_day, met):
    assert PEAK.meets(first_day * DAY_S, last_day * DAY_S) is met


@pytest.mark.parametrize(
    ("aspects", "names"),
    [
        ((Aspect.VOLUME,), ["peak"]),
        ((Aspect.PRICES,), ["sale"]),
        ((Aspect.PRICES, Aspect.VOLUME), ["peak", "sale"]),
        ((Aspect.BEHAVIOUR,), []),
        ((Aspect.VOLUME, Aspect.BEHAVIOUR), []),
        ((), []),
    ],
)
def test_a_drift_is_explained_only_if_all_of_it_is_expected(aspects, names):
    assert explaining([PEAK, SALE], aspects, 0, 15 * DAY_S) == names


def test_an_event_without_aspects_explains_everything():
    event = ExpectedEvent(name="move", start=date(1970, 1, 1), end=date(1970, 1, 1))
    assert explaining([event], tuple(Aspect), 0, DAY_S) == ["move"]


def test_an_event_that_ends_before_it_starts_is_refused_by_name():
    with pytest.raises(UserError, match=r"expected_events.*'sale' ends \(2011-01-01\)"):
        load_settings(expected_events=[{"name": "sale", "start": "2011-02-01", "end": "2011-01-01"}])


@pytest.mark.parametrize(
    ("features", "aspects"),
    [
        ([], []),
        (["Recency", "customers"], ["volume"]),
        (["Country", "AvgUnitPrice"], ["behaviour", "prices"]),
        (["Monetary", "arrivals"], ["volume"]),
        (["Monetary"], ["behaviour"]),
    ],
)
def test_aspects_follow_the_order_of_the_causes(features, aspects):
    assert [str(aspect) for aspect in aspects_of(features)] == aspects
