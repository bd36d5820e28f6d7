"""Recalibration: the fit kept, the level of what came, a version of its own."""

import numpy as np
import pytest
from model_frames import labelled_frame

from models.card import card_of
from models.fitted import FrameError, predict
from models.holdout import is_holdout
from models.recalibration import level_version, recalibrated
from models.registry import Registry
from models.training import train

FRAME = labelled_frame()


@pytest.fixture(scope="module")
def model():
    return train(FRAME, "tweedie_glm", 42)


def test_predictions_add_up_to_what_came(model):
    doubled = FRAME.assign(label=2 * FRAME["label"])
    levelled = recalibrated(model, doubled)
    rows = doubled[~is_holdout(doubled["CustomerID"])]
    assert predict(levelled, rows).sum() == pytest.approx(rows["label"].sum(), rel=1e-3)
    assert np.allclose(predict(levelled, FRAME), levelled.level * predict(model, FRAME))
    assert levelled.pipeline is model.pipeline


def test_hold_out_customers_set_no_level(model):
    spoilt = FRAME.assign(label=FRAME["label"].where(~is_holdout(FRAME["CustomerID"]), 1e9))
    assert recalibrated(model, spoilt).level == recalibrated(model, FRAME).level


def test_the_scale_brings_predictions_to_the_horizon_of_the_labels(model):
    short = FRAME.assign(label=FRAME["label_short"])
    assert recalibrated(model, short, 0.25).level == pytest.approx(recalibrated(model, FRAME).level, rel=1e-3)


def test_the_version_is_that_of_the_model_and_the_level(model):
    levelled = recalibrated(model, FRAME.assign(label=3 * FRAME["label"]))
    assert levelled.version == level_version(model.version, levelled.level) != model.version
    assert level_version(model.version, 1.5) != level_version(model.version, 1.25)
    # A level on a level is relative to the fit, so that two in a row are one.
    assert recalibrated(levelled, FRAME).level == pytest.approx(recalibrated(model, FRAME).level, rel=1e-3)


@pytest.mark.parametrize("label", [0.0, -5.0])
def test_no_money_no_level(model, label):
    with pytest.raises(FrameError, match="level of model"):
        recalibrated(model, FRAME.assign(label=label))


def test_the_registry_keeps_the_level(model, tmp_path):
    levelled = recalibrated(model, FRAME.assign(label=3 * FRAME["label"]))
    card = card_of(
        levelled, horizon_days=90, metrics={}, recalibrates=model.version, onset="2011-06-06T00:00:00Z"
    )
    Registry(tmp_path).save(levelled, card, FRAME.head(5))
    loaded, read = Registry(tmp_path).load(levelled.version)
    assert (loaded.level, read.level, read.recalibrates) == (levelled.level, levelled.level, model.version)
    assert predict(loaded, FRAME).tolist() == predict(levelled, FRAME).tolist()
