"""A challenger held against the champion: which segments, and what speaks against it since its labels."""

from dataclasses import replace

import pytest
from line_factory import MONDAY, WEEK_S, settings, shop, windows_of

from models.training import train
from streams.challenge import objection, segments
from streams.history import History
from streams.retraining import training_frame

CONF = settings()
FALL = MONDAY + 9 * WEEK_S


def history_of(**changes):
    history = History()
    for snapshot in windows_of(shop(6, days=84, customers=400, orders_a_day=100, **changes), CONF):
        if not snapshot.partial:
            history.add(snapshot)
    return history


@pytest.fixture(scope="module")
def steady():
    return history_of()


@pytest.fixture(scope="module")
def model(steady):
    at = max(steady.windows)
    return train(training_frame(steady, at=at, settings=CONF), "tweedie_glm", 42)


def against(history, champion, level):
    other = replace(champion, level=champion.level * level)
    return objection(history, champion, other, CONF, at=max(history.windows))


def test_segments_are_masks_of_the_rows(steady, model):
    rows = steady.latest.rows
    rows = rows.assign(Tenure=range(len(rows)))
    found = segments(rows, CONF)
    assert (found["customers of United Kingdom"] ^ found["customers of other countries"]).all()
    assert (found["new customers"] ^ found["old customers"]).all()
    assert found["new customers"].sum() == CONF.window_days < len(rows)


@pytest.mark.parametrize(("level", "refused"), [(1.0, False), (4.0, True), (0.2, True)])
def test_a_sum_far_from_the_champions_is_for_a_person(steady, model, level, refused):
    found = against(steady, model, level)
    assert (found is not None and "level_change_max" in found) == refused


def test_the_newest_days_speak_against_a_level_that_has_passed(steady, model):
    """The labels that set it saw half the prices; the newest fortnight has the old ones again."""
    found = against(steady, model, 0.5)
    assert "over the newest 14 days" in found


def test_the_newest_days_speak_for_a_level_that_lasts(model):
    """The same level, where the newest fortnight has half the prices too."""
    fallen = history_of(price_factor=0.5, price_from=FALL)
    assert against(fallen, model, 0.5) is None
    assert "over the newest 14 days" in against(fallen, model, 2.0)
