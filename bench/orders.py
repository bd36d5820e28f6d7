"""Made-up orders of any size: the lines that the benchmarks without a data set feed or send."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from aiokafka import AIOKafkaProducer

from streams.transactions import Control, control_headers, control_value

BATCH_LINES = 5_000
START_S = 1_293_840_000  # 2011-01-01
PRODUCTS = 3_700
LINES_AN_ORDER_MAX = 20
SEND_BYTES = 512 * 1024

Headers = list[tuple[str, bytes]]
Batch = tuple[int, list[bytes], list[Headers]]  # partition, values, headers


@dataclass(frozen=True)
class Case:
    """What is made: `lines` of `customers` over `days`, in `partitions`, for windows of `window_days`."""

    lines: int = 540_000
    customers: int = 4_000
    days: int = 371
    partitions: int = 4
    window_days: int = 91

    @property
    def lines_an_order(self) -> int:
        """Lines of each order: fewer where there would be fewer orders than customers."""
        return max(1, min(LINES_AN_ORDER_MAX, self.lines // self.customers))


def batches(case: Case) -> Iterator[Batch]:
    """Yield orders evenly spread over time; nobody buys again before everybody has bought."""
    dice = np.random.default_rng(1)
    orders = case.lines // case.lines_an_order
    rounds = -(-orders // case.customers)
    who = np.concatenate([dice.permutation(case.customers) for _ in range(rounds)])[:orders]
    when = START_S + np.arange(orders) * (case.days * 86_400 // orders)
    texts = np.datetime_as_string(when.astype("datetime64[s]"), unit="s").tolist()
    waiting: list[list[bytes]] = [[] for _ in range(case.partitions)]
    day = 0
    for order, customer in enumerate(who.tolist()):
        partition = customer % case.partitions
        products = dice.integers(0, PRODUCTS, case.lines_an_order).tolist()
        waiting[partition] += [
            b'{"InvoiceNo":"%d","StockCode":"%d","Description":"A THING OF SOME SIZE","Quantity":%d,'
            b'"InvoiceDate":"%s","UnitPrice":%d.%02d,"CustomerID":"%d","Country":"United Kingdom"}'
            % (
                500_000 + order,
                product,
                1 + product % 12,
                texts[order].encode(),
                product % 9,
                product % 100,
                customer,
            )
            for product in products
        ]
        if len(waiting[partition]) >= BATCH_LINES:
            yield partition, waiting[partition], [[]] * len(waiting[partition])
            waiting[partition] = []
        if (today := int(when[order]) // 86_400) > day:
            day = today
            for quiet in range(case.partitions):  # a watermark a day, as a replay writes them
                values = [*waiting[quiet], control_value(int(when[order]))]
                headers = [[] for _ in waiting[quiet]] + [control_headers(Control.WATERMARK, "bench", order)]
                yield quiet, values, headers
                waiting[quiet] = []
    for partition, values in enumerate(waiting):
        if values:
            yield partition, values, [[]] * len(values)


def end(case: Case) -> Iterator[Batch]:
    """Yield what ends the input after `batches`: with it every line comes to a checkpoint."""
    value = control_value(START_S + case.days * 86_400)
    for partition in range(case.partitions):
        yield partition, [value], [control_headers(Control.END_OF_INPUT, "bench", case.lines + 1)]


async def send(servers: str, topic: str, made: Iterable[Batch]) -> None:
    """Send what was made to a topic, batches whole, each to its partition."""
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, enable_idempotence=True, acks="all", max_batch_size=SEND_BYTES
    )
    await producer.start()
    for partition, values, headers in made:
        batch = producer.create_batch()
        for value, header in zip(values, headers, strict=True):
            while batch.append(key=None, value=value, timestamp=None, headers=header) is None:  # it is full
                await producer.send_batch(batch, topic, partition=partition)
                batch = producer.create_batch()
        await producer.send_batch(batch, topic, partition=partition)
    await producer.stop()
