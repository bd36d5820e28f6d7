"""Joining the parts of a window: when every partition has spoken, the window is whole."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.holdout import customer_hash
from streams.closing import SAMPLE_KEY
from streams.grid import from_iso
from streams.snapshots import Chunk


@dataclass(frozen=True)
class Snapshot:
    """A window of the whole stream: a row a sampled customer, true totals, the lines folded in it."""

    window_end: int
    partial: bool
    rows: pa.Table  # sorted by CustomerID; the features, Country, SampleWeight
    lines: pa.Table  # known, sampled customers' lines since the last window end, and late ones
    totals: dict[str, int]
    sample_bound: int | None
    split_customers: tuple[str, ...]  # found in two partitions: the figures of the window cannot be trusted


class Joiner:
    """Collects chunks in any order and gives out whole windows in the order of time.

    A window is whole when every partition has shown its parts up to that window's end or a later one. Each
    part names the one before, so it does not matter in which order a log holds them: one that was written
    again may stand behind later ones. A part that a partition did not close is empty. The grid begins after
    the earliest event time that the partitions' first parts tell; windows without any line are left out.
    """

    def __init__(self, partitions: int, sample_max: int) -> None:
        self.partitions = partitions
        self.sample_max = sample_max
        self.emitted_through = -1
        self._chunks: dict[tuple[int, int], dict[int, Chunk]] = defaultdict(dict)
        self._complete: dict[int, dict[int, list[Chunk]]] = defaultdict(dict)  # end -> partition -> chunks
        self._shown: dict[int, int] = {}  # partition -> end up to which its parts are complete
        self._links: dict[tuple[int, int | None], int] = {}  # (partition, end) -> end of its next part
        self._columns: dict[str, list[str]] = {}  # by kind, as the first chunk had them
        self._first: dict[int, tuple[int, int | None]] = {}  # partition -> first end, earliest time there

    def add(self, chunk: Chunk) -> None:
        """Take a chunk; one that was seen before, or whose window is out, changes nothing.

        Raises ValueError if it belongs to a stream of another number of partitions, or does not go with the
        chunks before it.
        """
        told = chunk.meta["partitions"]
        if told != self.partitions or not 0 <= chunk.partition < self.partitions:
            raise ValueError(f"a snapshot of {told} partitions where {self.partitions} are expected")
        if self._columns.setdefault(chunk.kind, chunk.table.column_names) != chunk.table.column_names:
            raise ValueError(f"{chunk.kind} with other columns than those before")
        chunks = self._chunks[chunk.window_end, chunk.partition]
        if any(known.count != chunk.count for known in chunks.values()):
            raise ValueError(f"a window of {chunk.count} chunks that has another number of them")
        chunks[chunk.number] = chunk
        if len(chunks) < chunk.count:
            return
        end, partition = chunk.window_end, chunk.partition
        del self._chunks[end, partition]
        if end > self._shown.get(partition, -1):
            after = chunk.meta["after"]
            self._links[partition, None if after is None else from_iso(after)] = end
            self._follow(partition)
        if partition not in self._first or end < self._first[partition][0]:
            earliest = chunk.meta["earliest_s"]
            self._first[partition] = (end, earliest)
        if end > self.emitted_through:
            self._complete[end][partition] = [chunks[i] for i in range(chunk.count)]

    def _follow(self, partition: int) -> None:
        """Move on to the last part that is reached from the partition's first without a gap."""
        while (end := self._links.pop((partition, self._shown.get(partition)), None)) is not None:
            self._shown[partition] = end

    def pop(self) -> Iterator[Snapshot]:
        """Yield the windows that have become whole."""
        if len(self._shown) < self.partitions:
            return
        until = min(self._shown.values())
        times = [time for _, time in self._first.values() if time is not None]
        for end in sorted(self._complete):
            if end > until:
                break
            parts = self._complete.pop(end)
            self.emitted_through = end
            if times and end > min(times):
                snapshot = join(end, parts, self.sample_max)
                if snapshot.totals["lines"]:
                    yield snapshot

    def waiting_for(self) -> list[int]:
        """Return the partitions that hold the next window back."""
        if not self._complete:
            return []
        nearest = min(self._complete)
        return [p for p in range(self.partitions) if self._shown.get(p, -1) < nearest]


def join(window_end: int, parts: dict[int, list[Chunk]], sample_max: int) -> Snapshot:
    """Return the window made of `parts` (partition -> its chunks); the order of the parts says nothing."""
    chunks = [chunk for partition in sorted(parts) for chunk in parts[partition]]
    heads = [parts[partition][0].meta for partition in sorted(parts)]
    rows = _concat([chunk.table for chunk in chunks if chunk.kind == "rows"]).sort_by("CustomerID")
    lines = _concat([chunk.table for chunk in chunks if chunk.kind == "lines"])
    totals: dict[str, int] = {}
    for head in heads:
        for name, value in head["totals"].items():
            totals[name] = totals.get(name, 0) + value
    bounds = [head["sample_bound"] for head in heads if head["sample_bound"] is not None]
    bound = min(bounds, default=None)
    ids = rows["CustomerID"].to_pylist()
    if bound is not None or rows.num_rows > sample_max:
        hashes = customer_hash(ids, SAMPLE_KEY)
        if bound is not None:
            hashes = hashes[hashes <= bound]
        if len(hashes) > sample_max:
            bound = int(np.partition(hashes, sample_max - 1)[sample_max - 1])
        assert bound is not None
        rows = _up_to(rows, bound)
        lines = _up_to(lines, bound)
    counts = pc.value_counts(rows["CustomerID"])
    twice = [item["values"] for item in counts.to_pylist() if item["counts"] > 1]
    weight = totals["customers"] / rows.num_rows if rows.num_rows else 1.0
    rows = rows.append_column("SampleWeight", pa.array(np.full(rows.num_rows, weight)))
    return Snapshot(
        window_end=window_end,
        partial=any(head["partial"] for head in heads),
        rows=rows,
        lines=_in_order(lines),
        totals=totals,
        sample_bound=bound,
        split_customers=tuple(sorted(twice)),
    )


def _concat(tables: list[pa.Table]) -> pa.Table:
    """Return the tables one below the other, dictionaries as plain text."""
    plain = []
    for table in tables:
        fields = [
            pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in table.schema
        ]
        plain.append(table.cast(pa.schema(fields)))
    return pa.concat_tables(plain).combine_chunks()


def _up_to(table: pa.Table, bound: int) -> pa.Table:
    """Return the rows of customers whose hash is at most `bound`."""
    hashes = customer_hash(table["CustomerID"].to_pylist(), SAMPLE_KEY)
    return table.filter(pa.array(hashes <= bound))


def _in_order(lines: pa.Table) -> pa.Table:
    """Return lines sorted by all their columns, so that the partitions they came through do not show."""
    return lines.sort_by([(name, "ascending") for name in lines.column_names])
