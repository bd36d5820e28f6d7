"""Event time of a feed: the largest one seen, guarded against lines from the far future."""

from typing import Any


class JumpGuard:
    """Decides which lines may move the event time of a feed (one partition, or one source).

    A line more than `jump_max_s` ahead of `largest` is refused, unless the `jump_confirm_lines` lines
    refused just before it, of other customers, lie within `jump_max_s` of it: then time really moved on,
    as after a closed season. Once the time is anchored, a line that is admitted forgets the refused ones:
    those that agree must follow one another, so garbage strewn among good lines never adds up.

    The very first line has nothing to be compared with. Until a second line near it is seen it is
    provisional: should a line and `jump_confirm_lines` of other customers before it agree on a time more than
    `jump_max_s` before it, the time is set back to theirs (`anchored` tells; nothing may be concluded
    from the time before). All times are epoch seconds. The guard is a function of the lines in their order.
    """

    def __init__(self, *, jump_max_s: int, jump_confirm_lines: int) -> None:
        self.jump_max_s = jump_max_s
        self.jump_confirm_lines = jump_confirm_lines
        self.largest: int | None = None
        self.earliest: int | None = None  # of the admitted lines near `largest` until it is anchored
        self.anchored = False
        self.witnesses: list[tuple[int, str]] = []

    def admits(self, event_time: int, customer: str) -> bool:
        """Return whether a line may count, and take note of its time.

        `customer` tells one customer from another; give the invoice where the customer is unknown.
        """
        if self.largest is None:
            self.largest = self.earliest = event_time
            return True
        ahead_s = event_time - self.largest
        if ahead_s > self.jump_max_s:
            if not self._confirmed(event_time, customer):
                return False
            if not self.anchored:
                self.earliest = min(event_time, *self._agreeing(event_time))
            self.advance(event_time)
            return True
        if self.anchored:
            self.witnesses.clear()
            self.largest = max(self.largest, event_time)
        elif ahead_s >= -self.jump_max_s:
            self.advance(event_time)
        elif self._confirmed(event_time, customer):
            agreeing = self._agreeing(event_time)
            self.largest = max(event_time, *agreeing)
            self.earliest = min(event_time, *agreeing)
            self.anchored = True
            self.witnesses.clear()
        return True

    def advance(self, event_time: int) -> None:
        """Take `event_time` as true without asking: what a watermark record says, or a confirmed line."""
        if self.anchored:
            assert self.largest is not None
            self.largest = max(self.largest, event_time)
        elif self._is_near(event_time):
            assert self.earliest is not None
            assert self.largest is not None
            self.earliest, self.largest = min(self.earliest, event_time), max(self.largest, event_time)
        else:  # a provisional time so far from a true one, ahead or behind, was wrong
            self.earliest = self.largest = event_time
        self.anchored = True
        self.witnesses.clear()

    def settled(self) -> bool:
        """Return whether only a jump can still change what the guard says: no witness waits."""
        return self.anchored and not self.witnesses

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {
            "largest": self.largest,
            "earliest": self.earliest,
            "anchored": self.anchored,
            "witnesses": [list(witness) for witness in self.witnesses],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state that `state()` gave."""
        self.largest = state["largest"]
        self.earliest = state["earliest"]
        self.anchored = state["anchored"]
        self.witnesses = [(time, customer) for time, customer in state["witnesses"]]

    def _confirmed(self, event_time: int, customer: str) -> bool:
        """Return whether enough other customers' refused lines agree; else remember this one."""
        near = {who for time, who in self.witnesses if abs(time - event_time) <= self.jump_max_s}
        if len(near - {customer}) >= self.jump_confirm_lines:
            return True
        self.witnesses.append((event_time, customer))
        # Only recent ones can follow one another; a bound keeps the state small whatever is fed.
        del self.witnesses[: -8 * self.jump_confirm_lines]
        return False

    def _is_near(self, event_time: int) -> bool:
        """Return whether the provisional time lies within a jump of `event_time`."""
        return self.earliest is not None and abs(self.earliest - event_time) <= self.jump_max_s

    def _agreeing(self, event_time: int) -> list[int]:
        return [time for time, _ in self.witnesses if abs(time - event_time) <= self.jump_max_s]
