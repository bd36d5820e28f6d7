"""What is still to be delivered, kept in one SQLite file: a queue an endpoint, and how far each has read.

A file and not a topic, because an event and the position behind it are written in one transaction, so that no
crash can part them, and because a delivery changes its state (tried, failed, dead, sent again), for which a
log is the wrong shape. It belongs to one process on one machine, as the file's lock says. If it is lost, the
logs are still there: endpoints begin anew at their `start`.

Write-ahead logging without a sync at each commit: a kill loses nothing; a power loss may take back the last
commits, the queue and its position alike. What was delivered since is then delivered again, never lost.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from streams import cloudevents
from streams.errors import ExitCode, UserError
from streams.webhooks.notice import DIGEST, severity_of

FILE = "webhooks.sqlite"
VERSION = 1
BUSY_TIMEOUT_S = 10.0
HOUR_S = 3_600.0
SENT_KEPT_S = 30 * 86_400.0  # for so long an event that stands in the log twice is told once
DEAD_KEPT_MAX = 10_000  # of an endpoint; the oldest are removed beyond it
DIGEST_EVENTS_MAX = 100
DIGEST_BYTES_MAX = 256 * 1024

_TABLES = """
CREATE TABLE positions (
  endpoint TEXT, topic TEXT, next_offset INTEGER NOT NULL, PRIMARY KEY (endpoint, topic)) WITHOUT ROWID;
CREATE TABLE deliveries (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, event_id TEXT NOT NULL, event BLOB NOT NULL,
  queued_at REAL NOT NULL, failures INTEGER NOT NULL DEFAULT 0, next_try_at REAL NOT NULL DEFAULT 0,
  dead INTEGER NOT NULL DEFAULT 0, problem TEXT NOT NULL DEFAULT '');
CREATE INDEX queue ON deliveries (endpoint, dead, seq);
CREATE INDEX queued_event ON deliveries (endpoint, event_id);
CREATE TABLE sent (
  endpoint TEXT NOT NULL, event_id TEXT NOT NULL, sent_at REAL NOT NULL, message INTEGER NOT NULL);
CREATE INDEX sent_event ON sent (endpoint, event_id);
CREATE INDEX sent_time ON sent (endpoint, message, sent_at);
"""
_COLUMNS = "seq, endpoint, event_id, event, queued_at, failures, next_try_at, problem"


class Delivery(NamedTuple):
    """An event on its way to an endpoint; times are of the clock, epoch seconds."""

    seq: int
    endpoint: str
    event_id: str
    event: bytes
    queued_at: float
    failures: int
    next_try_at: float
    problem: str  # of the last try


class Queue(NamedTuple):
    """How an endpoint's queue stands; `oldest_at`: when its oldest delivery came, None where it is empty."""

    pending: int
    dead: int
    oldest_at: float | None


@contextmanager
def storage_errors(directory: Path) -> Iterator[None]:
    """Turn SQLite's errors inside into UserError: STATE for a damaged file, STORAGE for the rest."""
    try:
        yield
    except sqlite3.OperationalError as exc:
        raise UserError(
            f"webhooks_dir: {directory / FILE} cannot be used: {exc}",
            hint="look at the space and the permissions there",
            code=ExitCode.STORAGE,
        ) from exc
    except sqlite3.DatabaseError as exc:
        raise UserError(
            f"{directory / FILE} is damaged: {exc}",
            hint="move it away: endpoints then begin anew where their `start` says",
            code=ExitCode.STATE,
        ) from exc


class Store:
    """The file, opened; every call is one transaction. A context manager. Not for use by several threads."""

    def __init__(self, directory: Path) -> None:
        """Open the file in `directory`, which must exist; raises UserError as `storage_errors` does."""
        path = directory / FILE
        with storage_errors(directory):
            if not path.exists():
                path.touch(0o600)
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            with self._writing():
                self._create(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    # -- reading the logs -----------------------------------------------------

    def enrol(self, endpoint: str, topic: str, offset: int) -> None:
        """Begin `endpoint` at `offset` of `topic`, unless it has begun before."""
        self._db.execute("INSERT OR IGNORE INTO positions VALUES (?, ?, ?)", (endpoint, topic, offset))

    def positions(self, topic: str) -> dict[str, int]:
        """Return the next offset of `topic` for each endpoint that ever was."""
        rows = self._db.execute("SELECT endpoint, next_offset FROM positions WHERE topic = ?", (topic,))
        return dict(rows.fetchall())

    def move(self, endpoint: str, topic: str, offset: int) -> None:
        """Set a position, where the log is not the one that it was."""
        self._db.execute(
            "UPDATE positions SET next_offset = ? WHERE endpoint = ? AND topic = ?", (offset, endpoint, topic)
        )

    def take(
        self, topic: str, offset: int, event_id: str, event: bytes, told: Iterable[str], *, now: float
    ) -> None:
        """Queue the event at `offset` for the endpoints `told` that are not past it; move every position on.

        An event that an endpoint has, or had of late, is not queued again.
        """
        with self._writing():
            for endpoint in told:
                self._db.execute(
                    "INSERT INTO deliveries (endpoint, event_id, event, queued_at)"
                    " SELECT :endpoint, :id, :event, :now WHERE EXISTS (SELECT 1 FROM positions"
                    "   WHERE endpoint = :endpoint AND topic = :topic AND next_offset <= :offset)"
                    " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE endpoint = :endpoint AND event_id = :id)"
                    " AND NOT EXISTS (SELECT 1 FROM sent WHERE endpoint = :endpoint AND event_id = :id)",
                    {
                        "endpoint": endpoint,
                        "id": event_id,
                        "event": event,
                        "now": now,
                        "topic": topic,
                        "offset": offset,
                    },
                )
            self._db.execute(
                "UPDATE positions SET next_offset = ? WHERE topic = ? AND next_offset <= ?",
                (offset + 1, topic, offset),
            )

    def marks(self) -> dict[str, int]:
        """Return where the looks at topics stand that are counted and not read."""
        return dict(
            self._db.execute("SELECT topic, next_offset FROM positions WHERE endpoint = ''").fetchall()
        )

    def announce(
        self, event: dict[str, Any] | None, told: Iterable[str], marks: dict[str, int], *, now: float
    ) -> None:
        """Queue an event that stands in no log for the endpoints `told`, if there is one; set `marks`."""
        with self._writing():
            if event is not None:
                encoded = cloudevents.encode(event)
                self._db.executemany(
                    "INSERT INTO deliveries (endpoint, event_id, event, queued_at) VALUES (?, ?, ?, ?)",
                    [(endpoint, event["id"], encoded, now) for endpoint in told],
                )
            self._db.executemany("INSERT OR REPLACE INTO positions VALUES ('', ?, ?)", list(marks.items()))

    # -- delivering -----------------------------------------------------------

    def head(self, endpoint: str) -> Delivery | None:
        """Return the delivery that is next: the oldest that is not dead."""
        found = self._pending(endpoint, 1)
        return found[0] if found else None

    def delivered(self, delivery: Delivery, *, now: float) -> None:
        """Remove a delivery that was accepted, and remember for a while what it told."""
        rows = [(delivery.endpoint, delivery.event_id, now, 1)]
        rows += [(delivery.endpoint, str(event["id"]), now, 0) for event in _members(delivery.event)]
        with self._writing():
            self._db.execute("DELETE FROM deliveries WHERE seq = ?", (delivery.seq,))
            self._db.executemany("INSERT INTO sent VALUES (?, ?, ?, ?)", rows)
            self._db.execute("DELETE FROM sent WHERE sent_at < ?", (now - SENT_KEPT_S,))

    def failed(self, delivery: Delivery, problem: str, *, next_try_at: float) -> None:
        """Note a try that failed, and when the next one is due."""
        self._db.execute(
            "UPDATE deliveries SET failures = failures + 1, next_try_at = ?, problem = ? WHERE seq = ?",
            (next_try_at, problem, delivery.seq),
        )

    def give_up(self, delivery: Delivery, problem: str) -> None:
        """Keep a delivery as a dead one; the oldest beyond `DEAD_KEPT_MAX` are removed."""
        with self._writing():
            self._db.execute(
                "UPDATE deliveries SET dead = 1, failures = failures + 1, problem = ? WHERE seq = ?",
                (problem, delivery.seq),
            )
            self._db.execute(
                "DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries"
                " WHERE endpoint = ? AND dead = 1 ORDER BY seq DESC LIMIT -1 OFFSET ?)",
                (delivery.endpoint, DEAD_KEPT_MAX),
            )

    def sent_since(self, endpoint: str, since: float) -> list[float]:
        """Return when messages were accepted after `since`, the oldest first."""
        rows = self._db.execute(
            "SELECT sent_at FROM sent WHERE endpoint = ? AND message = 1 AND sent_at > ? ORDER BY sent_at",
            (endpoint, since),
        )
        return [sent_at for (sent_at,) in rows]

    def fold(self, endpoint: str, *, now: float) -> Delivery | None:
        """Put what waits and was never tried into one digest at the queue's head; None where that is no use.

        What was tried keeps its id, for it may have arrived. A digest is bounded; what is left waits on.
        """
        fresh: list[Delivery] = []
        size = 0
        for delivery in self._pending(endpoint, DIGEST_EVENTS_MAX):
            size += len(delivery.event)
            if delivery.failures or (fresh and size > DIGEST_BYTES_MAX):
                break
            fresh.append(delivery)
        if len(fresh) < 2:
            return None
        event = digest_of([member for delivery in fresh for member in _events(delivery.event)])
        first = fresh[0]
        with self._writing():
            self._db.executemany("DELETE FROM deliveries WHERE seq = ?", [(it.seq,) for it in fresh])
            self._db.execute(
                "INSERT INTO deliveries (seq, endpoint, event_id, event, queued_at) VALUES (?, ?, ?, ?, ?)",
                (first.seq, endpoint, event["id"], cloudevents.encode(event), now),
            )
            # Each of them is on its way: one that a log holds again is not told again.
            told = [(endpoint, str(member["id"]), now, 0) for member in event["data"]["events"]]
            self._db.executemany("INSERT INTO sent VALUES (?, ?, ?, ?)", told)
        return self.head(endpoint)

    # -- looking at it --------------------------------------------------------

    def queue(self, endpoint: str) -> Queue:
        """Return how the queue of `endpoint` stands."""
        pending, dead, oldest_at = self._db.execute(
            "SELECT count(*) FILTER (WHERE NOT dead), count(*) FILTER (WHERE dead),"
            " min(queued_at) FILTER (WHERE NOT dead) FROM deliveries WHERE endpoint = ?",
            (endpoint,),
        ).fetchone()
        return Queue(pending, dead, oldest_at)

    def dead(self) -> list[Delivery]:
        """Return the dead deliveries of all endpoints, the oldest first."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM deliveries WHERE dead ORDER BY seq")  # noqa: S608
        return [Delivery(*row) for row in rows]

    def redeliver(self, endpoint: str, event_id: str | None, *, now: float) -> int:
        """Queue dead deliveries of `endpoint` again, in their old places; return how many."""
        done = self._db.execute(
            "UPDATE deliveries SET dead = 0, failures = 0, next_try_at = 0, queued_at = ?"
            " WHERE endpoint = ? AND dead AND (? IS NULL OR event_id = ?)",
            (now, endpoint, event_id, event_id),
        )
        return done.rowcount

    def _pending(self, endpoint: str, limit: int) -> list[Delivery]:
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM deliveries WHERE endpoint = ? AND dead = 0 ORDER BY seq LIMIT ?",  # noqa: S608
            (endpoint, limit),
        )
        return [Delivery(*row) for row in rows]

    def _create(self, path: Path) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _TABLES.split(";")[:-1]:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise UserError(
                f"{path} is of form {version}, not {VERSION}: another release wrote it",
                hint="let that release deliver what is in it, then move it away",
                code=ExitCode.STATE,
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Make what is done inside one transaction."""
        with closing(self._db.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")


def digest_of(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one event that holds `events`, whole and in their order; its id follows from theirs."""
    last = events[-1]
    warning = any(severity_of(event) == "warning" for event in events)
    return {
        "specversion": "1.0",
        "id": cloudevents.content_id(DIGEST, {"ids": [event["id"] for event in events]}),
        "source": last.get("source", ""),
        "type": DIGEST,
        "time": last.get("time", ""),
        "datacontenttype": "application/json",
        "data": {
            "count": len(events),
            "severity": "warning" if warning else "info",
            "events": list(events),
        },
    }


def _events(event: bytes) -> list[dict[str, Any]]:
    """Return the events of a delivery: its own, or those of a digest."""
    return _members(event) or [cloudevents.decode(event)]


def _members(event: bytes) -> list[dict[str, Any]]:
    """Return the events in a digest, none where it is no digest."""
    decoded = cloudevents.decode(event)
    return list(decoded["data"]["events"]) if decoded["type"] == DIGEST else []
