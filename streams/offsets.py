"""The worker's place in its group, past Faust: committing offsets, and why the group refuses it."""

from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as AIOTopicPartition
from faust.types import TP

log = structlog.get_logger(__name__)


async def commit_offsets(app: Any, offsets: Mapping[TP, int]) -> None:
    """Commit the next offset to read of each partition that is still assigned.

    It is for tools that show the lag. A failure is no harm: the offset in the checkpoint decides, and the
    next commit comes soon. Faust's own commit would end the worker instead.
    """
    thread = app.consumer._thread  # noqa: SLF001  (Faust's consumer lives in a thread of its own)
    held = app.consumer.assignment()
    wanted = {
        AIOTopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "")
        for tp, offset in offsets.items()
        if tp in held
    }
    if not wanted:
        return
    try:
        await thread.call_thread(thread._ensure_consumer().commit, wanted)  # noqa: SLF001
    except KafkaError as exc:
        log.debug("offsets not committed", reason=str(exc))


def group_refusal(app: Any) -> KafkaError | None:
    """Return what keeps a started app from being a member of its group for good, None where nothing does."""
    consumer = app._consumer and app.consumer._thread._consumer  # noqa: SLF001  (Faust's, and aiokafka's in it)
    coordinator = consumer and consumer._coordinator  # noqa: SLF001
    if coordinator is None:  # not connected yet
        return None
    # Only looked at: it belongs to the consumer's thread.
    return coordinator._pending_exception  # noqa: SLF001
