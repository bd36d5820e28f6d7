"""The track record of the error estimate: how far off it was, beside a rule that takes no thought."""

from typing import Any

import msgspec

from streams.detectors.error_estimate import ErrorEstimate

PENDING_MAX = 64  # windows; over a year of weeks, far more than the longest horizon


class Pending(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was said of a window before its labels matured.

    `naive` is the newest measured error at that time: "as at the last matured window".
    """

    window_end: int
    estimated: ErrorEstimate
    naive: ErrorEstimate


class Scored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A window of which both are known; absolute log errors."""

    window_end: int
    estimated: float
    naive: float
    measured: float


class TrackRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Estimates that wait for the truth, and sums over those whose truth is known; all in absolute log error.

    JSON by `msgspec.to_builtins`, of bounded size: of what waits, the newest `PENDING_MAX` are kept.

    >>> before, after = ErrorEstimate(3.0, 90.0, "matured"), ErrorEstimate(3.5, 95.0, "matured")
    >>> record = TrackRecord().said(7, ErrorEstimate(3.4, 99.0, "estimated"), before)
    >>> record.known(7, after).summary()["mean_gap"], record.known(7, after).summary()["mean_gap_naive"]
    (0.1, 0.5)
    """

    pending: tuple[Pending, ...] = ()
    windows: int = 0
    gap_sum: float = 0.0
    gap_sum_naive: float = 0.0
    last: Scored | None = None

    def said(self, window_end: int, estimated: ErrorEstimate, naive: ErrorEstimate) -> "TrackRecord":
        """Return the record with an estimate more; one made again for a window replaces the first."""
        others = tuple(item for item in self.pending if item.window_end != window_end)
        pending = (*others, Pending(window_end, estimated, naive))[-PENDING_MAX:]
        return msgspec.structs.replace(self, pending=pending)

    def known(self, window_end: int, measured: ErrorEstimate) -> "TrackRecord":
        """Return the record after the truth about a window; as it was, where nothing was said of it.

        What was said of earlier windows is dropped: labels mature in the order of the windows, so the truth
        about those was passed over.
        """
        truth = measured.absolute_log_error
        found = [item for item in self.pending if item.window_end == window_end]
        pending = tuple(item for item in self.pending if item.window_end > window_end)
        if not found:
            return msgspec.structs.replace(self, pending=pending)
        estimated, naive = found[0].estimated.absolute_log_error, found[0].naive.absolute_log_error
        return TrackRecord(
            pending=pending,
            windows=self.windows + 1,
            gap_sum=self.gap_sum + abs(estimated - truth),
            gap_sum_naive=self.gap_sum_naive + abs(naive - truth),
            last=Scored(window_end, estimated, naive, truth),
        )

    def summary(self) -> dict[str, Any]:
        """Return what is published beside an estimate: how many windows were scored, mean gaps, the last one.

        The gaps and the last are None before the first truth.
        """
        if self.last is None:
            return {"windows": 0, "mean_gap": None, "mean_gap_naive": None, "last": None}
        return {
            "windows": self.windows,
            "mean_gap": round(self.gap_sum / self.windows, 6),
            "mean_gap_naive": round(self.gap_sum_naive / self.windows, 6),
            "last": msgspec.to_builtins(self.last),
        }
