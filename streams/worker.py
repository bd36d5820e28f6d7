"""Running a worker as a process: start, signals, and one clear message when it cannot go on."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
from collections.abc import Awaitable

import structlog
from aiokafka.errors import InvalidSessionTimeoutError, KafkaError

from streams import logs
from streams.app import Worker, build_app
from streams.errors import ExitCode, UserError
from streams.offsets import group_refusal
from streams.roles import Role
from streams.settings import Settings
from streams.topic_admin import review_topics
from streams.web.health import Pulse
from streams.web.site import Site

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S = 6.0
CANCEL_TIMEOUT_S = 1.0
LEAVE_TIMEOUT_S = 2.0
GROUP_LOOK_S = 0.5
BEAT_S = 1.0
# A fetch makes tens of thousands of small objects that reference counting frees. Looking for cycles after
# every 700 of them, as Python does by default, finds nothing and takes a third of a consumer's time.
GC_THRESHOLD = 100_000


def run(settings: Settings, role: Role) -> None:
    """Run a worker until SIGTERM, SIGINT, or a failure, which is raised."""
    check_topics(settings)
    gc.set_threshold(GC_THRESHOLD)
    gc.freeze()
    loop = asyncio.new_event_loop()
    code = ExitCode.OK
    try:
        loop.run_until_complete(_run(settings, role))
    except UserError as exc:
        code = exc.code
        raise
    except BaseException:
        code = ExitCode.FAILURE
        raise
    finally:
        loop.run_until_complete(_cancel_rest())
        _leave_within(LEAVE_TIMEOUT_S, code)


def check_topics(settings: Settings) -> None:
    """Raise UserError unless every topic is there, with the partitions of the settings."""
    wrong = [
        f"{difference.topic}: {difference}"
        for review in review_topics(settings, create=False)
        for difference in review.differences
        if difference.setting in {"topic", "partitions"}
    ]
    if wrong:
        raise UserError(
            "topics are not as they must be: " + "; ".join(wrong),
            hint="`clv-drift topics` creates what is missing; other partitions need a new topic_prefix",
            code=ExitCode.STATE,
        )


async def _run(settings: Settings, role: Role) -> None:
    logs.watch_loop(asyncio.get_running_loop())
    worker = build_app(settings, role)
    pulse = Pulse()
    site = Site(settings, "worker", pulse, worker.metrics.registry, worker.unready)
    site.show_page()
    site.serve(settings.worker_port, setting="worker_port")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker.spawn(_watch_group(worker))
    worker.spawn(_beat(pulse))
    try:
        if await _started(worker, stop):
            log.info("worker started", role=role.value)
            await _first_of(stop.wait(), worker.failed.wait(), worker.app.wait_until_stopped())
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_shut_down(worker), STOP_TIMEOUT_S)
        site.close()
    if isinstance(worker.failure, OSError) and worker.failure.filename:
        raise UserError(
            f"{worker.failure.filename} cannot be used: {worker.failure.strerror}", code=ExitCode.STORAGE
        ) from worker.failure
    if worker.failure is not None:
        raise worker.failure
    _raise_crash(worker)
    log.info("worker stopped")


async def _started(worker: Worker, stop: asyncio.Event) -> bool:
    """Start the worker; return False where a signal or a failure comes first: joining may take for ever."""

    async def start() -> None:
        await worker.start()
        await worker.app.start()

    starting = asyncio.create_task(start())
    await _first_of(starting, stop.wait(), worker.failed.wait())
    if starting.done():
        await starting
        return True
    starting.cancel()
    return False


async def _first_of(*waits: Awaitable[object]) -> None:
    """Wait until one of `waits` is over; the others are cancelled, tasks that were given excepted."""
    tasks = {asyncio.ensure_future(wait) for wait in waits}
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending - set(waits):
        task.cancel()


async def _beat(pulse: Pulse) -> None:
    """Show that the loop goes round."""
    while True:
        pulse.beat()
        await asyncio.sleep(BEAT_S)


async def _watch_group(worker: Worker) -> None:
    """End the worker where it can be no member of its group.

    aiokafka then waits until whoever asks for records has seen the error, and Faust never asks that way: the
    worker would stay, idle, for good.
    """
    while (refusal := group_refusal(worker.app)) is None:  # noqa: ASYNC110  (aiokafka sets no event)
        await asyncio.sleep(GROUP_LOOK_S)
    settings, group = worker.settings, worker.app.conf.id
    if isinstance(refusal, InvalidSessionTimeoutError):
        problem = f"session_timeout_s is {settings.session_timeout_s:g}, which it does not allow"
        hint = "its bounds are group.min.session.timeout.ms and group.max.session.timeout.ms"
    else:
        problem = repr(refusal)
        hint = "start the worker again: it goes on where it was; the broker's own log says more"
    worker.fail(
        UserError(
            f"the broker at {settings.bootstrap_servers} refused this worker in the group {group}: {problem}",
            hint=hint,
            code=ExitCode.BROKER,
        )
    )


def _raise_crash(worker: Worker) -> None:
    """Raise what ended Faust's app, if it did not end because it was asked to."""
    if not worker.app.crashed:
        return
    reason = worker.app.crash_reason
    if isinstance(reason, KafkaError | ConnectionError):
        raise UserError(
            f"the broker at {worker.settings.bootstrap_servers} was lost: {reason!r}",
            hint="start the worker again once it answers: it goes on where it was",
            code=ExitCode.BROKER,
        ) from reason
    raise RuntimeError("the worker's Faust app crashed") from reason


async def _cancel_rest() -> None:
    """Cancel the tasks that are left, and wait a moment for those that heed it."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=CANCEL_TIMEOUT_S)


def _leave_within(timeout_s: float, code: ExitCode) -> None:
    """End the process after `timeout_s` if something still holds it then.

    Without a broker there are threads of Faust's and tasks of aiokafka's that never end.
    """
    timer = threading.Timer(timeout_s, os._exit, [int(code)])
    timer.daemon = True
    timer.start()


async def _shut_down(worker: Worker) -> None:
    await worker.stop()
    await worker.app.stop()
