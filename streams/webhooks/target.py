"""Where an endpoint's URL and keys are, looked up at each attempt: a secret is changed without a restart."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult

from streams.errors import ExitCode, UserError
from streams.settings import environment_value
from streams.webhooks.endpoints import PAGERDUTY_URL, Endpoint, Format
from streams.webhooks.guard import RefusedError, check_url, is_allowed
from streams.webhooks.signing import key_of

SECRET_CHARACTERS_MAX = 4_096
SECRETS_MAX = 2


@dataclass(frozen=True)
class Target:
    """What a request needs; only the host may be shown."""

    host: str
    allowed: bool  # the host is named in `allow_hosts`
    url: str = field(repr=False)
    keys: tuple[bytes, ...] = field(repr=False)
    routing_key: str = field(repr=False)


def target_of(name: str, endpoint: Endpoint) -> Target:
    """Return where endpoint `name` is, with its keys.

    Raises UserError (USAGE) on what is missing or refused; it names the place of a secret, never its value.
    """
    url = _url(name, endpoint)
    try:
        parts: SplitResult = check_url(url, endpoint.allow_hosts)
    except RefusedError as exc:
        raise _refused(name, f"its URL is refused: {exc}") from None
    host = parts.hostname or ""
    secrets = _secret(name, endpoint).split()
    if len(secrets) > SECRETS_MAX:
        raise _refused(name, f"it has {len(secrets)} secrets; two are for changing one")
    keys: tuple[bytes, ...] = ()
    if endpoint.format is not Format.PAGERDUTY:
        try:
            keys = tuple(key_of(secret) for secret in secrets)
        except ValueError as exc:
            raise _refused(name, str(exc)) from None
    routing_key = secrets[0] if endpoint.format is Format.PAGERDUTY else ""
    return Target(host, is_allowed(host, endpoint.allow_hosts), url, keys, routing_key)


def _url(name: str, endpoint: Endpoint) -> str:
    if endpoint.url is not None:
        return endpoint.url
    if endpoint.url_file is None and endpoint.url_env is None:
        return PAGERDUTY_URL
    return _read(name, "url", endpoint.url_file, endpoint.url_env)


def _secret(name: str, endpoint: Endpoint) -> str:
    if endpoint.secret_file is None and endpoint.secret_env is None:
        return ""
    return _read(name, "secret", endpoint.secret_file, endpoint.secret_env)


def _read(name: str, what: str, path: Path | None, variable: str | None) -> str:
    if path is None:
        place = f"the variable {variable}"
        value = environment_value(variable or "")
    else:
        place = str(path)
        try:
            with path.open(encoding="utf-8") as file:
                value = file.read(SECRET_CHARACTERS_MAX + 1)
        except (OSError, UnicodeDecodeError) as exc:
            problem = exc.strerror if isinstance(exc, OSError) else "no text"
            raise _refused(name, f"its {what} cannot be read from {place}: {problem}") from None
    value = (value or "").strip()
    if not value or len(value) > SECRET_CHARACTERS_MAX:
        raise _refused(name, f"its {what} is missing or too long: {place}")
    return value


def _refused(name: str, problem: str) -> UserError:
    return UserError(
        f"webhook {name}: {problem}", hint="docs/webhooks.md has an example", code=ExitCode.USAGE
    )
