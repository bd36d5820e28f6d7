"""Training: what decides a version, who is never learned from, what is refused, the same bytes everywhere."""

import doctest
import os
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest
from model_frames import labelled_frame

from models import estimators, fitted, training
from models.estimators import UnknownEstimatorError, make_estimator, spec_of
from models.fitted import FrameError, predict
from models.holdout import is_holdout
from models.metrics import performance
from models.training import canonical_frame, holdout_performance, horizon_scale, train, version_of

NAMED = ("random_forest", "tweedie_glm")
FRAME = labelled_frame()


@pytest.mark.parametrize("module", [estimators, training])
def test_examples_in_the_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_the_forest_is_that_of_the_original_system():
    forest = make_estimator("random_forest", 42).named_steps["regressor"]
    expected = {"n_estimators": 100, "max_depth": 10, "min_samples_split": 10, "min_samples_leaf": 5}
    assert expected.items() <= forest.get_params().items()
    assert forest.random_state == 42
    assert spec_of("random_forest").features == (
        "Recency",
        "Frequency",
        "Monetary",
        "AvgQuantity",
        "TotalQuantity",
        "AvgUnitPrice",
        "NumOrders",
        "NumProducts",
        "Country",
    )


@pytest.mark.parametrize("estimator", NAMED)
def test_a_model_learns_what_the_features_tell(estimator):
    model = train(FRAME, estimator, seed=42)
    measured = holdout_performance(model, FRAME)
    assert measured["gini"] > 0.7
    held_out = FRAME[is_holdout(FRAME["CustomerID"]) & (FRAME["window_end"] == FRAME["window_end"].max())]
    y = held_out["label"].to_numpy()
    assert measured["nmae"] < 0.8 * performance(y, np.full(y.size, y.mean()))["nmae"]
    assert (predict(model, FRAME) >= 0).all()


@pytest.mark.parametrize("estimator", NAMED)
def test_facts_of_the_training(estimator):
    model = train(FRAME, estimator, seed=7)
    kept = FRAME[~is_holdout(FRAME["CustomerID"])]
    assert model.training.rows == len(kept) < len(FRAME)
    assert model.training.customers == kept["CustomerID"].nunique()
    assert model.training.first_window_end == "2011-03-07T00:00:00Z"
    assert model.training.last_window_end == "2011-03-14T00:00:00Z"
    assert (model.estimator, model.seed) == (estimator, 7)
    assert model.horizon_scale == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("estimator", NAMED)
def test_hold_out_customers_are_never_learned_from(estimator):
    held_out = is_holdout(FRAME["CustomerID"])
    altered = FRAME.copy()
    altered.loc[held_out, "label"] = 1e6
    plain, other = train(FRAME, estimator, seed=1), train(altered, estimator, seed=1)
    assert (predict(plain, FRAME) == predict(other, FRAME)).all()
    altered.loc[~held_out, "label"] += 100
    moved = train(altered, estimator, seed=1)
    assert (predict(plain, FRAME) != predict(moved, FRAME)).any()


@pytest.mark.parametrize("estimator", NAMED)
def test_neither_order_nor_integer_types_matter(estimator):
    shuffled = FRAME.sample(frac=1, random_state=3)[FRAME.columns[::-1]]
    shuffled = shuffled.astype({"Recency": "int32", "Frequency": "float64", "CustomerID": object})
    shuffled["window_end"] = shuffled["window_end"].dt.as_unit("ns")
    shuffled["Unused"] = "x"
    model, other = train(FRAME, estimator, seed=1), train(shuffled, estimator, seed=1)
    assert model.version == other.version
    assert (predict(model, FRAME) == predict(other, FRAME)).all()


def test_a_version_tells_every_cause_of_another_model():
    def one_changed(column, value):
        changed = FRAME.copy()
        changed.loc[5, column] = value
        return changed

    versions = [
        version_of(FRAME, "tweedie_glm", {"alpha": 1}),
        version_of(FRAME, "tweedie_glm", {"alpha": 2}),
        version_of(FRAME, "random_forest", {"alpha": 1}),
        version_of(FRAME.iloc[1:], "tweedie_glm", {"alpha": 1}),
        version_of(one_changed("label", 1.25), "tweedie_glm", {"alpha": 1}),
        version_of(one_changed("Country", "Norway"), "tweedie_glm", {"alpha": 1}),
        version_of(one_changed("CustomerID", "99999"), "tweedie_glm", {"alpha": 1}),
        version_of(FRAME.drop(columns="label_short"), "tweedie_glm", {"alpha": 1}),
        version_of(FRAME.assign(window_end=FRAME["window_end"] + pd.Timedelta(days=7)), "tweedie_glm", {}),
    ]
    assert len(set(versions)) == len(versions)
    assert all(len(version) == 16 and int(version, 16) >= 0 for version in versions)


def test_a_version_names_the_libraries(monkeypatch):
    before = version_of(FRAME, "tweedie_glm", {})
    monkeypatch.setattr(fitted, "installed_version", "{}-0.0.1".format)
    assert version_of(FRAME, "tweedie_glm", {}) != before


def test_seeds_give_versions_and_forests_of_their_own():
    first, again, other = (train(FRAME, "random_forest", seed=seed) for seed in (1, 1, 2))
    assert first.version == again.version != other.version
    assert (predict(first, FRAME) == predict(again, FRAME)).all()
    assert (predict(first, FRAME) != predict(other, FRAME)).any()


SCRIPT = """
from hashlib import sha256
from model_frames import labelled_frame
from models.fitted import predict
from models.training import train
for name in ("random_forest", "tweedie_glm"):
    model = train(labelled_frame(), name, seed=42)
    print(model.version, sha256(predict(model, labelled_frame()).tobytes()).hexdigest())
"""


def test_another_process_with_more_threads_gives_the_same_bytes(request):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(request.path.parent), str(request.config.rootpath)]),
        "PYTHONHASHSEED": "2",
        "OMP_NUM_THREADS": "4",
        "OPENBLAS_NUM_THREADS": "4",
    }
    command = [sys.executable, "-c", SCRIPT]
    other = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    here = []
    for name in NAMED:
        model = train(FRAME, name, seed=42)
        here.append(f"{model.version} {sha256(predict(model, FRAME).tobytes()).hexdigest()}")
    assert other.splitlines() == here


def test_weights_count():
    weighted = FRAME.assign(SampleWeight=np.where(FRAME["window_end"] == FRAME["window_end"].min(), 9.0, 1.0))
    for estimator in NAMED:
        plain, heavy = train(FRAME, estimator, seed=1), train(weighted, estimator, seed=1)
        assert (predict(plain, FRAME) != predict(heavy, FRAME)).any()


def test_a_country_never_seen_is_scored():
    rows = FRAME.head(3).assign(Country="Atlantis")
    assert np.isfinite(predict(train(FRAME, "random_forest", seed=1), rows)).all()


def test_no_rows_give_no_predictions():
    model = train(FRAME, "tweedie_glm", seed=1)
    assert predict(model, FRAME.iloc[:0]).shape == (0,)


def test_rows_without_a_feature_are_refused():
    model = train(FRAME, "tweedie_glm", seed=1)
    with pytest.raises(FrameError, match="lack: Tenure"):
        predict(model, FRAME.drop(columns="Tenure"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.drop(columns="label"), "lacks label"),
        (lambda f: f.drop(columns=["Country", "Recency"]), "lacks Country, Recency"),
        (lambda f: f.assign(label=np.nan), "800 of 800 rows have no finite label"),
        (lambda f: f.assign(MaxOrder=np.inf), "no finite MaxOrder"),
        (lambda f: f.assign(label=0.0), "nothing to learn"),
        (lambda f: pd.concat([f, f.head(2)]), "2 rows repeat a customer"),
        (lambda f: f.assign(window_end=f["window_end"].dt.tz_localize(None)), "not a time in UTC"),
        (lambda f: f[is_holdout(f["CustomerID"])], "none is left to train on"),
    ],
)
def test_unusable_frames_are_refused(spoil, message):
    for estimator in NAMED:
        with pytest.raises(FrameError, match=message):
            train(spoil(FRAME), estimator, seed=1)


def test_minus_zero_is_zero():
    with_zero, with_minus = FRAME.assign(LifeSpend=0.0), FRAME.assign(LifeSpend=-0.0)
    assert version_of(with_zero, "x", {}) == version_of(with_minus, "x", {})
    assert not np.signbit(canonical_frame(with_minus)["LifeSpend"]).any()


@pytest.mark.parametrize(("short", "scale"), [(2.0, 0.02), (0.0, None), (-1.0, None)])
def test_horizon_scale(short, scale):
    rows = FRAME.assign(label=100.0, label_short=short)
    assert horizon_scale(rows) == scale


def test_horizon_scale_needs_the_short_label():
    assert horizon_scale(FRAME.drop(columns="label_short")) is None


def test_a_scikit_learn_regressor_serves_by_its_dotted_name():
    model = train(FRAME, "sklearn.ensemble.GradientBoostingRegressor", seed=5)
    assert model.parameters["random_state"] == 5
    assert holdout_performance(model, FRAME)["gini"] > 0.7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("forest", "known are random_forest, tweedie_glm"),
        ("os.system", "no estimator is called"),
        ("sklearn.nowhere.Thing", "scikit-learn has no"),
        ("sklearn.ensemble.Thing", "scikit-learn has no"),
        ("sklearn.linear_model.LogisticRegression", "not a scikit-learn regressor"),
        ("sklearn.ensemble.StackingRegressor", "without further arguments"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(UnknownEstimatorError, match=message):
        train(FRAME, name, seed=1)
