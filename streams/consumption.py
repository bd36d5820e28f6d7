"""Between Kafka's fetcher and the agents: whole batches, contiguous, from where the state expects them.

Faust hands out a record at a time and may lose fetched ones when partitions move. Here the records of a
partition are merged into batches, a gate lets only those pass that follow the last one passed, and each batch
names its predecessor, so that the agent notices whatever was lost on the way to it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP


class Batch(NamedTuple):
    """Records of one partition that follow one another in the log."""

    tp: TP
    prev: int  # offset of the record before the first one here, as far as the gate passed any
    offsets: Sequence[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Sequence[tuple[str, bytes]]]


@dataclass(slots=True)
class BatchRecord:
    """A batch in the shape of a record, as Faust's transport reads it."""

    topic: str
    partition: int
    offset: int
    value: Batch
    timestamp: int | None
    timestamp_type: int = 0
    headers: tuple[()] = ()
    key: None = None
    checksum: None = None
    serialized_key_size: int = 0
    serialized_value_size: int = 0


class Gate:
    """Says which fetched records may pass, a partition at a time.

    A partition is closed until its state is loaded: what is fetched meanwhile is dropped, and fetched again
    once `open` has said where the state goes on.
    """

    def __init__(self) -> None:
        self._next: dict[TP, int] = {}
        self._prev: dict[TP, int] = {}
        self._absent: dict[TP, tuple[int, int]] = {}  # the offset sought, the round in which it was
        self._round = 0  # fetches handed out so far
        # Called with the partition when the fetcher must go back to `expected`.
        self.on_hole: Callable[[TP], None] = lambda _: None

    def open(self, tp: TP, read_offset: int) -> None:
        """Let the records after `read_offset` pass."""
        self._next[tp] = read_offset + 1
        self._prev[tp] = read_offset
        self._absent.pop(tp, None)

    def close(self, tp: TP) -> None:
        """Drop whatever is fetched from now on."""
        self._next.pop(tp, None)

    def expected(self, tp: TP) -> int | None:
        """Return the offset of the next record that may pass; None where the partition is closed."""
        return self._next.get(tp)

    def sought(self, tp: TP, offset: int) -> None:
        """Take note that the fetcher was sent to `offset`: a hole that the next fetch shows is the log's own.

        Logs have such holes where a compaction or a transaction's marker was. What is left of the fetch at
        hand was fetched before and proves nothing.
        """
        self._absent[tp] = (offset, self._round)

    def begin_round(self) -> None:
        """Take note that what was fetched last is handed out now; it was fetched after the round before."""
        self._round += 1

    def _is_own_hole(self, tp: TP, expected: int) -> bool:
        offset, at = self._absent.get(tp, (None, 0))
        return offset == expected and at < self._round

    def admit(self, tp: TP, records: list[Any]) -> Batch | None:
        """Return what may pass of `records`, fetched from one partition in the order of the log."""
        expected = self._next.get(tp)
        if expected is None or not records or records[-1].offset < expected:
            return None
        if records[0].offset < expected:
            records = [record for record in records if record.offset >= expected]
        if records[0].offset > expected and not self._is_own_hole(tp, expected):
            self.on_hole(tp)
            return None
        first, last = records[0].offset, records[-1].offset
        whole = last - first + 1 == len(records)  # offsets rise: as many as that leave none out
        batch = Batch(
            tp,
            self._prev[tp],
            range(first, last + 1) if whole else [record.offset for record in records],
            [record.key for record in records],
            [record.value for record in records],
            [record.headers for record in records],
        )
        self._prev[tp], self._next[tp] = last, last + 1
        return batch


def scheduler(gate: Gate, batch_lines_max: int) -> type[DefaultSchedulingStrategy]:
    """Return a `ConsumerScheduler` for Faust that hands out batches through `gate`, partitions in turn."""

    class Batches(DefaultSchedulingStrategy):  # type: ignore[misc]
        def iterate(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, BatchRecord]]:
            gate.begin_round()
            start = 0
            waiting = dict(records)
            while waiting:
                for tp, fetched in list(waiting.items()):
                    piece = fetched[start : start + batch_lines_max]
                    if not piece:
                        del waiting[tp]
                        continue
                    batch = gate.admit(tp, piece)
                    if batch is not None:
                        last = batch.offsets[-1]
                        yield tp, BatchRecord(tp.topic, tp.partition, last, batch, piece[-1].timestamp)
                start += batch_lines_max

    return Batches
