"""An endpoint as the settings describe it; its secrets are named here, never written down."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from streams.webhooks.guard import RefusedError, check_url

OWN_VARIABLES = "CLV_DRIFT_"  # of the settings themselves, where an unknown name is refused
PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
CHAT_MESSAGES_PER_HOUR = 12  # more than one every five minutes is read by nobody


class Format(StrEnum):
    """How a message is written."""

    CLOUDEVENTS = "cloudevents"  # the event itself, JSON in structured mode
    SLACK = "slack"
    TEAMS = "teams"  # a workflow's adaptive card
    PAGERDUTY = "pagerduty"  # Events API v2
    ALERTMANAGER = "alertmanager"  # the body of Alertmanager's own webhook, version 4


SECRET_URLS = frozenset({Format.SLACK, Format.TEAMS})  # whoever knows the URL may write there
SIGNED = frozenset({Format.CLOUDEVENTS, Format.ALERTMANAGER})


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("is no name of an environment variable")
    if name.upper().startswith(OWN_VARIABLES):
        raise ValueError(f"begins with {OWN_VARIABLES}, as only settings do")
    return name


Variable = Annotated[str, AfterValidator(_variable)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


class Endpoint(BaseModel):
    """One receiver: where it is, what it is told, how long that is tried.

    The URL is given by one of `url`, `url_file`, `url_env`, the secret by `secret_file` or `secret_env`. A
    secret may be two, apart by white space: messages are then signed with both, the way to change it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format = Format.CLOUDEVENTS
    url: str | None = Field(None, repr=False, max_length=2_000)
    url_file: Path | None = None
    url_env: Variable | None = None
    secret_file: Path | None = None
    secret_env: Variable | None = None
    types: tuple[str, ...] = Field((), description="Patterns of event types, `*` for anything; empty: all.")
    min_severity: Literal["info", "warning"] = "info"
    features: tuple[str, ...] = Field((), description="Only events with one of these among the causes.")
    allow_hosts: tuple[str, ...] = Field((), description="Hosts that may have a private address, or no TLS.")
    max_per_hour: int | None = Field(None, ge=0, description="More become a digest; 0: no limit.")
    horizon_hours: float = Field(24.0, gt=0, le=24 * 14, description="How long a delivery is tried.")
    timeout_s: float = Field(10.0, gt=0, le=60, description="Longest that one request may take.")
    ca_file: Path | None = Field(None, description="Certificates that the endpoint's is held against.")
    start: Literal["end", "beginning"] = Field("end", description="Where in the logs a new endpoint begins.")

    @property
    def per_hour_max(self) -> int:
        """Messages an hour, 0 for no limit: what is set, else a limit where people read them."""
        if self.max_per_hour is not None:
            return self.max_per_hour
        return CHAT_MESSAGES_PER_HOUR if self.format in SECRET_URLS else 0

    @model_validator(mode="after")
    def _coherent(self) -> "Endpoint":
        places = [name for name in ("url", "url_file", "url_env") if getattr(self, name) is not None]
        if len(places) != 1 and not (self.format is Format.PAGERDUTY and not places):
            raise ValueError("give exactly one of url, url_file, url_env")
        if self.url is not None:
            if self.format in SECRET_URLS:
                raise ValueError(f"the URL of a {self.format} endpoint is a secret: use url_file or url_env")
            try:
                check_url(self.url, self.allow_hosts)
            except RefusedError as exc:
                raise ValueError(f"url: {exc}") from exc
        if self.secret_file is not None and self.secret_env is not None:
            raise ValueError("give one of secret_file and secret_env")
        if (
            self.format in SIGNED | {Format.PAGERDUTY}
            and self.secret_file is None
            and self.secret_env is None
        ):
            raise ValueError(f"format {self.format} needs secret_file or secret_env")
        if self.format is Format.PAGERDUTY and self.max_per_hour:
            raise ValueError("PagerDuty joins alerts by their key itself: no max_per_hour, no digest")
        return self
