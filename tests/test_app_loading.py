"""Partitions that come and go while they load; a group that takes no member."""

import asyncio

import pytest
from stream_run import running

from streams import ingest
from streams.app import Worker, build_app
from streams.compare_agent import CompareOwner, compare_tp
from streams.decision_follower import DecisionFollower
from streams.errors import ExitCode, UserError
from streams.evaluate_agent import owner_tp
from streams.settings import load_settings
from streams.topic_admin import ensure_topics

SOON_S = 120.0
# What an owner leaves running beside the agents once it is loaded, and loads themselves.
BESIDE = {
    DecisionFollower._follow,
    CompareOwner._follow_snapshots,
    CompareOwner._work,
    ingest.Shard._publish,
    Worker._load,
}


def beside() -> list[str]:
    """Names of the tasks that run for owners now."""
    code = {function.__code__: function.__qualname__ for function in BESIDE}
    running_now = [getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()]
    return sorted(code[one] for one in running_now if one in code)


WHEN_LOADED = sorted(function.__qualname__ for function in BESIDE - {Worker._load})


async def until(what, timeout_s: float = SOON_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not what():  # noqa: ASYNC110  (tasks that come and go set no event)
            await asyncio.sleep(0.05)


def on_a_worker(settings, story) -> None:
    """Run `story(worker, tps)` in a worker that holds all partitions, then stop it."""
    ensure_topics(settings)

    async def run() -> None:
        worker = build_app(settings)
        await worker.start()
        await worker.app.start()
        try:
            await until(lambda: beside() == WHEN_LOADED)
            await story(worker, [*worker.shards, owner_tp(settings), compare_tp(settings)])
            assert worker.failure is None
        finally:
            await worker.stop()
            left = beside()
            await worker.app.stop()
        assert left == []

    asyncio.run(run())


@pytest.mark.broker
@pytest.mark.parametrize("pause_s", [0.0, 0.02, 0.3])
def test_a_partition_assigned_again_while_it_loads_has_one_owner(settings, pause_s):
    """What the first load had begun is ended; one that is left over would follow the topics for ever."""

    async def story(worker, tps) -> None:
        for _ in range(3):
            await worker.assigned(tps)
            await asyncio.sleep(pause_s)
        await until(lambda: beside() == WHEN_LOADED)
        await asyncio.sleep(0.5)
        assert beside() == WHEN_LOADED
        await until(lambda: all(worker.gate.expected(tp) is not None for tp in tps))

    on_a_worker(settings.model_copy(update={"partitions": 1}), story)


@pytest.mark.broker
@pytest.mark.parametrize("pause_s", [0.0, 0.02])
def test_a_partition_given_back_while_it_loads_is_left_alone(settings, pause_s):
    async def story(worker, tps) -> None:
        await worker.assigned(tps)
        await asyncio.sleep(pause_s)
        await worker.revoked(tps)
        assert beside() == []
        await asyncio.sleep(1.0)
        assert beside() == []
        assert (worker.shards, worker.evaluate, worker.compare) == ({}, None, None)
        assert all(worker.gate.expected(tp) is None for tp in tps)

    on_a_worker(settings.model_copy(update={"partitions": 1}), story)


@pytest.mark.broker
def test_a_failed_owner_that_was_replaced_already_is_not_loaded_anew(settings):
    async def story(worker, tps) -> None:
        before = worker.compare
        await worker.assigned([compare_tp(settings)])
        await until(lambda: worker.compare not in {before, None} and beside() == WHEN_LOADED)
        now = worker.compare
        worker._load_anew(compare_tp(settings), before, RuntimeError("of the one before"))
        await asyncio.sleep(2 * ingest.RELOAD_PAUSE_S)
        assert worker.compare is now
        # The one that holds it is; and an assignment that comes meanwhile takes its place.
        worker._load_anew(compare_tp(settings), now, RuntimeError("of this one"))
        await worker.assigned([compare_tp(settings)])
        await asyncio.sleep(2 * ingest.RELOAD_PAUSE_S)
        await until(lambda: beside() == WHEN_LOADED)
        assert worker.compare is not now

    on_a_worker(settings.model_copy(update={"partitions": 1}), story)


@pytest.mark.broker
def test_a_worker_that_its_group_refuses_ends_and_says_which_setting(settings, tmp_path):
    """The broker of the tests allows sessions from one second on, Kafka's default is six."""
    short = settings.model_copy(update={"session_timeout_s": 0.8, "heartbeat_interval_s": 0.2})
    with running(short, tmp_path / "logs") as stream:
        worker = stream.worker()
        assert worker.process.wait(120) == ExitCode.BROKER, stream.words()
        said = worker.log_path.read_text()
        assert "session_timeout_s is 0.8" in said
        assert "group.min.session.timeout.ms" in said
        assert "Traceback" not in said.rpartition("error:")[2]


@pytest.mark.parametrize(
    ("session", "heartbeat", "named"),
    [(2.0, 1.0, "more than twice"), (100.0, 1.0, "less than or equal to 90")],
)
def test_a_session_that_can_never_work_is_refused_by_name(session, heartbeat, named):
    with pytest.raises(UserError, match=named) as refused:
        load_settings(session_timeout_s=session, heartbeat_interval_s=heartbeat)
    assert "session_timeout_s" in refused.value.message
    assert refused.value.code == ExitCode.USAGE
