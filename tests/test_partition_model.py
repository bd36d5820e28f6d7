"""Any log, in any batches, with any deaths between two writes: a partition says what a slow oracle says.

Hypothesis drives a growing log, workers that read it through the real gate, and the two topics they write.
A worker's writes arrive in their order, those of several in any order, and a dead worker's never.
"""

from bisect import bisect_left
from collections import deque
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import NamedTuple

import pytest
from faust.types import TP
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from line_factory import DAY_S, HOUR_S, MONDAY, WEEK_S, entry, mark, state_config
from partition_oracle import Figures, Oracle, Part, Standing

from streams.checkpoints import Ledger, load
from streams.consumption import Gate, scheduler
from streams.grid import floor_end, from_iso, iso
from streams.lifetime import NEVER
from streams.partition import PartitionState
from streams.snapshots import decode_chunk, encode_part
from streams.transactions import Control, record_headers

PARTITION = 1
TP1 = TP("lines", PARTITION)
START = MONDAY + 2 * DAY_S + 9 * HOUR_S
WORKERS_MAX = 3
WHO = st.integers(0, 5)
SOURCES_MAX = 2

# Bounds that are made for millions of lines, so low that some sixty reach them.
BOUNDS = {
    "streams.partition.PartitionState.FULL_EVERY_CUTS": 2,
    "streams.sources.SOURCES_MAX": SOURCES_MAX,
    "streams.decode.BLOCK_RECORDS": 3,
    "streams.window_state.INVOICES_MIN": 3,
    "streams.checkpoints.PIECE_BYTES": 150,
    "streams.snapshots.CHUNK_BYTES": 3_000,
}
CONFIGS = [
    state_config(partitions=2, jump_max_days=6, segment_lines_max=5),
    state_config(partitions=2, lateness_s=0, segment_lines_max=3),
    state_config(partitions=2, lateness_s=3 * DAY_S, jump_max_days=3, sample_customers_max=2),
]


# -- what may stand in a log --------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """A record to be; its time is told from where the log is when it is appended."""

    time: tuple[str, int] = ("now", 0)
    figures: dict | None = None
    replayed: tuple[str, int] | None = None  # the source, and how many rows further it got
    headers: list | None = None
    control: Control | None = None
    instead: tuple = ()  # a value in place of the line's or the mark's


# Seconds after the trusted time, or beside a bound at which something is decided.
NEAR_S = (0, 600, HOUR_S, HOUR_S, 5 * HOUR_S, DAY_S, DAY_S, 2 * DAY_S, -HOUR_S, -DAY_S)
AWAY_S = (-4 * DAY_S, -9 * DAY_S, -3 * WEEK_S, -40 * DAY_S, 8 * DAY_S, 9 * DAY_S, 9 * DAY_S, 100 * DAY_S)
DECIDING = ("midnight", "closing", "end", "horizon", "closed", "jump")
TIMES = st.sampled_from(
    [("now", s) for s in NEAR_S * 3 + AWAY_S] + [(bound, s) for bound in DECIDING for s in (-1, 0, 1)]
)
# Few of each, so that customers, invoices and products meet again and again.
FIGURES = st.fixed_dictionaries(
    {
        "CustomerID": st.sampled_from(["17850", 17850, "17850.0", 13047.0, "13047", "C 1", " ß", None, " "]),
        "InvoiceNo": st.sampled_from("ABCD" * 6 + "EFGHIJKLMNOPQRSTUVWXYZ"),
        "StockCode": st.sampled_from("pq"),
        "Quantity": st.sampled_from([1, 2, 3, 5, 0, -1, -2]),
        "UnitPrice": st.sampled_from([2.5, 0.001, 1.125, 3, 0.0, -1.5]),
        "Country": st.sampled_from(["France", "Spain"]),
    }
)
REPLAYED = st.sampled_from([None] * 3 + [("a", 1)] * 4 + [("b", 2), ("a", 0), ("b", -1), ("c", 1), ("d", 1)])
LONE_HEADERS = ([("source", b"a")], [("source", b"a"), ("seq", b"x")], [("seq", b"1"), ("source", None)])
WRONG = {
    "Quantity": 1.5,
    "UnitPrice": 1.0005,
    "CustomerID": 1.5,
    "StockCode": "",
    "InvoiceDate": "soon",
}
GARBAGE = [None, b"", b"{", b"[]", b"\xff", *(entry(**{name: wrong}).value for name, wrong in WRONG.items())]
DRAFTS = {
    "line": st.builds(Draft, time=TIMES, replayed=REPLAYED, figures=FIGURES),
    "lone": st.builds(Draft, time=TIMES, headers=st.sampled_from(LONE_HEADERS), figures=FIGURES),
    "dead": st.builds(Draft, replayed=REPLAYED, instead=st.tuples(st.sampled_from(GARBAGE))),
    "mark": st.builds(Draft, time=TIMES, control=st.just(Control.WATERMARK)),
    "end": st.builds(Draft, control=st.just(Control.END_OF_INPUT)),
    "dead mark": st.builds(
        Draft, control=st.sampled_from(Control), instead=st.tuples(st.sampled_from([None, b"{}"]))
    ),
}
KINDS = st.sampled_from(["line"] * 24 + ["mark"] * 4 + ["lone", "lone", "dead", "dead", "end", "dead mark"])
ODD_MIX = st.lists(KINDS.flatmap(DRAFTS.__getitem__), min_size=6, max_size=16)
# Lines that move on together: an ordinary feed, or one after a closed season.
PACES = st.sampled_from(
    [("now", s) for s in (HOUR_S, 9 * HOUR_S, DAY_S, DAY_S, 2 * DAY_S, 9 * DAY_S, 30 * DAY_S)]
)
FEED = st.builds(
    lambda pace, replayed, items: [Draft(pace, figures, replayed) for figures in items],
    PACES,
    st.sampled_from([None, ("a", 1)]),
    st.lists(FIGURES, min_size=6, max_size=14),
)
AROUND_A_BOUND = st.builds(
    lambda bound, items: [Draft((bound, s), figures) for s, figures in zip((-1, 0, 1), items, strict=True)],
    st.sampled_from(DECIDING),
    st.lists(FIGURES, min_size=3, max_size=3),
)
ODD = ODD_MIX | AROUND_A_BOUND


class Record(NamedTuple):
    """A record as the consumer hands it out."""

    offset: int
    value: bytes | None
    headers: list
    key: bytes | None = None
    timestamp: int | None = None


# -- who reads and writes -----------------------------------------------------


class Shelf:
    """The two topics that workers write: what lives in them, and what each key ever held."""

    def __init__(self):
        self.live: dict[str, dict[bytes, bytes]] = {"state": {}, "snapshots": {}}
        self.ever: dict[tuple[str, bytes], bytes] = {}

    def write(self, topic, key, value):
        if value is None:
            self.live[topic].pop(key, None)
            return
        first = self.ever.setdefault((topic, key), value)
        assert first == value, f"{key.decode()} of the {topic} topic was written with two values"
        self.live[topic][key] = value


class Worker:
    """A partition's state behind a gate, and the writes under way, which die with it."""

    def __init__(self, config, shelf):
        self.config, self.shelf, self.gate = config, shelf, Gate()
        self.holes = []
        self.gate.on_hole = self.holes.append
        self.load()

    def load(self):
        self.gate.close(TP1)
        assert self.gate.admit(TP1, [Record(0, b"", [])]) is None, "a closed gate lets nothing pass"
        self.waiting: deque = deque()
        found = load(PARTITION, self.config, self.shelf.live["state"])
        self.state, self.ledger = found or (PartitionState(PARTITION, self.config), Ledger())
        self.go_on()

    def go_on(self):
        """Have the gate go on where the state is."""
        self.gate.open(TP1, self.state.read_offset)
        self.seek()

    def seek(self):
        self.holes.clear()
        self.gate.sought(TP1, self.gate.expected(TP1))
        self.passed = False  # since the fetcher was sent somewhere

    def fetch(self, records, size):
        """Return the batches that come of `records`, fetched anew at each hole that the gate sees."""
        batches = []
        for _ in range(len(records) + 1):  # each fetch but the first begins with a record that passes
            pieces = scheduler(self.gate, size)().iterate({TP1: records})
            found = [piece.value for _, piece in pieces]
            batches += found
            self.passed |= bool(found)
            if not self.holes:
                break
            self.seek()
            records = [record for record in records if record.offset >= self.gate.expected(TP1)]
        return batches

    def take(self, batch):
        """Apply a batch; return what it led to, None if the records before it were lost on the way."""
        if batch.prev != self.state.read_offset:
            self.go_on()
            return None
        applied = self.state.apply(batch.offsets, batch.values, batch.headers)
        for cut in applied.cuts:
            for part in cut.parts:
                self.waiting += [("snapshots", *item) for item in encode_part(part, self.config.partitions)]
            self.waiting += [("state", *item) for item in self.ledger.commit(cut, self.state.words)]
        return applied

    def write(self, count):
        for _ in range(min(count, len(self.waiting))):
            self.shelf.write(*self.waiting.popleft())


class PartitionMachine(RuleBasedStateMachine):
    """A partition's log, and its workers: the first is its owner, the others do not know they are not."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, bound in BOUNDS.items():
            self.patch.setattr(name, bound)
        self.workers: list[Worker] = []

    @initialize(
        config=st.sampled_from(CONFIGS),
        stray_s=st.sampled_from([None] * 3 + [-40 * DAY_S, 40 * DAY_S]),
        items=st.lists(FIGURES, min_size=5, max_size=9),
    )
    def begin(self, config, stray_s, items):
        """A feed begins, perhaps with a line that has the wrong time."""
        self.config, self.shelf = config, Shelf()
        self.log: list[Record] = []
        self.rows = dict.fromkeys("abcd", 0)
        self.next_offset = 0
        self.oracle = Oracle(config, SOURCES_MAX)
        self.workers = [Worker(config, self.shelf)]
        if stray_s is not None:
            self._log(Draft(("start", stray_s), {}))
        for figures in items:
            self._log(Draft(("start", 0), figures))

    # -- the log grows --------------------------------------------------------

    @rule(drafts=ODD)
    def append(self, drafts):
        for draft in drafts:
            self._log(draft)

    @rule(drafts=FEED)
    def trade(self, drafts):
        self.append(drafts)

    @rule(back=st.integers(1, 20), count=st.integers(1, 9))
    def replay_again(self, back, count):
        """A producer that does not know how far it got."""
        for record in self.log[-back:][:count]:
            self._append(record.value, record.headers)

    @rule(missing=st.integers(1, 3))
    def leave_offsets_out(self, missing):
        """What the marker of a transaction takes, or a compaction."""
        self.next_offset += missing

    # -- workers read it ------------------------------------------------------

    @rule(who=WHO, count=st.integers(1, 60), back=st.integers(0, 5), size=st.integers(1, 20))
    def deliver(self, who, count, back, size):
        """Hand records to a worker, some of which it may have."""
        self._take(self._worker(who), count, back, size)

    @rule(who=WHO, count=st.integers(1, 9))
    def lose(self, who, count):
        """Let records pass the gate that never reach the state."""
        self._fetch(self._worker(who), count, 0, count)

    @rule(who=WHO, ahead=st.integers(1, 9), count=st.integers(1, 9))
    def deliver_too_far(self, who, ahead, count):
        """Hand out records that leave some out: fetched from a wrong place, or before the seek."""
        worker = self._worker(who)
        gate, expected = worker.gate, worker.gate.expected(TP1)
        records = self.log[self._position(expected) + ahead :][:count]
        if not records:
            return
        if worker.passed:
            gate.begin_round()
        else:
            gate.sought(TP1, expected)
        assert gate.admit(TP1, records) is None
        assert worker.holes
        assert gate.expected(TP1) == expected
        worker.seek()

    # -- workers write, and die -----------------------------------------------

    @rule(who=WHO, count=st.integers(1, 40))
    def write(self, who, count):
        self._worker(who).write(count)

    @rule(
        drafts=FEED | ODD,
        count=st.integers(1, 60),
        share=st.integers(0, 100),
        end=st.sampled_from(["die", "linger", "reload"]),
    )
    def lose_the_partition(self, drafts, count, share, end):
        """The owner reads on, writes a part of what follows, and is no longer the owner."""
        self.append(drafts)
        owner = self.workers[0]
        self._take(owner, count, 0, count)
        owner.write(len(owner.waiting) * share // 100)
        if end == "reload":
            owner.load()
        else:
            others = self.workers if end == "linger" else self.workers[1:]
            self.workers = [Worker(self.config, self.shelf), *others][:WORKERS_MAX]
        self._check_standing(self.workers[0])

    # -- what must hold -------------------------------------------------------

    @invariant()
    def every_record_is_accounted_for(self):
        for worker in self.workers:
            counters = worker.state.counters
            fates = (counters.on_time, counters.late, counters.duplicate, counters.control, counters.dead)
            assert counters.read == sum(fates) == self._position(worker.state.read_offset + 1)

    def teardown(self):
        """Have every worker read the whole log and write all it has, and a successor find nothing else."""
        try:
            for worker in self.workers:
                self._finish(worker)
            if self.workers:
                self._finish(Worker(self.config, self.shelf))
                assert told(self.shelf.live["snapshots"]) == self.oracle.parts
        finally:
            self.patch.undo()

    def _finish(self, worker):
        """Read to the end of the log, also what was lost on the way, and write everything."""
        worker.go_on()
        self._take(worker, len(self.log), 0, 1_000)
        assert self._position(worker.state.read_offset + 1) == len(self.log)
        worker.write(len(worker.waiting))

    def _take(self, worker, count, back, size):
        """Have a worker fetch and apply records; then it stands where the oracle stood."""
        for batch in self._fetch(worker, count, back, size):
            applied = worker.take(batch)
            if applied is not None:
                self._check_applied(batch, applied)
        self._check_standing(worker)

    def _check_applied(self, batch, applied):
        offsets = list(batch.offsets)
        dead = [offset for offset in self.oracle.dead if offsets[0] <= offset <= offsets[-1]]
        assert [letter.offset for letter in applied.refused] == dead
        assert [offsets[letter.position] for letter in applied.refused] == dead
        assert all(letter.reason for letter in applied.refused)
        for cut in applied.cuts:
            assert self.oracle.cuts[cut.number] == cut.offset

    def _check_standing(self, worker):
        position = self._position(worker.state.read_offset + 1)
        if position:
            assert standing_of(worker.state) == self.oracle.standings[position - 1]

    # -- helpers --------------------------------------------------------------

    def _worker(self, who):
        return self.workers[who % len(self.workers)]

    def _position(self, offset):
        """How many records of the log come before `offset`."""
        return bisect_left(self.log, offset, key=lambda record: record.offset)

    def _fetch(self, worker, count, back, size):
        """Fetch the next records, from some before them on; what passes the gate must be just the next."""
        position = self._position(worker.gate.expected(TP1))
        due = self.log[position : position + count]
        batches = worker.fetch(self.log[max(0, position - back) : position + count], size)
        assert [offset for batch in batches for offset in batch.offsets] == [item.offset for item in due]
        assert [value for batch in batches for value in batch.values] == [item.value for item in due]
        return batches

    def _log(self, draft):
        time = self._moment(*draft.time)
        if draft.control is not None:
            value, headers = mark(time, draft.control).value, mark(time, draft.control).headers
        else:
            value, headers = entry(time, **(draft.figures or {})).value, draft.headers or []
        if draft.replayed is not None:
            source, further = draft.replayed
            row = max(1, self.rows[source] + further)
            self.rows[source] = max(self.rows[source], row)
            headers = record_headers(source, row)
        self._append(draft.instead[0] if draft.instead else value, headers)

    def _append(self, value, headers):
        self.oracle.read(self.next_offset, value, headers)
        self.log.append(Record(self.next_offset, value, headers))
        self.next_offset += 1

    def _moment(self, bound, after_s):
        """A time told from where the log is."""
        config = self.config
        now = START if self.oracle.clock.now is None else self.oracle.clock.now
        end = floor_end(now, config.hop_s) + config.hop_s
        closed = end if self.oracle.closed_through is None else self.oracle.closed_through
        watermark = now - config.lateness_s
        bounds = {
            "now": now,
            "start": START,
            "midnight": watermark - watermark % DAY_S + DAY_S + config.lateness_s,
            "closing": floor_end(watermark, config.hop_s) + config.hop_s + config.lateness_s,
            "end": end,
            "horizon": closed + config.hop_s - config.window_s,
            "closed": closed,
            "jump": now + config.jump_max_days * DAY_S,
        }
        return bounds[bound] + after_s


def standing_of(state):
    life, texts = state.windows.lifetime, state.words.customers.texts
    figures = {
        texts[code]: Figures(
            int(life.spend[code]),
            int(life.orders[code]),
            None if life.first_purchase[code] == NEVER else int(life.first_purchase[code]),
        )
        for code in life.codes().tolist()
    }
    fates = asdict(state.counters)
    del fates["read"]
    return Standing(fates, figures, state.windows.closed_through, state.windows.earliest)


LINE_COLUMNS = (
    "CustomerID",
    "InvoiceNo",
    "StockCode",
    "Quantity",
    "PriceThousandths",
    "Country",
)


def told(snapshots):
    """The parts in the topic of snapshots, by window end."""
    chunks = sorted(map(decode_chunk, snapshots.values()), key=lambda chunk: (chunk.window_end, chunk.number))
    parts = {}
    for end, several in groupby(chunks, key=lambda chunk: chunk.window_end):
        whole = list(several)
        assert [chunk.number for chunk in whole] == list(range(whole[0].count))
        meta = whole[0].meta
        assert (meta["partition"], meta["partitions"], meta["window_end"]) == (PARTITION, 2, iso(end))
        rows = [row for chunk in whole if chunk.kind == "rows" for row in chunk.table.to_pylist()]
        lines = [row for chunk in whole if chunk.kind == "lines" for row in chunk.table.to_pylist()]
        parts[end] = Part(
            partial=meta["partial"],
            after=None if meta["after"] is None else from_iso(meta["after"]),
            earliest=meta["earliest_s"],
            totals=meta["totals"],
            sample_bound=meta["sample_bound"],
            rows=rows,
            lines=[
                (int(line["event_time"].timestamp()), *(line[name] for name in LINE_COLUMNS))
                for line in lines
            ],
        )
    return parts


# Making a failing example small may take five minutes, and without it nobody would understand the failure.
TestPartition = pytest.mark.timeout(900)(PartitionMachine.TestCase)
TestPartition.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
