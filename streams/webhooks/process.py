"""The process: tasks that read the logs, one an endpoint that delivers, one that tells of it."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import structlog

from streams import logs
from streams.errors import ExitCode, UserError
from streams.file_lock import try_exclusive
from streams.settings import Settings
from streams.webhooks.dead_letters import DeadLetterLook
from streams.webhooks.intake import Intake
from streams.webhooks.sender import Sender, WebhooksObserver
from streams.webhooks.store import Store, storage_errors

log = structlog.get_logger(__name__)

GRACE_S = 10.0  # for requests that are under way when the process is asked to end
REPORT_S = 1.0
LOCK = "webhooks.lock"


def run(settings: Settings, observer: WebhooksObserver, beat: Callable[[], None]) -> None:
    """Deliver until SIGTERM or SIGINT; `beat` is told that it goes on.

    Raises UserError: USAGE where an endpoint cannot be used, STATE where another process delivers from
    `webhooks_dir`, STORAGE where that cannot be written.
    """
    with _alone(settings), storage_errors(settings.webhooks_dir), Store(settings.webhooks_dir) as store:
        asyncio.run(_run(settings, store, observer, beat))


async def _run(
    settings: Settings, store: Store, observer: WebhooksObserver, beat: Callable[[], None]
) -> None:
    loop = asyncio.get_running_loop()
    logs.watch_loop(loop)
    # Names are looked up in threads: dead name servers of some endpoints must leave some for the others.
    loop.set_default_executor(ThreadPoolExecutor(4 + 2 * len(settings.webhooks)))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    senders = [Sender(settings, name, store, observer) for name in settings.webhooks]

    def queued() -> None:
        for sender in senders:
            sender.woken.set()

    intake = Intake(settings, store, observer, beat=beat, queued=queued)
    delivering = [asyncio.create_task(sender.run(), name=sender.name) for sender in senders]
    look = DeadLetterLook(settings, store, queued=queued)
    works = (intake.run(), look.run(), _report(settings, store, observer), stop.wait())
    others = [asyncio.create_task(work) for work in works]
    log.info("webhooks started", endpoints=list(settings.webhooks))
    try:
        done, _ = await asyncio.wait([*delivering, *others], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # raises what ended it
        for sender in senders:
            sender.stop()
        await asyncio.wait(delivering, timeout=GRACE_S)
    finally:
        for task in (*delivering, *others):
            task.cancel()
        await asyncio.gather(*delivering, *others, return_exceptions=True)
    log.info("webhooks stopped")


async def _report(settings: Settings, store: Store, observer: WebhooksObserver) -> None:
    while True:
        for name in settings.webhooks:
            observer.observe_queue(name, *store.queue(name))
        await asyncio.sleep(REPORT_S)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the directory; raises UserError (STATE) where another process does: it would deliver all twice."""
    descriptor = try_exclusive(settings.webhooks_dir / LOCK)
    if descriptor is None:
        raise UserError(
            f"another process delivers webhooks from {settings.webhooks_dir}",
            hint="stop it, or give this one another webhooks_dir",
            code=ExitCode.STATE,
        )
    try:
        yield
    finally:
        os.close(descriptor)
