"""The Faust app itself: its group, its connections, and topics whose messages are whole batches."""

from typing import Any

import faust

from streams.consumption import Gate, scheduler
from streams.kafka_access import faust_credentials
from streams.roles import Role
from streams.settings import Settings
from streams.topics import MIB

FETCH_BYTES = 2 * MIB  # of a partition at once: with less the agents wait for the next answer


def batches(app: Any, name: str) -> Any:
    """Return a topic of `app` whose values are the `Batch`es that the scheduler makes.

    Nothing is left to decode in them, and nothing to acknowledge.
    """
    return app.topic(name, value_serializer="raw", key_serializer="raw", schema=_AsIs(), acks=False)


class _AsIs(faust.Schema):  # type: ignore[misc]
    """Hands the message's value to the agent as it is."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return message.key

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:  # noqa: ARG002
        return message.value


def faust_app(settings: Settings, role: Role, gate: Gate) -> Any:
    """Return an app in the group of `role` that hands out records through `gate`; it has no agents yet."""
    return faust.App(
        settings.topic(f"clv-drift-{role.value}"),
        broker=[f"kafka://{server}" for server in settings.bootstrap_servers.split(",")],
        broker_credentials=faust_credentials(settings),
        store="memory://",
        datadir=settings.kafka_dir.parent / "faust",
        ConsumerScheduler=scheduler(gate, settings.batch_lines_max),
        consumer_auto_offset_reset="earliest",
        # A message is a batch of thousands of lines: a few of them are enough to keep an agent busy.
        stream_buffer_maxsize=4,
        stream_wait_empty=False,
        consumer_max_fetch_size=FETCH_BYTES,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_interval_s,
        broker_rebalance_timeout=10.0,
        broker_max_poll_interval=60.0,
        producer_acks=-1,
        producer_request_timeout=30.0,
    )
