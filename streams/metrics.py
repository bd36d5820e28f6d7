"""Prometheus metrics of a process: computed from views of the logs at each scrape.

Counters that describe a log are set from that log by whoever owns it, never counted up on a send: after a
restart or a change of owner they go on where they were. An owner shows them only once it has read the log to
its end, for a scrape in the middle would look like a counter that began anew.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from models.features import DAY_S
from streams.metrics_table import FATES, METRICS, STATES, MetricSpec, Process
from streams.metrics_views import (
    ComparisonView,
    EvaluationView,
    LatestWindow,
    PartitionView,
    RequestView,
    RunningTotal,
    watermark_delay_s,
)
from streams.settings import Settings

__all__ = ["METRICS", "MetricSpec", "PartitionView", "RetrainMetrics", "WorkerMetrics"]

SPECS = {spec.name: spec for spec in METRICS}
# Classic buckets, close enough that Prometheus can store them as native histograms.
_FAST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW_BUCKETS_S = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class WorkerMetrics:
    """Metrics of a worker: of its partitions, and of the logs of evaluations and comparisons that it owns.

    `partitions` is asked at each scrape, from the server's thread. The observers may be called from any
    thread; they raise KeyError, TypeError or ValueError on an event that is not of their kind. Metrics of the
    evaluations are shown from `evaluations_loaded` to `reset_evaluations`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = CollectorRegistry()
        self.partitions: Callable[[], Iterable[PartitionView]] = tuple
        self.evaluation_seconds = _histogram("clv_evaluation_seconds", _FAST_BUCKETS_S, self.registry)
        self.window_close_seconds = _histogram("clv_window_close_seconds", _FAST_BUCKETS_S, self.registry)
        self._lock = threading.Lock()
        self._holes, self._reloads = RunningTotal(), RunningTotal()
        self._evaluations = EvaluationView(settings.acting_detector)
        self._loaded = False
        self._comparisons = ComparisonView()
        ProcessCollector(registry=self.registry)
        PlainCollector(self._collect).register(self.registry)

    # -- observers ------------------------------------------------------------

    def reset_evaluations(self) -> None:
        """Forget the logs and show nothing of them: before they are read, and when ownership is lost."""
        with self._lock:
            self._loaded = False
            self._evaluations = EvaluationView(self.settings.acting_detector)

    def evaluations_loaded(self) -> None:
        """Show the logs from now on: evaluations, events and decisions were read to their ends."""
        with self._lock:
            self._loaded = True

    def observe_evaluation(self, event: dict[str, Any]) -> None:
        """Take a message of the log of evaluations."""
        with self._lock:
            self._evaluations.observe_evaluation(event)

    def observe_drift_event(self, event: dict[str, Any]) -> None:
        """Take a message of the log of drift events."""
        with self._lock:
            self._evaluations.observe_drift_event(event)

    def observe_decision(self, event: dict[str, Any]) -> None:
        """Take a message of the log of models."""
        with self._lock:
            self._evaluations.observe_decision(event)

    def observe_evaluation_seconds(self, seconds: float) -> None:
        """Note how long an evaluation took."""
        self.evaluation_seconds.observe(seconds)

    def observe_window_close_seconds(self, seconds: float) -> None:
        """Note how long a batch took that closed windows."""
        self.window_close_seconds.observe(seconds)

    def observe_refused_snapshot(self) -> None:
        """Note a message of the log of snapshots that could not be used."""
        with self._lock:
            self._evaluations.refused_snapshots += 1

    def observe_refused_decision(self) -> None:
        """Note a message of the log of decisions that could not be used."""
        with self._lock:
            self._evaluations.refused_decisions += 1

    def observe_waiting_for(self, partitions: Iterable[int]) -> None:
        """Note which input partitions hold the next window back."""
        with self._lock:
            self._evaluations.waiting_for = frozenset(partitions)

    def reset_comparisons(self) -> None:
        """Forget the log of comparisons: before it is read, and when ownership is lost."""
        with self._lock:
            self._comparisons = ComparisonView()

    def observe_comparison(self, event: dict[str, Any]) -> None:
        """Take a message of the log of comparisons."""
        with self._lock:
            self._comparisons.observe(event)

    def observe_comparisons_behind(self, windows: int) -> None:
        """Note how many evaluated windows wait for Evidently."""
        with self._lock:
            self._comparisons.behind = windows

    # -- collection -----------------------------------------------------------

    def _collect(self) -> Iterator[Metric]:
        families = _Families("worker")
        views = sorted(self.partitions(), key=lambda view: view.partition)
        for view in views:
            _add_partition(families, view)
        families.add("clv_watermark_delay_seconds", watermark_delay_s(views))
        families.add("clv_window_hop_seconds", self.settings.hop_s)
        with self._lock:
            holes = self._holes.after({view.partition: view.holes for view in views})
            reloads = self._reloads.after({view.partition: view.reloads for view in views})
            families.add("clv_stream_holes_total", holes)
            families.add("clv_partition_reloads_total", reloads)
            if self._loaded:
                _add_evaluations(families, self._evaluations, self.settings)
            _add_comparisons(families, self._comparisons)
        return families.all()


class RetrainMetrics:
    """Metrics of the retrain consumer; the observers are as those of `WorkerMetrics`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.training_seconds = _histogram("clv_training_seconds", _SLOW_BUCKETS_S, self.registry)
        self._lock = threading.Lock()
        self._trainings: Counter[str] = Counter()
        self._requests = RequestView()
        ProcessCollector(registry=self.registry)
        PlainCollector(self._collect).register(self.registry)

    def observe_training(self, outcome: str, seconds: float) -> None:
        """Count a training of this process: `promoted`, `kept` or `failed`, and how long it took.

        A training is work, not part of a log: one that a crash repeats took place twice.
        """
        with self._lock:
            self._trainings[outcome] += 1
        self.training_seconds.observe(seconds)

    def observe_request(self, event: dict[str, Any]) -> None:
        """Take a message of the log of drift events; one that asks for a model is a request."""
        with self._lock:
            self._requests.observe_request(event)

    def observe_decision(self, event: dict[str, Any]) -> None:
        """Take a message of the log of models."""
        with self._lock:
            self._requests.observe_decision(event)

    def _collect(self) -> Iterator[Metric]:
        families = _Families("retrain")
        with self._lock:
            pending, last, gate = self._requests.pending, self._requests.last, self._requests.gate
            trainings = sorted(self._trainings.items())
        for outcome, count in trainings:
            families.add("clv_trainings_total", count, outcome)
        families.add("clv_requests_pending", pending)
        if last is not None:
            families.add("clv_last_decision_info", 1, last.outcome.value, last.version or "")
            families.add("clv_last_decision_timestamp_seconds", last.window_end)
        if gate is not None:
            families.add("clv_gate_probability_better", gate.probability_better)
            families.add("clv_gate_probability_required", gate.probability_required)
            for model, figures in gate.measures.items():
                for metric, value in figures.items():
                    families.add("clv_gate_performance", value, model, metric)
        return families.all()


class _Families:
    """The metric families of a process, built from the table; samples of unknown names raise KeyError."""

    def __init__(self, process: Process) -> None:
        self._families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for spec in METRICS:
            if spec.process == process and spec.type != "histogram":
                family = CounterMetricFamily if spec.type == "counter" else GaugeMetricFamily
                self._families[spec.name] = family(spec.name, spec.help, labels=spec.labels)

    def add(self, name: str, value: float | None, *labels: object) -> None:
        """Add a sample; None, what is not known, gives none."""
        if value is not None:
            assert len(labels) == len(SPECS[name].labels)
            self._families[name].add_metric([str(label) for label in labels], value)

    def all(self) -> Iterator[Metric]:
        return iter(self._families.values())


class PlainCollector:
    """A function as a collector; samples named `_created` are left out.

    They would be metrics of their own in the text format, in a table that lists all metrics.
    """

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def register(self, registry: CollectorRegistry) -> None:
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        for metric in self._collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _histogram(name: str, buckets: tuple[float, ...], registry: CollectorRegistry) -> Histogram:
    histogram = Histogram(name, SPECS[name].help, SPECS[name].labels, buckets=buckets, registry=None)
    PlainCollector(histogram.collect).register(registry)
    return histogram


def _add_partition(families: _Families, view: PartitionView) -> None:
    partition = view.partition
    families.add("clv_lines_read_total", view.stored.read, partition)
    for fate in FATES:
        stored = getattr(view.stored, fate)
        families.add("clv_lines_total", stored, partition, fate)
        families.add("clv_lines_open", getattr(view.counters, fate) - stored, partition, fate)
    families.add("clv_read_offset", view.read_offset, partition)
    families.add("clv_watermark_seconds", view.watermark, partition)
    families.add("clv_lag_records", view.lag, partition)
    families.add("clv_state_lines", view.lines, partition)
    families.add("clv_state_customers", view.customers, partition)
    families.add("clv_state_stored_bytes", view.stored_bytes, partition)
    for signal, count in view.warnings.found.items():
        families.add("clv_early_warnings_total", count, partition, signal)
    if view.warnings.last_day is not None:
        families.add("clv_early_warning_timestamp_seconds", (view.warnings.last_day + 1) * DAY_S, partition)


def _add_evaluations(families: _Families, view: EvaluationView, settings: Settings) -> None:
    for drift_type, count in view.detected.items():
        families.add("clv_drift_detected_total", count, drift_type)
    for drift_type, (_, event_id) in sorted(view.last_events.items()):
        families.add("clv_last_drift_event_info", 1, drift_type, event_id)
    families.add("clv_drift_detection_timestamp", view.last_detection)
    families.add("clv_evaluations_total", len(view.windows))
    for outcome, count in sorted(view.decisions.items()):
        families.add("clv_decisions_total", count, outcome)
    families.add("clv_snapshots_refused_total", view.refused_snapshots)
    families.add("clv_decisions_refused_total", view.refused_decisions)
    for partition in range(settings.partitions):
        families.add("clv_window_waiting", partition in view.waiting_for, partition)
    if view.last_action is not None:
        end, action = view.last_action
        families.add("clv_last_action_info", 1, action)
        families.add("clv_last_action_timestamp_seconds", end)
    if view.latest is not None:
        _add_window(families, view.latest, settings)


def _add_window(families: _Families, window: LatestWindow, settings: Settings) -> None:
    families.add("clv_window_end_timestamp_seconds", window.window_end)
    families.add("clv_window_partial", window.partial)
    families.add("clv_window_lines", window.lines)
    families.add("clv_window_customers", window.customers)
    families.add("clv_split_customers", window.split_customers)
    families.add("clv_model_refused", window.model_refused)
    for state in sorted({*STATES, window.state}):
        families.add("clv_drift_state", state == window.state, state)
    for drift_type, confirmed in window.confirmed.items():
        families.add("clv_drift_confirmed", confirmed, drift_type)
    if window.reference_start is not None:
        growing = window.window_end - window.reference_start < settings.reference_least_s
        families.add("clv_reference_growing", growing)
        families.add("clv_verdict_missing", window.verdict_missing and not growing)
    for cause in window.causes:
        families.add("clv_drift_cause_rank", cause.rank, cause.feature, cause.scale_weeks, cause.scope)
        labels = (cause.feature, cause.scale_weeks, cause.scope, cause.unit)
        families.add("clv_drift_cause_effect", cause.effect, *labels)
    for name, found in window.detectors.items():
        for verdict in ("drift", "quiet", "cannot_tell"):
            families.add("clv_detector_verdict", verdict == found.state, name, verdict)
        families.add("clv_detector_statistic", found.statistic, name)
        families.add("clv_detector_threshold", found.threshold, name)
    for feature, score in window.scores.items():
        families.add("clv_drift_score", score, feature)
    for (feature, weeks), strength in window.strengths.items():
        families.add("clv_drift_strength", strength, feature, weeks)
    if window.drifted_columns is not None:
        families.add("clv_drifted_columns_count", window.drifted_columns)
        families.add("clv_drift_share", window.drifted_columns / window.columns)
    _add_performance(families, window, str(settings.monitor_horizon_days))


def _add_performance(families: _Families, window: LatestWindow, monitored: str) -> None:
    if window.version is not None:
        families.add("clv_model_info", 1, window.version)
    for horizon, errors in window.estimated.items():
        for metric, value in errors.items():
            families.add("clv_model_error_estimated", value, metric, horizon)
    for horizon, figures in window.matured.items():
        for metric, value in figures.items():
            families.add("clv_model_performance_matured", value, metric, horizon)
    for metric, value in window.matured.get(monitored, {}).items():
        families.add("clv_model_performance", value, metric)
    families.add("clv_r2_score", window.matured.get(monitored, {}).get("r2"), "current")
    families.add("clv_r2_score", window.r2_reference, "reference")


def _add_comparisons(families: _Families, view: ComparisonView) -> None:
    families.add("clv_comparisons_behind", view.behind)
    found = list(view.status.values())
    for status in sorted(set(found)):
        families.add("clv_comparison_windows", found.count(status), status)
    if view.latest is not None:
        families.add("clv_comparison_drift", view.latest["drift"])
        families.add("clv_comparison_drift_share", view.latest["share"])
        families.add("clv_comparison_drifted_columns", view.latest["drifted_columns"])
        families.add("clv_comparison_window_end_timestamp_seconds", view.latest["window_end"])
