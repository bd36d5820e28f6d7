"""The answer to a request: from what was known then, promoted through the gate only, the same every time."""

import msgspec
import pyarrow as pa
import pytest
from line_factory import DAY_S, WEEK_S, settings, shop, windows_of

from models.holdout import is_holdout
from models.registry import Registry, RegistryStorageError
from streams import cloudevents
from streams.carry import Request
from streams.decisions import Outcome
from streams.history import History
from streams.joining import Snapshot
from streams.retraining import SHORT_LABEL, answer_request, training_frame

CONF = settings(gate_probability=0.5)


@pytest.fixture(scope="module")
def snapshots():
    return windows_of(shop(2, days=75, customers=330, orders_a_day=38), CONF)


def history_of(snapshots):
    history = History()
    for snapshot in snapshots:
        history.add(snapshot)
    return history


def request_at(snapshot, champion=None):
    return Request("r1", snapshot.window_end, snapshot.window_end + WEEK_S, champion)


def answer(history, request, champion, conf):
    """Answer with the champion that an earlier answer brought, None without one."""

    def load(version):
        assert version == champion.model.version
        return champion.model, champion.card

    return answer_request(history, request, load, conf)


def decision_bytes(answered):
    return cloudevents.encode(answered.decision.to_event("/test"))


def test_the_frame_holds_full_windows_whose_labels_are_known(snapshots):
    history, at = history_of(snapshots), snapshots[7].window_end
    frame = training_frame(history, at=at, settings=CONF)
    ends = sorted({int(end.timestamp()) for end in frame["window_end"]})
    # Full from the 4th on (28 days with the first, cut week); labels need 14 days more.
    assert ends == [snapshot.window_end for snapshot in snapshots[3:6]]
    for end in ends:
        rows = frame[frame["window_end"].map(lambda moment: int(moment.timestamp())) == end]
        assert rows["CustomerID"].tolist() == history.windows[end].rows["CustomerID"].tolist()
        for name, days in (("label", CONF.horizon_days), (SHORT_LABEL, CONF.monitor_horizon_days)):
            _, spend = history.label(end, horizon_s=days * DAY_S, at=at)
            assert rows[name].tolist() == spend.tolist()


def test_only_so_many_windows_are_trained_on(snapshots):
    conf = settings(training_windows_max=2)
    frame = training_frame(history_of(snapshots), at=snapshots[8].window_end, settings=conf)
    ends = {int(end.timestamp()) for end in frame["window_end"]}
    assert ends == {snapshots[5].window_end, snapshots[6].window_end}


def test_a_first_model_is_promoted_through_the_gate(snapshots):
    history = history_of(snapshots[:9])
    answered = answer(history, request_at(snapshots[8]), None, CONF)
    decision = answered.decision
    assert decision.outcome is Outcome.PROMOTED
    assert decision.version == answered.model.version == answered.card.version
    assert decision.parent is None
    assert decision.request_id == "r1"
    assert decision.gate["promoted"] is True
    assert answered.card.requested_at == cloudevents.iso(snapshots[8].window_end)
    assert answered.card.horizon_days == CONF.horizon_days
    # The reference that goes with the model is the window that asked.
    assert answered.reference.equals(history.latest.rows)
    # The hold-out was left alone.
    frame = training_frame(history, at=snapshots[8].window_end, settings=CONF)
    assert answered.model.training.rows == int((~is_holdout(frame["CustomerID"])).sum())


def test_what_came_after_the_request_changes_nothing(snapshots):
    """The retrain consumer may be late: by then later windows are there."""
    request = request_at(snapshots[7])
    then, later = (
        answer(history_of(snapshots[:8]), request, None, CONF),
        answer(history_of(snapshots), request, None, CONF),
    )
    assert decision_bytes(then) == decision_bytes(later)
    assert then.model.version == later.model.version
    assert msgspec.json.encode(then.card) == msgspec.json.encode(later.card)


def test_without_labels_nothing_is_trained(snapshots):
    answered = answer(history_of(snapshots[:5]), request_at(snapshots[4]), None, CONF)
    assert answered.model is None
    assert answered.decision.outcome is Outcome.KEPT
    assert answered.decision.version is None
    assert "no window with matured labels" in answered.decision.reason


def test_the_champion_again_is_no_challenger(snapshots):
    history, request = history_of(snapshots[:9]), request_at(snapshots[8])
    champion = answer(history, request, None, CONF)
    again = msgspec.structs.replace(request, champion=champion.model.version)
    answered = answer(history, again, champion, CONF)
    assert answered.decision.outcome is Outcome.KEPT
    assert answered.decision.parent == champion.model.version
    assert "the champion again" in answered.decision.reason
    assert answered.model is None


def test_a_challenger_that_is_not_better_is_kept_with_the_reason(snapshots):
    """The same customers a week later: no model is better with a probability of 99.9%."""
    strict = settings(gate_probability=0.999)
    champion = answer(history_of(snapshots[:8]), request_at(snapshots[7]), None, CONF)
    request = request_at(snapshots[8], champion.model.version)
    answered = answer(history_of(snapshots[:9]), request, champion, strict)
    assert answered.decision.outcome is Outcome.KEPT
    assert answered.decision.version is None
    assert answered.decision.reason == answered.decision.gate["reason"]
    assert answered.card.parent == champion.model.version


def test_too_few_hold_out_customers_decide_nothing():
    few = windows_of(shop(2, days=60, customers=60, orders_a_day=10), CONF)
    answered = answer(history_of(few), request_at(few[8]), None, CONF)
    assert answered.decision.outcome is Outcome.KEPT
    assert "too few" in answered.decision.reason


def test_a_split_customer_cannot_be_trained_on(snapshots):
    """Two rows of one customer in a window: the frame is refused, and the answer says why."""
    split = [
        Snapshot(**(vars(s) | {"rows": pa.concat_tables([s.rows, s.rows.slice(0, 1)]).sort_by("CustomerID")}))
        for s in snapshots[:9]
    ]
    answered = answer(history_of(split), request_at(snapshots[8]), None, CONF)
    assert answered.decision.outcome is Outcome.KEPT
    assert "repeat a customer" in answered.decision.reason


def test_a_champion_that_cannot_be_loaded_stays_and_nothing_is_trained(snapshots, tmp_path):
    request = request_at(snapshots[8], champion="abcdef012345")
    answered = answer_request(history_of(snapshots[:9]), request, Registry(tmp_path).load, CONF)
    assert answered.model is None
    assert answered.decision.outcome is Outcome.KEPT
    assert answered.decision.parent == "abcdef012345"
    assert answered.decision.reason.startswith("the champion cannot be loaded: model abcdef012345 is not in")


def test_a_registry_that_cannot_be_read_is_no_verdict_on_the_champion(snapshots):
    def load(_):
        raise RegistryStorageError("no permission")

    with pytest.raises(RegistryStorageError):
        answer_request(history_of(snapshots[:9]), request_at(snapshots[8], "abcdef012345"), load, CONF)
