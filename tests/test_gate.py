"""The gate: it opens for what is better, stays shut otherwise, and says by which figures."""

import json

import numpy as np
import pytest

from models.gate import compare_level, decide
from models.holdout import is_holdout

IDS = [str(12_346 + number) for number in range(1500)]
HELD = is_holdout(IDS)
SETTINGS = {"seed": 42, "resamples": 400, "probability": 0.9}


def spend(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.gamma(0.6, 300.0, len(IDS))


def noisy(y: np.ndarray, spread: float, seed: int = 1) -> np.ndarray:
    """Return unbiased predictions of `y`, off by about `spread` of it."""
    shape = 1 / spread**2
    return y * np.random.default_rng(seed).gamma(shape, 1 / shape, y.size)


def test_a_clearly_better_challenger_is_promoted_with_all_figures():
    y = spend()
    verdict = decide(y, noisy(y, 0.8), noisy(y, 0.3, seed=2), IDS, **SETTINGS)
    assert verdict.promoted
    assert verdict.rival == "champion"
    assert verdict.customers == verdict.rows == HELD.sum()
    assert verdict.probability_better == 1.0
    assert verdict.nmae_change_low < verdict.nmae_change < verdict.nmae_change_high < 0
    assert verdict.nmae_change == pytest.approx(verdict.challenger["nmae"] - verdict.champion["nmae"])
    assert verdict.reason.startswith("promoted")
    assert f"{verdict.challenger['nmae']:.3f}" in verdict.reason
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False)) == verdict.to_json()


def test_a_worse_challenger_is_kept_out():
    y = spend()
    verdict = decide(y, noisy(y, 0.3), noisy(y, 0.8, seed=2), IDS, **SETTINGS)
    assert not verdict.promoted
    assert verdict.probability_better == 0.0
    assert "0.0% of the resamples" in verdict.reason


def test_the_champion_itself_is_no_better_than_the_champion():
    y = spend()
    verdict = decide(y, noisy(y, 0.5), noisy(y, 0.5), IDS, **SETTINGS)
    assert not verdict.promoted
    assert verdict.nmae_change == 0


def test_without_a_difference_about_one_in_ten_passes():
    # The promise of a probability of 0.9, on 200 pairs of equally good models.
    rng = np.random.default_rng(5)
    ids = np.array(IDS)[HELD]
    promoted = 0
    for trial in range(200):
        y = rng.gamma(0.6, 300.0, ids.size)
        pair = (noisy(y, 0.5, seed=2 * trial), noisy(y, 0.5, seed=2 * trial + 1))
        promoted += decide(y, *pair, ids, seed=trial, resamples=200, probability=0.9).promoted
    assert 5 <= promoted <= 35


def test_less_error_does_not_buy_a_lost_ranking():
    # Overpredicts ten-fold, in perfect order; the challenger errs far less and ranks nobody.
    y = spend()
    verdict = decide(y, 10 * y, np.full(y.size, np.median(y)), IDS, **SETTINGS)
    assert verdict.probability_better == 1.0
    assert not verdict.promoted
    assert "ranks customers worse" in verdict.reason


def test_less_error_does_not_buy_a_lost_level():
    # Half the spend comes from one in twenty, whom the challenger halves while it is exact elsewhere.
    y = np.where(np.arange(len(IDS)) % 20 == 0, 2000.0, 100.0) + spend() / 100
    champion = noisy(y, 0.6)
    champion *= y[HELD].sum() / champion[HELD].sum()
    challenger = np.where(y > 1000, 0.6 * y, y)
    verdict = decide(y, champion, challenger, IDS, **SETTINGS)
    assert verdict.probability_better > 0.9
    assert verdict.probability_bias_worse > 0.9
    assert not verdict.promoted
    assert "off in level" in verdict.reason


def test_a_first_model_must_beat_the_mean_of_the_holdout():
    y = spend()
    good = decide(y, None, noisy(y, 0.4), IDS, **SETTINGS)
    assert (good.promoted, good.rival) == (True, "mean")
    assert good.champion["mae"] == pytest.approx(np.abs(y[HELD] - y[HELD].mean()).mean())
    bad = decide(y, None, np.full(y.size, 10 * y.mean()), IDS, **SETTINGS)
    assert not bad.promoted
    assert "the mean label for everyone" in bad.reason


def test_a_first_model_must_rank_better_than_chance():
    y = spend()
    flat = decide(y, None, np.full(y.size, np.median(y)), IDS, **SETTINGS)
    assert flat.probability_better > 0.9  # the median errs less than the mean
    assert not flat.promoted
    assert "no better than chance" in flat.reason


def test_trained_customers_have_no_say():
    y = spend()
    champion, challenger = noisy(y, 0.5), noisy(y, 0.4, seed=2)
    verdict = decide(y, champion, challenger, IDS, **SETTINGS)
    spoilt = np.where(HELD, challenger, 1e9)
    assert decide(y, champion, spoilt, IDS, **SETTINGS) == verdict
    assert decide(y[HELD], champion[HELD], challenger[HELD], np.array(IDS)[HELD], **SETTINGS) == verdict


def test_equal_seeds_give_equal_verdicts_in_any_order_of_rows():
    y = spend()
    champion, challenger = noisy(y, 0.5), noisy(y, 0.49, seed=2)
    verdict = decide(y, champion, challenger, IDS, **SETTINGS)
    assert decide(y[::-1], champion[::-1], challenger[::-1], IDS[::-1], **SETTINGS) == verdict
    other = decide(y, champion, challenger, IDS, **{**SETTINGS, "seed": 43})
    assert (other.nmae_change, other.seed) == (verdict.nmae_change, 43)
    assert other.nmae_change_low != verdict.nmae_change_low


def test_windows_of_a_customer_are_drawn_together():
    # The same customers four times over tell nothing new: the interval must not shrink.
    y = spend()
    champion, challenger = noisy(y, 0.5), noisy(y, 0.45, seed=2)
    once = decide(y, champion, challenger, IDS, **SETTINGS)
    fourfold = decide(*(np.tile(column, 4) for column in (y, champion, challenger)), IDS * 4, **SETTINGS)
    assert (fourfold.customers, fourfold.rows) == (once.customers, 4 * once.rows)
    assert fourfold.probability_better == once.probability_better
    assert fourfold.nmae_change_low == pytest.approx(once.nmae_change_low)


@pytest.mark.parametrize("with_champion", [True, False])
def test_too_few_customers_decide_nothing(with_champion):
    y = spend()[:200]
    champion = noisy(y, 0.8) if with_champion else None
    verdict = decide(y, champion, y, IDS[:200], **SETTINGS)
    assert not verdict.promoted
    assert f"{HELD[:200].sum()} hold-out customers are too few" in verdict.reason
    assert verdict.probability_better is None
    json.dumps(verdict.to_json(), allow_nan=False)


def test_nobody_decides_nothing():
    verdict = decide([], [], [], [], **SETTINGS)
    assert (verdict.promoted, verdict.customers) == (False, 0)


def test_labels_that_are_all_zero_decide_nothing():
    zero = np.zeros(len(IDS))
    verdict = decide(zero, spend(), zero, IDS, **SETTINGS)
    assert not verdict.promoted
    assert "spent anything" in verdict.reason


@pytest.mark.parametrize(
    ("y", "challenger", "message"),
    [(np.ones(3), np.ones(len(IDS)), "differ in shape"), (spend(), np.full(len(IDS), np.nan), "not finite")],
)
def test_unusable_columns_are_refused(y, challenger, message):
    with pytest.raises(ValueError, match=message):
        decide(y, spend(), challenger, IDS, **SETTINGS)


def test_a_segment_that_loses_its_level_keeps_the_challenger_out():
    """Better overall, and on the whole level right: but one half pays for the other."""
    y = spend()
    champion = noisy(y, 1.2)
    champion *= y[HELD].sum() / champion[HELD].sum()
    first = np.arange(len(IDS)) % 2 == 0
    challenger = np.where(first, 1.35 * y, y)
    challenger = np.where(
        first, challenger, y * (y[HELD].sum() - challenger[HELD & first].sum()) / y[HELD & ~first].sum()
    )
    assert decide(y, champion, challenger, IDS, **SETTINGS).promoted
    kept = decide(y, champion, challenger, IDS, **SETTINGS, segments={"even customers": first})
    assert not kept.promoted
    assert "even customers" in kept.reason
    assert kept.segments["even customers"]["challenger"] == pytest.approx(0.35)
    assert kept.segments["even customers"]["probability_worse"] > 0.9


def test_small_segments_are_not_guarded():
    y = spend()
    few = np.arange(len(IDS)) < 100
    challenger = np.where(few, 3 * y, y)
    verdict = decide(y, noisy(y, 0.8), challenger, IDS, **SETTINGS, segments={"few": few})
    assert verdict.promoted
    assert verdict.segments == {}


def test_a_worse_top_decile_keeps_the_challenger_out():
    """The same order but for the best, whom the challenger holds to be middling: the Gini barely moves."""
    y = np.where(np.arange(len(IDS)) % 10 == 0, 400.0, 100.0 + spend() / 50)
    champion = noisy(y, 0.02) * 3  # far off in level, perfect in rank
    challenger = np.where((y >= 400) & (np.arange(len(IDS)) % 20 == 0), 0.9, 1.0) * y
    challenger = np.where(y >= 400, np.minimum(challenger, 100.0), y)
    verdict = decide(y, champion, challenger, IDS, **SETTINGS)
    assert verdict.probability_better > 0.9
    assert not verdict.promoted
    assert "ranks customers worse" in verdict.reason or "puts first" in verdict.reason


def test_compared_levels():
    y = spend()
    level = compare_level(y, y, 1.5 * y, IDS, seed=1, resamples=200)
    assert (level.champion, level.challenger) == (pytest.approx(0.0), pytest.approx(0.5))
    assert level.clearly_worse(0.9)
    assert not compare_level(y, 1.5 * y, y, IDS, seed=1, resamples=200).clearly_worse(0.9)
    assert not compare_level(y, y, 1.05 * y, IDS, seed=1, resamples=200).clearly_worse(0.9)
    assert compare_level(np.zeros(3), np.ones(3), np.ones(3), IDS[:3], seed=1, resamples=9) is None
