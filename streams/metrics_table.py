"""The table of metrics: every name that a process exposes, what it means, in which unit."""

from typing import Literal, NamedTuple

MetricType = Literal["counter", "gauge", "histogram"]
Process = Literal["every", "worker", "retrain", "batch", "scores", "webhooks"]

FATES = ("on_time", "late", "duplicate", "control", "dead")
STATES = ("warming", "reference", "quiet", "suspected", "confirmed", "resolved")
DRIFT_TYPES = ("data", "model")


class MetricSpec(NamedTuple):
    """One metric. `unit` is of a sample's value; `process` says which of ours exposes it.

    `every` stands for each process that goes on for good: all but `batch`.
    """

    name: str
    type: MetricType
    unit: str
    labels: tuple[str, ...]
    help: str
    process: Process = "worker"


_EVALUATION = (
    MetricSpec(
        "clv_drift_detected_total",
        "counter",
        "events",
        ("drift_type",),
        "Drifts confirmed, by type (data, model), as the log of drift events has them.",
    ),
    MetricSpec(
        "clv_last_drift_event_info",
        "gauge",
        "always 1",
        ("drift_type", "event_id"),
        "The newest event that confirmed a drift of each type, by the id of its message.",
    ),
    MetricSpec(
        "clv_drift_score",
        "gauge",
        "distance 0 to 1",
        ("feature",),
        "Distance of a feature from its reference in the last window, by the acting detector.",
    ),
    MetricSpec(
        "clv_model_performance",
        "gauge",
        "as the metric",
        ("metric",),
        "The served model over the monitored horizon on the newest matured labels.",
    ),
    MetricSpec(
        "clv_model_performance_matured",
        "gauge",
        "as the metric",
        ("metric", "horizon"),
        "The served model on the newest matured labels, by horizon in days.",
    ),
    MetricSpec(
        "clv_model_error_estimated",
        "gauge",
        "as the metric",
        ("metric", "horizon"),
        "Error to expect of the served model in the last window, its labels unknown, by horizon in days.",
    ),
    MetricSpec(
        "clv_drifted_columns_count",
        "gauge",
        "columns",
        (),
        "Columns that differ from the reference in the last window, by the acting detector.",
    ),
    MetricSpec(
        "clv_drift_share",
        "gauge",
        "share 0 to 1",
        (),
        "Share of the compared columns that differ from the reference in the last window.",
    ),
    MetricSpec(
        "clv_r2_score",
        "gauge",
        "R2, at most 1",
        ("data_type",),
        "R2 of the served model over the monitored horizon: its first matured one (reference), the newest.",
    ),
    MetricSpec(
        "clv_drift_detection_timestamp",
        "gauge",
        "seconds since 1970",
        (),
        "End of the last window in which a drift was confirmed, in event time.",
    ),
    MetricSpec(
        "clv_drift_state",
        "gauge",
        "0 or 1",
        ("state",),
        "1 for the state of the stream after the last window, 0 for the others.",
    ),
    MetricSpec(
        "clv_drift_confirmed",
        "gauge",
        "0 or 1",
        ("drift_type",),
        "1 while a drift of the type is confirmed, after the last window.",
    ),
    MetricSpec(
        "clv_drift_strength",
        "gauge",
        "ratio, the threshold is 1",
        ("feature", "scale_weeks"),
        "Strongest sign of drift in a feature over a window length, as a share of what the acting detector"
        " takes for drift.",
    ),
    MetricSpec(
        "clv_drift_cause_rank",
        "gauge",
        "rank, 1 leads",
        ("feature", "scale_weeks", "scope"),
        "Rank among the causes of drift in the last window, by the acting detector; none where all is quiet.",
    ),
    MetricSpec(
        "clv_drift_cause_effect",
        "gauge",
        "as the label unit",
        ("feature", "scale_weeks", "scope", "unit"),
        "By how much a cause of drift in the last window differs from the reference.",
    ),
    MetricSpec(
        "clv_verdict_missing",
        "gauge",
        "0 or 1",
        (),
        "1 where the acting detector could not judge the last window although it is whole and there is a"
        " reference of sufficient length.",
    ),
    MetricSpec(
        "clv_reference_growing",
        "gauge",
        "0 or 1",
        (),
        "1 while the reference, begun anew by a promotion, is too short to calibrate on.",
    ),
    MetricSpec(
        "clv_window_hop_seconds",
        "gauge",
        "seconds of event time",
        (),
        "Distance of two window ends (`window_hop_days`).",
    ),
    MetricSpec(
        "clv_detector_verdict",
        "gauge",
        "0 or 1",
        ("detector", "verdict"),
        "1 for what a detector said of the last window: drift, quiet or cannot_tell; 0 for the others.",
    ),
    MetricSpec(
        "clv_detector_statistic",
        "gauge",
        "as the threshold's",
        ("detector",),
        "What a detector compares with its threshold, in the last window.",
    ),
    MetricSpec(
        "clv_detector_threshold",
        "gauge",
        "as the statistic's",
        ("detector",),
        "The statistic from which on a detector says drift (r2_drop, performance, calibrated) or up to which"
        " (baseline: a p-value).",
    ),
    MetricSpec(
        "clv_window_end_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        (),
        "End of the last window evaluated, in event time.",
    ),
    MetricSpec(
        "clv_window_partial",
        "gauge",
        "0 or 1",
        (),
        "Whether the input ended within the last window evaluated.",
    ),
    MetricSpec(
        "clv_window_lines",
        "gauge",
        "lines",
        (),
        "Accepted lines in the last window evaluated, its full length.",
    ),
    MetricSpec(
        "clv_window_customers", "gauge", "customers", (), "Customers who bought in the last window evaluated."
    ),
    MetricSpec(
        "clv_split_customers",
        "gauge",
        "customers",
        (),
        "Customers found in two partitions in the last window: above zero it cannot be judged.",
    ),
    MetricSpec("clv_evaluations_total", "counter", "windows", (), "Windows in the log of evaluations."),
    MetricSpec(
        "clv_model_info", "gauge", "1", ("version",), "The version of the model that serves, as a label."
    ),
    MetricSpec(
        "clv_model_refused", "gauge", "0 or 1", (), "Whether a model could not be loaded in the last window."
    ),
    MetricSpec(
        "clv_decisions_total",
        "counter",
        "decisions",
        ("outcome",),
        "Decisions about models that count, by outcome, as the log of models has them.",
    ),
    MetricSpec(
        "clv_last_action_info",
        "gauge",
        "1",
        ("action",),
        "What the last window that asked for something asked for, as a label.",
    ),
    MetricSpec(
        "clv_last_action_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        (),
        "End of the last window that asked for something, in event time.",
    ),
    MetricSpec(
        "clv_snapshots_refused_total",
        "counter",
        "messages",
        (),
        "Messages in the log of snapshots that could not be used.",
    ),
    MetricSpec(
        "clv_decisions_refused_total",
        "counter",
        "messages",
        (),
        "Messages in the log of decisions that could not be used.",
    ),
    MetricSpec(
        "clv_window_waiting",
        "gauge",
        "0 or 1",
        ("partition",),
        "1 for an input partition that holds the next window back, 0 for the others.",
    ),
    MetricSpec(
        "clv_evaluation_seconds", "histogram", "seconds", (), "Time an evaluation took, without publishing."
    ),
)

_COMPARISON = (
    MetricSpec("clv_comparisons_behind", "gauge", "windows", (), "Windows that wait for Evidently."),
    MetricSpec(
        "clv_comparison_windows",
        "gauge",
        "windows",
        ("status",),
        "Windows in the log of comparisons, by what became of them.",
    ),
    MetricSpec(
        "clv_comparison_drift",
        "gauge",
        "0 or 1",
        (),
        "Whether Evidently calls the last window it compared drifted.",
    ),
    MetricSpec(
        "clv_comparison_drift_share",
        "gauge",
        "share 0 to 1",
        (),
        "Share of columns that Evidently calls drifted in the last window it compared.",
    ),
    MetricSpec(
        "clv_comparison_drifted_columns",
        "gauge",
        "columns",
        (),
        "Columns that Evidently calls drifted in the last window it compared.",
    ),
    MetricSpec(
        "clv_comparison_window_end_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        (),
        "End of the last window that Evidently compared, in event time.",
    ),
)

_PARTITION = (
    MetricSpec(
        "clv_early_warnings_total",
        "counter",
        "findings",
        ("partition", "signal"),
        "Changes found in a partition's order stream before its week was over, by signal, as the newest"
        " stored checkpoint has it. They change no verdict.",
    ),
    MetricSpec(
        "clv_early_warning_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        ("partition",),
        "End of the last day that gave an early warning, in event time.",
    ),
    MetricSpec(
        "clv_lines_total",
        "counter",
        "records",
        ("partition", "fate"),
        "Records by what became of them, as the newest stored checkpoint has it.",
    ),
    MetricSpec(
        "clv_lines_read_total",
        "counter",
        "records",
        ("partition",),
        "Records read, as the newest stored checkpoint has it: the sum of clv_lines_total.",
    ),
    MetricSpec(
        "clv_lines_open",
        "gauge",
        "records",
        ("partition", "fate"),
        "Records read since the newest stored checkpoint; a restart reads them again.",
    ),
    MetricSpec(
        "clv_read_offset",
        "gauge",
        "offset",
        ("partition",),
        "Offset of the last record applied; falls at restarts.",
    ),
    MetricSpec(
        "clv_watermark_seconds",
        "gauge",
        "seconds since 1970",
        ("partition",),
        "Event time up to which a partition is held to be complete.",
    ),
    MetricSpec(
        "clv_watermark_delay_seconds",
        "gauge",
        "seconds",
        (),
        "Event time by which this worker's slowest partition trails its fastest.",
    ),
    MetricSpec(
        "clv_lag_records",
        "gauge",
        "records",
        ("partition",),
        "Records in the partition that are not yet applied.",
    ),
    MetricSpec("clv_state_lines", "gauge", "lines", ("partition",), "Lines that a partition's state holds."),
    MetricSpec(
        "clv_state_customers",
        "gauge",
        "customers",
        ("partition",),
        "Customers that a partition's state knows.",
    ),
    MetricSpec(
        "clv_state_stored_bytes",
        "gauge",
        "bytes",
        ("partition",),
        "Keys and values of a partition's newest checkpoint: what a worker reads to take it over.",
    ),
    MetricSpec(
        "clv_stream_holes_total",
        "counter",
        "holes",
        (),
        "Records lost between Kafka and the state, noticed and read again; must stay zero.",
    ),
    MetricSpec(
        "clv_partition_reloads_total",
        "counter",
        "reloads",
        (),
        "Times a state was thrown away after a failure.",
    ),
    MetricSpec(
        "clv_window_close_seconds", "histogram", "seconds", (), "Time to apply a batch that closed windows."
    ),
)

_RETRAIN = (
    MetricSpec(
        "clv_trainings_total", "counter", "trainings", ("outcome",), "Trainings ended, by outcome.", "retrain"
    ),
    MetricSpec(
        "clv_training_seconds", "histogram", "seconds", (), "Time from a request to its answer.", "retrain"
    ),
    MetricSpec(
        "clv_requests_pending",
        "gauge",
        "requests",
        (),
        "Requests for a model in the log on which no decision stands.",
        "retrain",
    ),
    MetricSpec(
        "clv_last_decision_info",
        "gauge",
        "1",
        ("outcome", "version"),
        "The last decision in the log of models, as labels.",
        "retrain",
    ),
    MetricSpec(
        "clv_last_decision_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        (),
        "End of the window that the last decision belongs to, in event time.",
        "retrain",
    ),
    MetricSpec(
        "clv_gate_performance",
        "gauge",
        "as the metric",
        ("model", "metric"),
        "Champion and challenger on the hold-out customers, as the gate last saw them.",
        "retrain",
    ),
    MetricSpec(
        "clv_gate_probability_better",
        "gauge",
        "probability 0 to 1",
        (),
        "Probability that the challenger errs less than the champion, as the gate last saw it.",
        "retrain",
    ),
    MetricSpec(
        "clv_gate_probability_required",
        "gauge",
        "probability 0 to 1",
        (),
        "Probability above which the gate promotes.",
        "retrain",
    ),
)

_BATCH = (
    MetricSpec(
        "clv_batch_model_performance",
        "gauge",
        "as the metric",
        ("metric",),
        "The model that `train` stored, on its hold-out customers.",
        "batch",
    ),
    MetricSpec(
        "clv_batch_model_info",
        "gauge",
        "1",
        ("version", "estimator"),
        "The model that `train` stored.",
        "batch",
    ),
    MetricSpec("clv_batch_training_rows", "gauge", "rows", (), "Rows that `train` trained on.", "batch"),
    MetricSpec(
        "clv_batch_trained_until_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        (),
        "End of the window as of which `train` trained, in event time.",
        "batch",
    ),
    MetricSpec(
        "clv_batch_drift",
        "gauge",
        "0 or 1",
        ("detector",),
        "Whether `detect` saw drift, by detector; missing where it cannot tell.",
        "batch",
    ),
    MetricSpec(
        "clv_batch_drift_score",
        "gauge",
        "distance 0 to 1",
        ("feature",),
        "Distance of a feature from the reference in the window of `detect`, by the acting detector.",
        "batch",
    ),
    MetricSpec(
        "clv_batch_drifted_columns_count",
        "gauge",
        "columns",
        (),
        "Columns that drifted in the window of `detect`, by the acting detector.",
        "batch",
    ),
    MetricSpec(
        "clv_batch_window_end_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        (),
        "End of the window that `detect` compared, in event time.",
        "batch",
    ),
    MetricSpec(
        "clv_batch_customers",
        "gauge",
        "customers",
        (),
        "Customers of the window that `detect` compared.",
        "batch",
    ),
)

_SCORES = (
    MetricSpec(
        "clv_scores_published_total",
        "counter",
        "messages",
        ("kind",),
        "Messages that this process sent to the topic of scores: `score`, or `tombstone` of one who left.",
        "scores",
    ),
    MetricSpec(
        "clv_scored_customers",
        "gauge",
        "customers",
        ("partition",),
        "Customers who stand scored in a partition of this process.",
        "scores",
    ),
    MetricSpec(
        "clv_scores_window_end_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        ("partition",),
        "End of the window of which a partition stands scored, in event time.",
        "scores",
    ),
    MetricSpec(
        "clv_scores_refused_total",
        "counter",
        "messages",
        (),
        "Messages that could not be read, and windows whose model could not be loaded.",
        "scores",
    ),
)

_WEBHOOKS = (
    MetricSpec(
        "clv_webhook_tries_total",
        "counter",
        "requests",
        ("endpoint", "outcome"),
        "Requests to an endpoint by what became of them: `delivered`, to be tried `again`, `dead`.",
        "webhooks",
    ),
    MetricSpec(
        "clv_webhook_request_seconds",
        "histogram",
        "seconds",
        ("endpoint",),
        "Time that a request to an endpoint took, failed ones included.",
        "webhooks",
    ),
    MetricSpec(
        "clv_webhook_pending",
        "gauge",
        "deliveries",
        ("endpoint",),
        "Deliveries that wait for their turn, or to be tried again.",
        "webhooks",
    ),
    MetricSpec(
        "clv_webhook_dead",
        "gauge",
        "deliveries",
        ("endpoint",),
        "Deliveries that were given up and are kept; `clv-drift webhooks redeliver` sends them again.",
        "webhooks",
    ),
    MetricSpec(
        "clv_webhook_oldest_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        ("endpoint",),
        "When the oldest delivery that waits was read from the log; missing where none waits.",
        "webhooks",
    ),
    MetricSpec(
        "clv_webhook_refused_total",
        "counter",
        "messages",
        (),
        "Messages of the logs that could not be read, and are delivered to nobody.",
        "webhooks",
    ),
)

_EVERY = (
    MetricSpec(
        "clv_ready",
        "gauge",
        "0 or 1",
        (),
        "1 where the process is ready, as `/readyz` tells it with its reasons.",
        "every",
    ),
)

METRICS: tuple[MetricSpec, ...] = (
    *_EVERY,
    *_PARTITION,
    *_EVALUATION,
    *_COMPARISON,
    *_RETRAIN,
    *_BATCH,
    *_SCORES,
    *_WEBHOOKS,
)
