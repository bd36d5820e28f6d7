"""Mirroring into MLflow beside the retrain consumer: a process of its own, for a server may be slow."""

import subprocess
import sys

import structlog

from streams.processes import environment_of
from streams.settings import Settings

log = structlog.get_logger(__name__)


class MirrorChild:
    """Starts `clv-drift model mirror` after decisions: one at a time, then once for what came meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False

    def want(self) -> None:
        """Ask for a mirror, where a server is named."""
        self._wanted = bool(self._settings.mlflow_tracking_uri)
        self.look()

    def look(self) -> None:
        """Take note of a process that has ended, and start what is wanted; never blocks."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            if code:
                log.warning("models not mirrored; the next decision tries again", exit_code=code)
            else:
                log.info("models mirrored")
            self._process = None
        if self._wanted:
            self._wanted = False
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "streams.cli", "model", "mirror"],
                env=environment_of(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """End the process, if one runs: the next mirror finishes what it began."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
