"""The one settings object: every name, its unit and its reason; only this file reads the environment."""

import os
from functools import cached_property
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from streams.errors import ExitCode, UserError
from streams.expected import ExpectedEvent
from streams.kafka_access import KafkaAccess
from streams.mapping import Mapping, load_mapping
from streams.privacy import Privacy
from streams.webhooks.endpoints import Endpoint, Name

ENV_PREFIX = "CLV_DRIFT_"
DEFAULT_FILE = Path("config/clv-drift.toml")

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(KafkaAccess, Privacy, BaseSettings):
    """Settings of every process, frozen and validated at start.

    Sources, strongest first: arguments, environment (`CLV_DRIFT_<NAME>`), the TOML file, the defaults here.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    # -- Kafka
    topic_prefix: str = Field(
        "", description="Put before every topic and group, so that several instances share a cluster."
    )
    input_topic: str = Field("retail.transactions", description="Topic of the transactions.")
    mapping: Path | None = Field(
        None,
        description="File that says how another shop's export or topic is read, as"
        " `config/mapping.example.toml` does; records of a replay are mapped already and read as they are.",
    )
    partitions: Positive = Field(
        4, description="Partitions of the input topic; fixed for the life of the topic."
    )
    replication_factor: Positive = Field(1, description="Replicas of each topic.")
    broker_wait_s: float = Field(
        10.0, gt=0, description="How long a process waits for a broker before it gives up."
    )
    kafka_dir: Path = Field(Path("var/kafka"), description="Data and log of the embedded broker.")
    kafka_cache_dir: Path = Field(Path(".cache/kafka"), description="Kafka's jars and start-up cache.")

    # -- time and windows
    window_days: Positive = Field(
        91, description="Length of the long window, days: the features are described over it."
    )
    mid_window_days: Positive = Field(28, description="Length of the middle window, days.")
    short_window_days: Positive = Field(7, description="Length of the short window, days.")
    window_hop_days: Positive = Field(
        7, description="Distance of two window ends, days; ends fall on Monday 00:00 UTC."
    )
    lateness_hours: float = Field(
        24.0, ge=0, description="How far the watermark trails the largest event time, hours."
    )
    jump_max_days: Positive = Field(
        30, description="A line further ahead of its partition's time is a dead letter, days."
    )
    jump_confirm_lines: Positive = Field(3, description="Unless so many lines of other customers agree.")
    idle_after_s: float = Field(
        30.0, gt=0, description="An input partition silent for so long is idle, seconds."
    )
    write_watermarks: bool = Field(
        True, description="Whether a worker writes watermark records into idle partitions."
    )
    segment_lines_max: Positive = Field(
        50_000, description="Records, good or bad, after which a segment is closed before its day ends."
    )
    sample_customers_max: Positive = Field(
        20_000, description="Customers whose rows and lines a snapshot carries."
    )
    scores: bool = Field(
        True, description="Whether the rows of all customers of a closed window are published, to be scored."
    )
    scores_per_second_max: Positive = Field(
        5_000, description="Scores that one process publishes a second at most."
    )

    # -- drift
    reference_weeks: Positive = Field(
        26, description="Weeks from the start of the grid that form the first reference."
    )
    detectors: tuple[str, ...] = Field(
        ("calibrated", "baseline"),
        description="Detectors, ours or plug-ins, that publish a verdict on each window.",
    )
    acting_detector: str = Field("calibrated", description="The detector that the policy follows.")
    acting_model_detector: Literal["performance", "r2_drop"] = Field(
        "performance", description="The rule on the served model that the policy follows."
    )
    reference_weeks_min: Positive = Field(
        20, description="Weeks below which a reference tells too little of chance to be calibrated on."
    )
    false_alarm_rate: Share = Field(
        0.05,
        description="Probability that the calibrated detector raises any alarm in"
        " `false_alarm_horizon_weeks` without drift.",
    )
    false_alarm_horizon_weeks: Positive = Field(
        52, description="Weeks that `false_alarm_rate` is promised for, begun anew with each reference."
    )
    false_discovery_rate: Share = Field(
        0.05, description="Benjamini-Hochberg level of the baseline detector."
    )
    drift_share: float = Field(
        0.5, gt=0, le=1, description="Share of drifted columns that makes Evidently say drift."
    )
    comparison_timeout_s: float = Field(
        120.0, gt=0, description="Longest wait for Evidently's start and for a comparison, seconds."
    )
    expected_events: tuple[ExpectedEvent, ...] = Field(
        (),
        description="Peaks and sales known beforehand: tables of `name`, `start`, `end` (dates) and `aspects`"
        " (of prices, volume, behaviour; all unless given). Drift that they explain confirms nothing.",
    )
    r2_drop_threshold: float = Field(
        0.1, gt=0, description="Fall of R2 that the original's rule calls model drift."
    )
    confirm_windows: Positive = Field(2, description="Windows in a row with drift before it is confirmed.")
    resolve_windows: Positive = Field(2, description="Windows in a row without drift before it is resolved.")
    cooldown_days: Positive = Field(
        28, description="Least distance of two requests for another model, days of event time."
    )
    harm_gate: bool = Field(
        default=True,
        description="Whether a drift of the customers asks for another model only once the served one is seen"
        " to err more than before; else a confirmed drift is enough.",
    )
    min_matured_windows: int = Field(
        4,
        ge=0,
        description="Windows from a drift's onset on whose labels must be known before a retrain; until then"
        " the level alone may be set anew. 0: a retrain at once, on what is known.",
    )
    retrain_every_days: int = Field(
        28,
        ge=0,
        description="A retrain is asked for so long after the last one, days of event time; 0: never.",
    )

    # -- models
    horizon_days: Positive = Field(
        90, description="Horizon of the served model: future spend over so many days."
    )
    monitor_horizon_days: Positive = Field(
        30, description="Shorter horizon on which the served model is watched, days."
    )
    training_windows_max: Positive = Field(
        4, description="Labelled windows, the newest, a model is trained on."
    )
    estimators: tuple[str, ...] = Field(
        ("tweedie_glm",),
        min_length=1,
        description="Estimators a retrain tries; the one that errs least on unseen customers is taken.",
    )
    promotion_delay_days: Positive = Field(
        7, description="Event time from a request to the window where it takes effect."
    )
    decision_wait_s: float = Field(
        900.0,
        gt=0,
        description="How long evaluate waits for a decision before it writes `expired`, seconds;"
        " more than `training_timeout_s`.",
    )
    training_timeout_s: float = Field(
        600.0, gt=0, description="Longest that one try to answer a request may take, seconds."
    )
    gate_probability: Share = Field(0.9, description="P(challenger better) above which the gate promotes.")
    level_change_max: float = Field(
        3.0,
        gt=1,
        description="Most by which a promotion may change the sum of all predictions, a factor either way;"
        " beyond it a person has to promote.",
    )
    shadow_windows: int = Field(
        0,
        ge=0,
        description="Windows with known labels that a challenger runs beside the champion before it serves;"
        " 0: it serves at once.",
    )
    gate_resamples: Positive = Field(1000, description="Bootstrap resamples of the gate.")
    seed: int = Field(42, ge=0, description="Seed of every random choice.")

    # -- places
    registry_dir: Path = Field(Path("var/registry"), description="Model versions, cards and reference data.")
    reports_dir: Path = Field(Path("var/reports"), description="Evidently's reports.")
    evidently_workspace: Path | None = Field(
        None, description="Workspace of Evidently's user interface that comparisons are added to."
    )
    report_every: Positive = Field(
        1, description="Windows from one HTML report to the next; the JSON is written for each."
    )
    reports_kept: Positive = Field(
        60, description="HTML reports that are kept, those of the newest windows; older ones are removed."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="Form of the logs: one JSON object a line, or readable; `auto`: readable on a terminal.",
    )

    fault: str = Field(
        "", description="For tests only: the point (see streams/faults.py) at which a process kills itself."
    )

    # -- surfaces
    web_host: str = Field(
        "127.0.0.1", description="Address that the live page, /metrics and the health pages bind to."
    )
    worker_port: Port = Field(
        8001, description="Port of the worker's live page, /metrics and health pages; 0 turns it off."
    )
    scores_port: Port = Field(8004, description="Port of the scores process's pages; 0 turns them off.")
    retrain_port: Port = Field(
        8002, description="Port of the retrain consumer's /metrics and health pages; 0 turns it off."
    )
    webhooks_port: Port = Field(8003, description="Port of the webhooks process's pages; 0 turns them off.")
    web_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Who reads the page, its reports or /metrics has to know it; without one, whoever reaches"
        " the port may. The health pages are open.",
    )

    webhooks: dict[Name, Endpoint] = Field(
        {},
        description="Who is told of events by HTTP: tables `[webhooks.NAME]`, see [webhooks](webhooks.md).",
    )
    webhooks_dir: Path = Field(
        Path("var/webhooks"), description="What the webhooks process has still to deliver, and has given up."
    )
    mlflow_tracking_uri: str = Field(
        "", description="MLflow server that models are mirrored into after each decision; empty: none."
    )
    mlflow_experiment: str = Field("clv-drift", min_length=1, description="MLflow's experiment of the runs.")
    mlflow_model: str = Field(
        "clv", pattern=r"^[A-Za-z0-9_. -]+$", description="MLflow's registered model that has our versions."
    )
    pushgateway_url: str = Field(
        "", description="Pushgateway that `train` and `detect` push their results to; empty: none."
    )
    textfile_dir: Path | None = Field(
        None,
        description="Directory of node-exporter's textfile collector that `train` and `detect` write into.",
    )

    # -- Faust and the consumers
    batch_lines_max: Positive = Field(
        20_000, description="Most records merged into one message for the ingest agent."
    )
    session_timeout_s: float = Field(
        6.0,
        gt=0,
        le=90,  # Faust waits so long for an answer, and refuses sessions that are longer
        description="Silence after which the group takes a worker for dead, seconds; the broker has bounds.",
    )
    heartbeat_interval_s: float = Field(1.0, gt=0, description="Heartbeat of a worker to its group, seconds.")

    @model_validator(mode="after")
    def _coherent(self) -> "Settings":
        if not self.short_window_days <= self.mid_window_days <= self.window_days:
            raise ValueError(
                f"short_window_days ({self.short_window_days}) <= mid_window_days ({self.mid_window_days})"
                f" <= window_days ({self.window_days}) must hold"
            )
        for name in ("window_days", "mid_window_days", "short_window_days"):
            if (days := getattr(self, name)) % self.window_hop_days:
                raise ValueError(
                    f"{name} ({days}) must be a multiple of window_hop_days ({self.window_hop_days})"
                )
        if self.window_hop_days % 7:
            raise ValueError(
                f"window_hop_days ({self.window_hop_days}) must be a multiple of 7: windows end on Mondays"
            )
        if self.acting_detector not in self.detectors:
            raise ValueError(
                f"acting_detector ({self.acting_detector!r}) must be one of"
                f" detectors ({list(self.detectors)})"
            )
        if self.reference_weeks * 7 < self.window_days:
            raise ValueError(
                f"reference_weeks ({self.reference_weeks}) must cover window_days ({self.window_days})"
            )
        if self.decision_wait_s <= self.training_timeout_s:
            raise ValueError(
                f"decision_wait_s ({self.decision_wait_s:g}) must be more than training_timeout_s"
                f" ({self.training_timeout_s:g})"
            )
        if self.session_timeout_s <= 2 * self.heartbeat_interval_s:
            raise ValueError(
                f"session_timeout_s ({self.session_timeout_s:g}) must be more than twice heartbeat_interval_s"
                f" ({self.heartbeat_interval_s:g}): a heartbeat that comes late must not end the session"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (pydantic's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources; a TOML file is read where `CLV_DRIFT_CONFIG` or the default place has one."""
        toml = TomlConfigSettingsSource(settings_cls, settings_file())
        return (init_settings, env_settings, toml)

    def topic(self, name: str) -> str:
        """Return the full name of a topic or group."""
        return f"{self.topic_prefix}{name}"

    def revealed(self) -> dict[str, Any]:
        """Return every setting that is given as JSON, secrets too: for a child process, never for a log."""
        found = self.model_dump(mode="json", exclude_none=True)
        for name in found:
            if isinstance(value := getattr(self, name), SecretStr):
                found[name] = value.get_secret_value()
        return found

    @cached_property
    def event_source(self) -> str:
        """The `source` of every CloudEvent of this installation."""
        return f"/clv-drift/{self.topic_prefix}"

    @cached_property
    def field_mapping(self) -> Mapping | None:
        """The mapping of the file `mapping`, as it was when it was first asked for; raises UserError."""
        return None if self.mapping is None else load_mapping(self.mapping)

    @cached_property
    def first_port(self) -> int:
        """Port of the first of `bootstrap_servers`, where an embedded broker listens."""
        return int(self.bootstrap_servers.split(",")[0].rpartition(":")[2])

    @cached_property
    def hop_s(self) -> int:
        """Distance of two window ends, seconds."""
        return self.window_hop_days * 86_400

    @cached_property
    def reference_hops_min(self) -> int:
        """Hops that a reference needs to be calibrated on: more than the long window has."""
        hop = self.window_hop_days
        return max(self.reference_weeks_min * 7 // hop, self.window_days // hop + 2)

    @cached_property
    def reference_least_s(self) -> int:
        """From the first window end of a reference to its last, at the least, seconds."""
        return (self.reference_hops_min - 1) * self.hop_s

    @cached_property
    def false_alarm_horizon_hops(self) -> int:
        """Windows that `false_alarm_rate` is promised for."""
        return self.false_alarm_horizon_weeks * 7 // self.window_hop_days

    @cached_property
    def lateness_s(self) -> int:
        """Lateness, whole seconds."""
        return round(self.lateness_hours * 3600)


def settings_file() -> Path:
    """Return the TOML file in force; it need not exist unless it was named.

    Raises UserError (USAGE) where it is named and missing, or no file.
    """
    named = os.environ.get(ENV_PREFIX + "CONFIG")
    path = Path(named) if named else DEFAULT_FILE
    if path.is_file() or not (named or path.exists()):
        return path
    if path.is_dir():
        problem = "is a directory"
    else:
        problem = "is not a regular file" if path.exists() else "does not exist"
    raise UserError(
        f"the settings file {path} {problem}",
        hint=f"correct {ENV_PREFIX}CONFIG or remove it" if named else f"remove it, or set {ENV_PREFIX}CONFIG",
        code=ExitCode.USAGE,
    )


def environment_value(name: str) -> str | None:
    """Return a variable of the environment that a setting names, such as the place of a secret."""
    return os.environ.get(name)


def load_settings(**overrides: Any) -> Settings:
    """Read and validate the settings; `overrides` are arguments of a command (None means not given).

    Raises UserError (USAGE) that names what is refused, and the file where that is at fault.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    _refuse_unknown_variables()
    try:
        return Settings(**given)
    except (TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UserError(
            f"the settings file {settings_file()} is not TOML: {exc}", code=ExitCode.USAGE
        ) from exc
    except OSError as exc:
        raise UserError(
            f"the settings file {settings_file()} cannot be read: {exc.strerror or exc}", code=ExitCode.USAGE
        ) from exc
    except ValidationError as exc:
        raise UserError(
            "refused settings: " + "; ".join(map(_problem, exc.errors())),
            hint=f"set them by {ENV_PREFIX}<NAME> in the environment or in {settings_file()}",
            code=ExitCode.USAGE,
        ) from exc
    except SettingsError as exc:
        raise UserError(
            f"refused settings: {exc}",
            hint='lists are JSON in the environment, such as ["a"]',
            code=ExitCode.USAGE,
        ) from exc
    except RecursionError as exc:
        raise UserError("refused settings: a value is nested too deeply", code=ExitCode.USAGE) from exc
    except ValueError as exc:  # a number of thousands of digits: Python's own limit
        raise UserError(
            f"the settings file {settings_file()} is not TOML: {exc}", code=ExitCode.USAGE
        ) from exc


def _refuse_unknown_variables() -> None:
    """Raise UserError where the environment sets what is no setting: a name misspelt would change nothing."""
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | {ENV_PREFIX + "CONFIG"}
    given = {name for name in map(str.upper, os.environ) if name.startswith(ENV_PREFIX)}
    unknown = sorted(given - known)
    if unknown:
        raise UserError(
            f"refused settings: {', '.join(unknown)} in the environment: there is no such setting",
            hint="docs/settings.md lists them all",
            code=ExitCode.USAGE,
        )


def _problem(error: ErrorDetails) -> str:
    """Return what pydantic objects to; rules on several settings name them in their own words."""
    own = error.get("ctx", {}).get("error")
    message = error["msg"] if own is None else str(own)
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {message}" if where else message
