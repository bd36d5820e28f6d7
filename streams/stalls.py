"""Records that were fetched and reached nobody: noticed where no later record shows that they are missing.

While partitions move, Faust drops what it has fetched. The next batch that arrives names a predecessor that
its owner has not seen, and the owner has both fetched again. Where the log ends there is no next batch:
somebody has to look.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from faust.types import TP

from streams.consumption import Gate

log = structlog.get_logger(__name__)

LOOK_S = 2.0
LOOKS_MAX = 32  # between two tries for the same record: a log may end in markers that no record shows


@dataclass
class _Stand:
    """Where an owner stood at the last look."""

    where: tuple[int, int]  # its read offset, and the batches of its topic that were taken until then
    looks: int = 0  # since it stands there
    due: int = 1  # look at which it is helped


class StallWatch:
    """Has records fetched again that an idle owner should have got."""

    def __init__(
        self,
        gate: Gate,
        read_offsets: Callable[[], Mapping[TP, int]],
        highwater: Callable[[TP], int | None],
        fetch_after: Callable[[TP, int], None],
    ) -> None:
        """`read_offsets` are those of the loaded owners; `highwater` is the end of the log, if known.

        `fetch_after` opens the gate after an offset and sends the fetcher there.
        """
        self._gate = gate
        self._read_offsets = read_offsets
        self._highwater = highwater
        self._fetch_after = fetch_after
        self._busy: Counter[str] = Counter()  # topic -> batches being taken now
        self._taken: Counter[str] = Counter()
        self._stands: dict[TP, _Stand] = {}

    @contextmanager
    def taking(self, topic: str) -> Iterator[None]:
        """Wrap what an agent does with a batch: while it is at work the next ones may well wait."""
        self._busy[topic] += 1
        try:
            yield
        finally:
            self._busy[topic] -= 1
            self._taken[topic] += 1

    def look(self) -> None:
        """Look at all owners once; help those that stand still since the one before, idle, behind."""
        offsets = {
            tp: offset for tp, offset in self._read_offsets().items() if self._gate.expected(tp) is not None
        }
        self._stands = {tp: stand for tp, stand in self._stands.items() if tp in offsets}
        for tp, read_offset in offsets.items():
            stand = self._stands.get(tp)
            where = (read_offset, self._taken[tp.topic])
            if stand is None or self._busy[tp.topic] or stand.where != where:
                self._stands[tp] = _Stand(where)
                continue
            if not self._is_behind(tp, read_offset):
                continue
            stand.looks += 1
            if stand.looks >= stand.due:
                stand.due = stand.looks + min(stand.looks, LOOKS_MAX)
                if stand.looks == 1:
                    log.warning(
                        "records did not arrive, fetched again",
                        topic=tp.topic,
                        partition=tp.partition,
                        expected=read_offset + 1,
                    )
                self._fetch_after(tp, read_offset)

    def _is_behind(self, tp: TP, read_offset: int) -> bool:
        expected = self._gate.expected(tp)
        end = self._highwater(tp)
        return expected != read_offset + 1 or (end is not None and end > read_offset + 1)
