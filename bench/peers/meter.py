"""What a peer tells the benchmark: its first record has come, its last is done, how long each was under way.

A peer is started as `python PEER.py BOOTSTRAP TOPIC OUTPUT_TOPIC GROUP RECORDS MODE [FLAG ...]`. It prints
`begin` with its first record, `end {...}` when `RECORDS` records are done and what it wrote is acknowledged;
then it waits, so that its CPU time and memory can be read, until it is killed. In the mode `delay` every line
carries the wall time at which it was sent in its field `SentAt`.
"""

import json
import sys
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

SENT_AT = "SentAt"
Line = dict[str, Any]


class Task(NamedTuple):
    """What a peer is asked to do."""

    bootstrap_servers: str
    topic: str
    output_topic: str
    group: str
    records: int
    timed: bool
    flags: frozenset[str] = frozenset()

    @classmethod
    def given(cls) -> "Task":
        """Return the task on the command line."""
        servers, topic, output_topic, group, records, mode, *flags = sys.argv[1:]
        return cls(servers, topic, output_topic, group, int(records), mode == "delay", frozenset(flags))


class Meter:
    """Counts records; in the mode `delay` it also notes how long each line was under way."""

    def __init__(self, records: int, *, timed: bool) -> None:
        self.records = records
        self.timed = timed
        self.taken = 0
        self.delays_s: list[float] = []

    @property
    def full(self) -> bool:
        """Whether all records were counted."""
        return self.taken >= self.records

    def count(self, records: int = 1) -> None:
        """Count records done; the first call starts the clock."""
        if not self.taken and records:
            # Not `sys.stdout`: Faust turns that into its log.
            print("begin", file=sys.__stdout__, flush=True)
        self.taken += records

    def note(self, line: Line) -> None:
        """Note that a line is applied now; the line that only starts the clock carries no time."""
        if self.timed and SENT_AT in line:
            self.delays_s.append(time.time() - line[SENT_AT])

    def values(self, values: Iterable[bytes | None]) -> None:
        """Count the values of records received; they are decoded only to learn when they were sent."""
        values = list(values)
        self.count(len(values))
        if self.timed:
            for value in values:
                self.note(json.loads(value or b"{}"))

    def finish(self) -> None:
        """Say that everything is done, and wait to be looked at and killed."""
        told = json.dumps({"taken": self.taken, "delays_s": self.delays_s})
        print("end", told, file=sys.__stdout__, flush=True)
        threading.Event().wait()


def is_sale(line: Line) -> bool:
    """Return whether a line counts for the features: sold, priced, to a known customer; no control record."""
    return line.get("CustomerID") is not None and line["Quantity"] > 0 and line["UnitPrice"] > 0


def spend(line: Line) -> float:
    """Return what a line cost."""
    return line["Quantity"] * line["UnitPrice"]


def moment(line: Line) -> datetime:
    """Return the event time of a line, taken as UTC."""
    return datetime.fromisoformat(line["InvoiceDate"]).replace(tzinfo=UTC)
