"""What a process refuses before it starts: names that nothing has, places that it cannot use."""

import tempfile
from contextlib import suppress
from pathlib import Path

from streams.errors import ExitCode, UserError
from streams.roles import Role
from streams.settings import ENV_PREFIX, Settings
from streams.topic_admin import review_topics
from streams.topics import TopicSpec


def check_worker(settings: Settings, role: Role) -> None:
    """Raise UserError unless a worker of `role` can do its work with these names and places."""
    check_names(settings)
    # Faust makes its directory even where, as here, it keeps nothing in it.
    check_written(settings, "kafka_dir", settings.kafka_dir.parent / "faust")
    if role is not Role.INGEST:
        check_read(settings, "registry_dir")
    if role in {Role.ALL, Role.COMPARE}:
        check_written(settings, "reports_dir")


def check_retrain(settings: Settings) -> None:
    """Raise UserError unless the retrain consumer can do its work with these names and places."""
    check_names(settings)
    check_written(settings, "registry_dir")


def check_names(settings: Settings) -> None:
    """Raise UserError (USAGE) where `estimators` or `detectors` has a name that nothing here is called.

    A mapping or a key that cannot be used is refused here too, not at the first record.
    """
    from models.estimators import UnknownEstimatorError, make_estimator  # noqa: PLC0415  (seconds)
    from streams.detectors import make_detector  # noqa: PLC0415

    _ = settings.field_mapping, settings.pseudonyms
    for name in settings.estimators:
        try:
            make_estimator(name, settings.seed)
        except UnknownEstimatorError as exc:
            raise _refused("estimators", str(exc), ExitCode.USAGE) from exc
    for name in settings.detectors:
        try:
            make_detector(name, settings)
        except UserError as exc:
            raise _refused("detectors", "; ".join(filter(None, (exc.message, exc.hint))), exc.code) from exc


def check_written(settings: Settings, name: str, place: Path | None = None) -> None:
    """Raise UserError (STORAGE) unless the directory of the setting `name` is there, or is made, and written.

    `place` is another directory that goes by this setting.
    """
    directory: Path = place or getattr(settings, name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as exc:
        problem = f"{directory} cannot be written: {exc.strerror or exc}"
        raise _refused(name, problem, ExitCode.STORAGE) from exc


def check_read(settings: Settings, name: str) -> None:
    """Raise UserError (STORAGE) unless the directory of the setting `name` can be read or is yet to come."""
    directory: Path = getattr(settings, name)
    try:
        with suppress(FileNotFoundError):
            next(directory.iterdir(), None)
    except OSError as exc:
        problem = f"{directory} cannot be read: {exc.strerror or exc}"
        raise _refused(name, problem, ExitCode.STORAGE) from exc


def check_topics(settings: Settings, *needed: TopicSpec) -> None:
    """Raise UserError unless a broker answers and the topics are there that a process reads and writes."""
    names = {spec.name for spec in needed}
    missing = [
        review.spec.name
        for review in review_topics(settings, create=False)
        if review.spec.name in names and any(found.setting == "topic" for found in review.differences)
    ]
    if missing:
        raise UserError(
            f"topics are missing on {settings.bootstrap_servers}: {', '.join(missing)}",
            hint="`clv-drift topics` creates them",
            code=ExitCode.STATE,
        )


def _refused(name: str, problem: str, code: ExitCode) -> UserError:
    return UserError(f"{name}: {problem}", hint=f"correct {ENV_PREFIX}{name.upper()}", code=code)
