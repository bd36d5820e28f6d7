"""One process of the embedded broker: formatted, started, waited for until it serves, ended."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from streams.errors import ExitCode, UserError
from streams.file_lock import try_exclusive
from streams.kafka_config import (
    CLUSTER_ID,
    JVM_FLAGS,
    LOG4J_PROPERTIES,
    render_properties,
    server_properties,
    with_listeners,
)
from streams.kafka_jars import storage_errors
from streams.topics import MIB

HOST = "127.0.0.1"

# A broker on a full disk dies in the middle of a write; it is kinder not to start it.
DISK_FREE_MIN_BYTES = 128 * MIB
LOG_BYTES_MAX = 8 * MIB

LOCK_WAIT_S = 3.0

_POLL_S = 0.02
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# What the broker's log says when it dies, and what that means to the person in front.
_CAUSES = (
    ("No space left on device", "the disk is full", ExitCode.STORAGE),
    ("Permission denied", "its directory cannot be written", ExitCode.STORAGE),
    ("AccessDeniedException", "its directory cannot be written", ExitCode.STORAGE),
    ("Read-only file system", "its directory cannot be written", ExitCode.STORAGE),
    ("Address already in use", "its port was taken meanwhile", ExitCode.BROKER),
    ("Failed to acquire lock", "another broker uses its directory", ExitCode.BROKER),
    ("UnsupportedClassVersionError", "the Java runtime is too old", ExitCode.JAVA),
    ("Could not find or load main class", "Kafka's jars are not complete", ExitCode.JAVA),
    ("OutOfMemoryError", "it ran out of memory", ExitCode.FAILURE),
)


@dataclass(frozen=True)
class Launch:
    """What a JVM of Kafka is started with."""

    java: Path
    class_path: tuple[Path, ...]
    broker_flags: tuple[str, ...] = ()  # for the broker itself
    tool_flags: tuple[str, ...] = ()  # for the short-lived tool that formats its storage

    def broker(self, log4j_file: Path, properties: Path) -> list[str]:
        """Return the command line of the broker."""
        return [*self._java(log4j_file, self.broker_flags), "kafka.Kafka", str(properties)]

    def storage_tool(self, log4j_file: Path, properties: Path) -> list[str]:
        """Return the command line that formats the storage which `properties` name."""
        arguments = ["format", "--cluster-id", CLUSTER_ID, "--config", str(properties)]
        return [*self._java(log4j_file, self.tool_flags), "kafka.tools.StorageTool", *arguments]

    def _java(self, log4j_file: Path, flags: tuple[str, ...]) -> list[str]:
        return [
            str(self.java),
            *JVM_FLAGS,
            *flags,
            f"-Dlog4j2.configurationFile={log4j_file.resolve()}",
            "-cp",
            os.pathsep.join(str(path.resolve()) for path in self.class_path),
        ]


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def require_free(port: int) -> None:
    """Raise UserError (ExitCode.BROKER) if `port` cannot be listened on."""
    with socket.socket() as probe:
        # As the broker does: a connection of an earlier run that fades away does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            raise UserError(
                f"port {port} of {HOST} cannot be used: {exc.strerror}",
                hint="end the program that listens there, or choose another port (0 takes a free one)",
                code=ExitCode.BROKER,
            ) from exc


class KafkaProcess:
    """A broker on `data_dir`: its log `kafka.log`, its properties and its data lie there, kept between runs.

    Start it from a thread that outlives it: on Linux it ends with the thread that started it, so that no
    broker is left behind when its parent is killed.
    """

    def __init__(
        self, launch: Launch, data_dir: Path, port: int, properties: Mapping[str, str] | None = None
    ) -> None:
        self.properties = dict(properties or {})  # besides ours
        self.launch = launch
        self.data_dir = data_dir
        self.port = port
        self.log_file = data_dir / "kafka.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start_bytes = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process; RuntimeError before `start`."""
        if self._process is None:
            raise RuntimeError("the broker was not started")
        return self._process

    def start(self, timeout_s: float) -> None:
        """Start the broker and return when it serves requests.

        Raises UserError if it cannot: ExitCode.BROKER (port or directory in use, not ready in `timeout_s`),
        STORAGE (disk), JAVA (runtime).
        """
        with storage_errors(self.data_dir):
            self.data_dir.mkdir(parents=True, exist_ok=True)
            lock = self._lock()
        try:
            require_free(self.port)
            with storage_errors(self.data_dir):
                self._require_space()
                self._spawn(lock)
        finally:
            os.close(lock)  # the broker has inherited it and holds it as long as it lives
        try:
            self._wait_ready(time.monotonic() + timeout_s, timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_s: float) -> None:
        """End the broker in order; one that does not end within `timeout_s` is killed."""
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except BaseException as exc:
            self.kill()
            if not isinstance(exc, subprocess.TimeoutExpired):
                raise

    def kill(self) -> None:
        """End the broker at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def death(self) -> UserError:
        """Return why the broker ended by itself, as its log tells."""
        text = self._log_text()
        for needle, meaning, code in _CAUSES:
            if needle in text:
                return UserError(f"the broker ended: {meaning}", hint=f"see {self.log_file}", code=code)
        return UserError(
            f"the broker ended with code {self.process.returncode}",
            hint=f"see {self.log_file}",
            code=ExitCode.BROKER,
        )

    def _lock(self) -> int:
        deadline = time.monotonic() + LOCK_WAIT_S
        # A broker that was killed holds it until the last of its threads is gone, a moment after its death.
        while (lock := try_exclusive(self.data_dir / "broker.lock")) is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if lock is None:
            raise UserError(
                f"another broker runs on {self.data_dir}",
                hint="end it, or choose another directory (--data-dir)",
                code=ExitCode.BROKER,
            )
        return lock

    def _require_space(self) -> None:
        free_bytes = shutil.disk_usage(self.data_dir).free
        if free_bytes < DISK_FREE_MIN_BYTES:
            raise UserError(
                f"only {free_bytes // MIB} MiB are free at {self.data_dir}, the broker needs "
                f"{DISK_FREE_MIN_BYTES // MIB}",
                hint="make room there, or choose another directory (--data-dir)",
                code=ExitCode.STORAGE,
            )

    def _spawn(self, lock: int) -> None:
        log4j_file = self.data_dir / "log4j2.properties"
        log4j_file.write_text(LOG4J_PROPERTIES, encoding="utf-8")
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES_MAX:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as log:
            self._log_start_bytes = log.tell()
            stored = self.data_dir / "log"
            if not stored.exists():
                self._format(stored, log4j_file, log)
            self._process = subprocess.Popen(
                self.launch.broker(log4j_file, self._write_properties(stored)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                # A group of its own: Ctrl-C in a terminal must not reach the broker before its clients.
                process_group=0,
                preexec_fn=die_with_parent(),  # noqa: PLW1509  (one system call, resolved before the fork)
            )

    def _format(self, stored: Path, log4j_file: Path, log: IO[bytes]) -> None:
        """Format aside, then move: a format that was cut short leaves nothing that looks whole."""
        aside = stored.with_suffix(".new")
        shutil.rmtree(aside, ignore_errors=True)
        command = self.launch.storage_tool(log4j_file, self._write_properties(aside))
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        if done.returncode != 0:
            raise UserError(
                f"the storage of a broker cannot be made at {self.data_dir}",
                hint=f"see {self.log_file}",
                code=ExitCode.STORAGE,
            )
        aside.rename(stored)

    def _write_properties(self, stored: Path) -> Path:
        path = self.data_dir / "server.properties"
        ours = server_properties(stored.resolve(), port=self.port, controller_port=free_port())
        properties = with_listeners(ours, self.properties)
        path.write_text(render_properties(properties), encoding="utf-8")
        return path

    def _wait_ready(self, deadline: float, timeout_s: float) -> None:
        """Return when the broker answers requests and counts itself among the brokers that serve."""
        from kafka import KafkaAdminClient  # noqa: PLC0415  (half a second, spent while the JVM starts)
        from kafka.errors import KafkaError  # noqa: PLC0415

        address = f"{HOST}:{self.port}"

        def serves() -> bool:
            if not _listening(self.port):
                return False
            try:
                with KafkaAdminClient(bootstrap_servers=address, bootstrap_timeout_ms=2000) as admin:
                    brokers = admin.describe_cluster()["brokers"]
            except KafkaError:
                return False
            return any(not broker["is_fenced"] for broker in brokers)

        while not serves():
            self._check(deadline, timeout_s)

    def _check(self, deadline: float, timeout_s: float) -> None:
        """Rest a moment; raise if the broker has ended or its time is over."""
        if self.process.poll() is not None:
            raise self.death()
        if time.monotonic() > deadline:
            raise UserError(
                f"the broker was not ready after {timeout_s:g} s",
                hint=f"see {self.log_file}",
                code=ExitCode.BROKER,
            )
        time.sleep(_POLL_S)

    def _log_text(self) -> str:
        with self.log_file.open("rb") as log:
            log.seek(self._log_start_bytes)
            return log.read().decode(errors="replace")


def _listening(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex((HOST, port)) == 0


def die_with_parent() -> Callable[[], None] | None:
    """Return what makes a child of Linux receive SIGTERM when its parent is gone; None elsewhere."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it went before the call
            os._exit(1)

    return in_child
