"""The estimators by name: what they see of a customer, how they are put together, what is kept of them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from model_frames import labelled_frame
from sklearn.base import clone

from models import transforms
from models.artefact import ArtefactError, dump_pipeline, load_pipeline
from models.boosting import RatioBoosting
from models.buying import BUYING_FEATURES, BuyingModel
from models.ensemble import LevelledMean
from models.estimators import NAMES, make_estimator, spec_of
from models.features import NUMERIC_FEATURES
from models.fitted import FrameError, predict
from models.holdout import is_holdout
from models.metrics import performance
from models.selection import best_members
from models.training import train
from models.transforms import SPAN, CustomerLogs


def living_frame(customers=600, windows=2, seed=1, first_day=91):
    """Return rows of customers who buy at rates of their own and stay: no window is unlike another."""
    rng = np.random.default_rng(seed)
    rate, value = rng.gamma(1.2, 1 / 40, customers), rng.lognormal(4, 1, customers)
    parts = []
    for number in range(windows):
        day = first_day + 7 * number
        orders, recent = 1 + rng.poisson(rate * (day - 1)), 1 + rng.poisson(rate * min(day, 91))
        frame = pd.DataFrame({name: rng.integers(1, 90, customers) for name in NUMERIC_FEATURES})
        frame["LifeOrders"], frame["NumOrders"] = np.maximum(orders, recent), recent
        frame["LifeSpend"] = np.round(value * frame["LifeOrders"], 2)
        frame["Monetary"] = np.round(value * recent, 2)
        frame["Tenure"] = day
        frame["Recency"] = np.minimum(rng.exponential(1 / (rate + 1 / 60)).astype(int), 90)
        frame["Country"] = "France"
        frame["CustomerID"] = [str(code) for code in range(customers)]
        frame["window_end"] = pd.Timestamp("2011-03-07", tz="UTC") + pd.Timedelta(days=7 * number)
        frame["SampleWeight"] = 1.0
        frame["label"] = np.round(value * rng.poisson(rate * 90) * rng.gamma(9, 1 / 9, customers), 2)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


FRAME = living_frame()
OURS = tuple(name for name in NAMES if name != "random_forest")


# -- what an estimator is given ------------------------------------------------


def test_what_grows_with_the_stream_is_made_to_stand():
    young = living_frame(windows=1, first_day=91)
    # The same customers after another two quarters of the same.
    old = young.assign(
        Tenure=young["Tenure"] * 3, LifeSpend=young["LifeSpend"] * 3, LifeOrders=young["LifeOrders"] * 3
    )
    logs = CustomerLogs().fit(young)
    names = list(logs.get_feature_names_out())
    before, after = (pd.DataFrame(logs.transform(frame), columns=names) for frame in (young, old))
    changed = (after - before).abs().mean()
    assert changed["Tenure"] == 0
    # Taken as it is, what has tripled would have moved by log 3 = 1.1.
    assert changed["LifeSpend"] < 0.25
    assert changed["LifeOrders"] < 0.25
    assert (old["Tenure"] - old["Recency"]).max() > logs.span_max_
    assert after[SPAN].max() == before[SPAN].max()
    others = [name for name in names if name not in {"Tenure", "LifeSpend", "LifeOrders", SPAN}]
    assert (before[others] == after[others]).all(axis=None)


def test_a_short_life_is_drawn_towards_everyone():
    frame = living_frame(windows=1)
    logs = CustomerLogs().fit(frame)
    fresh = frame.head(1).assign(Tenure=0, Recency=0, LifeOrders=1, LifeSpend=1e4)
    column = list(logs.get_feature_names_out()).index("LifeSpend")
    told = np.expm1(logs.transform(fresh)[0, column])
    everyone = logs.spend_a_day_ * transforms.RATE_DAYS
    seen_days = transforms.PRIOR_DAYS
    assert told == pytest.approx(everyone + 1e4 * transforms.RATE_DAYS / seen_days)


@pytest.mark.parametrize("name", ["tweedie_glm", "gradient_boosting", "best_two"])
def test_a_model_promises_old_customers_no_more_for_their_age_alone(name):
    model = train(FRAME, name, seed=1)
    older = living_frame(windows=1, first_day=300)
    labels = older["label"].sum()
    assert predict(model, older).sum() / labels == pytest.approx(1.0, abs=0.2)


# -- how they do ---------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_each_learns_the_level_and_the_rank(name):
    model = train(FRAME, name, seed=1)
    newest = FRAME[FRAME["window_end"] == FRAME["window_end"].max()]
    measured = performance(newest["label"], predict(model, newest))
    assert measured["gini"] > 0.75
    assert abs(measured["bias"]) < 0.15


@pytest.mark.parametrize("name", OURS)
def test_equal_seeds_give_equal_models_and_weights_count(name):
    first, again = train(FRAME, name, seed=3), train(FRAME.sample(frac=1, random_state=1), name, seed=3)
    assert first.version == again.version
    assert (predict(first, FRAME) == predict(again, FRAME)).all()
    # Whoever spent much counts ten times: more is promised to everyone.
    rich = FRAME["label"] > FRAME["label"].median()
    heavy = train(FRAME.assign(SampleWeight=np.where(rich, 10.0, 1.0)), name, seed=3)
    assert predict(heavy, FRAME).sum() > 1.2 * predict(first, FRAME).sum()


@pytest.mark.parametrize("name", OURS)
def test_each_is_stored_and_comes_back_to_the_bit(name):
    model = train(FRAME, name, seed=1)
    loaded = load_pipeline(dump_pipeline(model.pipeline))
    assert (predict(replace(model, pipeline=loaded), FRAME) == predict(model, FRAME)).all()
    assert set(loaded.feature_names_in_) <= set(model.features)


@pytest.mark.parametrize("name", OURS)
def test_a_frame_that_tells_nothing_is_refused_in_words(name):
    with pytest.raises(FrameError, match="nothing to learn"):
        train(FRAME.assign(label=0.0), name, seed=1)


def test_customers_who_never_came_back_cannot_be_bought_till_they_die():
    once = FRAME.assign(LifeOrders=1)
    with pytest.raises(FrameError, match=r"bg_nbd cannot be fitted on .* bought again"):
        train(once, "bg_nbd", seed=1)


def test_the_ratio_reaches_beyond_the_largest_label():
    spend = np.exp(np.random.default_rng(1).uniform(1, 8, 2_000))
    X = np.zeros((2_000, len(NUMERIC_FEATURES) + 1))
    X[:, NUMERIC_FEATURES.index("Monetary")] = np.log1p(spend)
    fitted = RatioBoosting().fit(X, 0.8 * spend)
    ten_times = np.zeros((1, X.shape[1]))
    ten_times[0, NUMERIC_FEATURES.index("Monetary")] = np.log1p(10 * spend.max())
    assert fitted.predict(ten_times)[0] == pytest.approx(8 * spend.max(), rel=0.15)


def test_the_buying_model_takes_the_level_of_the_labels():
    X = FRAME[list(BUYING_FEATURES)].to_numpy(float)
    y = FRAME["label"].to_numpy()
    plain, doubled = BuyingModel().fit(X, y), BuyingModel().fit(X, 2 * y)
    assert plain.predict(X).sum() == pytest.approx(y.sum())
    assert doubled.predict(X) == pytest.approx(2 * plain.predict(X))
    assert plain.predict(X) == pytest.approx(
        plain.level_ * plain.expected_purchases(X) * plain.expected_value(X)
    )
    late = np.array([[0.0, 50.0, 3.0, 10.0]])  # all its invoices came too late to be counted
    assert np.isfinite(plain.predict(late)).all()


# -- the mean of two -----------------------------------------------------------


def test_the_mean_takes_the_two_that_err_least_on_customers_they_have_not_seen():
    rows = FRAME[~is_holdout(FRAME["CustomerID"])]
    asked = []

    class Fixed:
        def __init__(self, error):
            self.error = error

        def predict(self, frame):
            return frame["label"].to_numpy() + self.error * np.arange(len(frame))

    def fitted(name, part):
        asked.append((name, set(part["CustomerID"])))
        return Fixed({"poor": 9.0, "good": 1.0, "best": 0.0}[name])

    assert best_members(rows, ("poor", "good", "best"), fitted) == ("best", "good")
    everyone = set(rows["CustomerID"])
    for name in ("poor", "good", "best"):
        folds = [customers for given, customers in asked if given == name]
        assert len(folds) == 4
        unseen = [everyone - customers for customers in folds]
        assert set.union(*unseen) == everyone
        assert sum(map(len, unseen)) == len(everyone)


def test_each_member_of_the_mean_is_brought_to_the_level_of_the_labels():
    members = ("tweedie_glm", "bg_nbd")
    frame = labelled_frame().assign(LifeOrders=lambda f: f["NumOrders"] + 2)
    y = np.maximum(frame["label"].to_numpy(), 0)
    mean = make_estimator("best_two", 1, members).fit(frame[list(NUMERIC_FEATURES)], y)
    predicted = mean.predict(frame[list(NUMERIC_FEATURES)])
    levelled = []
    for name in members:
        alone = make_estimator(name, 1).fit(frame[list(spec_of(name).features)], y)
        plain = np.maximum(alone.predict(frame[list(spec_of(name).features)]), 0)
        levelled.append(plain * y.sum() / plain.sum())
    assert predicted == pytest.approx(np.mean(levelled, axis=0))
    assert predicted.sum() == pytest.approx(y.sum())


def test_the_card_names_the_members():
    model = train(FRAME, "best_two", seed=1)
    members = model.parameters["members"]
    assert len(members) == 2
    assert set(members) <= set(spec_of("best_two").candidates)
    for name, parameters in members.items():
        assert parameters == train(FRAME, name, seed=1).parameters


def test_members_are_for_a_mean_only():
    with pytest.raises(ValueError, match="not a mean"):
        make_estimator("tweedie_glm", 1, ("bg_nbd",))
    with pytest.raises(ValueError, match="is a mean"):
        make_estimator("best_two", 1)
    assert isinstance(clone(make_estimator("best_two", 1, ("bg_nbd",)))["regressor"], LevelledMean)


# -- boosted trees in a file ---------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("left", 0, "outside itself"),
        ("right", 4_000_000_000, "outside itself"),
        ("feature_idx", 500, "outside itself"),
        ("feature_idx", -1, "outside itself"),
        ("is_categorical", 1, "not one of numbers"),
    ],
)
@pytest.mark.parametrize("within", ["alone", "in a mean"])
def test_boosted_trees_that_point_elsewhere_are_refused(field, value, message, within):
    names = ("gradient_boosting",)
    made = make_estimator(names[0], 1) if within == "alone" else make_estimator("best_two", 1, names)
    made.fit(FRAME[list(NUMERIC_FEATURES)], FRAME["label"])
    holder = made if within == "alone" else made["regressor"].fitted_[0]
    holder["regressor"].trees_._predictors[-1][0].nodes[field][0] = value
    with pytest.raises(ArtefactError, match=message):
        load_pipeline(dump_pipeline(made))
