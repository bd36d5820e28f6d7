"""The registry mirrored into MLflow: a run and a registered version for each model, the champion by an alias.

The registry stays the truth: nothing is ever read back from MLflow. What stands there already is left as it
is, so a mirror that was cut short is finished by the next one.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from models.card import Card, card_json
from models.registry import MODEL, Registry
from streams.errors import ExitCode, UserError
from streams.settings import Settings

VERSION_TAG = "clv_drift.version"  # of a run and of a registered version: ours, by content
CHAMPION = "champion"
PARAMETER_CHARS_MAX = 6_000  # MLflow's own bound
_THEIRS = ("mlflow", "requests", "urllib3", "boto", "google", "azure")
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


@dataclass
class Mirrored:
    """What was written; versions of ours."""

    runs: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    champion: str | None = None  # where the alias was set anew


def mirror(settings: Settings, served: str | None) -> Mirrored:
    """Write what MLflow lacks of the registry, and which version serves (None: leave the alias).

    Raises UserError: USAGE without `mlflow_tracking_uri` or the package, BROKER where the server fails.
    """
    if not settings.mlflow_tracking_uri:
        raise UserError(
            "mlflow_tracking_uri is not set", hint="name the tracking server's URL", code=ExitCode.USAGE
        )
    with _errors(settings):
        client = _client(settings)
        return _Mirror(client, settings).run(served)


class _Mirror:
    def __init__(self, client: Any, settings: Settings) -> None:
        self.client = client
        self.registry = Registry(settings.registry_dir)
        self.name = settings.mlflow_model
        self.experiment_id = self._experiment(settings.mlflow_experiment)
        self.done = Mirrored()

    def run(self, served: str | None) -> Mirrored:
        runs = self._runs()
        self._registered_model()
        versions = {found.tags.get(VERSION_TAG): found for found in self._versions()}
        for card in self.registry.cards():
            run_id = runs.get(card.version) or self._log_run(card)
            if card.version not in versions:
                versions[card.version] = self.client.create_model_version(
                    self.name,
                    source=f"{self.client.get_run(run_id).info.artifact_uri}/model",
                    run_id=run_id,
                    tags={VERSION_TAG: card.version},
                )
                self.done.versions.append(card.version)
        if served in versions:
            self._serve(served, versions[served].version)
        return self.done

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name))

    def _runs(self) -> dict[str, str]:
        """Return the id of each version's run; one that was cut short does not count."""
        found: dict[str, str] = {}
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], page_token=token)
            for run in page:
                if run.info.status == "FINISHED" and VERSION_TAG in run.data.tags:
                    found[run.data.tags[VERSION_TAG]] = run.info.run_id
            if not (token := page.token):
                return found

    def _registered_model(self) -> None:
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            self.client.create_registered_model(self.name)

    def _versions(self) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_model_versions(f"name = '{self.name}'", page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _log_run(self, card: Card) -> str:
        """Write a run of everything that a card says; it is finished last."""
        run_id: str = self.client.create_run(
            self.experiment_id, run_name=card.version, tags={VERSION_TAG: card.version, **tags_of(card)}
        ).info.run_id
        try:
            self._fill(run_id, card)
        except BaseException:
            self.client.set_terminated(run_id, "FAILED")
            raise
        self.client.set_terminated(run_id)
        self.done.runs.append(card.version)
        return run_id

    def _fill(self, run_id: str, card: Card) -> None:
        for name, value in parameters_of(card).items():
            self.client.log_param(run_id, name, value[:PARAMETER_CHARS_MAX])
        for name, figure in metrics_of(card).items():
            self.client.log_metric(run_id, name, figure)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "card.json"
            path.write_bytes(card_json(card))
            for file in (path, self.registry.directory / card.version / MODEL):
                self.client.log_artifact(run_id, str(file), "model")

    def _serve(self, version: str | None, number: str) -> None:
        aliases = self.client.get_registered_model(self.name).aliases
        if str(aliases.get(CHAMPION)) != str(number):
            self.client.set_registered_model_alias(self.name, CHAMPION, number)
            self.done.champion = version


def tags_of(card: Card) -> dict[str, str]:
    """Return what a run is found by: where the model comes from and what the gate said."""
    gate = card.gate or {}
    found = {
        "parent": card.parent,
        "recalibrates": card.recalibrates,
        "requested_at": card.requested_at,
        "onset": card.onset,
        "gate_reason": gate.get("reason"),
        "gate_promoted": None if card.gate is None else str(gate["promoted"]).lower(),
    }
    return {f"clv_drift.{name}": value for name, value in found.items() if value is not None}


def parameters_of(card: Card) -> dict[str, str]:
    """Return what the fit was made with."""
    found = {
        "estimator": card.estimator,
        "seed": card.seed,
        "level": card.level,
        "horizon_days": card.horizon_days,
        "features_version": card.features_version,
        "features": ", ".join(card.features),
        **{f"training_{name}": value for name, value in msgspec.to_builtins(card.training).items()},
        **{f"library_{name}": version for name, version in card.libraries.items()},
        **{f"regressor_{name}": value for name, value in card.parameters.items()},
    }
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in found.items()
    }


def metrics_of(card: Card) -> dict[str, float]:
    """Return the figures: on the hold-out, and those that the gate decided by."""
    gate = card.gate or {}
    found = {f"holdout_{name}": value for name, value in card.metrics.items()}
    for who in ("champion", "challenger"):
        found |= {f"gate_{who}_{name}": value for name, value in gate.get(who, {}).items()}
    for name in ("probability_better", "nmae_change", "nmae_change_low", "nmae_change_high"):
        found[f"gate_{name}"] = gate.get(name)
    return {name: float(value) for name, value in found.items() if value is not None}


def _client(settings: Settings) -> Any:
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient  # noqa: PLC0415  (an extra, and seconds)
    except ImportError as exc:
        raise UserError(
            f"MLflow's client is not installed: {exc}",
            hint="install the extra: pip install 'clv-drift[mlflow]'",
            code=ExitCode.USAGE,
        ) from exc
    return MlflowClient(tracking_uri=settings.mlflow_tracking_uri, registry_uri=settings.mlflow_tracking_uri)


@contextmanager
def _errors(settings: Settings) -> Iterator[None]:
    """Turn what MLflow's client raises into a UserError that names the server."""
    try:
        yield
    except UserError:
        raise
    except Exception as exc:
        # What a store of artefacts raises is of its own kind, or says that its client is not installed.
        if not isinstance(exc, OSError | ImportError) and not type(exc).__module__.startswith(_THEIRS):
            raise
        raise UserError(
            f"the MLflow server at {_host(settings)} or its store of artefacts failed: {type(exc).__name__}",
            hint="the registry is complete without it; `clv-drift model mirror` finishes once it answers",
            code=ExitCode.BROKER,
        ) from exc


def _host(settings: Settings) -> str:
    """Return the server's name without what may be a password in its URL."""
    parts = urlsplit(settings.mlflow_tracking_uri)
    return parts.hostname or settings.mlflow_tracking_uri.rpartition("@")[2]
