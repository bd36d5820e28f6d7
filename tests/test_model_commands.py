"""`clv-drift model`: the registry as a person sees it, decisions made by hand as the log gets them."""

import json
from dataclasses import replace

import msgspec
import pytest
from kafka import KafkaProducer
from model_frames import labelled_frame
from small_shop import clv_drift

from models.card import card_of
from models.registry import Registry
from models.training import holdout_performance, train
from streams import cloudevents
from streams.carry import EVALUATION, Carry, Serving
from streams.decisions import Decision, DecisionLog, Outcome
from streams.errors import ExitCode
from streams.grid import from_iso, iso
from streams.kafka_process import free_port
from streams.settings import ENV_PREFIX
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

pytestmark = pytest.mark.usefixtures("own_logging")

WEEK_S = 7 * 86_400
LAST = from_iso("2011-06-06T00:00:00Z")


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Registry:
    """Three whole versions and a damaged one."""
    made = Registry(tmp_path_factory.mktemp("registry"))
    for seed in range(1, 5):
        frame = labelled_frame(customers=80, windows=1, seed=seed)
        model = train(frame, "tweedie_glm", seed)
        card = card_of(
            model,
            horizon_days=90,
            metrics=holdout_performance(model, frame),
            requested_at="2011-03-07T00:00:00Z",
            gate={"promoted": True, "reason": "better"} if seed == 1 else None,
        )
        made.save(model, card, frame)
    damaged = made.list_versions()[-1]
    (made.directory / damaged / "card.json").write_text("{}")
    return made


@pytest.fixture
def versions(registry) -> list[str]:
    return registry.list_versions()


@pytest.fixture
def damaged(registry) -> str:
    (version,) = registry.damaged()
    return version


@pytest.fixture(autouse=True)
def _place(monkeypatch, registry):
    monkeypatch.setenv(ENV_PREFIX + "REGISTRY_DIR", str(registry.directory))
    monkeypatch.setenv("COLUMNS", "200")


# -- looking -------------------------------------------------------------------


def test_list_shows_each_version_and_what_is_damaged(registry, versions, damaged, capsys):
    assert clv_drift("model", "list") == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    for version in versions:
        card = registry.card(version)
        assert f"{card.metrics['nmae']:.4g}" in rows[version]
        assert ("promoted" if card.gate else "by hand") in rows[version]
    assert "damaged" in rows[damaged]
    assert "refused" in rows[damaged]


def test_list_as_json_is_the_cards(registry, versions, damaged, capsys):
    assert clv_drift("model", "list", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [card["version"] for card in said["versions"]] == versions
    assert said["versions"] == [json.loads(msgspec.json.encode(card)) for card in registry.cards()]
    assert list(said["damaged"]) == [damaged]


def test_list_of_nothing_says_so(tmp_path, capsys):
    assert clv_drift("model", "list", "--registry", tmp_path / "none") == 0
    assert "no model in" in capsys.readouterr().out


def test_show_tells_what_a_version_is(registry, versions, capsys):
    assert clv_drift("model", "show", versions[0]) == 0
    said = capsys.readouterr().out
    card = registry.card(versions[0])
    for words in (
        card.version,
        "tweedie_glm",
        "90 days",
        f"{card.training.rows:,} rows",
        "LifeSpend",
        "gini",
    ):
        assert words in said
    assert clv_drift("model", "show", versions[0], "--json") == 0
    assert json.loads(capsys.readouterr().out)["artefacts"] == card.artefacts


@pytest.mark.parametrize("version", ["0123456789abcdef", "../passwd", "damaged"])
def test_show_refuses_by_name(version, damaged, capsys):
    asked = damaged if version == "damaged" else version
    assert clv_drift("model", "show", asked) == ExitCode.MODEL
    said = capsys.readouterr().err
    assert asked in said
    assert "Traceback" not in said


# -- deciding ------------------------------------------------------------------


class Stream:
    """What a worker would have written: evaluations and decisions."""

    def __init__(self, settings) -> None:
        self.settings = settings
        self.topics = catalogue(settings)
        ensure_topics(settings)
        self.producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)

    def evaluated(self, window_end, *serving, applied_by_hand=()):
        carry = Carry(
            window_end=window_end,
            first_window=window_end,
            serving=tuple(Serving(since, version) for since, version in enumerate(serving)),
            applied_by_hand=applied_by_hand,
        )
        data = {"window_end": iso(window_end), "carry": carry.to_dict()}
        event = cloudevents.envelope(
            kind=EVALUATION, source=self.settings.event_source, window_end=window_end, data=data
        )
        self.write(self.topics.evaluations.name, iso(window_end), cloudevents.encode(event))

    def decided(self, version, parent):
        decision = Decision(Outcome.PROMOTED, "better", 0, f"request {version}", version, parent)
        self.write(self.topics.models.name, version, cloudevents.encode(decision.to_event("/t")))

    def write(self, topic, key, value):
        self.producer.send(topic, key=key.encode(), value=value, partition=0).get(timeout=30)

    def log(self):
        return list(read_all(self.settings, self.topics.models.name))

    def last(self):
        record = self.log()[-1]
        return record, Decision.from_event(cloudevents.decode(record.value))


@pytest.fixture
def stream(settings, monkeypatch):
    monkeypatch.setenv(ENV_PREFIX + "BOOTSTRAP_SERVERS", settings.bootstrap_servers)
    monkeypatch.setenv(ENV_PREFIX + "TOPIC_PREFIX", settings.topic_prefix)
    stream = Stream(settings)
    yield stream
    stream.producer.close()


def test_diff_tells_in_what_two_versions_differ(registry, versions, capsys):
    assert clv_drift("model", "diff", versions[0], versions[1], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    cards = [registry.card(version) for version in versions[:2]]
    assert found["version"] == versions[:2]
    assert found["metrics.nmae"] == [card.metrics["nmae"] for card in cards]
    assert "features" not in found  # they have them in common
    assert clv_drift("model", "diff", versions[0], versions[1]) == 0
    said = capsys.readouterr().out
    assert "metrics.nmae" in said
    assert f"{cards[1].metrics['nmae']:.4g}" in said
    assert clv_drift("model", "diff", versions[0], versions[0]) == 0
    assert "do not differ" in capsys.readouterr().out
    assert clv_drift("model", "diff", versions[0], "0123456789abcdef") == ExitCode.MODEL


@pytest.mark.broker
def test_a_request_by_hand_stands_in_the_log(stream, versions, capsys):
    assert clv_drift("model", "request", "--reason", "too early") == ExitCode.STATE
    stream.evaluated(LAST, versions[0])
    assert clv_drift("model", "request", "--reason", "a new price list") == 0
    assert iso(LAST + WEEK_S) in " ".join(capsys.readouterr().out.split())
    record, decision = stream.last()
    assert (decision.outcome, decision.version) == (Outcome.REQUESTED, None)
    assert record.key == decision.nonce.encode()
    assert decision.takes_effect_at == LAST + WEEK_S
    log = DecisionLog()
    assert log.add(record.offset, cloudevents.decode(record.value))
    assert list(log.due_by_hand(LAST + WEEK_S, ())) == [decision.nonce]
    # It serves nothing, so a promotion after it still replaces the champion.
    assert clv_drift("model", "promote", versions[1], "--reason", "x") == 0
    assert stream.last()[1].parent == versions[0]


@pytest.mark.broker
def test_promote_writes_a_decision_that_the_log_takes(stream, versions, capsys):
    stream.evaluated(LAST - WEEK_S)
    stream.evaluated(LAST, versions[0])
    assert clv_drift("model", "promote", versions[1], "--reason", "the campaign") == 0
    record, decision = stream.last()
    assert record.key == versions[1].encode()
    assert record.headers == cloudevents.HEADERS
    assert record.offset == 0
    assert decision == Decision(
        outcome=Outcome.PROMOTED,
        reason="the campaign",
        window_end=LAST,
        request_id=None,
        version=versions[1],
        parent=versions[0],
        nonce=decision.nonce,
        effective_from=LAST + WEEK_S,
    )
    event = cloudevents.decode(record.value)
    assert event["source"] == stream.settings.event_source
    log = DecisionLog()
    assert log.add(record.offset, event)
    assert [made.decision for made in log.due_by_hand(LAST + WEEK_S, ()).values()] == [decision]
    assert log.due_by_hand(LAST, ()) == log.due_by_hand(LAST + WEEK_S, (decision.nonce,)) == {}
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"model {versions[1]} serves instead of {versions[0]} from the next window not yet evaluated" in said
    )
    assert iso(LAST) in said
    assert f"ends at {iso(LAST + WEEK_S)} or later" in said


@pytest.mark.broker
def test_rollbacks_go_back_step_by_step(stream, versions, capsys):
    first, second, third = versions
    stream.evaluated(LAST, first, second, third)
    stream.decided(first, None)
    stream.write(stream.topics.models.name, "x", b"no decision at all")
    stream.decided(second, first)
    stream.decided(third, second)
    for version, parent in ((second, third), (first, second)):
        # The second one is asked for before any window has taken up the first one.
        assert clv_drift("model", "rollback", "--reason", "complaints") == 0
        _, decision = stream.last()
        assert (decision.outcome, decision.version, decision.parent) == (Outcome.ROLLED_BACK, version, parent)
    assert clv_drift("model", "rollback", "--reason", "complaints") == ExitCode.STATE
    assert f"before {first}" in capsys.readouterr().err


@pytest.mark.broker
def test_a_rollback_undoes_a_promotion_made_by_hand(stream, versions):
    stream.evaluated(LAST, versions[0], versions[1])
    assert clv_drift("model", "promote", versions[0], "--reason", "again") == 0
    # A window has been evaluated since, with the model promoted by hand.
    _, promoted = stream.last()
    stream.evaluated(LAST + WEEK_S, versions[0], versions[1], versions[0], applied_by_hand=(promoted.nonce,))
    assert clv_drift("model", "rollback", "--reason", "no, not again") == 0
    _, decision = stream.last()
    assert (decision.version, decision.parent) == (versions[1], versions[0])
    assert decision.window_end == LAST + WEEK_S


@pytest.mark.broker
def test_what_is_no_evaluation_of_ours_is_passed_over_with_a_word(stream, versions, capsys):
    """Messages of strangers behind the newest evaluation must not hinder a rollback."""
    topic = stream.topics.evaluations.name
    stream.evaluated(LAST, versions[0])
    carry = Carry(window_end=LAST + WEEK_S).to_dict()
    kind, source = EVALUATION, stream.settings.event_source
    strangers = [
        b"x",
        b"[]",
        b'{"data": {}, "type": "clv.evaluation.v1"}',
        *(
            cloudevents.encode(cloudevents.envelope(kind=kind, source=source, window_end=LAST, data=data))
            for kind, source, data in (
                (kind, source, {"window_end": iso(LAST + WEEK_S), "carry": {}}),
                (kind, source, {"window_end": iso(LAST + 2 * WEEK_S), "carry": carry}),
                (kind, source, {"window_end": LAST, "carry": carry}),
                (kind, "/another", {"window_end": iso(LAST + WEEK_S), "carry": carry}),
                ("another", source, {"window_end": iso(LAST + WEEK_S), "carry": carry}),
            )
        ),
    ]
    for number, value in enumerate(strangers):
        stream.write(topic, f"{number}", value)
    stream.evaluated(LAST - WEEK_S, versions[2])  # an earlier window, written again by somebody who lagged
    assert clv_drift("model", "promote", versions[1], "--reason", "all the same") == 0
    _, decision = stream.last()
    assert (decision.window_end, decision.parent) == (LAST, versions[0])
    said = capsys.readouterr()
    assert said.err.count("evaluation passed over") == len(strangers)
    assert "passed over" not in said.out


@pytest.mark.broker
def test_a_decision_that_was_put_off_is_one(stream, versions):
    """It stands in the log twice; what it undoes is still what served before it."""
    stream.evaluated(LAST, versions[0])
    assert clv_drift("model", "promote", versions[1], "--reason", "x") == 0
    _, decision = stream.last()
    again = replace(decision, effective_from=LAST + 5 * WEEK_S)
    stream.write(stream.topics.models.name, "again", cloudevents.encode(again.to_event("/t")))
    assert clv_drift("model", "promote", versions[2], "--reason", "x") == 0
    for version in (versions[1], versions[0]):
        assert clv_drift("model", "rollback", "--reason", "x") == 0
        assert stream.last()[1].version == version


@pytest.mark.broker
def test_two_equal_decisions_are_two(stream, versions):
    stream.evaluated(LAST, versions[0])
    for version in (versions[1], versions[0], versions[1]):
        assert clv_drift("model", "promote", version, "--reason", "same") == 0
    ids = [cloudevents.decode(record.value)["id"] for record in stream.log()]
    assert len(set(ids)) == 3


@pytest.mark.broker
@pytest.mark.parametrize(
    ("version", "code", "words"),
    [
        ("damaged", ExitCode.MODEL, "refused"),
        ("0123456789abcdef", ExitCode.MODEL, "is not in the registry"),
        ("serving", ExitCode.STATE, "serves already"),
    ],
)
def test_a_model_that_cannot_serve_is_not_promoted(stream, versions, damaged, version, code, words, capsys):
    stream.evaluated(LAST, versions[0])
    asked = {"damaged": damaged, "serving": versions[0]}.get(version, version)
    assert clv_drift("model", "promote", asked, "--reason", "x") == code
    assert words in capsys.readouterr().err
    assert stream.log() == []


@pytest.mark.broker
def test_a_rollback_to_a_damaged_model_is_refused(stream, versions, damaged, capsys):
    stream.evaluated(LAST, damaged, versions[0])
    stream.decided(versions[0], damaged)
    assert clv_drift("model", "rollback", "--reason", "x") == ExitCode.MODEL
    assert len(stream.log()) == 1


@pytest.mark.broker
def test_before_the_first_evaluation_nothing_is_decided(stream, versions, capsys):
    assert clv_drift("model", "promote", versions[0], "--reason", "x") == ExitCode.STATE
    assert "no window has been evaluated yet" in capsys.readouterr().err
    assert stream.log() == []


def test_a_missing_broker_is_told(versions, monkeypatch, capsys):
    monkeypatch.setenv(ENV_PREFIX + "BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv(ENV_PREFIX + "BROKER_WAIT_S", "1")
    assert clv_drift("model", "rollback", "--reason", "x") == ExitCode.BROKER
    assert "Traceback" not in capsys.readouterr().err
