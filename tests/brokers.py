"""The broker of the tests where a Docker engine answers: the image that docker-compose.yml runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from streams.kafka_config import server_properties
from streams.kafka_process import free_port

IMAGE = "apache/kafka:4.3.1@sha256:77e3df9054047a88b520d0cc46e16696d3b22022e1d580aeccd2632df6532837"
START_TIMEOUT_S = 120


def docker_answers() -> bool:
    """Whether a Docker engine can be reached."""
    try:
        return docker.from_env().ping()
    except DockerException:
        return False


@contextmanager
def docker_kafka() -> Iterator[str]:
    """A broker in a container with the embedded broker's properties; yields its address."""
    port = free_port()
    properties = server_properties(Path("/tmp/kafka-data"), port=port, controller_port=29093)
    # The container's own loopback cannot be published: listen on every address, advertise the host's.
    properties["listeners"] = f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://127.0.0.1:29093"
    container = DockerContainer(IMAGE).with_bind_ports(port, port)
    for name, value in properties.items():
        container = container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
    ready = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(START_TIMEOUT_S)
    with container.waiting_for(ready):
        yield f"127.0.0.1:{port}"
