"""The calibrated detector on whole streams: that it fires and does not, and what it says where it cannot.

Lines go the way they go in the program: records, partitions, snapshots, joined windows, history.
"""

import copy
import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from calibrated_shop import (
    CHANGE_WEEK,
    CUSTOMERS,
    REFERENCE_WEEKS,
    WEEKS,
    changed,
    context,
    detector,
    end_of,
    history_of,
    history_of_lines,
    merged,
    shop_settings,
    steady,
    verdicts,
    week_of,
)
from line_factory import WEEK_S, windows_of

from models.holdout import customer_hash
from streams.aspects import Aspect
from streams.closing import SAMPLE_KEY
from streams.detectors.calibrated import detector as module
from streams.detectors.interface import COMPARED_COLUMNS
from streams.errors import ExitCode, UserError

WATCHED = range(REFERENCE_WEEKS + 1, WEEKS + 1)
# The week after which the middle window holds nothing but what came after the change.
SETTLED = CHANGE_WEEK + 4


@pytest.fixture(scope="module")
def lines():
    # A week more than is watched: the last one is closed by the end of the input, in part.
    return steady(1, weeks=range(WEEKS + 1))


@pytest.fixture(scope="module")
def history(lines):
    return history_of_lines(lines)


@pytest.fixture(scope="module")
def quiet(history):
    return verdicts(detector(), history)


def geometric_mean(history, feature):
    """Return that of the customers' figures over a long window of the reference."""
    rows = history.windows[end_of(REFERENCE_WEEKS)].rows
    return float(np.exp(np.log(rows[feature]).mean()))


def published(found):
    """Return verdicts as they are published; whatever is no JSON number raises."""
    for verdict in found.values():
        json.dumps(verdict.to_dict(), allow_nan=False)
        json.dumps(verdict.calibration, allow_nan=False)
    return {week: (verdict.to_dict(), verdict.calibration) for week, verdict in found.items()}


# -- it is silent


def test_silent_on_a_shop_that_does_not_change(quiet):
    assert list(quiet) == list(WATCHED)
    for week, verdict in quiet.items():
        assert verdict.drift is False, week
        assert verdict.statistic < verdict.threshold
        assert verdict.false_alarm_probability > 0.05
        assert (verdict.causes, verdict.onset, verdict.drifted_columns) == ((), None, 0)
        assert all(0 <= score < 0.3 for score in verdict.scores.values())
    published(quiet)


def test_silent_on_other_shops_that_do_not_change():
    # 16 of the 52 weeks of the promise: any alarm in one of them has a probability of 1.6%.
    for seed in (10, 11):
        found = verdicts(detector(), history_of_lines(steady(seed, weeks=range(WEEKS + 1))))
        assert [week for week, verdict in found.items() if verdict.drift] == []


# -- it fires


def judged(lines, weeks):
    # The week after the last one is there to close it.
    return verdicts(detector(), history_of_lines(until(weeks[-1] + 1, lines)), weeks)


def until(week, lines):
    return [item for item in lines if week_of(item) <= week]


AROUND = range(CHANGE_WEEK - 2, SETTLED + 1)


def check_firing(found, *, first=CHANGE_WEEK):
    """Silent before the change, an alarm from week `first` on; the onset is right to a week."""
    for week, verdict in found.items():
        if week < CHANGE_WEEK:
            assert verdict.drift is False, week
        if week >= first:
            assert verdict.drift is True, week
            assert verdict.statistic > verdict.threshold
            assert verdict.false_alarm_probability < 0.05
            assert abs(verdict.onset - end_of(CHANGE_WEEK - 1)) <= WEEK_S
            strongest = [(cause.feature, cause.segment) for cause in verdict.causes]
            assert len(set(strongest)) == len(strongest) > 0
    published(found)


@pytest.mark.parametrize("factor", [1.3, 0.8])
def test_prices(lines, history, factor):
    dearer = changed(lines, lambda item: item | {"UnitPrice": round(item["UnitPrice"] * factor, 3)})
    found = judged(dearer, AROUND)
    check_firing(found)
    for week in range(CHANGE_WEEK, SETTLED + 1):
        assert found[week].causes[0].feature == "AvgUnitPrice"
        assert found[week].aspects[0] is Aspect.PRICES
    level = geometric_mean(history, "AvgUnitPrice")
    for week in (CHANGE_WEEK, SETTLED):
        cause = found[week].causes[0]
        assert cause.unit == "currency"
        assert cause.effect == pytest.approx((factor - 1) * level, rel=0.25)
        assert (cause.scale_weeks, cause.segment) == (4 if week == SETTLED else 1, "same products")


def test_strengths_lead_to_the_verdict(lines, history, quiet):
    dearer = changed(lines, lambda item: item | {"UnitPrice": round(item["UnitPrice"] * 1.3, 3)})
    for week, verdict in {**quiet, **judged(dearer, [SETTLED])}.items():
        strongest = max(max(by_weeks.values()) for by_weeks in verdict.strengths.values())
        assert strongest == pytest.approx(verdict.statistic / verdict.threshold)
        assert (strongest > 1) == verdict.drift, week
        assert verdict.strengths.keys() >= set(COMPARED_COLUMNS)
        assert {weeks for by_weeks in verdict.strengths.values() for weeks in by_weeks} == {1, 4, 13}
        for cause in verdict.causes:
            assert verdict.strengths[cause.feature][cause.scale_weeks] > 1


def test_customers_who_are_gone(lines):
    gone = changed(lines, lambda item: None if int(item["CustomerID"]) % 5 < 2 else item)
    history = history_of_lines(until(SETTLED + 1, gone))
    found = verdicts(detector(), history, AROUND)
    check_firing(found, first=CHANGE_WEEK + 1)
    for week in range(CHANGE_WEEK + 1, SETTLED + 1):
        assert found[week].aspects[0] is Aspect.VOLUME
        assert {cause.feature for cause in found[week].causes} & {"customers", "returning"}
    cause = next(cause for cause in found[SETTLED].causes if cause.feature == "customers")
    assert (cause.unit, cause.segment, cause.scale_weeks) == ("customers", "", 4)
    rows = {week: history.windows[end_of(week)].rows for week in (REFERENCE_WEEKS, SETTLED)}
    active = {week: int((frame["Frequency_28d"] > 0).sum()) for week, frame in rows.items()}
    assert cause.effect == pytest.approx(active[SETTLED] - active[REFERENCE_WEEKS], rel=0.25)
    assert cause.effect == pytest.approx(-0.4 * active[REFERENCE_WEEKS], rel=0.25)


def test_quantities(lines, history):
    found = judged(changed(lines, lambda item: item | {"Quantity": 3 * item["Quantity"]}), AROUND)
    check_firing(found)
    level = geometric_mean(history, "AvgQuantity")
    for week in range(CHANGE_WEEK, SETTLED + 1):
        cause = found[week].causes[0]
        assert (cause.feature, cause.unit) == ("AvgQuantity", "pieces")
        assert found[week].aspects[0] is Aspect.BEHAVIOUR
    # A line counts as no further from the usual than 7.4 times, so a little of a threefold is cut off.
    assert found[SETTLED].causes[0].effect == pytest.approx(2 * level, rel=0.25)


def test_countries(lines):
    found = judged(changed(lines, lambda item: item | {"Country": "Spain"}), AROUND)
    check_firing(found)
    by_segment = {cause.segment: cause for cause in found[SETTLED].causes if cause.feature == "Country"}
    assert by_segment["same customers"].effect == pytest.approx(100)
    # Whoever bought since lives in Spain, where nobody of the reference did.
    assert by_segment["Country=Spain"].effect == pytest.approx(100, rel=0.25)
    assert {cause.unit for cause in by_segment.values()} == {"percentage points"}
    assert found[SETTLED].causes[0].feature == "Country"


def test_new_customers_who_come_all_at_once(lines):
    crowd = steady(2, customers=300, weeks=range(CHANGE_WEEK - 1, WEEKS + 1), first_id=50_000)
    found = judged(merged(lines, crowd), AROUND)
    check_firing(found)
    assert found[SETTLED].aspects[0] is Aspect.VOLUME
    effects = {cause.feature: cause.effect for cause in found[SETTLED].causes}
    # Of 300 newcomers 4 in 5 have ordered after four weeks.
    assert effects["arrivals"] == pytest.approx(240, rel=0.25)


# -- it cannot tell, or has seen this before


def test_a_partial_window_cannot_tell(history):
    assert history.latest.partial
    verdict, carry = detector().judge(context(history, WEEKS + 1), {"kept": 1})
    assert (verdict.drift, carry) == (None, {"kept": 1})
    assert verdict.reason == "the window is partial: the input ended before it did"


def test_three_customers_cannot_tell(lines):
    # The busiest ones, so that no week is without a line.
    few = {name for name, _ in Counter(item["CustomerID"] for item in lines).most_common(3)}
    some = [item for item in lines if item["CustomerID"] in few]
    (verdict,) = verdicts(detector(), history_of_lines(some), [30]).values()
    assert (verdict.drift, verdict.reason) == (None, "the reference has 3 customers, fewer than 30")


def test_a_window_of_three_customers_cannot_tell(lines):
    few = {"10000", "10001", "10002"}
    left = changed(lines, lambda item: item if item["CustomerID"] in few else None, from_week=26)
    (verdict,) = verdicts(detector(), history_of_lines(left), [39]).values()
    assert (verdict.drift, verdict.reason) == (None, "the window has 3 customers, fewer than 30")


def test_a_week_without_orders_is_named(lines):
    still = changed(lines, lambda item: item if week_of(item) != 31 else None)
    history = history_of_lines(still)
    found = verdicts(detector(), history, range(28, 40))
    assert found[31].drift is None
    assert found[31].reason == "no orders in the last week: the shop or the feed stood still"
    assert found[30].drift is False
    # Later windows have the still week in them: few orders, and a verdict.
    assert all(found[week].drift is not None for week in range(32, 40))
    published(found)


@pytest.mark.parametrize("weeks", [1, 10, 19])
def test_too_short_a_reference_cannot_tell(history, weeks):
    verdict, carry = detector().judge(context(history, 30, range(30 - weeks, 30)))
    assert carry is None
    assert (verdict.drift, verdict.reason) == (
        None,
        f"the reference has {weeks} weeks, 20 are needed to tell drift",
    )


def test_a_reference_with_a_missing_week_cannot_tell(history):
    verdict, _ = detector().judge(context(history, 30, [*range(1, 11), *range(12, 25)]))
    assert (verdict.drift, verdict.reason) == (None, "a window is missing from the reference")


def test_a_missing_window_before_cannot_tell(history, quiet):
    def without(week):
        holed = copy.copy(history)
        holed.windows = {end: window for end, window in history.windows.items() if end != end_of(week)}
        return detector().judge(context(holed, 40))[0]

    # Arrivals and those who returned are told by the windows where the long and the middle one begin.
    for week in (40 - 13, 40 - 4):
        assert without(week).reason == "an earlier window, which it is compared with, is missing"
    assert without(26).to_dict() == quiet[40].to_dict()
    # Of a week inside, only what is told line by line is missing.
    assert without(38).drift is False


def test_constant_features_are_no_drift_until_the_constant_changes(lines):
    alike = [item | {"UnitPrice": 2.0, "Quantity": 1, "Country": "France"} for item in lines]
    found = judged(alike, [28, 30, 36])
    assert [verdict.drift for verdict in found.values()] == [False] * 3
    assert all(verdict.scores["AvgUnitPrice"] == verdict.scores["Country"] == 0 for verdict in found.values())
    dearer = judged(changed(alike, lambda item: item | {"UnitPrice": 2.02}), [28, 30, SETTLED])
    assert [verdict.drift for verdict in dearer.values()] == [False, True, True]
    causes = {cause.segment: cause for cause in dearer[SETTLED].causes if cause.feature == "AvgUnitPrice"}
    assert causes["same customers"].effect == pytest.approx(0.02)
    assert causes["same products"].effect == pytest.approx(0.02)
    published(found | dearer)


def test_a_new_country_and_a_new_product_of_few_are_no_drift(lines):
    few = {str(10_000 + number) for number in range(CUSTOMERS) if number % 200 == 0}

    def moved(item):
        return item | {"Country": "Atlantis", "StockCode": "NEW"} if item["CustomerID"] in few else item

    found = judged(changed(lines, moved), range(CHANGE_WEEK, WEEKS + 1))
    assert not any(verdict.drift for verdict in found.values())
    published(found)


def test_more_new_products_than_old_ones_are_judged(lines):
    renamed = changed(lines, lambda item: item | {"StockCode": f"N{item['StockCode']}-{item['Quantity']}"})
    found = judged(renamed, [30, SETTLED])
    # Nothing is usual of any product: what prices were is not known, and is not guessed.
    assert not any(cause.segment == "same products" for verdict in found.values() for cause in verdict.causes)
    published(found)


# -- what a cause says


@pytest.mark.parametrize("buyers", [1, 4])
def test_the_fewer_customers_the_stronger_the_alarm(lines, buyers):
    left = sorted({item["CustomerID"] for item in lines if week_of(item) == CHANGE_WEEK})[:buyers]
    shop = [item for item in lines if week_of(item) < CHANGE_WEEK or item["CustomerID"] in left]
    verdict = judged(shop, [CHANGE_WEEK])[CHANGE_WEEK]
    assert verdict.drift is True
    assert (verdict.causes[0].feature, verdict.causes[0].scale_weeks) == ("customers", 1)
    assert verdict.aspects[0] is Aspect.VOLUME


def test_the_effect_on_a_distribution_reaches_beyond_the_reference(lines):
    alike = [item | {"UnitPrice": 2.0, "Quantity": 1, "Country": "France"} for item in lines]
    dearer = judged(changed(alike, lambda item: item | {"UnitPrice": 5.0}), [SETTLED])[SETTLED]
    whole = next(cause for cause in dearer.causes if (cause.feature, cause.segment) == ("AvgUnitPrice", ""))
    assert whole.effect == pytest.approx(3.0)


# -- samples


def test_a_sample_that_shrinks_below_the_references_is_named(lines):
    crowd = steady(2, customers=400, weeks=range(CHANGE_WEEK - 1, WEEKS + 1), first_id=50_000)
    history = history_of_lines(merged(lines, crowd), sample_customers_max=300)
    bounds = {week: history.windows[end_of(week)].sample_bound for week in (REFERENCE_WEEKS, 28, 40)}
    assert bounds[40] < bounds[28]
    found = verdicts(detector(), history, [28, 40])
    assert found[28].drift is False
    assert found[40].reason == "the sample has become smaller than the reference's: it needs a new one"


def test_of_too_many_customers_always_the_same_are_looked_at(lines, monkeypatch):
    monkeypatch.setattr(module, "CUSTOMERS_MAX", 150)
    dearer = changed(lines, lambda item: item | {"UnitPrice": round(item["UnitPrice"] * 1.3, 3)})
    history = history_of_lines(until(SETTLED + 1, dearer))
    judge = detector()
    found = verdicts(judge, history, AROUND)
    check_firing(found)
    assert found[CHANGE_WEEK - 2].calibration["customers"] == 150
    # They are those with the smallest hashes of all who bought in the reference.
    names = sorted({item["CustomerID"] for item in lines if week_of(item) <= REFERENCE_WEEKS})
    hashes = customer_hash(names, SAMPLE_KEY)
    smallest = {names[i] for i in np.argsort(hashes)[:150]}
    known = judge._prepared[-1].observer.known
    assert {history._customers.texts[code] for code in known.codes} == smallest
    # Of the customers of a window those below the same hash are counted.
    end = end_of(SETTLED)
    arcs = judge._prepared[-1].observer._scene(end).arcs
    rows = history.windows[end].rows["CustomerID"].tolist()
    below = int((customer_hash(rows, SAMPLE_KEY) <= np.sort(hashes)[149]).sum())
    assert int(arcs[0].active.sum()) == below < len(rows)


# -- replays


def test_a_fresh_detector_gives_the_same_verdicts(history, quiet):
    weeks = [25, 32, 40]
    carry = None
    for week in weeks:
        # As after a restart at each window: all that is left is what was carried.
        verdict, carry = detector().judge(context(history, week), json.loads(json.dumps(carry)))
        assert verdict.to_dict() == quiet[week].to_dict()
        assert (verdict.calibration is None) == (week != weeks[0])


def test_a_window_is_judged_alike_whatever_came_before(history, quiet):
    late = verdicts(detector(), history, [40])[40]
    assert late.to_dict() == quiet[40].to_dict()
    assert late.calibration == quiet[25].calibration


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item | {"UnitPrice": round(item["UnitPrice"] * 1.1, 3)},
        lambda item: None if int(item["CustomerID"]) % 3 == 0 else item,
        lambda item: item | {"Quantity": 2 * item["Quantity"]} if int(item["CustomerID"]) % 7 < 2 else item,
    ],
    ids=["prices", "customers", "quantities"],
)
def test_an_onset_is_the_same_whatever_was_judged_before(lines, change):
    history = history_of_lines(until(SETTLED + 1, changed(lines, change)))
    one = detector()
    in_turn = verdicts(one, history, range(REFERENCE_WEEKS + 1, SETTLED + 1))
    # Another history with the same windows, as far as they go, has what was seen of them in common.
    again = verdicts(one, copy.copy(history), [SETTLED])[SETTLED]
    alone = verdicts(detector(), history, [SETTLED])[SETTLED]
    assert alone.onset is not None
    assert alone.to_dict() == in_turn[SETTLED].to_dict() == again.to_dict()


def test_partitions_and_batches_do_not_matter(lines, quiet):
    snapshots = windows_of(lines, shop_settings(), partitions=3, batch_lines=389)
    found = verdicts(detector(), history_of(snapshots), [25, 33, 40])
    assert {week: verdict.to_dict() for week, verdict in found.items()} == {
        week: quiet[week].to_dict() for week in found
    }
    assert found[25].calibration == quiet[25].calibration


def test_the_order_of_lines_does_not_matter(lines, quiet):
    rng = np.random.default_rng(3)
    # Lines of a day come in any order: that is within the lateness.
    mixed = [
        lines[i] for i in np.lexsort((rng.random(len(lines)), [item["InvoiceDate"][:10] for item in lines]))
    ]
    snapshots = [
        replace(snapshot, lines=snapshot.lines.take(rng.permutation(len(snapshot.lines))))
        for snapshot in windows_of(mixed, shop_settings())
    ]
    found = verdicts(detector(), history_of(snapshots), [25, 33, 40])
    assert {week: verdict.to_dict() for week, verdict in found.items()} == {
        week: quiet[week].to_dict() for week in found
    }


def test_the_calibration_is_published_once_and_again_for_another_reference(history, quiet):
    assert [week for week, verdict in quiet.items() if verdict.calibration] == [WATCHED[0]]
    judge, carry = detector(), None
    told = []
    for week, reference in [(25, range(1, 25)), (26, range(1, 25)), (38, range(10, 35)), (39, range(10, 35))]:
        verdict, carry = judge.judge(context(history, week, reference), carry)
        told.append(verdict.calibration and verdict.calibration["id"])
        assert carry is not None
        assert verdict.drift is False
    assert told[0] == quiet[25].calibration["id"]
    assert told[1] is told[3] is None
    assert told[2] not in {None, told[0]}
    assert carry == {"calibration": told[2]}
    # The first reference is still at hand: looking back at it is not paid for twice.
    at_hand = judge._prepared[0].calibration
    judge.judge(context(history, 40), None)
    assert judge._prepared[0].calibration is at_hand


def test_what_is_published_explains_the_threshold(quiet):
    calibration = quiet[25].calibration
    assert calibration["customers"] < calibration["customers_in_all"]
    assert calibration["customers_in_all"] == pytest.approx(CUSTOMERS, rel=0.1)
    assert calibration["hops"] == REFERENCE_WEEKS
    assert calibration["horizon"] == 52
    assert math.isclose(calibration["threshold"], quiet[25].threshold, rel_tol=1e-9)


# -- settings


def test_a_short_window_of_two_hops_is_refused():
    with pytest.raises(UserError, match="equal to it") as refused:
        detector(short_window_days=14)
    assert refused.value.code is ExitCode.USAGE
