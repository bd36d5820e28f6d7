"""Topics on the broker: created where missing, compared with the catalogue, never altered."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError, for_code

from streams.broker_errors import asking, connecting
from streams.errors import ExitCode, UserError
from streams.kafka_access import python_client
from streams.settings import Settings
from streams.topics import TopicSpec, catalogue


@dataclass(frozen=True)
class Difference:
    """One thing about a topic that is not as the catalogue has it."""

    topic: str
    setting: str  # "partitions", "replication factor", "topic", or a name of Kafka's own
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.setting} is {self.found}, wanted {self.wanted}"


@dataclass(frozen=True)
class TopicReview:
    """One topic of the catalogue beside what the broker has."""

    spec: TopicSpec
    created: bool
    differences: tuple[Difference, ...]


@contextmanager
def open_admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """Connect to the brokers of `settings`; failures of Kafka inside become a UserError (ExitCode.BROKER)."""
    wait_ms = round(settings.broker_wait_s * 1000)
    with connecting(settings):
        admin = KafkaAdminClient(
            **python_client(settings),
            bootstrap_timeout_ms=wait_ms,
            request_timeout_ms=max(wait_ms, 1000),
            reconnect_backoff_max_ms=500,
        )
    with asking(settings), admin:
        yield admin


def connect_check(settings: Settings) -> None:
    """Return if a broker answers; raise UserError (ExitCode.BROKER) with the address tried if none does."""
    with open_admin(settings) as admin:
        admin.describe_cluster()


def ensure_topics(settings: Settings) -> list[Difference]:
    """Create what is missing of the catalogue and return how the rest differs from it; nothing is altered.

    Raises UserError (ExitCode.BROKER) if there is no broker or it refuses.
    """
    return [difference for review in review_topics(settings) for difference in review.differences]


def review_topics(settings: Settings, *, create: bool = True) -> list[TopicReview]:
    """Return each topic of the catalogue, in its order, with what differs.

    With `create`, missing topics are created first; without, a missing topic is a difference.
    """
    specs = catalogue(settings).specs
    with open_admin(settings) as admin:
        existing = set(admin.list_topics())
        missing = [spec for spec in specs if spec.name not in existing]
        created = _create(admin, missing) if create and missing else set()
        present = [spec for spec in specs if spec.name in existing or (create and spec in missing)]
        found = _found(admin, [spec.name for spec in present])
    return [
        TopicReview(
            spec,
            spec.name in created,
            tuple(_differences(spec, found[spec.name]))
            if spec.name in found
            else (Difference(spec.name, "topic", "present", "missing"),),
        )
        for spec in specs
    ]


def _create(admin: KafkaAdminClient, specs: list[TopicSpec]) -> set[str]:
    """Create topics and wait until each has its leaders; return the names of those that we created."""
    answer = admin.create_topics(
        {
            spec.name: {
                "num_partitions": spec.partitions,
                "replication_factor": spec.replication_factor,
                "configs": spec.config,
            }
            for spec in specs
        },
        raise_errors=False,
    )
    created: set[str] = set()
    for topic in answer["topics"]:
        error = for_code(topic["error_code"])
        if topic["error_code"] == 0:
            created.add(topic["name"])
        elif error is not TopicAlreadyExistsError:  # another process was quicker: as good as ours
            raise UserError(
                f"topic {topic['name']} cannot be created: {topic['error_message'] or error.__name__}",
                hint="replication_factor and the right to create topics are the usual reasons",
                code=ExitCode.BROKER,
            )
    admin.wait_for_topics([spec.name for spec in specs])
    return created


def _found(admin: KafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Return what the broker has, by topic: its settings as text, partitions and replication among them.

    Raises UserError where it does not show them.
    """
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, Any]] = admin.describe_configs(resources, config_filter="all")["topic"]
    found: dict[str, dict[str, str]] = {}
    for topic in admin.describe_topics(names):
        if not configs.get(topic["name"]):
            raise UserError(
                f"the broker does not show the configuration of the topic {topic['name']}",
                hint="the right DescribeConfigs is missing: `clv-drift rights` lists those of each process",
                code=ExitCode.BROKER,
            )
        partitions = topic["partitions"]
        values = {name: config["value"] for name, config in configs[topic["name"]].items()}
        values["partitions"] = str(len(partitions))
        replicas = sorted({len(partition["replica_nodes"]) for partition in partitions})
        values["replication factor"] = "/".join(map(str, replicas))
        found[topic["name"]] = values
    return found


def _differences(spec: TopicSpec, found: dict[str, str]) -> Iterator[Difference]:
    wanted = {
        "partitions": str(spec.partitions),
        "replication factor": str(spec.replication_factor),
        **spec.config,
    }
    for setting, value in wanted.items():
        if found[setting] != value:
            yield Difference(spec.name, setting, value, found[setting])
