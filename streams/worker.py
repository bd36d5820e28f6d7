"""Running a worker as a process: start, signals, and one clear message when it cannot go on."""

import asyncio
import contextlib
import gc
import signal

import structlog
from aiokafka.errors import KafkaError

from streams import logs
from streams.app import Worker, build_app
from streams.errors import ExitCode, UserError
from streams.roles import Role
from streams.settings import Settings
from streams.topic_admin import review_topics

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S = 10.0
# A fetch makes tens of thousands of small objects that reference counting frees. Looking for cycles after
# every 700 of them, as Python does by default, finds nothing and takes a third of a consumer's time.
GC_THRESHOLD = 100_000


def run(settings: Settings, role: Role) -> None:
    """Run a worker until SIGTERM, SIGINT, or a failure, which is raised."""
    check_topics(settings)
    gc.set_threshold(GC_THRESHOLD)
    gc.freeze()
    asyncio.run(_run(settings, role))


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
    served = worker.metrics.serve(settings.web_host, settings.worker_port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        if await _started(worker, stop):
            log.info("worker started", role=role.value)
            await _until(worker, stop)
    finally:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_shut_down(worker), STOP_TIMEOUT_S)
        served.close()
    if isinstance(worker.failure, OSError) and worker.failure.filename:
        raise UserError(
            f"{worker.failure.filename} cannot be used: {worker.failure.strerror}", code=ExitCode.STORAGE
        ) from worker.failure
    if worker.failure is not None:
        raise worker.failure
    _raise_crash(worker)
    log.info("worker stopped")


async def _started(worker: Worker, stop: asyncio.Event) -> bool:
    """Start the worker; return False where a signal comes first: joining a group may take for ever."""

    async def start() -> None:
        await worker.start()
        await worker.app.start()

    starting, stopped = asyncio.create_task(start()), asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if starting.done():
        await starting
        return True
    starting.cancel()
    return False


async def _until(worker: Worker, stop: asyncio.Event) -> None:
    waits = {
        asyncio.create_task(stop.wait()),
        asyncio.create_task(worker.failed.wait()),
        asyncio.create_task(worker.app.wait_until_stopped()),
    }
    _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()


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


async def _shut_down(worker: Worker) -> None:
    await worker.stop()
    await worker.app.stop()
