"""Lines sent at a given rate, each with the wall time of its sending: what delays are measured with."""

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

import msgspec
from aiokafka import AIOKafkaProducer
from peers.meter import SENT_AT

from producers.feed import encode, key_of
from producers.inputs import Input
from streams.transactions import record_headers

Record = tuple[int, dict[str, object]]
_encode = msgspec.json.Encoder().encode


def sales(source: Input) -> Iterator[Record]:
    """Yield the lines that every program counts: numbered, of known customers, sold and priced."""
    for seq, line in source.lines():
        if line.get("CustomerID") is not None and line["Quantity"] > 0 and line["UnitPrice"] > 0:
            yield seq, line


class Sender:
    """Sends the sales of a source to a topic, one call after the other."""

    def __init__(self, source: Input, bootstrap_servers: str, topic: str) -> None:
        self.name = source.source
        self.sales = sales(source)
        self.bootstrap_servers = bootstrap_servers
        self.topic = topic

    def first(self) -> None:
        """Send one line without a time; where it arrives, the reader is ready."""
        asyncio.run(self._send(1, rate=1.0, stamped=False))

    def rest(self, lines: int, rate: float) -> float:
        """Send further lines, `rate` a second, each at its own moment; return the rate that was reached."""
        return asyncio.run(self._send(lines, rate=rate, stamped=True))

    async def _send(self, lines: int, *, rate: float, stamped: bool) -> float:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap_servers, enable_idempotence=True, acks="all"
        )
        await producer.start()
        start = time.monotonic()
        for number, (seq, line) in enumerate(islice(self.sales, lines)):
            wait_s = start + number / rate - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            key = key_of(line)
            value = _encode({**line, SENT_AT: time.time()}) if stamped else encode(line)
            await producer.send(self.topic, value, key=key, headers=record_headers(self.name, seq))
        reached = lines / (time.monotonic() - start)
        await producer.stop()
        return reached
