"""The default estimator on the real year: walked through in a few steps, it keeps what the docs say of it."""

import numpy as np
import pytest

from models.features import DAY_S
from models.fitted import predict
from models.intervals import interval
from models.metrics import performance
from models.training import train
from producers.batch_input import batch_records
from producers.inputs import file_input
from streams.batch_models import history_of
from streams.retraining import training_frame
from streams.settings import Settings

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

HORIZON_S = 90 * DAY_S


def test_the_default_estimator_beats_what_learns_nothing_and_its_intervals_hold(online_retail):
    settings = Settings()
    history = history_of(batch_records(settings, file_input(online_retail)), settings)
    last = max(history.windows)
    ends = [
        end
        for end in history.matured(horizon_s=HORIZON_S, at=last)
        if not training_frame(history, at=end, settings=settings).empty
    ]
    assert len(ends) == 15
    found, naive, covered = [], [], []
    for end in ends[::5]:
        frame = training_frame(history, at=end, settings=settings)
        model = train(frame, settings.estimators[0], settings.seed)
        rows = history.labelled(end, horizon_s=HORIZON_S, at=last)
        predicted, label = predict(model, rows), rows["label"].to_numpy()
        found.append(performance(label, predicted))
        naive.append(
            performance(label, rows["Monetary"].to_numpy() * frame["label"].sum() / frame["Monetary"].sum())
        )
        low, high = interval(model.intervals, predicted)
        covered.append(np.mean((np.maximum(label, 0) >= low) & (np.maximum(label, 0) <= high)))

    def mean(measured, name):
        return np.mean([one[name] for one in measured])

    assert mean(found, "nmae") < 0.68
    assert mean(found, "gini") > 0.82
    assert mean(found, "nmae") < mean(naive, "nmae") - 0.02
    assert mean(found, "gini") > mean(naive, "gini") + 0.01
    assert np.mean(covered) > 0.87
