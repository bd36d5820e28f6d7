"""What shapes a partition's state, and what is counted of its records."""

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from models.features import DAY_S, FEATURES_VERSION
from streams.mapping import Mapping
from streams.pseudonyms import Pseudonyms
from streams.settings import Settings

STATE_FORMAT = 3


@dataclass(frozen=True)
class StateConfig:
    """The settings that shape the state; a checkpoint made under others cannot be continued."""

    partitions: int
    window_days: int
    mid_window_days: int
    short_window_days: int
    window_hop_days: int
    lateness_s: int
    jump_max_days: int
    jump_confirm_lines: int
    segment_lines_max: int
    sample_customers_max: int
    state_format: int = STATE_FORMAT
    features_version: int = FEATURES_VERSION
    mapping: str = ""  # fingerprint of the mapping that foreign records are read by
    # Fingerprint of the key that customer ids are hashed with; states of before there was one have none.
    customer_ids: str = field(default="", metadata={"absent": ""})
    # Whether closed windows come with the rows of those who are not sampled: no matter of the state.
    rest_wanted: bool = field(default=False, metadata={"stored": False})
    field_mapping: Mapping | None = field(default=None, metadata={"stored": False})  # its content: `mapping`
    pseudonyms: Pseudonyms | None = field(default=None, metadata={"stored": False})  # of `customer_ids`

    @classmethod
    def of(cls, settings: Settings, partitions: int | None = None) -> "StateConfig":
        """Take them from the settings; `partitions` where the topic at hand has another count."""
        return cls(
            partitions=partitions or settings.partitions,
            window_days=settings.window_days,
            mid_window_days=settings.mid_window_days,
            short_window_days=settings.short_window_days,
            window_hop_days=settings.window_hop_days,
            lateness_s=settings.lateness_s,
            jump_max_days=settings.jump_max_days,
            jump_confirm_lines=settings.jump_confirm_lines,
            segment_lines_max=settings.segment_lines_max,
            sample_customers_max=settings.sample_customers_max,
            mapping="" if settings.field_mapping is None else settings.field_mapping.fingerprint,
            customer_ids="" if settings.pseudonyms is None else settings.pseudonyms.fingerprint,
            rest_wanted=settings.scores,
            field_mapping=settings.field_mapping,
            pseudonyms=settings.pseudonyms,
        )

    @property
    def window_s(self) -> int:
        """Length of the long window, seconds."""
        return self.window_days * DAY_S

    @property
    def hop_s(self) -> int:
        """Distance of window ends, seconds."""
        return self.window_hop_days * DAY_S

    @cached_property
    def as_stored(self) -> dict[str, Any]:
        """The settings by name, as every checkpoint carries them."""
        return {item.name: getattr(self, item.name) for item in _STORED}

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """Return in words how a stored configuration differs from this one, a setting an entry."""
        return [
            f"{item.name} was {was!r} and is now {getattr(self, item.name)!r}"
            for item in _STORED
            if (was := stored.get(item.name, item.metadata.get("absent"))) != getattr(self, item.name)
        ]


_STORED = tuple(item for item in fields(StateConfig) if item.metadata.get("stored", True))


@dataclass
class Counters:
    """Records by what became of them: `read` is always the sum of the others."""

    read: int = 0
    on_time: int = 0
    late: int = 0
    duplicate: int = 0
    control: int = 0
    dead: int = 0
