"""Child processes of this program: started with a settings' environment, ended together."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from streams.kafka_process import die_with_parent
from streams.settings import ENV_PREFIX, Settings

STOP_WAIT_S = 12.0


@dataclass
class Child:
    """A running subcommand; what it prints goes to a log file."""

    name: str
    process: "subprocess.Popen[bytes]"
    log_path: Path

    @classmethod
    def start(
        cls,
        arguments: Sequence[str],
        *,
        env: dict[str, str],
        log_path: Path,
        program: Sequence[str] = ("-m", "streams.cli"),
    ) -> Self:
        """Start `clv-drift ARGUMENTS` in a session of its own, so that Ctrl-C reaches only the parent.

        `program` is what Python runs.
        """
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509  (it calls nothing but prctl)
            )
        return cls(arguments[0], process, log_path)

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self.process.poll()

    def last_words(self) -> str:
        """Return the last line that it printed."""
        lines = self.log_path.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it said nothing"])[-1][:500]


def stop_all(children: Sequence[Child]) -> None:
    """Ask all to end, wait, and kill those that do not."""
    for child in children:
        if child.poll() is None:
            child.process.terminate()
    until = time.monotonic() + STOP_WAIT_S
    for child in children:
        try:
            child.process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment in which a child has these settings, whatever file or variables there are."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    for name, value in settings.revealed().items():
        env[ENV_PREFIX + name.upper()] = value if isinstance(value, str) else json.dumps(value)
    return env
