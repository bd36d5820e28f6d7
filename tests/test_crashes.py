"""Whatever dies, freezes or comes back: the topics hold what a backfill of the same input gives.

`make soak` does more of it, for longer.
"""

import os
import time

import pytest
from harm import Expected, harmed, paced, records_of
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from small_shop import SHORT, shop

from producers.inputs import file_input
from streams.errors import ExitCode
from streams.settings import Settings
from streams.topics import catalogue
from streams.transactions import HEADER_CONTROL

pytestmark = [pytest.mark.broker, pytest.mark.slow]

KILLS = int(os.environ.get("CLV_TEST_KILLS", "4"))
DAYS = 110
TEXT = f"customers=800,days={DAYS},seed=5"
DRIFT_TEXT, DRIFT = "customers=1200,days=130,seed=5", "price:+60%@2011-03-28"
# The embedded broker lets go of a dead worker as soon as it is asked to; Kafka's own default is 6 s at least.
QUICK = {"session_timeout_s": 3.0, "heartbeat_interval_s": 0.5}
FAULTS = (
    "ingest:window_closed",
    "ingest:output_begun",
    "ingest:outputs_sent",
    "ingest:checkpoint_begun",
    "ingest:checkpoint_sent",
)


@pytest.fixture(scope="module")
def source():
    return shop(text=TEXT)


@pytest.fixture
def short(settings) -> Settings:
    """Windows of four weeks and no model: at stake is that no line counts twice or goes missing."""
    return settings.model_copy(update={**SHORT, **QUICK, "reference_weeks": 40})


def replay_in(seconds: float) -> list[str]:
    return paced(["replay", "--synthetic", TEXT], DAYS, seconds)


@pytest.mark.parametrize("faults", [FAULTS[:3], FAULTS[3:]])
def test_the_only_worker_is_killed_at_each_step_of_its_writing(short, source, tmp_path, faults):
    with harmed(short, tmp_path / "logs") as stream:
        replay = stream.stream.start(*replay_in(20))
        for point in faults:
            stream.died(stream.worker(fault=point))
        stream.worker()
        assert replay.process.wait(300) == 0
        stream.check(Expected(source, short, tmp_path / "backfill"))


def test_whoever_evaluates_is_killed_at_each_step_of_its_writing(settings, tmp_path):
    """With a drift, so that there are events to send twice and a model to be decided on."""
    drifting = settings.model_copy(
        update={**SHORT, **QUICK, "decision_wait_s": 600.0, "training_timeout_s": 300.0}
    )
    arguments = ["--synthetic", DRIFT_TEXT, "--inject", DRIFT]
    with harmed(drifting, tmp_path / "logs") as stream:
        stream.stream.retrain()
        stream.stream.replay(*arguments, "--speed", "max")
        for point in ("evaluate:evaluated", "evaluate:committed", "evaluate:events_sent"):
            stream.died(stream.worker(fault=point))
        stream.worker()
        expected = Expected(shop(DRIFT, text=DRIFT_TEXT), drifting, tmp_path / "backfill")
        assert len(expected.events) > 1
        stream.check(expected)


def test_one_of_two_workers_is_killed_and_another_joins(short, source, tmp_path):
    with harmed(short, tmp_path / "logs") as stream:
        first, second = stream.worker(), stream.worker()
        replay = stream.stream.start(*replay_in(25))
        stream.advance()
        stream.kill(second)
        stream.advance()
        third = stream.worker()
        stream.advance(2.0)
        stream.stop(first)
        stream.advance()
        stream.worker()
        stream.stop(third)
        assert replay.process.wait(300) == 0
        stream.check(Expected(source, short, tmp_path / "backfill"))


def test_a_worker_that_wakes_up_as_a_zombie_does_no_harm(short, source, tmp_path):
    """Frozen past its session, it still holds state that another owns by now."""
    with harmed(short, tmp_path / "logs") as stream:
        frozen, _ = stream.worker(), stream.worker()
        replay = stream.stream.start(*replay_in(25))
        stream.advance()
        stream.freeze(frozen.process.pid, "a worker", short.session_timeout_s + 4)
        assert replay.process.wait(300) == 0
        stream.check(Expected(source, short, tmp_path / "backfill"))


def test_the_replay_is_killed_and_resumed(short, source, tmp_path):
    with harmed(short, tmp_path / "logs") as stream:
        stream.worker()
        for _ in range(2):
            replay = stream.stream.start(*replay_in(12), "--resume")
            time.sleep(stream.dice.uniform(3, 6))
            stream.kill(replay)
        stream.stream.replay(*replay_in(3)[1:], "--resume")
        stream.check(Expected(source, short, tmp_path / "backfill"), duplicates=None)


@pytest.mark.real_data
def test_the_only_worker_is_killed_again_and_again(settings, online_retail, tmp_path):
    year = settings.model_copy(update={**QUICK, "reference_weeks": 60})
    with harmed(year, tmp_path / "logs") as stream:
        replay = stream.stream.start(*paced(["replay", str(online_retail)], 374, 40))
        stream.worker(role="evaluate")
        for _ in range(KILLS):
            worker = stream.worker(role="ingest")
            stream.advance()
            stream.kill(worker)
        stream.worker(role="ingest")
        assert replay.process.wait(300) == 0
        stream.check(Expected(file_input(online_retail), year, tmp_path / "backfill"))


@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_the_broker_goes_and_comes_back(short, source, tmp_path, own_kafka, harm):
    own_kafka.start()
    there = short.model_copy(update={"bootstrap_servers": own_kafka.bootstrap_servers})
    with harmed(there, tmp_path / "logs") as stream:
        worker = stream.worker()
        replay = stream.stream.start(*replay_in(15))
        stream.advance()
        if harm == "kill":
            own_kafka.kill()
            stream.note("killed the broker")
            time.sleep(2)
            own_kafka.start()
        else:
            stream.freeze(own_kafka.pid, "the broker", 30)
        if replay.process.wait(300) != 0:
            assert replay.process.returncode == ExitCode.BROKER, stream.report()
            stream.stream.replay(*replay_in(3)[1:], "--resume")
        stream.check(Expected(source, there, tmp_path / "backfill"), duplicates=None, revived=worker)


def test_every_batch_is_lost_once_on_its_way(short, source, tmp_path):
    """Faust may drop what it fetched while partitions move; at the end of a log no later record tells."""
    with harmed(short, tmp_path / "logs") as stream:
        stream.stream.replay(*replay_in(3)[1:])
        worker = stream.lossy_worker()
        stream.check(Expected(source, short, tmp_path / "backfill"))
        said = worker.log_path.read_text()
        for topic in (
            catalogue(short).transactions,
            catalogue(short).snapshots,
            catalogue(short).evaluations,
        ):
            assert f"of {topic.name} 0" in said, stream.report()


@pytest.mark.parametrize("role", ["all", "ingest"])
def test_a_worker_that_lost_its_broker_can_be_stopped(short, tmp_path, own_kafka, role):
    own_kafka.start()
    there = short.model_copy(update={"bootstrap_servers": own_kafka.bootstrap_servers})
    with harmed(there, tmp_path / "logs") as stream:
        worker = stream.worker(role=role)
        stream.stream.wait_for(lambda: "partition loaded" in worker.log_path.read_text())
        own_kafka.kill()
        time.sleep(1)
        worker.process.terminate()
        assert worker.process.wait(120) in {ExitCode.OK, ExitCode.BROKER}, stream.report()


def test_partitions_that_never_get_a_line(settings, tmp_path):
    text = "customers=5,days=70,seed=2"
    wide = settings.model_copy(update={**SHORT, **QUICK, "reference_weeks": 40, "partitions": 9})
    with harmed(wide, tmp_path / "logs") as stream:
        worker = stream.worker()
        stream.stream.replay("--synthetic", text, "--speed", "max")
        stream.kill(worker)
        stream.worker()
        stream.check(Expected(shop(text=text), wide, tmp_path / "backfill"))


def test_a_repeated_replay_doubles_nothing(short, source, tmp_path):
    with harmed(short, tmp_path / "logs") as stream:
        stream.worker()
        for _ in range(2):
            stream.stream.replay(*replay_in(3)[1:])
        lines = sum(1 for _ in source.lines())
        stream.stream.wait_for(lambda: stream.stream.counters().get("duplicate", 0) == lines)
        stream.check(Expected(source, short, tmp_path / "backfill"), duplicates=lines)


def test_lines_out_of_order_within_the_lateness_do_not_show(short, source, tmp_path):
    """A producer that shuffles what lies within the lateness, and does not say where lines come from."""
    with harmed(short, tmp_path / "logs") as stream:
        stream.worker()
        span_s = short.lateness_hours * 3600
        waiting: list = []
        producer = KafkaProducer(bootstrap_servers=short.bootstrap_servers, enable_idempotence=True)
        name = catalogue(short).transactions.name

        def flush() -> None:
            stream.dice.shuffle(waiting)
            for record in waiting:
                producer.send(name, record.value, record.key, partition=record.partition)
            waiting.clear()

        for record in records_of(source, short):
            if record.control or (waiting and record.event_time > waiting[0].event_time + span_s // 2):
                flush()
            if record.control is None:
                waiting.append(record)
            else:
                headers = [(HEADER_CONTROL, record.control.value.encode())]
                producer.send(name, record.value, partition=record.partition, headers=headers)
        producer.close()
        stream.check(Expected(source, short, tmp_path / "backfill"))


def test_lines_that_the_log_has_forgotten_unread_are_refused(short, source, tmp_path):
    """Retention went past the checkpoint: going on would leave a hole, and nobody would know."""
    with harmed(short, tmp_path / "logs") as stream:
        worker = stream.worker()
        replay = stream.stream.start(*replay_in(15))
        stream.advance()
        stream.stop(worker)
        assert replay.process.wait(300) == 0
        name = catalogue(short).transactions.name
        producer = KafkaProducer(bootstrap_servers=short.bootstrap_servers)
        for partition in range(short.partitions):
            producer.send(name, b"a line that nobody has read", partition=partition)
        producer.close()
        admin = KafkaAdminClient(bootstrap_servers=short.bootstrap_servers)
        admin.delete_records({TopicPartition(name, partition): -1 for partition in range(short.partitions)})
        admin.close()
        before = stream.stream.snapshots()
        refused = stream.worker()
        assert refused.process.wait(180) == ExitCode.STATE, stream.report()
        said = refused.last_words()
        assert "leave a hole" in said, said
        assert "topic_prefix" in refused.log_path.read_text()
        assert stream.stream.snapshots() == before
