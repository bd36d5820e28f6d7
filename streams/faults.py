"""Points at which a test may have a process killed, so that what it leaves behind is seen."""

import asyncio
import os
import signal
from collections.abc import Iterable
from typing import Any

from streams.settings import Settings


def strike(settings: Settings, point: str) -> None:
    """End this process with SIGKILL if `settings.fault` names `point`; else return.

    A point is `process:step`; the calls of these functions are the list of them.
    """
    if settings.fault == point:
        os.kill(os.getpid(), signal.SIGKILL)


async def strike_after(settings: Settings, point: str, sent: Iterable["asyncio.Future[Any]"]) -> None:
    """Do as `strike`, once the broker has acknowledged what was `sent`: so far, and no further."""
    if settings.fault == point:
        await asyncio.gather(*sent)
        strike(settings, point)
