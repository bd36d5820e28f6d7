"""Explanations: they add up, they find what matters and nothing else, and a person can call for them."""

import json
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from kafka import KafkaProducer
from small_shop import clv_drift, set_environment, shop, write_csv
from test_estimators import FRAME as LIVING

from models.estimators import NAMES
from models.explain import CUSTOMERS_MAX, TOPICS, explain, importance
from models.features import FEATURES, NUMERIC_FEATURES
from models.fitted import predict
from models.training import train
from producers.batch_input import batch_records
from streams import cloudevents
from streams.carry import EVALUATION, Carry, Serving
from streams.errors import ExitCode
from streams.grid import iso
from streams.partition import PartitionState
from streams.settings import ENV_PREFIX, load_settings
from streams.snapshots import encode_part
from streams.state_config import StateConfig
from streams.topic_admin import ensure_topics
from streams.topics import catalogue

SCORED = ("Recency", "Monetary", "Spend14", "Spend30", "Country")


def rows(n, seed=1):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.lognormal(3, 1, n) for name in NUMERIC_FEATURES})
    return frame.assign(Country=rng.choice(["France", "Spain"], n, p=[0.8, 0.2]))


def effects(explanation):
    return {part.topic: part.effect for part in explanation.parts}


def test_every_feature_belongs_to_one_topic():
    told = [name for names in TOPICS.values() for name in names]
    assert sorted(told) == sorted(FEATURES)


def test_of_an_additive_model_each_topic_gets_exactly_its_own():
    def score(frame):
        abroad = (frame["Country"] == "Spain").to_numpy() * 100.0
        return (3 * frame["Monetary"] + 2 * frame["Spend14"] - frame["Recency"]).to_numpy() + abroad

    others = rows(200)
    customer = rows(1, seed=2).assign(Country="Spain")
    found = effects(explain(score, SCORED, customer, others))
    mean = others.mean(numeric_only=True)
    assert found["spend of the window"] == pytest.approx(3 * (customer["Monetary"][0] - mean["Monetary"]))
    assert found["spend of the last two months"] == pytest.approx(
        2 * (customer["Spend14"][0] - mean["Spend14"])
    )
    assert found["how recently they bought"] == pytest.approx(mean["Recency"] - customer["Recency"][0])
    assert found["country"] == pytest.approx(100 * (others["Country"] == "France").mean())


def test_of_a_product_both_get_the_same():
    def score(frame):
        return (frame["Monetary"] * frame["Recency"]).to_numpy()

    others = pd.DataFrame({"Monetary": [2.0] * 50, "Recency": [2.0] * 50})
    customer = pd.DataFrame({"Monetary": [4.0], "Recency": [4.0]})
    found = explain(score, ("Monetary", "Recency"), customer, others)
    assert (found.average, found.prediction) == (4.0, 16.0)
    assert effects(found) == pytest.approx({"spend of the window": 6.0, "how recently they bought": 6.0})


@pytest.mark.parametrize("name", NAMES)
def test_the_effects_add_up_to_the_prediction_for_every_estimator(name):
    model = train(LIVING, name, seed=1)
    others = LIVING[LIVING["window_end"] == LIVING["window_end"].max()]
    for customer in (others.nlargest(1, "Monetary"), others.nsmallest(1, "Monetary")):
        found = explain(lambda frame: predict(model, frame), model.features, customer, others)
        assert found.prediction == pytest.approx(predict(model, customer)[0])
        assert found.average == pytest.approx(predict(model, others).mean())
        total = found.average + sum(part.effect for part in found.parts)
        assert total == pytest.approx(found.prediction, rel=1e-9)
        sizes = [abs(part.effect) for part in found.parts]
        assert sizes == sorted(sizes, reverse=True)


def test_whoever_buys_as_the_average_does_is_told_so_and_the_best_why():
    model = train(LIVING, "tweedie_glm", seed=1)
    others = LIVING[LIVING["window_end"] == LIVING["window_end"].max()]
    best = explain(
        lambda frame: predict(model, frame), model.features, others.nlargest(1, "Monetary"), others
    )
    assert best.prediction > 3 * best.average
    money = effects(best)
    assert money["spend of the window"] + money["spend and time as a customer"] > 0.4 * best.prediction
    part = next(part for part in best.parts if part.topic == "spend of the window")
    assert part.values == {"Monetary": others["Monetary"].max()}
    assert part.typical == {"Monetary": others["Monetary"].median()}


def test_an_explanation_is_the_same_each_time_and_many_others_are_represented():
    model = train(LIVING, "tweedie_glm", seed=1)
    others = pd.concat([LIVING] * 3, ignore_index=True)
    assert len(others) > 3 * CUSTOMERS_MAX
    customer = LIVING.head(1)
    score = lambda frame: predict(model, frame)  # noqa: E731
    found, again = (explain(score, model.features, customer, others) for _ in range(2))
    assert found == again
    assert found.customers == CUSTOMERS_MAX
    assert found.average == pytest.approx(predict(model, others).mean(), rel=0.05)


def test_nobody_to_compare_with_is_refused():
    with pytest.raises(ValueError, match="0 to compare with"):
        explain(lambda frame: frame["Monetary"].to_numpy(), ("Monetary",), rows(1), rows(0))


# -- of the whole model ----------------------------------------------------------


def test_importance_finds_what_the_model_lives_on():
    def score(frame):
        return frame["Monetary"].to_numpy() + 0.0 * frame["Recency"].to_numpy()

    labelled = rows(500).assign(label=lambda f: f["Monetary"])
    first, second = importance(score, ("Recency", "Monetary"), labelled)
    assert first.topic == "spend of the window"
    assert first.gini_loss > 0.5
    assert first.nmae_rise > 0.3
    assert (second.nmae_rise, second.gini_loss) == (0.0, 0.0)


def test_importance_of_nothing_is_nothing():
    score = lambda frame: frame["Monetary"].to_numpy()  # noqa: E731
    assert importance(score, ("Monetary",), rows(0).assign(label=[])) == []
    assert importance(score, ("Monetary",), rows(9).assign(label=0.0)) == []


def test_a_model_brings_its_importance():
    model = train(LIVING, "tweedie_glm", seed=1)
    assert {item.topic for item in model.importance} == set(TOPICS) - {"country"}
    assert model.importance[0].nmae_rise > 0.05


# -- as a person asks ------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of a backfill of a small shop, with a model that serves."""
    directory = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, registry_dir=directory / "registry")
        source = write_csv(directory / "shop.csv", shop())
        assert clv_drift("backfill", source, "--out", directory / "out") == 0
    return directory / "out"


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path):
    set_environment(monkeypatch, registry_dir=tmp_path / "registry")
    monkeypatch.setenv("COLUMNS", "200")


def newest(results):
    snapshots = pd.read_parquet(results / "snapshots.parquet")
    return snapshots[snapshots["window_end"] == snapshots["window_end"].max()]


def test_explain_tells_a_customer_in_money(results, capsys):
    best = newest(results).nlargest(1, "Monetary")["CustomerID"].iloc[0]
    assert clv_drift("model", "explain", best, "--results", results) == 0
    said = capsys.readouterr().out
    for words in (f"customer {best}", "over the next 28 days", "spend of the window", "average customer"):
        assert words in said
    assert clv_drift("model", "explain", best, "--results", results, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    total = told["average"] + sum(part["effect"] for part in told["parts"])
    assert total == pytest.approx(told["prediction"])
    assert told["customer"] == best
    assert told["low"] <= told["high"]
    row = newest(results).set_index("CustomerID").loc[best]
    original = row["Monetary"] * row["Frequency"] / (row["Recency"] + 1) * 365
    assert told["original_value"] == pytest.approx(original)
    assert f"{original:,.0f} by the original system's formula" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["99999999"], ExitCode.INPUT, "customer 99999999 is not among"),
        (["1", "--version", "0123456789abcdef"], ExitCode.MODEL, "0123456789abcdef is not in the registry"),
    ],
)
def test_explain_refuses_by_name(results, arguments, code, words, capsys):
    assert clv_drift("model", "explain", *arguments, "--results", results) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_explain_wants_results_of_a_backfill(tmp_path, capsys):
    assert clv_drift("model", "explain", "1", "--results", tmp_path) == ExitCode.INPUT
    assert "snapshots.parquet" in capsys.readouterr().err


@pytest.mark.broker
def test_explain_reads_the_topics(results, settings, monkeypatch, capsys):
    champion = json.loads((results / "evaluations.jsonl").read_text().splitlines()[-1])["data"][
        "model_version"
    ]
    monkeypatch.setenv(ENV_PREFIX + "BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv(ENV_PREFIX + "TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv(ENV_PREFIX + "PARTITIONS", "1")
    monkeypatch.setenv(ENV_PREFIX + "REGISTRY_DIR", str(results / "models"))
    here = load_settings()
    ensure_topics(here)
    last = newest(results)
    customer = last["CustomerID"].iloc[0]
    assert clv_drift("model", "explain", customer) == ExitCode.STATE  # nothing has been evaluated

    window_end = int(last["window_end"].iloc[0].timestamp())
    carry = Carry(window_end=window_end, first_window=window_end, serving=(Serving(0, champion),))
    data = {"window_end": iso(window_end), "carry": carry.to_dict()}
    event = cloudevents.envelope(kind=EVALUATION, source=here.event_source, window_end=window_end, data=data)
    records = list(batch_records(here, shop()))
    applied = PartitionState(0, StateConfig.of(here, 1)).apply(
        range(len(records)), [record.value for record in records], [record.headers for record in records]
    )
    topics = catalogue(here)
    with closing(KafkaProducer(bootstrap_servers=here.bootstrap_servers)) as producer:
        for part in [part for cut in applied.cuts for part in cut.parts]:
            for key, value in encode_part(part, 1):
                producer.send(topics.snapshots.name, key=key, value=value, partition=0)
        evaluation = cloudevents.encode(event)
        producer.send(topics.evaluations.name, key=b"k", value=evaluation, partition=0).get(timeout=30)
        producer.flush(30)
    capsys.readouterr()
    assert clv_drift("model", "explain", customer, "--json") == 0
    from_topics = json.loads(capsys.readouterr().out)
    assert clv_drift("model", "explain", customer, "--json", "--results", results) == 0
    assert json.loads(capsys.readouterr().out) == from_topics
    assert from_topics["version"] == champion
