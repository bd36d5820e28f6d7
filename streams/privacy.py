"""The settings by which customers get other names at the border, and the names that follow from them."""

from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, SecretStr, model_validator

from streams.errors import ExitCode, UserError
from streams.pseudonyms import Pseudonyms
from streams.transactions import canonical_customer_id

KEY_CHARS_MIN = 16


class Privacy(BaseModel):
    """Whether customer ids are hashed where they come in, and by which key."""

    customer_id_key: SecretStr | None = Field(
        None,
        min_length=KEY_CHARS_MIN,
        description="Key that customer ids are hashed with: before Kafka by `replay`, in the worker where"
        " others write; rather in `customer_id_key_file`. See [privacy](privacy.md).",
    )
    customer_id_key_file: Path | None = Field(
        None, description="File that holds that key; a line break at its end does not count."
    )

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.customer_id_key is not None and self.customer_id_key_file is not None:
            raise ValueError("customer_id_key or customer_id_key_file may be given, not both")
        return self

    @cached_property
    def pseudonyms(self) -> Pseudonyms | None:
        """The names that customers get, None where they keep theirs; raises UserError (USAGE)."""
        if self.customer_id_key is not None:
            return Pseudonyms(self.customer_id_key.get_secret_value().encode())
        if self.customer_id_key_file is None:
            return None
        try:
            secret = self.customer_id_key_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise self._refused(f"{self.customer_id_key_file} cannot be read: {reason}") from exc
        if len(secret) < KEY_CHARS_MIN:
            raise self._refused(f"a key of less than {KEY_CHARS_MIN} characters")
        return Pseudonyms(secret.encode())

    def known_as(self, customer: str) -> str:
        """Return the name that a customer has behind the border, given the id as a person writes it."""
        name = canonical_customer_id(customer) or ""
        return name if self.pseudonyms is None else self.pseudonyms.of(name)

    @staticmethod
    def _refused(problem: str) -> UserError:
        return UserError(
            f"refused settings: customer_id_key_file: {problem}",
            hint="`openssl rand -hex 32 > FILE` makes a key",
            code=ExitCode.USAGE,
        )
