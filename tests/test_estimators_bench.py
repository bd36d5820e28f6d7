"""The bench of the estimators: its figures by hand, and its rows are those that the stream would give."""

import numpy as np
import pandas as pd
import pytest

from bench.lab.still import labelled
from bench.lab.streams import START, WEEK_S, Stream, simulated
from bench.model_lab import page, size
from bench.model_lab.walk import Forecast, Judged, decile_error, measures
from models.features import FEATURES
from models.training import canonical_frame, train
from producers.synthetic import Shop, Synthetic
from streams.closing import Scales, window_rows
from streams.lifetime import Lifetime
from streams.vocabulary import Interner, Vocabulary


def test_measures_by_hand():
    labels = np.array([0.0, 10.0, 30.0, -5.0])
    forecast = Forecast(
        np.array([10.0, 10.0, 20.0, 10.0]), low=np.array([0.0, 0, 0, 0]), high=np.array([5.0, 5, 50, 5])
    )
    found = measures(Judged(0, labels, np.ones(4), {"it": forecast}), "it")
    assert found["nmae"] == pytest.approx(35 / 45)
    assert found["bias"] == pytest.approx(50 / 35 - 1)
    assert found["nmae_levelled"] == pytest.approx((7 + 3 + 16 + 12) / 45)
    assert found["coverage"] == 0.75  # a return counts as 0
    assert found["width"] == pytest.approx((65 / 4) / (35 / 4))


def test_the_error_of_deciles_sees_what_the_bias_does_not():
    labels = np.repeat(np.arange(1.0, 11.0), 10)
    assert decile_error(labels, labels) == 0
    flat = labels + np.tile([1e-3, -1e-3], 50)
    assert decile_error(labels, flat) == pytest.approx(0, abs=1e-9)
    half = np.where(labels > 5, labels - 1, labels + 1)
    assert half.sum() == labels.sum()
    assert decile_error(labels, half) == pytest.approx(100 / labels.sum(), rel=0.3)


def test_rows_of_a_year_without_change_are_those_of_the_stream():
    stream = simulated(Synthetic(Shop(customers=300, days=7 * 53, seed=4)))
    stream = Stream(stream.lines, stream.words)
    week = 20
    found = labelled(stream, week).set_index("CustomerID")
    past = stream.between(0, week)
    words = Vocabulary()
    words.customers, words.invoices, words.products, words.countries = (
        _interned(texts)
        for texts in (
            [str(code) for code in range(stream.customers)],
            stream.words.invoices,
            stream.words.products,
            stream.words.countries,
        )
    )
    lifetime = Lifetime.empty()
    lifetime.fold(past, past.select(slice(0, 0)), orders_since=0)
    rows = window_rows(
        stream.between(week - 13, week), START + week * WEEK_S, Scales(91, 28, 7), lifetime, words, 10**6
    )
    expected = pd.DataFrame(rows.columns).set_index("CustomerID")
    assert len(expected) > 50
    for name in FEATURES:
        ours, theirs = found.loc[expected.index, name], expected[name]
        assert (ours == theirs).all() if name == "Country" else np.allclose(ours, theirs), name


def _interned(texts):
    interner = Interner()
    interner.codes(list(texts))
    return interner


@pytest.mark.parametrize("name", ["tweedie_glm", "bg_nbd"])
def test_made_up_rows_can_be_trained_on(name):
    frame = size.frame(4_000)
    assert len(canonical_frame(frame)) == 4_000
    assert frame["window_end"].nunique() == size.WINDOWS
    assert train(frame, name, seed=1).training.rows > 3_000


def test_tables_line_up():
    table = page.markdown(["", "figure"], [["a long name", "1"], ["b", "22"]])
    assert len({len(line) for line in table.splitlines()}) == 1
    walked = pd.DataFrame([{"nmae": 0.5, "gini": 0.25, "fit_s": 0.0}], index=["it"])
    row = next(line for line in page.walk_table(walked).splitlines() if line.startswith("| it "))
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["0.500", "", "0.250"]
