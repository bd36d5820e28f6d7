"""What the terminal view knows: the topics, folded message by message."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from streams.decisions import Decision, DecisionLog
from streams.grid import from_iso
from streams.remedies import REQUESTS
from streams.state_config import Counters

WINDOWS_KEPT = 120
WARNINGS_KEPT = 500
RATE_OVER_S = 10.0


@dataclass(frozen=True)
class Performance:
    """How the served model did over a horizon; None where a measure is undefined."""

    matured: bool
    nmae: float | None
    r2: float | None


@dataclass(frozen=True)
class Cause:
    """A feature that changed, by how much in which unit, over which weeks and customers."""

    feature: str
    scale_weeks: int
    segment: str
    effect: float
    unit: str

    @classmethod
    def of(cls, cause: dict[str, Any]) -> "Cause":
        """Read a cause of a verdict."""
        return cls(
            feature=str(cause["feature"]),
            scale_weeks=int(cause["scale_weeks"]),
            segment=str(cause["segment"]),
            effect=float(cause["effect"]),
            unit=str(cause["unit"]),
        )


@dataclass(frozen=True)
class Window:
    """A window's evaluation, as far as it is shown. `drift` is None where the detector cannot tell."""

    window_end: int
    partial: bool
    state: str
    lines_week: int
    customers: int
    drift: bool | None
    reason: str
    causes: tuple[Cause, ...]
    performance: dict[int, Performance]  # by horizon, days
    model_version: str | None
    model_refused: str | None
    action: str

    @classmethod
    def of(cls, data: dict[str, Any], acting_detector: str) -> "Window":
        """Read an evaluation's data; raises KeyError, TypeError or ValueError where it is none."""
        verdict = dict(data["verdicts"]).get(acting_detector) or {"drift": None, "reason": "", "causes": []}
        return cls(
            window_end=from_iso(data["window_end"]),
            partial=bool(data["partial"]),
            state=str(data["state"]),
            lines_week=int(data["lines_week"]),
            customers=int(data["customers"]),
            drift=verdict["drift"],
            reason=str(verdict["reason"]),
            causes=tuple(Cause.of(cause) for cause in verdict["causes"]),
            performance={int(days): _performance(it) for days, it in dict(data["performance"]).items()},
            model_version=data["model_version"],
            model_refused=data["model_refused"],
            action=str(data["action"]),
        )


def _performance(figures: dict[str, Any]) -> Performance:
    # The card that stands in for labels may lack a measure.
    nmae, r2 = figures.get("nmae"), figures.get("r2")
    return Performance(
        matured=figures["status"] == "matured",
        nmae=None if nmae is None else float(nmae),
        r2=None if r2 is None else float(r2),
    )


@dataclass(frozen=True)
class Comparison:
    """Evidently's verdict on a window; `drift` is None where there is none, and `status` says why."""

    status: str
    drift: bool | None = None
    drifted_columns: int = 0
    columns: int = 0


@dataclass(frozen=True)
class Asked:
    """A request for a model."""

    window_end: str
    effective_from: str
    drift_type: str
    state: str


@dataclass(frozen=True)
class EarlyWarning:
    """What a day of a partition warned of: (signal, share by which it changed, since when)."""

    partition: int
    day: str
    window_end: int
    findings: tuple[tuple[str, float, str], ...]


@dataclass
class Feed:
    """The input topic and the partitions' newest checkpoints."""

    ends: dict[int, int] = field(default_factory=dict)  # partition -> offset after the last record
    heads: dict[int, dict[str, Any]] = field(default_factory=dict)  # partition -> head of its checkpoint
    _samples: deque[tuple[float, int]] = field(default_factory=deque)  # (clock, records in the topic)

    def note_ends(self, clock_s: float, ends: dict[int, int]) -> None:
        """Take the partitions' ends as seen at `clock_s` (a monotonic clock, seconds)."""
        self.ends = dict(ends)
        self._samples.append((clock_s, self.records))
        # One sample beyond the span stays, so that the rate covers all of it.
        while len(self._samples) > 2 and self._samples[1][0] <= clock_s - RATE_OVER_S:
            self._samples.popleft()

    def note_head(self, partition: int, head: dict[str, Any]) -> None:
        """Take the head of a checkpoint; an older one than the newest known says nothing."""
        known = self.heads.get(partition)
        if known is None or head["next_number"] >= known["next_number"]:
            self.heads[partition] = head

    @property
    def records(self) -> int:
        """Records in the input topic."""
        return sum(self.ends.values())

    @property
    def rate(self) -> float | None:
        """Records a second that came in over the last ten seconds; None before two looks."""
        if len(self._samples) < 2:
            return None
        (start_s, first), (end_s, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end_s - start_s) if end_s > start_s else None

    @property
    def counters(self) -> Counters:
        """Records by what became of them, in all checkpoints."""
        total = Counters()
        for head in self.heads.values():
            for name, count in head["counters"].items():
                setattr(total, name, getattr(total, name) + count)
        return total

    @property
    def unread(self) -> int:
        """Records that are in no checkpoint yet."""
        read = {partition: head["read_offset"] + 1 for partition, head in self.heads.items()}
        return sum(max(0, end - read.get(partition, 0)) for partition, end in self.ends.items())

    def watermarks(self) -> dict[int, int | None]:
        """Return each partition's watermark, epoch seconds; None while its time is not trusted."""
        return {partition: _watermark(head) for partition, head in sorted(self.heads.items())}


def _watermark(head: dict[str, Any]) -> int | None:
    guard = head["guard"]
    if not guard["anchored"] or guard["largest"] is None:
        return None
    return int(guard["largest"] - head["config"]["lateness_s"])


class View:
    """All that is shown; the `note` methods raise KeyError, TypeError or ValueError on what is not theirs."""

    def __init__(self, acting_detector: str) -> None:
        self.acting_detector = acting_detector
        self.feed = Feed()
        self.windows: dict[int, Window] = {}  # the newest ones, by window end
        self.serving_since: int | None = None
        self.onset: int | None = None  # of the drift that goes on
        self.comparisons: dict[int, Comparison] = {}
        self.warnings: dict[tuple[str, int], EarlyWarning] = {}  # the newest ones, by day and partition
        self.requests: dict[str, Asked] = {}
        self.decisions = DecisionLog()
        self.last_decisions: deque[Decision] = deque(maxlen=5)
        self.unreadable = 0  # messages that could not be understood
        self.waiting_for: str = ""  # what has to happen before there is anything to show

    @property
    def latest(self) -> Window | None:
        """The newest window."""
        return self.windows[max(self.windows)] if self.windows else None

    @property
    def pending(self) -> list[Asked]:
        """Requests on which no decision stands, oldest first."""
        return [asked for name, asked in self.requests.items() if name not in self.decisions.by_request]

    def note_evaluation(self, event: dict[str, Any]) -> None:
        """Take a message of the log of evaluations."""
        data = event["data"]
        window = Window.of(data, self.acting_detector)
        serving, policy = data["carry"]["serving"], dict(data["carry"]["policies"]).get("data")
        since = int(serving[-1]["since"]) if serving else None
        onset = policy["onset"] if policy else None
        if self.latest is None or window.window_end >= self.latest.window_end:
            self.serving_since, self.onset = since, onset
        self.windows[window.window_end] = window
        while len(self.windows) > WINDOWS_KEPT:
            del self.windows[min(self.windows)]

    @property
    def open_warnings(self) -> list[EarlyWarning]:
        """The early warnings in windows that are not evaluated yet, oldest first."""
        judged = max(self.windows, default=None)
        return [
            warning
            for _, warning in sorted(self.warnings.items())
            if judged is None or warning.window_end > judged
        ]

    def note_warning(self, event: dict[str, Any]) -> None:
        """Take a message of the log of early warnings."""
        data = event["data"]
        warning = EarlyWarning(
            partition=int(data["partition"]),
            day=str(data["day"])[:10],
            window_end=from_iso(data["window_end"]),
            findings=tuple(
                (str(found["signal"]), float(found["change"]), str(found["onset"])[:10])
                for found in data["findings"]
            ),
        )
        self.warnings[warning.day, warning.partition] = warning
        while len(self.warnings) > WARNINGS_KEPT:
            del self.warnings[min(self.warnings)]

    def note_event(self, event: dict[str, Any]) -> None:
        """Take a message of the log of drift events; what is shown of it are requests for a model."""
        data = event["data"]
        if data["action"] in REQUESTS:
            names = ("window_end", "effective_from", "drift_type", "state")
            self.requests[str(event["id"])] = Asked(**{name: str(data[name]) for name in names})

    def note_decision(self, offset: int, event: dict[str, Any]) -> None:
        """Take the message at `offset` of the log of models."""
        if self.decisions.add(offset, event):
            self.last_decisions.append(Decision.from_event(event))

    def note_comparison(self, event: dict[str, Any]) -> None:
        """Take a message of the log of comparisons."""
        data = event["data"]
        end, status = from_iso(data["window_end"]), str(data["status"])
        if status == "compared":
            found = Comparison(
                status, bool(data["dataset_drift"]), int(data["drifted_columns"]), len(data["columns"])
            )
        else:
            found = Comparison(status)
        self.comparisons[end] = found
        while len(self.comparisons) > WINDOWS_KEPT:
            del self.comparisons[min(self.comparisons)]
