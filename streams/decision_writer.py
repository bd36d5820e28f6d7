"""Writing a decision into the log of models, acknowledged."""

from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from streams import cloudevents
from streams.errors import ExitCode, UserError
from streams.kafka_access import python_client
from streams.settings import Settings
from streams.topics import catalogue

ACK_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 1.0


def write_decision(settings: Settings, key: str, event: dict[str, Any]) -> None:
    """Write the CloudEvent of a decision and wait until every replica in sync has it.

    Raises UserError (ExitCode.BROKER) where no acknowledgement came: it may have been written all the same.
    The producer lives for this message only: decisions are rare, and a new one carries no error along.
    """
    wait_ms = round(settings.broker_wait_s * 1000)
    try:
        producer = KafkaProducer(
            **python_client(settings),
            client_id=settings.topic("clv-drift-decisions"),
            enable_idempotence=True,
            acks="all",
            bootstrap_timeout_ms=wait_ms,
            max_block_ms=wait_ms,
        )
        try:
            producer.send(
                catalogue(settings).models.name,
                key=key.encode(),
                value=cloudevents.encode(event),
                headers=cloudevents.HEADERS,
                partition=0,
            ).get(timeout=ACK_TIMEOUT_S)
        finally:
            with suppress(KafkaError):  # it has nothing left to say: acknowledged, or given up just now
                producer.close(timeout=CLOSE_TIMEOUT_S)
    except KafkaError as exc:
        raise UserError(
            f"the broker at {settings.bootstrap_servers} did not acknowledge the decision: {exc}",
            hint="it may have been written all the same: look before it is written again",
            code=ExitCode.BROKER,
        ) from exc
