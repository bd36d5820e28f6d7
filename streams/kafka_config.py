"""What the embedded broker is started with: its properties, its logging and the flags of its JVM."""

from collections.abc import Mapping
from pathlib import Path

from streams.topics import MIB

NODE_ID = 1

# KRaft needs one for each cluster; a cluster of one process on one machine may always have the same.
CLUSTER_ID = "Y2x2LWRyaWZ0LWxvY2FsIQ"

# Serial collector and first compiler only: a small broker starts in half the time with less memory.
JVM_FLAGS = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    # The JVM's own notes on its start-up cache would bury the broker's first lines.
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "-Djava.awt.headless=true",
    "-Dlog4j2.disableJmx=true",
)

# Room for the largest message of the catalogue (the dead letters take 9 MiB) with its batch's framing.
MESSAGE_BYTES_MAX = 10 * MIB

# Warnings, and the few lines that tell when the broker changed its state.
LOG4J_PROPERTIES = """\
appenders = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = WARN
rootLogger.appenderRefs = out
rootLogger.appenderRef.out.ref = out
loggers = server, lifecycle
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
logger.lifecycle.name = org.apache.kafka.server.BrokerLifecycleManager
logger.lifecycle.level = INFO
"""


def server_properties(log_dir: Path, *, port: int, controller_port: int) -> dict[str, str]:
    """Return the properties of a single node that is broker and controller, bound to the loopback address."""
    listener, controller = f"127.0.0.1:{port}", f"127.0.0.1:{controller_port}"
    node = {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        # A static voter keeps the ports out of the stored state, so that they may change between runs.
        "controller.quorum.voters": f"{NODE_ID}@{controller}",
        "listeners": f"PLAINTEXT://{listener},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{listener}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(log_dir),
    }
    # After a SIGKILL the node may register again only when its old session has ended.
    session = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "500"}
    groups = {"group.initial.rebalance.delay.ms": "0", "group.min.session.timeout.ms": "1000"}
    topics = {
        "auto.create.topics.enable": "false",
        "default.replication.factor": "1",
        "message.max.bytes": str(MESSAGE_BYTES_MAX),
        "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX),
        "socket.request.max.bytes": str(10 * MESSAGE_BYTES_MAX),
    }
    # The internal topics of one node: few partitions, small segments, one replica.
    internal = {
        f"{prefix}.{name}": value
        for prefix in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
        for name, value in (("num.partitions", "1"), ("replication.factor", "1"))
    }
    internal |= {
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "offsets.topic.segment.bytes": str(4 * MIB),
        "transaction.state.log.segment.bytes": str(4 * MIB),
    }
    # The cleaner's map of keys lies on the heap: the default is half of ours, 16 MiB hold 600,000 keys.
    cleaner = {"log.cleaner.threads": "1", "log.cleaner.dedupe.buffer.size": str(16 * MIB)}
    threads = {"num.network.threads": "2", "num.io.threads": "4"}
    return node | session | groups | topics | internal | cleaner | threads


# Properties that list things: what is given besides is listed after ours.
_LISTS = ("listeners", "advertised.listeners", "listener.security.protocol.map")


def with_listeners(ours: Mapping[str, str], besides: Mapping[str, str]) -> dict[str, str]:
    """Return our properties with others besides; those that list listeners are joined."""
    joined = {name: f"{ours[name]},{besides[name]}" for name in _LISTS if name in besides}
    return {**ours, **besides, **joined}


def render_properties(properties: Mapping[str, str]) -> str:
    """Return properties as the text of a `.properties` file, escaped as Java reads them."""
    escaped = {name: value.replace("\\", "\\\\").replace("\n", "\\n") for name, value in properties.items()}
    return "".join(f"{name}={value}\n" for name, value in escaped.items())
