"""An estimate of the served model's error in a window whose labels are not known yet.

Errors grow with predictions, so a window whose customers are predicted to spend more will be missed by
more, even if every one of them behaves as before. Errors measured on the newest matured windows, by classes
of predicted spend, are weighted with the classes of the new window: post-stratification (Holt and Smith
1979). The thought that the loss of a regression can be read off its inputs is that of NannyML's direct loss
estimation, with classes in place of a second model. It sees a change of *who* the customers are. It is blind
where equal customers come to behave differently: then only labels tell, and the track record says so.
"""

import msgspec
import numpy as np

from streams.detectors.error_sums import log_errors
from streams.detectors.grouped_means import Floats

CLASSES = 10
ENTRIES_MIN = 30


class ErrorEstimate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The error of a window: mean absolute log error, and mean absolute error in currency units.

    `status` is "estimated" where labels had no part in it, "matured" where they are known.
    """

    absolute_log_error: float
    mae: float
    status: str


class ErrorClasses(msgspec.Struct, frozen=True):
    """Measured errors by class of prediction: `edges` between classes, rising, and a mean a class."""

    edges: tuple[float, ...]
    absolute_log_error: tuple[float, ...]
    mae: tuple[float, ...]


def measured_error(label: Floats, prediction: Floats, weight: Floats) -> ErrorEstimate | None:
    """Return the error where labels are known; arrays of one entry a customer, currency units.

    Entries that are not finite or without weight are left out; None where no 30 are left.
    """
    label, prediction, weight = _usable(label, prediction, weight)
    if len(label) < ENTRIES_MIN:
        return None
    log_error, error = _absolute_errors(label, prediction)
    return _mean_errors(log_error, error, weight, status="matured")


def error_classes(label: Floats, prediction: Floats, weight: Floats) -> ErrorClasses | None:
    """Return errors by tenths of `prediction`, from the entries of the newest matured windows together.

    Predictions must be those of the model whose error is to be estimated. Classes that ties leave empty are
    dropped. Entries are left out as by `measured_error`; None where no 30 are left.
    """
    label, prediction, weight = _usable(label, prediction, weight)
    if len(label) < ENTRIES_MIN:
        return None
    edges = np.quantile(prediction, np.arange(1, CLASSES) / CLASSES)
    # An edge is the lower end of its class: one at the smallest prediction would leave the class below empty.
    edges = np.unique(edges[edges > prediction.min()])
    class_of = np.searchsorted(edges, prediction, side="right")
    filled, class_of = np.unique(class_of, return_inverse=True)
    weights = np.bincount(class_of, weight)
    log_error, error = (
        tuple((np.bincount(class_of, weight * values) / weights).tolist())
        for values in _absolute_errors(label, prediction)
    )
    return ErrorClasses(tuple(edges[filled[1:] - 1].tolist()), log_error, error)


def estimated_error(classes: ErrorClasses, prediction: Floats, weight: Floats) -> ErrorEstimate | None:
    """Return the error to expect in a window with these predictions, if equal customers behave as before.

    Entries are left out as by `measured_error`; None where no 30 are left.

    >>> spend, predicted, ones = np.repeat([0.0, 90.0], 50), np.repeat([5.0, 80.0], 50), np.ones(100)
    >>> classes = error_classes(spend, predicted, ones)
    >>> estimated_error(classes, np.repeat([5.0, 80.0], [20, 80]), ones).mae  # 0.2 x 5 + 0.8 x 10
    9.0
    """
    prediction, _, weight = _usable(prediction, prediction, weight)
    if len(prediction) < ENTRIES_MIN:
        return None
    class_of = np.searchsorted(np.array(classes.edges), prediction, side="right")
    log_error, error = np.array(classes.absolute_log_error), np.array(classes.mae)
    return _mean_errors(log_error[class_of], error[class_of], weight, status="estimated")


def _absolute_errors(label: Floats, prediction: Floats) -> tuple[Floats, Floats]:
    """Return the absolute error of each customer on the log scale, and in currency units."""
    return np.abs(log_errors(label, prediction)), np.abs(label - prediction)


def _mean_errors(log_error: Floats, error: Floats, weight: Floats, *, status: str) -> ErrorEstimate:
    return ErrorEstimate(
        absolute_log_error=float(np.average(log_error, weights=weight)),
        mae=float(np.average(error, weights=weight)),
        status=status,
    )


def _usable(label: Floats, prediction: Floats, weight: Floats) -> tuple[Floats, Floats, Floats]:
    columns = tuple(np.asarray(column, np.float64) for column in (label, prediction, weight))
    kept = np.isfinite(columns).all(axis=0) & (columns[2] > 0)
    label, prediction, weight = (column[kept] for column in columns)
    return label, prediction, weight
