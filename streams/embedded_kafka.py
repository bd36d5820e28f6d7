"""A real Kafka broker without Docker: one node of Apache Kafka on a packaged Java runtime.

The first start on a cache fetches the jars and records the JVM's start-up cache (some 20 s); every later
one takes one to three seconds.
"""

import hashlib
import logging
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.errors import UserError
from streams.file_lock import exclusive
from streams.kafka_jars import ensure_jars, pinned_text, storage_errors
from streams.kafka_java import Java, find_java
from streams.kafka_process import HOST, KafkaProcess, Launch, free_port

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
# The JVM that was observed writes the start-up cache at its end.
_RECORDING_STOP_TIMEOUT_S = 120.0

logger = logging.getLogger(__name__)


class EmbeddedKafka:
    """One broker on the loopback address; a context manager that starts and stops it.

    `data_dir` keeps the records between runs and is held by one broker at a time; `cache_dir` (jars and
    start-up cache) may be shared by any number of them. `port` 0 takes a free one, kept for later starts of
    the same object. `properties` are set besides ours, such as a listener with TLS. Start it from a thread
    that outlives it (see `KafkaProcess`).
    """

    def __init__(
        self, data_dir: Path, cache_dir: Path, port: int = 0, properties: Mapping[str, str] | None = None
    ) -> None:
        self.properties = dict(properties or {})
        self.data_dir = data_dir
        self.cache_dir = cache_dir
        self.port = port
        self._broker: KafkaProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def bootstrap_servers(self) -> str:
        """Address of the broker, as host:port."""
        return f"{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        """Where the broker logs."""
        return self.data_dir / "kafka.log"

    @property
    def pid(self) -> int:
        """Process id of the broker; RuntimeError unless it was started."""
        return self._running().process.pid

    @property
    def alive(self) -> bool:
        """Whether the broker's process runs."""
        return self._broker is not None and self._broker.process.poll() is None

    def start(self, *, say: Callable[[str], None] = logger.info, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the broker and return when it serves requests; `say` is told what takes long.

        Raises UserError with the ExitCode of what is wrong: BROKER, STORAGE or JAVA.
        """
        if self.alive:
            raise RuntimeError("the broker runs already")
        launch = prepare(self.cache_dir, say=say)
        self.port = self.port or free_port()
        broker = KafkaProcess(launch, self.data_dir, self.port, self.properties)
        broker.start(timeout_s)
        self._broker = broker

    def stop(self) -> None:
        """Stop the broker in order, if it runs."""
        if self.alive:
            self._running().stop(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End the broker with SIGKILL and wait until it is gone."""
        self._running().kill()

    def wait(self) -> None:
        """Wait for the end of the broker; UserError says why, since nobody asked for it here."""
        broker = self._running()
        broker.process.wait()
        raise broker.death()

    def _running(self) -> KafkaProcess:
        if self._broker is None:
            raise RuntimeError("the broker was not started")
        return self._broker


def prepare(cache_dir: Path, *, say: Callable[[str], None] = logger.info) -> Launch:
    """Return what a broker is launched with; fetch the jars and record the start-up cache where missing.

    Raises UserError (ExitCode.JAVA, STORAGE) as `find_java` and `ensure_jars` do. A start-up cache that
    cannot be recorded is logged and done without: it only saves time.
    """
    java = find_java()
    launch = Launch(java.executable, ensure_jars(cache_dir, say=say))
    if not java.records_start_cache:
        return launch
    recorded = cache_dir / f"start-{_fingerprint(java)}.aot"
    if not recorded.exists():
        with storage_errors(cache_dir), exclusive(cache_dir / "start.lock"):
            if not recorded.exists():  # another process may have been first
                say("recording the start-up cache of the broker, once")
                _record(launch, recorded)
    if recorded.stat().st_size == 0:
        return launch
    flags = (f"-XX:AOTCache={recorded.resolve()}",)
    return replace(launch, broker_flags=flags, tool_flags=flags)


def _fingerprint(java: Java) -> str:
    """Name what a start-up cache depends on: the runtime, the machine's kind and the jars."""
    parts = (java.build, platform.system(), platform.machine(), pinned_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _record(launch: Launch, recorded: Path) -> None:
    """Run a broker through its daily work under the JVM's eyes; an empty file notes that it did not work."""
    from kafka.errors import KafkaError  # noqa: PLC0415  (see KafkaProcess)

    for left in recorded.parent.glob("recording-*"):  # by a process that was killed; the lock is ours
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix="recording-", dir=recorded.parent) as aside:
        output = Path(aside) / "start.aot"
        observed = replace(launch, broker_flags=(f"-XX:AOTCacheOutput={output.resolve()}",))
        broker = KafkaProcess(observed, Path(aside) / "data", free_port())
        try:
            broker.start(START_TIMEOUT_S)
            try:
                _exercise(f"{HOST}:{broker.port}")
                broker.stop(_RECORDING_STOP_TIMEOUT_S)
            finally:
                broker.kill()
        except (UserError, KafkaError) as exc:
            logger.warning("the run that records the start-up cache failed: %s", exc)
        if not output.exists():
            logger.warning("this Java runtime recorded no start-up cache; the broker starts without")
            output.touch()
        output.replace(recorded)


def _exercise(bootstrap_servers: str) -> None:
    """Let a broker do once what clients will ask of it, so that the code for it is in the start-up cache."""
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer  # noqa: PLC0415  (see KafkaProcess)

    with KafkaAdminClient(bootstrap_servers=bootstrap_servers) as admin:
        one = {"num_partitions": 1, "replication_factor": 1}
        admin.create_topics({"exercise": one}, wait_for_metadata=True)
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True)
    for _ in range(100):
        producer.send("exercise", key=b"key", value=b"value")
    producer.close()
    consumer = KafkaConsumer(
        "exercise",
        bootstrap_servers=bootstrap_servers,
        group_id="exercise",
        auto_offset_reset="earliest",
        consumer_timeout_ms=2000,
    )
    consumer.poll(timeout_ms=2000)
    consumer.commit()
    consumer.close()
