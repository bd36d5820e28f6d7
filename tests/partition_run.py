"""One partition driven record by record: what a worker, or one after another, writes of it."""

from dataclasses import dataclass, field

from line_factory import DAY_S, HOUR_S, MONDAY, apply

from streams.checkpoints import Ledger, load
from streams.partition import PartitionState
from streams.snapshots import encode_part

START = MONDAY + 2 * DAY_S + 9 * HOUR_S


@dataclass
class Run:
    """What a worker, or one after another, has written."""

    config: object
    store: dict = field(default_factory=dict)  # the live keys of the state topic
    written: list = field(default_factory=list)  # every record of the state topic in its order
    parts: dict = field(default_factory=dict)  # key -> bytes in the snapshots topic
    warned: dict = field(default_factory=dict)  # key -> bytes in the warnings topic
    closed: dict = field(default_factory=dict)  # window end -> (part, offset of the record that closed it)
    refused: dict = field(default_factory=dict)  # offset -> reason
    state: PartitionState | None = None
    ledger: Ledger | None = None

    def start(self):
        """Take up what is stored; whatever was in memory is gone."""
        found = load(0, self.config, self.store)
        self.state, self.ledger = found or (PartitionState(0, self.config), Ledger())

    def apply(self, log, size, *, crash_after=None):
        """Apply the next `size` records; die once `crash_after` records of the state topic are written."""
        first = self.state.read_offset + 1
        applied = apply(self.state, log, first, min(first + size, len(log)))
        self.refused |= {letter.offset: letter.reason for letter in applied.refused}
        for cut in applied.cuts:
            for warned in cut.warned:
                key, value = warned.record("/test/", self.config.hop_s)
                assert self.warned.setdefault(key, value) == value, "a warning has two values"
            for part in cut.parts:
                self.closed[part.window_end] = (part, cut.offset)
                for key, value in encode_part(part, self.config.partitions):
                    assert self.parts.setdefault(key, value) == value, "a part has two values"
            for record in self.ledger.commit(cut, self.state.words):
                if crash_after == 0:
                    self.start()
                    return
                self.write(record)
                crash_after = crash_after and crash_after - 1
        if crash_after is not None:
            self.start()

    def write(self, record):
        key, value = record
        self.written.append(record)
        if value is None:
            self.store.pop(key, None)
        else:
            self.store[key] = value

    def finish(self, log, sizes=(10**9,)):
        turn = 0
        while self.state.read_offset < len(log) - 1:
            self.apply(log, sizes[turn % len(sizes)])
            turn += 1
        return self

    def values(self):
        """Every value that each state key was ever written with, tombstones apart."""
        found: dict = {}
        for key, value in self.written:
            if value is not None:
                found.setdefault(key, set()).add(value)
        return found

    def heads(self):
        return {key: value for key, value in self.written if key.endswith(b"/head") and value is not None}


def one_pass(log, config, sizes=(10**9,)):
    run = Run(config)
    run.start()
    return run.finish(log, sizes)
