"""Measures of a prediction of future spend: errors in money, errors relative to it, rank.

Every measure here is a function of the *set* of (label, prediction, weight) rows: rows are put into one
fixed order first and tied predictions count as one group, so neither the order of rows nor a sort's choice
among ties shows in the last digit. Undefined measures are None, never NaN: they end up in JSON.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# The tail whose share of the spend `top_decile_capture` reports.
TOP_SHARE = 0.1

# Names in the order in which people read them.
METRICS = ("nmae", "mae", "rmse", "r2", "gini", "bias", "spearman", "top_decile_capture")


def performance(
    y: npt.ArrayLike, p: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> dict[str, float | None]:
    """Return every measure of `METRICS` for labels `y` and predictions `p`, shape (n,), currency units.

    `weight` (n,), above zero, says how many customers a row stands for; without it each row counts once.
    A measure that the rows do not define is None: all of them without rows, R2 and ranks where all labels
    are equal, relative ones where the labels add up to nothing. Raises ValueError on unequal lengths and on
    values that are not finite.

    >>> measures = performance([0.0, 10.0, 30.0], [10.0, 10.0, 20.0])
    >>> measures["nmae"], measures["bias"]
    (0.5, 0.0)
    >>> performance([5.0, 5.0], [4.0, 6.0])["gini"] is None
    True
    """
    y, p, w = _canonical_rows(y, p, weight)
    if y.size == 0:
        return dict.fromkeys(METRICS)
    measures = {
        "nmae": normalised_mae(y, p, w),
        "mae": float(np.average(np.abs(y - p), weights=w)),
        "rmse": float(np.sqrt(np.average((y - p) ** 2, weights=w))),
        "r2": r_squared(y, p, w),
        "gini": normalised_gini(y, p, w),
        "bias": relative_bias(y, p, w),
        "spearman": spearman(y, p, w),
        "top_decile_capture": top_capture(y, p, w),
    }
    return {name: _finite(measures[name]) for name in METRICS}


def normalised_mae(y: Floats, p: Floats, w: Floats) -> float | None:
    """Return sum w|y - p| / sum w|y|, 0 or more; 1 is what predicting 0 for everyone gets.

    The ratio of MAE to mean of Kolassa and Schuetz (2007), with |y| below the line as labels may be negative.
    """
    scale = float(np.sum(w * np.abs(y)))
    return float(np.sum(w * np.abs(y - p))) / scale if scale > 0 else None


def relative_bias(y: Floats, p: Floats, w: Floats) -> float | None:
    """Return sum w p / sum w y - 1: 0.2 promises 20% more money than came; None unless money came."""
    total = float(np.sum(w * y))
    return float(np.sum(w * p)) / total - 1 if total > 0 else None


def r_squared(y: Floats, p: Floats, w: Floats) -> float | None:
    """Return the coefficient of determination, at most 1; 0 is what the labels' own mean gets."""
    if y[0] == y[-1]:  # rows are sorted by label
        return None
    spread = float(np.sum(w * (y - np.average(y, weights=w)) ** 2))
    return 1 - float(np.sum(w * (y - p) ** 2)) / spread


def normalised_gini(y: Floats, p: Floats, w: Floats) -> float | None:
    """Return how well `p` ranks spend, relative to the best possible ranking: 1 perfect, 0 none, -1 reversed.

    The area between the diagonal and the concentration curve of `y` ordered by `p`, over the same area
    with `y` ordered by itself (Frees, Meyers and Cummings 2011 for ordered Lorenz curves).
    """
    best = _gini_area(y, y, w)
    own = _gini_area(y, p, w)
    return own / best if own is not None and best else None


def spearman(y: Floats, p: Floats, w: Floats) -> float | None:
    """Return Spearman's rank correlation (1904), -1 to 1: Pearson's of the weighted mid-ranks."""
    ranks_y, ranks_p = _mid_ranks(y, w), _mid_ranks(p, w)
    deviations_y = ranks_y - np.average(ranks_y, weights=w)
    deviations_p = ranks_p - np.average(ranks_p, weights=w)
    scale = float(np.sqrt(np.sum(w * deviations_y**2) * np.sum(w * deviations_p**2)))
    if y[0] == y[-1] or np.all(p == p[0]):
        return None
    return float(np.sum(w * deviations_y * deviations_p)) / scale


def top_capture(y: Floats, p: Floats, w: Floats) -> float | None:
    """Return the share of all spend that the tenth of customers with the highest predictions brought.

    A group of ties that straddles the tenth counts in proportion. Above 1 where the others' returns exceed
    their purchases; None unless money came.
    """
    curve = _concentration_curve(y, p, w)
    return 1 - float(np.interp(1 - TOP_SHARE, *curve)) if curve else None


def _canonical_rows(
    y: npt.ArrayLike, p: npt.ArrayLike, weight: npt.ArrayLike | None
) -> tuple[Floats, Floats, Floats]:
    """Return labels, predictions and weights as floats, sorted by all three."""
    labels = np.asarray(y, dtype=np.float64)
    predictions = np.asarray(p, dtype=np.float64)
    weights = np.ones_like(labels) if weight is None else np.asarray(weight, dtype=np.float64)
    if labels.ndim != 1 or not labels.shape == predictions.shape == weights.shape:
        shapes = f"{labels.shape}, {predictions.shape} and {weights.shape}"
        raise ValueError(f"labels, predictions and weights differ in shape: {shapes}")
    for what, values in (("labels", labels), ("predictions", predictions), ("weights", weights)):
        if not np.isfinite(values).all():
            raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} {what} are not finite numbers")
    if (weights <= 0).any():
        raise ValueError("weights must be above zero")
    order = np.lexsort((weights, predictions, labels))
    return labels[order], predictions[order], weights[order]


def _tie_groups(score: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return a stable ascending order of `score` and where each group of equal scores starts in it."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return order, starts


def _concentration_curve(y: Floats, score: Floats, w: Floats) -> tuple[Floats, Floats] | None:
    """Return shares of customers and of spend, both from 0 to 1, by ascending `score`, a step a tie group."""
    total = float(np.sum(w * y))
    if total <= 0:
        return None
    order, starts = _tie_groups(score)
    customers = np.cumsum(np.add.reduceat(w[order], starts))
    spend = np.cumsum(np.add.reduceat((w * y)[order], starts))
    return (
        np.concatenate(([0.0], customers / customers[-1])),
        np.concatenate(([0.0], spend / spend[-1])),
    )


def _gini_area(y: Floats, score: Floats, w: Floats) -> float | None:
    """Return 1 - 2 x the area under the concentration curve."""
    curve = _concentration_curve(y, score, w)
    if curve is None or y[0] == y[-1]:
        return None
    customers, spend = curve
    return 1 - float(np.sum(np.diff(customers) * (spend[1:] + spend[:-1])))


def _mid_ranks(values: Floats, w: Floats) -> Floats:
    """Return the weighted rank of each value; equal values share the middle of their group."""
    order, starts = _tie_groups(values)
    group_weights = np.add.reduceat(w[order], starts)
    middles = np.cumsum(group_weights) - group_weights / 2
    sizes = np.diff(np.append(starts, values.size))
    ranks = np.empty_like(values)
    ranks[order] = np.repeat(middles, sizes)
    return ranks


def _finite(value: float | None) -> float | None:
    """Return the value, or None where it overflowed."""
    return value if value is not None and np.isfinite(value) else None
