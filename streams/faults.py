"""Points at which a test may have a process killed, so that what it leaves behind is seen."""

import os
import signal

from streams.settings import Settings


def strike(settings: Settings, point: str) -> None:
    """End this process with SIGKILL if `settings.fault` names `point`; else return.

    A point is `process:step`; the calls of this function are the list of them.
    """
    if settings.fault == point:
        os.kill(os.getpid(), signal.SIGKILL)
