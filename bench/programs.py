"""Programs that the benchmarks start and watch: what they use, on which core, ended by their process ids."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streams.kafka_process import die_with_parent
from streams.processes import Child

POLL_S = 0.01
RUN_MAX_S = 600.0
START_MAX_S = 60.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
KAFKA_CACHE = Path(__file__).resolve().parent.parent / ".cache" / "kafka"


@dataclass(frozen=True)
class Usage:
    """What a process has used so far."""

    cpu_s: float
    rss_peak_mb: float

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """Return the use of a running process."""
        # The name of the process, in parentheses, may hold blanks; user and system time are fields 14 and 15.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        return cls((int(fields[11]) + int(fields[12])) / TICKS_A_SECOND, peak_kb / 1024)


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Keep this thread, and processes started meanwhile, to `cores`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def used(pids: Sequence[int]) -> Usage:
    """Return what some processes have used together."""
    each = [Usage.of(pid) for pid in pids]
    return Usage(sum(one.cpu_s for one in each), sum(one.rss_peak_mb for one in each))


def wait_until(done: Callable[[], bool], children: Sequence[Child]) -> None:
    """Return when `done()`; SystemExit where one of `children` ends meanwhile or it takes too long."""
    until = time.monotonic() + START_MAX_S
    while not done():
        for child in children:
            if time.monotonic() > until or child.poll() is not None:
                raise SystemExit(f"{child.log_path.name}: {child.last_words()}")
        time.sleep(POLL_S)


def wait_for(child: Child, event: str) -> None:
    """Return when a worker logs an event; SystemExit where it ends or takes too long."""
    wait_until(lambda: event in child.log_path.read_text(), [child])


@dataclass(frozen=True)
class Spoken:
    """A running program that says on its output how far it is."""

    process: "subprocess.Popen[str]"
    log_path: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def expect(self, word: str) -> str:
        """Wait for a line that begins with `word` and return the rest of it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.split()[:1] == [word]:
                return line.removeprefix(word).strip()
        raise SystemExit(f"{self.log_path.name} ended before {word!r}: {self.log_path.read_text()[-1500:]}")


@contextmanager
def spoken(command: Sequence[str], env: dict[str, str], core: int, log_path: Path) -> Iterator[Spoken]:
    """Start a program on a core; kill it at the end, or when it takes more than `RUN_MAX_S`."""
    with log_path.open("wb") as log, pinned({core}):
        process = subprocess.Popen(
            command,
            cwd=log_path.parent,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509  (it calls nothing but prctl)
        )
    watchdog = threading.Timer(RUN_MAX_S, process.kill)
    watchdog.start()
    try:
        yield Spoken(process, log_path)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
