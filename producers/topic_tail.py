"""The input topic as a replay finds it: its partitions, and what of a source is already in it."""

from collections.abc import Iterator

from aiokafka import AIOKafkaConsumer, TopicPartition

from producers.feed import Place, place
from streams.errors import ExitCode, UserError
from streams.kafka_access import async_client
from streams.settings import Settings
from streams.topic_admin import open_admin
from streams.topics import catalogue
from streams.transactions import HEADER_CONTROL, HEADER_SEQ, HEADER_SOURCE, header_map

FIRST_LOOK, LOOK_MAX = 500, 100_000


def partition_count(settings: Settings) -> int:
    """Return the number of partitions of the input topic.

    Raises UserError: BROKER where none answers, STATE where the topic is missing or has another number.
    """
    wanted = catalogue(settings).transactions
    with open_admin(settings) as admin:
        if wanted.name not in admin.list_topics():
            raise UserError(
                f"there is no topic {wanted.name} on {settings.bootstrap_servers}",
                hint="`clv-drift topics` creates it",
                code=ExitCode.STATE,
            )
        found = len(admin.describe_topics([wanted.name])[0]["partitions"])
    if found != wanted.partitions:
        raise UserError(
            f"topic {wanted.name} has {found} partitions, the settings say {wanted.partitions}",
            hint=f"set CLV_DRIFT_PARTITIONS={found}, or take another topic or prefix",
            code=ExitCode.STATE,
        )
    return found


async def last_places(settings: Settings, source: str, *, records_max: int | None = None) -> dict[int, Place]:
    """Return the last record of a source in each partition of the input topic that has one.

    Reads backwards in growing steps, to the beginning if need be, or `records_max` records a partition.
    """
    topic = catalogue(settings).transactions.name
    consumer = AIOKafkaConsumer(
        **async_client(settings),
        enable_auto_commit=False,
        max_partition_fetch_bytes=16 << 20,
    )
    places: dict[int, Place] = {}
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            begin, end = begins[partition], ends[partition]
            if records_max is not None:
                begin = max(begin, end - records_max)
            for low, high in _steps_back(begin, end):
                found = await _last_place(consumer, partition, low, high, source)
                if found is not None:
                    places[partition.partition] = found
                    break
    finally:
        await consumer.stop()
    return places


def _steps_back(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of offsets from the end to the beginning, each longer than the one before."""
    length, high = FIRST_LOOK, end
    while high > begin:
        low = max(begin, high - length)
        yield low, high
        high, length = low, min(4 * length, LOOK_MAX)


async def _last_place(
    consumer: AIOKafkaConsumer, partition: TopicPartition, low: int, high: int, source: str
) -> Place | None:
    """Return the last place of the source's records in a range of offsets, None where it has none."""
    # Both at once: aiokafka hangs in `stop` where it still looks for a position to start from.
    consumer.assign([partition])
    consumer.seek(partition, low)
    found: Place | None = None
    while await consumer.position(partition) < high:
        fetched = await consumer.getmany(partition, timeout_ms=1000)
        for record in fetched.get(partition, ()):
            headers = header_map(record.headers)
            number = headers.get(HEADER_SEQ, b"")
            if record.offset < high and headers.get(HEADER_SOURCE) == source.encode() and number.isdigit():
                control = headers.get(HEADER_CONTROL)
                here = place(int(number), control.decode() if control else None)
                found = here if found is None else max(found, here)
    return found
