"""What metrics are computed from: plain views of the logs and of the partitions, without Prometheus."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from streams.decisions import Decision, Outcome
from streams.draft import DETECTED
from streams.early_warnings import Tally
from streams.grid import from_iso
from streams.metrics_table import DRIFT_TYPES
from streams.partition import PartitionState
from streams.policy import State
from streams.remedies import REQUESTS
from streams.state_config import Counters

NO_ACTION = "none"
ESTIMATED = ("absolute_log_error", "mae")  # what is estimated of the error until labels mature
GATED = ("champion", "challenger")


@dataclass(frozen=True, kw_only=True)
class PartitionView:
    """An input partition as its worker holds it; times are epoch seconds of event time.

    `stored` and `warnings` are what the newest checkpoint counted that the broker acknowledged: a restart
    goes on from them, so they never go back. `counters` are those of the state in memory, which a restart may
    set back. `watermark` is None until the partition's time is trusted, `lag` where the log's end is unknown.
    """

    partition: int
    stored: Counters
    counters: Counters
    read_offset: int
    watermark: int | None
    lag: int | None
    lines: int
    customers: int
    warnings: Tally
    stored_bytes: int = 0
    holes: int = 0
    reloads: int = 0

    @classmethod
    def of(
        cls,
        state: PartitionState,
        *,
        stored: Counters,
        warnings: Tally,
        stored_bytes: int,
        end_offset: int | None,
        holes: int,
        reloads: int,
    ) -> "PartitionView":
        """Return the view of `state`; `end_offset` is that after the last record of the partition's log."""
        anchored = state.guard.anchored and state.guard.largest is not None
        return cls(
            partition=state.partition,
            stored=stored,
            counters=replace(state.counters),
            read_offset=state.read_offset,
            watermark=(state.guard.largest or 0) - state.config.lateness_s if anchored else None,
            lag=None if end_offset is None else max(0, end_offset - 1 - state.read_offset),
            lines=sum(len(segment.lines) for segment in state.windows.segments),
            customers=int(state.windows.lifetime.known.sum()),
            warnings=warnings,
            stored_bytes=stored_bytes,
            holes=holes,
            reloads=reloads,
        )


@dataclass
class RunningTotal:
    """The sum of counters that come and go with their partitions; it never falls."""

    total: int = 0
    _last: dict[int, int] = field(default_factory=dict)

    def after(self, counts: Mapping[int, int]) -> int:
        """Return the total after `counts` by partition; one that is below its last value began anew."""
        for partition, count in counts.items():
            last = self._last.get(partition, 0)
            self.total += count - last if count >= last else count
        # A partition that is gone begins at zero should it come back.
        self._last = dict(counts)
        return self.total


def watermark_delay_s(views: Iterable[PartitionView]) -> int | None:
    """Return by how much the slowest watermark trails the fastest, seconds; None without any."""
    known = [view.watermark for view in views if view.watermark is not None]
    return max(known) - min(known) if known else None


class CauseView(NamedTuple):
    """A cause of drift: its rank (1 leads), and its effect in `unit`.

    `scope` says whose change it is: `all`, or as the detector names it. One country is not told from another
    here, so that the scopes stay few.
    """

    feature: str
    scale_weeks: int
    scope: str
    unit: str
    rank: int
    effect: float

    @classmethod
    def ranked(cls, causes: list[dict[str, Any]]) -> "tuple[CauseView, ...]":
        """Read a verdict's causes, the strongest first; of those alike but for the country the first."""
        found: dict[tuple[str, int, str], CauseView] = {}
        for rank, cause in enumerate(causes, start=1):
            feature, weeks, segment = str(cause["feature"]), int(cause["scale_weeks"]), str(cause["segment"])
            scope = segment.partition("=")[0] or "all"
            view = cls(feature, weeks, scope, str(cause["unit"]), rank, float(cause["effect"]))
            found.setdefault((feature, weeks, scope), view)
        return tuple(found.values())


class DetectorView(NamedTuple):
    """What a detector said of the latest window; figures are None where it gave none."""

    state: str  # drift, quiet or cannot_tell
    statistic: float | None
    threshold: float | None

    @classmethod
    def of(cls, verdict: dict[str, Any]) -> "DetectorView":
        """Read a verdict; raises KeyError where it is none."""
        state = {True: "drift", False: "quiet", None: "cannot_tell"}[verdict["drift"]]
        return cls(state, verdict["statistic"], verdict["threshold"])


@dataclass(frozen=True)
class LatestWindow:
    """What the newest evaluation says."""

    window_end: int
    partial: bool
    state: str
    confirmed: dict[str, bool]  # by drift type
    action: str
    lines: int
    customers: int
    split_customers: int
    version: str | None
    model_refused: bool
    detectors: dict[str, "DetectorView"]
    scores: dict[str, float]
    strengths: dict[tuple[str, int], float]  # by feature and weeks, the threshold being 1
    drifted_columns: int | None  # None where nothing was compared
    columns: int
    causes: tuple["CauseView", ...]
    # Whether the acting detector was mute on a whole window; None while there is no reference.
    verdict_missing: bool | None
    reference_start: int | None  # end of the reference's first window
    matured: dict[str, dict[str, float]]  # by horizon in days; None figures left out
    estimated: dict[str, dict[str, float]]  # of the error, by horizon in days
    r2_reference: float | None

    @classmethod
    def of(cls, data: dict[str, Any], acting_detector: str) -> "LatestWindow":
        """Read an evaluation's data; raises KeyError, TypeError or ValueError where it is none."""
        acting = data["verdicts"].get(acting_detector)
        verdict = acting or {"scores": {}, "strengths": {}, "columns": 0, "causes": []}
        reference, policies = data["carry"]["r2_reference"], data["carry"]["policies"]
        return cls(
            window_end=from_iso(data["window_end"]),
            partial=bool(data["partial"]),
            state=str(data["state"]),
            confirmed={
                kind: kind in policies and policies[kind]["state"] == State.CONFIRMED for kind in DRIFT_TYPES
            },
            action=str(data["action"]),
            lines=int(data["lines"]),
            customers=int(data["customers"]),
            split_customers=int(data["split_customers"]),
            version=data["model_version"],
            model_refused=data["model_refused"] is not None,
            detectors={str(name): DetectorView.of(found) for name, found in data["verdicts"].items()},
            scores={str(name): float(score) for name, score in verdict["scores"].items()},
            strengths={
                (str(name), int(weeks)): float(strength)
                # Evaluations of an earlier release do not have them.
                for name, by_weeks in verdict.get("strengths", {}).items()
                for weeks, strength in by_weeks.items()
            },
            drifted_columns=int(verdict["drifted_columns"]) if verdict["columns"] else None,
            columns=int(verdict["columns"]),
            causes=CauseView.ranked(verdict["causes"]),
            verdict_missing=None if acting is None else acting["drift"] is None and not data["partial"],
            reference_start=data["carry"]["reference_start"],
            matured={
                str(days): _numbers(figures)
                for days, figures in data["performance"].items()
                if figures["status"] == "matured"
            },
            estimated={
                str(days): {name: float(found[name]) for name in ESTIMATED if found[name] is not None}
                for days, found in data["error_estimates"].items()
            },
            r2_reference=None if reference is None else float(reference["r2"]),
        )


@dataclass
class EvaluationView:
    """The logs of evaluations, drift events and decisions, folded; what is told twice counts once.

    A drift is known by its type and when it was first suspected: while it lasts, each new request for a model
    repeats its event. The observers raise KeyError, TypeError or ValueError on what is no such event, and
    then change nothing.
    """

    acting_detector: str
    latest: LatestWindow | None = None
    windows: set[str] = field(default_factory=set)
    # By type and when it was first suspected: the end of the window that confirmed it.
    drifts: dict[tuple[str, str], int] = field(default_factory=dict)
    last_events: dict[str, tuple[int, str]] = field(default_factory=dict)  # by type: window end, event id
    decisions: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((outcome.value for outcome in Outcome), 0)
    )
    last_action: tuple[int, str] | None = None  # the newest window that asked for something, and for what
    refused_snapshots: int = 0
    refused_decisions: int = 0
    waiting_for: frozenset[int] = frozenset()
    _decided: set[str] = field(default_factory=set)  # requests on which a decision stands

    def observe_evaluation(self, event: dict[str, Any]) -> None:
        """Take an evaluation; an older one than the latest only counts."""
        window = LatestWindow.of(event["data"], self.acting_detector)
        self.windows.add(event["data"]["window_end"])
        if self.latest is None or window.window_end >= self.latest.window_end:
            self.latest = window
        if window.action != NO_ACTION:
            asked = (window.window_end, window.action)
            self.last_action = max(asked, self.last_action or asked)

    def observe_drift_event(self, event: dict[str, Any]) -> None:
        """Take a drift event; those that confirm a drift are counted."""
        kind, data = event["type"], event["data"]
        end, drift = from_iso(data["window_end"]), (str(data["drift_type"]), str(data["suspected_at"]))
        if kind == DETECTED:
            self.drifts[drift] = min(end, self.drifts.get(drift, end))
            event_of = (end, str(event["id"]))
            self.last_events[drift[0]] = max(event_of, self.last_events.get(drift[0], event_of))

    @property
    def detected(self) -> dict[str, int]:
        """How many drifts were confirmed, by type; zero too."""
        return dict.fromkeys(DRIFT_TYPES, 0) | Counter(drift_type for drift_type, _ in self.drifts)

    @property
    def last_detection(self) -> int | None:
        """End of the window in which the newest drift was confirmed."""
        return max(self.drifts.values(), default=None)

    def observe_decision(self, event: dict[str, Any]) -> None:
        """Take a decision; of several on one request the first counts, as for the evaluations."""
        decision = Decision.from_event(event)
        key = decision.request_id or f"by hand {decision.nonce or event['id']}"
        if key in self._decided:
            return
        self._decided.add(key)
        self.decisions[decision.outcome.value] += 1


@dataclass
class ComparisonView:
    """The log of comparisons, folded; a window counts once."""

    behind: int | None = None
    latest: dict[str, Any] | None = None  # data of the newest window that Evidently compared
    status: dict[str, str] = field(default_factory=dict)  # by window end

    def observe(self, event: dict[str, Any]) -> None:
        """Take a comparison; raises as the observers of `EvaluationView` do."""
        data = event["data"]
        end, status = from_iso(data["window_end"]), str(data["status"])
        if status == "compared":
            read = {
                "window_end": end,
                "drift": bool(data["dataset_drift"]),
                "share": float(data["share"]),
                "drifted_columns": int(data["drifted_columns"]),
            }
            if self.latest is None or end >= self.latest["window_end"]:
                self.latest = read
        self.status[data["window_end"]] = status


class GateView(NamedTuple):
    """What the gate saw: measures by model (champion, challenger), and how sure it was."""

    measures: dict[str, dict[str, float]]
    probability_better: float | None
    probability_required: float

    @classmethod
    def of(cls, gate: dict[str, Any]) -> "GateView":
        """Read the gate's part of a decision; raises KeyError, TypeError or ValueError where it is none."""
        better = gate["probability_better"]
        return cls(
            measures={model: _numbers(gate[model]) for model in GATED},
            probability_better=None if better is None else float(better),
            probability_required=float(gate["probability_required"]),
        )


@dataclass
class RequestView:
    """Requests for a model and the decisions on them, as the logs have them."""

    requests: set[str] = field(default_factory=set)
    decided: set[str] = field(default_factory=set)
    last: Decision | None = None
    gate: GateView | None = None  # of the newest decision that went through the gate

    @property
    def pending(self) -> int:
        """How many requests have no decision yet."""
        return len(self.requests - self.decided)

    def observe_request(self, event: dict[str, Any]) -> None:
        """Take a drift event; one that asks for a model is a request."""
        if event["data"]["action"] in REQUESTS:
            self.requests.add(str(event["id"]))

    def observe_decision(self, event: dict[str, Any]) -> None:
        """Take a decision; a second one on the same request does not count."""
        decision = Decision.from_event(event)
        if decision.request_id is not None and decision.request_id in self.decided:
            return
        if decision.gate is not None:
            self.gate = GateView.of(decision.gate)
        if decision.request_id is not None:
            self.decided.add(decision.request_id)
        self.last = decision


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    """Return the measures among `figures`; what could not be computed is left out."""
    return {
        name: float(value)
        for name, value in figures.items()
        if name not in {"status", "window_end", "model_version"} and value is not None
    }
