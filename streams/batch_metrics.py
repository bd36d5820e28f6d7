"""What the batch jobs measured, for Prometheus: pushed to a gateway, or left in a file for an exporter.

A batch job is gone before anybody scrapes it. Its metrics have names of their own, `clv_batch_...`, so that
no rule adds them to those of a stream.
"""

from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import push_to_gateway, write_to_textfile

from models.card import Card
from streams.batch_models import Detection
from streams.errors import ExitCode, UserError
from streams.grid import from_iso
from streams.metrics_table import METRICS
from streams.settings import Settings

PUSH_TIMEOUT_S = 10.0
SUFFIX = ".prom"  # what node-exporter's textfile collector reads

Samples = Mapping[str, Mapping[tuple[str, ...], float]]  # by name, then by the values of the labels


def training_samples(card: Card) -> Samples:
    """Return what a training gave: the measures on the hold-out, rows, and as of when."""
    samples: dict[str, dict[tuple[str, ...], float]] = {
        "clv_batch_model_performance": {
            (name,): value for name, value in card.metrics.items() if value is not None
        },
        "clv_batch_model_info": {(card.version, card.estimator): 1.0},
        "clv_batch_training_rows": {(): float(card.training.rows)},
    }
    if card.requested_at is not None:
        samples["clv_batch_trained_until_timestamp_seconds"] = {(): float(from_iso(card.requested_at))}
    return samples


def detection_samples(detection: Detection) -> Samples:
    """Return what a comparison gave: each detector's answer, and what the acting one saw of each feature."""
    acting = detection.verdicts[detection.acting_detector]
    samples: dict[str, dict[tuple[str, ...], float]] = {
        # Neither 0 nor 1 where a detector cannot tell.
        "clv_batch_drift": {
            (name,): float(verdict.drift)
            for name, verdict in detection.verdicts.items()
            if verdict.drift is not None
        },
        "clv_batch_drift_score": {(name,): float(score) for name, score in acting.scores.items()},
        "clv_batch_window_end_timestamp_seconds": {(): float(detection.window.window_end)},
        "clv_batch_customers": {(): float(detection.window.totals["customers"])},
    }
    if acting.columns:
        samples["clv_batch_drifted_columns_count"] = {(): float(acting.drifted_columns)}
    return samples


def publish(job: str, samples: Samples, settings: Settings) -> list[str]:
    """Send `samples` to where the settings say; return in words where they went, nothing where to nobody.

    Raises UserError: FAILURE where the gateway does not take them, STORAGE where the file cannot be written.
    """
    registry = _registry(samples)
    told = []
    if settings.textfile_dir is not None:
        told.append(str(_write(settings.textfile_dir / f"clv_drift_{job}{SUFFIX}", registry)))
    if settings.pushgateway_url:
        try:
            push_to_gateway(settings.pushgateway_url, f"clv_drift_{job}", registry, timeout=PUSH_TIMEOUT_S)
        except (OSError, ValueError) as exc:
            raise UserError(
                f"the Pushgateway at {settings.pushgateway_url} did not take the metrics: {exc}",
                hint="the job itself is done; correct pushgateway_url, or leave it empty",
            ) from exc
        told.append(settings.pushgateway_url)
    return told


def _registry(samples: Samples) -> CollectorRegistry:
    registry = CollectorRegistry()
    specs = {spec.name: spec for spec in METRICS if spec.process == "batch"}
    for name, values in samples.items():
        gauge = Gauge(name, specs[name].help, specs[name].labels, registry=registry)
        for labels, value in values.items():
            (gauge.labels(*labels) if labels else gauge).set(value)
    return registry


def _write(path: Path, registry: CollectorRegistry) -> Path:
    """Write the file beside itself first: an exporter never reads half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), registry)
    except OSError as exc:
        raise UserError(
            f"the metrics cannot be written to {path}: {exc.strerror or exc}",
            hint="the job itself is done; correct textfile_dir, or leave it out",
            code=ExitCode.STORAGE,
        ) from exc
    return path
