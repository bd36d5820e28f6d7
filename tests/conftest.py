"""Fixtures that every test may use: a broker, settings bound to it, the reference data."""

import logging
import os
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog
from brokers import docker_answers, docker_kafka

from streams.embedded_kafka import EmbeddedKafka
from streams.settings import ENV_PREFIX, Settings

PROJECT = Path(__file__).resolve().parent.parent
KAFKA_CACHE = PROJECT / ".cache" / "kafka"

hypothesis.settings.register_profile(
    "tests",
    hypothesis.settings(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    """What the caller has set for the program must not decide a test."""
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def own_logging():
    """Leave the logging of the test run as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def bootstrap_servers(tmp_path_factory) -> Iterator[str]:
    """A real broker: the given one, else Docker's, else the embedded one."""
    given = os.environ.get("CLV_TEST_BOOTSTRAP")
    if given:
        yield given
    elif docker_answers():
        with docker_kafka() as address:
            yield address
    else:
        with EmbeddedKafka(tmp_path_factory.mktemp("kafka"), KAFKA_CACHE) as kafka:
            yield kafka.bootstrap_servers


@pytest.fixture
def settings(bootstrap_servers, tmp_path) -> Settings:
    """Settings on the test broker, with topics and directories of this test's own."""
    return Settings(
        bootstrap_servers=bootstrap_servers,
        broker_wait_s=60,
        topic_prefix=f"t{uuid.uuid4().hex[:8]}.",
        kafka_dir=tmp_path / "kafka",
        kafka_cache_dir=KAFKA_CACHE,
        registry_dir=tmp_path / "registry",
        reports_dir=tmp_path / "reports",
    )


@pytest.fixture
def own_kafka(tmp_path) -> Iterator[EmbeddedKafka]:
    """A broker that the test may start, kill and restart; it is gone at the end."""
    kafka = EmbeddedKafka(tmp_path / "own-kafka", KAFKA_CACHE)
    yield kafka
    kafka.stop()


@pytest.fixture(scope="session")
def online_retail() -> Path:
    """The Online Retail data set; it is not part of the project."""
    path = Path(os.environ.get("ONLINE_RETAIL") or PROJECT / "data" / "Online_Retail.csv.gz")
    if not path.is_file():
        pytest.skip(f"the Online Retail data set is not at {path}; ONLINE_RETAIL may name its place")
    return path
