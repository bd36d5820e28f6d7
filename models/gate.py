"""The gate: whether a challenger replaces the champion, judged on customers neither was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.holdout import is_holdout
from models.metrics import performance

Floats = npt.NDArray[np.float64]

HOLDOUT_CUSTOMERS_MIN = 50
GINI_LOSS_MAX = 0.02
BIAS_LOSS_MAX = 0.10
CAPTURE_LOSS_MAX = 0.05  # of the spend that the top decile brings
SEGMENT_BIAS_LOSS_MAX = 0.20
SEGMENT_SHARE_MIN = 0.10  # of the hold-out customers: smaller segments are too noisy to guard

# Resamples drawn at a time: bounds the memory, not the result.
CHUNK = 100


@dataclass(frozen=True)
class GateVerdict:
    """What the gate decided and every figure it decided by.

    `champion` holds the measures of what the challenger had to beat, `rival` says what that was: the
    `champion`, or where there is none the `mean`, the hold-out's own mean label for everyone. None stands for
    what could not be computed. `nmae_change` is challenger less rival (below zero: better) with the middle
    90% of its resamples in `nmae_change_low` and `_high`. `segments` holds, by name, the bias of both in each
    segment that is large enough, and how often the challenger's was the larger.
    """

    promoted: bool
    reason: str
    rival: str
    customers: int
    rows: int
    champion: dict[str, float | None]
    challenger: dict[str, float | None]
    probability_better: float | None
    probability_bias_worse: float | None
    probability_required: float
    nmae_change: float | None
    nmae_change_low: float | None
    nmae_change_high: float | None
    resamples: int
    seed: int
    segments: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Resampled:
    """Figures of the paired bootstrap."""

    probability_better: float
    probability_bias_worse: float
    low: float
    high: float
    segment_bias_worse: tuple[float, ...]  # in the order of the segments


def decide(
    y: npt.ArrayLike,
    champion: npt.ArrayLike | None,
    challenger: npt.ArrayLike,
    customer_ids: Sequence[str],
    *,
    seed: int,
    resamples: int,
    probability: float,
    segments: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> GateVerdict:
    """Compare two models' predictions `champion` and `challenger` of the labels `y`, all shape (n,).

    Rows of customers who are not held out are left out here, whatever the caller passes. A customer may have
    rows at several window ends: the bootstrap draws customers, with all their rows, so the dependence
    between a customer's windows is kept (Efron and Tibshirani 1993, chapter 8; paired as both models
    are summed over the same draw).

    Promoted when P(nMAE of the challenger is lower) > `probability`, its Gini is at most 0.02 lower, its top
    decile brings at most 0.05 less of the spend, and its |bias| is not clearly larger (by more than 0.10 and
    in more than `probability` of the resamples), nor in any of the `segments` (masks of the rows, by name)
    that hold a tenth of the hold-out customers, and 50 (there by more than 0.20). With no champion the
    challenger must beat in the same way the mean label of the hold-out for everyone, and rank better than
    chance. Fewer than 50 hold-out customers or labels that are all zero decide nothing: kept.

    Raises ValueError on unequal lengths and on numbers that are not finite.
    """
    ids = np.asarray(list(customer_ids), dtype=object)
    held_out = is_holdout(ids)
    labels = _column("labels", y, held_out)
    new = _column("challenger", challenger, held_out)
    first = champion is None
    mean = np.full(labels.shape, labels.mean() if labels.size else 0.0)
    old = mean if champion is None else _column("champion", champion, held_out)
    customer = np.unique(ids[held_out].astype(str), return_inverse=True)[1]
    count = int(customer.max()) + 1 if customer.size else 0
    measures = {"champion": performance(labels, old), "challenger": performance(labels, new)}

    drawn = None
    refusal = _undecidable(labels, count)
    biases: dict[str, dict[str, float | None]] = {}
    if refusal is None:
        large = {} if first else _large(segments or {}, held_out, customer, count)
        sums = _sums(labels, old, new, customer, count, list(large.values()))
        drawn = _bootstrap(sums, seed=seed, resamples=resamples)
        refusal = _objection(measures["champion"], measures["challenger"], drawn, probability, first=first)
        biases = _segment_biases(large, labels, old, new, drawn)
        refusal = refusal or _segment_objection(biases, probability)
    return GateVerdict(
        promoted=refusal is None,
        reason=refusal or _approval(measures, drawn, count, first=first),
        rival="mean" if first else "champion",
        customers=count,
        rows=labels.size,
        **measures,
        probability_better=drawn.probability_better if drawn else None,
        probability_bias_worse=drawn.probability_bias_worse if drawn else None,
        probability_required=probability,
        nmae_change=_difference(measures, "nmae"),
        nmae_change_low=drawn.low if drawn else None,
        nmae_change_high=drawn.high if drawn else None,
        resamples=resamples,
        seed=seed,
        segments=biases,
    )


@dataclass(frozen=True)
class LevelComparison:
    """The bias of two models on the same rows, and how often the challenger's is the larger."""

    champion: float
    challenger: float
    probability_worse: float

    def clearly_worse(self, probability: float) -> bool:
        """Return whether the challenger is off by more than 0.10 more, in more than `probability`."""
        loss = abs(self.challenger) - abs(self.champion)
        return loss > BIAS_LOSS_MAX and self.probability_worse > probability


def compare_level(
    y: npt.ArrayLike,
    champion: npt.ArrayLike,
    challenger: npt.ArrayLike,
    customer_ids: Sequence[str],
    *,
    seed: int,
    resamples: int,
) -> LevelComparison | None:
    """Compare the bias of two predictions of `y`, shape (n,), over all customers, held out or not.

    A sum over everyone says little of what a model learned of each, so the training customers may be in it.
    None where no money came. Raises ValueError on unequal lengths.
    """
    ids = np.asarray(list(customer_ids), dtype=object)
    everyone = np.ones(ids.shape, dtype=bool)
    labels, old, new = (
        _column(what, values, everyone)
        for what, values in (("labels", y), ("champion", champion), ("challenger", challenger))
    )
    if not labels.size or labels.sum() <= 0:
        return None
    customer = np.unique(ids.astype(str), return_inverse=True)[1]
    sums = _sums(labels, old, new, customer, int(customer.max()) + 1)
    drawn = _bootstrap(sums, seed=seed, resamples=resamples)
    spent = float(labels.sum())
    return LevelComparison(
        float(old.sum()) / spent - 1, float(new.sum()) / spent - 1, drawn.probability_bias_worse
    )


def _column(what: str, values: npt.ArrayLike, held_out: npt.NDArray[np.bool_]) -> Floats:
    column = np.asarray(values, dtype=np.float64)
    if column.shape != held_out.shape:
        raise ValueError(f"{what} {column.shape} and customers {held_out.shape} differ in shape")
    return column[held_out]


def _large(
    segments: Mapping[str, npt.NDArray[np.bool_]],
    held_out: npt.NDArray[np.bool_],
    customer: npt.NDArray[np.intp],
    count: int,
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the segments with customers enough, as masks of the hold-out's rows."""
    least = max(HOLDOUT_CUSTOMERS_MIN, SEGMENT_SHARE_MIN * count)
    masks = {name: np.asarray(mask, bool)[held_out] for name, mask in segments.items()}
    return {name: mask for name, mask in masks.items() if np.unique(customer[mask]).size >= least}


def _sums(
    y: Floats,
    old: Floats,
    new: Floats,
    customer: npt.NDArray[np.intp],
    count: int,
    segments: Sequence[npt.NDArray[np.bool_]] = (),
) -> Floats:
    """Return a customer's |errors| of both, |label|, and predictions of both less label, shape (count, 5).

    Two columns more for each of `segments`: the last two within it. Rows are added in an order of their own,
    so that the order in which they came shows nowhere.
    """
    order = np.lexsort((new, old, y, customer))
    y, old, new, customer = y[order], old[order], new[order], customer[order]
    columns = [np.abs(y - old), np.abs(y - new), np.abs(y), old - y, new - y]
    for mask in segments:
        columns += [(old - y) * mask[order], (new - y) * mask[order]]
    return np.column_stack([np.bincount(customer, weights=c, minlength=count) for c in columns])


def _bootstrap(sums: Floats, *, seed: int, resamples: int) -> _Resampled:
    """Draw customers with replacement `resamples` times and compare the models on each draw.

    The total of labels is the same for both models, so bias is compared in money, where it is defined
    even for a draw in which nobody spent.
    """
    rng = np.random.default_rng(seed)
    count = len(sums)
    totals = np.empty((resamples, sums.shape[1]))
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        draws = rng.integers(0, count, size=(size, count))
        totals[start : start + size] = sums[draws].sum(axis=1)
    old_error, new_error, spend, old_bias, new_bias, *within = totals.T
    change = (new_error - old_error) / np.where(spend > 0, spend, 1.0)
    low, high = np.quantile(change, [0.05, 0.95])
    return _Resampled(
        probability_better=float(np.mean(new_error < old_error)),
        probability_bias_worse=float(np.mean(np.abs(new_bias) > np.abs(old_bias))),
        low=float(low),
        high=float(high),
        segment_bias_worse=tuple(
            float(np.mean(np.abs(new) > np.abs(old)))
            for old, new in zip(within[::2], within[1::2], strict=True)
        ),
    )


def _undecidable(labels: Floats, count: int) -> str | None:
    """Return why these customers can decide nothing, or None."""
    if count < HOLDOUT_CUSTOMERS_MIN:
        return f"kept: {count} hold-out customers are too few to judge by, {HOLDOUT_CUSTOMERS_MIN} are needed"
    if not labels.any():
        return f"kept: none of the {count} hold-out customers spent anything, so no error can be compared"
    return None


def _objection(
    old: dict[str, float | None],
    new: dict[str, float | None],
    drawn: _Resampled,
    probability: float,
    *,
    first: bool,
) -> str | None:
    """Return the first reason against the challenger, or None."""
    rival = "the mean label for everyone" if first else "the champion"
    if not drawn.probability_better > probability:
        return (
            f"kept: the challenger errs less than {rival} in {drawn.probability_better:.1%} of the "
            f"resamples, more than {probability:.1%} are needed"
        )
    return _rank_objection(old, new, first=first) or (
        # The mean of the hold-out has no bias by construction: a first model cannot be asked to match it.
        None if first else _bias_objection(old, new, drawn, probability)
    )


def _rank_objection(old: dict[str, float | None], new: dict[str, float | None], *, first: bool) -> str | None:
    # The mean ranks nobody: its Gini is 0 or undefined, so a first model must be above 0.
    old_gini, new_gini = old["gini"] or 0.0, new["gini"]
    if new_gini is not None and first and new_gini <= 0:
        return f"kept: the challenger ranks customers no better than chance (Gini {new_gini:.3f})"
    if new_gini is not None and not first and old_gini - new_gini > GINI_LOSS_MAX:
        return (
            f"kept: the challenger ranks customers worse, Gini {new_gini:.3f} after {old_gini:.3f}, "
            f"and may lose {GINI_LOSS_MAX} at most"
        )
    old_top, new_top = old["top_decile_capture"], new["top_decile_capture"]
    if not (first or old_top is None or new_top is None) and old_top - new_top > CAPTURE_LOSS_MAX:
        return (
            f"kept: the tenth that the challenger puts first brings {new_top:.1%} of the spend, "
            f"the champion's {old_top:.1%}"
        )
    return None


def _bias_objection(
    old: dict[str, float | None], new: dict[str, float | None], drawn: _Resampled, probability: float
) -> str | None:
    old_bias, new_bias = old["bias"], new["bias"]
    if old_bias is None or new_bias is None:
        return None
    if abs(new_bias) - abs(old_bias) > BIAS_LOSS_MAX and drawn.probability_bias_worse > probability:
        return f"kept: the challenger is off in level by {new_bias:+.1%}, the champion by {old_bias:+.1%}"
    return None


def _segment_biases(
    segments: Mapping[str, npt.NDArray[np.bool_]], y: Floats, old: Floats, new: Floats, drawn: _Resampled
) -> dict[str, dict[str, float | None]]:
    """Return the bias of both models in each segment; None where nothing came in."""
    found: dict[str, dict[str, float | None]] = {}
    for (name, mask), worse in zip(segments.items(), drawn.segment_bias_worse, strict=True):
        spent = float(y[mask].sum())
        biases = [float(p[mask].sum()) / spent - 1 if spent > 0 else None for p in (old, new)]
        found[name] = {"champion": biases[0], "challenger": biases[1], "probability_worse": worse}
    return found


def _segment_objection(biases: Mapping[str, Mapping[str, float | None]], probability: float) -> str | None:
    """Return the objection of the first segment whose bias grows clearly, or None."""
    for name, bias in biases.items():
        old, new, worse = bias["champion"], bias["challenger"], bias["probability_worse"]
        if old is None or new is None or worse is None:
            continue
        if abs(new) - abs(old) > SEGMENT_BIAS_LOSS_MAX and worse > probability:
            return (
                f"kept: for {name} the challenger is off in level by {new:+.1%}, the champion by {old:+.1%}"
            )
    return None


def _approval(
    measures: dict[str, dict[str, float | None]], drawn: _Resampled | None, count: int, *, first: bool
) -> str:
    """Return the sentence that goes with a promotion."""
    assert drawn is not None
    rival = "first model: it errs less than the mean label for everyone" if first else "errs less than before"
    old, new = measures["champion"]["nmae"], measures["challenger"]["nmae"]
    return (
        f"promoted, {rival}: nMAE {new:.3f} against {old:.3f} on {count} hold-out customers, "
        f"better in {drawn.probability_better:.1%} of the resamples"
    )


def _difference(measures: dict[str, dict[str, float | None]], name: str) -> float | None:
    old, new = measures["champion"][name], measures["challenger"][name]
    return None if old is None or new is None else new - old
