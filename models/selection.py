"""Which estimators a mean is made of: those that err least on customers they were not fitted on."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from models.holdout import customer_hash
from models.metrics import performance

FOLD_KEY = b"clv-drift/members/1"  # not the hold-out's key: those customers are not among the rows at all
FOLDS = 4
MEMBERS = 2

Fitted = Callable[[str, pd.DataFrame], Pipeline]


def best_members(rows: pd.DataFrame, candidates: Sequence[str], fitted: Fitted) -> tuple[str, ...]:
    """Return the `MEMBERS` of `candidates` with the least nMAE, best first.

    Each customer is predicted by a fit on the other folds' customers, brought to the level of the labels as
    in the mean itself. `fitted` fits an estimator, by name, to rows as `models.training.train` takes them.
    """
    fold = customer_hash(rows["CustomerID"], FOLD_KEY) % np.uint64(FOLDS)
    labels, weights = (rows[name].to_numpy(np.float64) for name in ("label", "SampleWeight"))
    errors = {}
    for name in candidates:
        predicted = np.zeros(len(rows))
        for number in range(FOLDS):
            unseen = fold == number
            if unseen.any() and not unseen.all():
                predicted[unseen] = np.maximum(fitted(name, rows[~unseen]).predict(rows[unseen]), 0.0)
        promised = float(weights @ predicted)
        level = float(weights @ labels) / promised if promised > 0 else 0.0
        nmae = performance(labels, level * predicted, weights)["nmae"]
        errors[name] = float("inf") if nmae is None else nmae
    return tuple(sorted(candidates, key=lambda name: errors[name])[:MEMBERS])
