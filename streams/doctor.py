"""Whether an installation can work: each check says what it found, and what to do where it is not right."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from secrets import token_hex

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from models.registry import Registry, RegistryError
from streams.broker_errors import asking, quiet_clients
from streams.errors import ExitCode, UserError
from streams.kafka_access import python_client
from streams.kafka_jars import jars_dir, parse_pins, pinned_text
from streams.kafka_java import find_java
from streams.settings import Settings, load_settings, settings_file
from streams.start_checks import check_names, check_written
from streams.topic_admin import open_admin, review_topics
from streams.web.access import loopback

FREE_FAIL_BYTES, FREE_WARN_BYTES = 200 * 2**20, 2 * 2**30
CLOCK_WARN_S = 5.0
PROBE_WAIT_S = 10.0


class Status(StrEnum):
    """How a check went; only `FAILED` keeps the program from its work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"  # it could not be checked, for the reason given


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found; `hint` says what to do, `code` is the exit code where it failed."""

    check: str
    status: Status
    found: str
    hint: str = ""
    code: ExitCode = ExitCode.OK


@dataclass(frozen=True)
class _Check:
    name: str
    run: Callable[[Settings], Finding]
    needs_broker: bool = False


def examine() -> Iterator[Finding]:
    """Yield what each check finds, as it is found; where the settings fail, nothing else is looked at."""
    try:
        settings = load_settings()
        check_names(settings)
    except UserError as exc:
        yield _failed("settings", exc)
        return
    place = settings_file()
    source = str(place) if place.is_file() else "the defaults and the environment"
    yield Finding(check="settings", status=Status.OK, found=f"understood, from {source}")
    broker_answers = True
    for check in _CHECKS:
        if check.needs_broker and not broker_answers:
            yield Finding(check=check.name, status=Status.UNKNOWN, found="no broker to ask")
            continue
        try:
            with quiet_clients():
                finding = check.run(settings)
        except UserError as exc:
            finding = _failed(check.name, exc)
        if check.name == "broker":
            broker_answers = finding.status is not Status.FAILED
        yield finding


def _failed(check: str, exc: UserError) -> Finding:
    return Finding(check=check, status=Status.FAILED, found=exc.message, hint=exc.hint, code=exc.code)


def _broker(settings: Settings) -> Finding:
    started = time.monotonic()
    with open_admin(settings) as admin:
        brokers = len(admin.describe_cluster()["brokers"])
    took_s = time.monotonic() - started
    found = f"{settings.bootstrap_servers} answered in {took_s:.1f} s, {brokers} in the cluster"
    return Finding(check="broker", status=Status.OK, found=found)


def _topics(settings: Settings) -> Finding:
    reviews = review_topics(settings, create=False)
    differences = [difference for review in reviews for difference in review.differences]
    if not differences:
        return Finding(check="topics", status=Status.OK, found=f"all {len(reviews)} are as they must be")
    missing = [difference.topic for difference in differences if difference.setting == "topic"]
    stop = missing or any(difference.setting == "partitions" for difference in differences)
    others = [f"{it.topic}: {it}" for it in differences if it.setting != "topic"]
    told = [f"missing: {', '.join(missing)}"] if missing else []
    return Finding(
        check="topics",
        status=Status.FAILED if stop else Status.WARNING,
        found="; ".join([*told, *others]),
        hint="`clv-drift topics` creates what is missing; it alters nothing: kafka-configs.sh does",
        code=ExitCode.STATE if stop else ExitCode.OK,
    )


def _clocks(settings: Settings) -> Finding:
    """Compare the clocks by a record in a topic made for it, which the broker stamps on its arrival."""
    name = settings.topic(f"clv.doctor-{token_hex(4)}")
    try:
        with _probe_topic(settings, name):
            behind_s = _clock_difference_s(settings, name)
    except (UserError, KafkaError) as exc:
        told = exc.message if isinstance(exc, UserError) else repr(exc)
        return Finding(
            check="clocks",
            status=Status.UNKNOWN,
            found=f"no record could be written to a topic for the purpose: {told}",
            hint="where topics may not be created, compare `date -u` here and on the broker",
        )
    if abs(behind_s) <= CLOCK_WARN_S:
        found = f"the broker's differs from this machine's by {abs(behind_s):.1f} s at most"
        return Finding(check="clocks", status=Status.OK, found=found)
    return Finding(
        check="clocks",
        status=Status.WARNING,
        found=f"the broker's is {abs(behind_s):.0f} s {'ahead of' if behind_s < 0 else 'behind'} ours",
        hint="set both by NTP; verdicts go by event time and stay right, lags and Prometheus' times do not",
    )


@contextmanager
def _probe_topic(settings: Settings, name: str) -> Iterator[None]:
    stamped = {"message.timestamp.type": "LogAppendTime"}
    with open_admin(settings) as admin:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1, "configs": stamped}})
        try:
            admin.wait_for_topics([name])
            yield
        finally:
            with suppress(KafkaError):
                admin.delete_topics([name])


def _clock_difference_s(settings: Settings, topic: str) -> float:
    """Return how far the broker's clock is behind ours, seconds; the way there and back counts as nothing."""
    producer = KafkaProducer(
        **python_client(settings),
        bootstrap_timeout_ms=round(settings.broker_wait_s * 1000),
    )
    try:
        with asking(settings):
            producer.partitions_for(topic)
            sent = time.time()
            stamped = (
                producer.send(topic, b"what time is it?", partition=0).get(PROBE_WAIT_S).timestamp / 1000
            )
            answered = time.time()
    finally:
        producer.close(timeout=1)
    if sent <= stamped <= answered:
        return 0.0
    return (sent if stamped < sent else answered) - stamped  # type: ignore[no-any-return]


def _registry(settings: Settings) -> Finding:
    registry = Registry(settings.registry_dir)
    try:
        damaged, versions = registry.damaged(), registry.list_versions()
        for version in versions:
            try:
                registry.load(version)
            except RegistryError as exc:
                damaged[version] = str(exc)
    except RegistryError as exc:
        hint = "registry_dir must be readable by every worker and by the retrain consumer"
        refused = UserError(str(exc), hint=hint, code=ExitCode.STORAGE)
        return _failed("registry", refused)
    if damaged:
        found = "; ".join(f"{version}: {reason}" for version, reason in sorted(damaged.items()))
        hint = "a damaged version is refused: `clv-drift model rollback`, then remove its directory"
        return Finding(check="registry", status=Status.FAILED, found=found, hint=hint, code=ExitCode.MODEL)
    found = f"{len(versions)} versions in {settings.registry_dir}, all loaded"
    return Finding(check="registry", status=Status.OK, found=found)


def _places(settings: Settings) -> Finding:
    for name in ("registry_dir", "reports_dir"):
        check_written(settings, name)
    return Finding(check="directories", status=Status.OK, found="registry_dir and reports_dir can be written")


def _disk(settings: Settings) -> Finding:
    names = ("registry_dir", "reports_dir", "kafka_dir", "kafka_cache_dir")
    free = {name: shutil.disk_usage(_existing(getattr(settings, name))).free for name in names}
    name = min(free, key=lambda name: free[name])
    found = f"{free[name] / 2**30:.1f} GiB free at the least, for {name}"
    if free[name] >= FREE_WARN_BYTES:
        return Finding(check="disk", status=Status.OK, found=found)
    full = free[name] < FREE_FAIL_BYTES
    return Finding(
        check="disk",
        status=Status.FAILED if full else Status.WARNING,
        found=found,
        hint="make room, lower reports_kept (a report has some 4 MB), or move the directory",
        code=ExitCode.STORAGE if full else ExitCode.OK,
    )


def _existing(place: Path) -> Path:
    """Return `place`, or the nearest directory above it that is there."""
    return next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())


def _embedded(settings: Settings) -> Finding:
    """Look for what only the embedded broker needs: no reason to fail where another one is used."""
    try:
        java = find_java()
    except UserError as exc:
        hint = f"{exc.hint}; only `clv-drift broker` and `clv-drift demo` need it"
        return Finding(check="embedded broker", status=Status.WARNING, found=exc.message, hint=hint)
    pins = parse_pins(pinned_text())
    missing = [pin for pin in pins if not (jars_dir(settings.kafka_cache_dir) / pin.file_name).is_file()]
    found = f"Java {java.major}, {len(pins) - len(missing)} of Kafka's {len(pins)} jars in the cache"
    if missing:
        hint = "`clv-drift broker --prepare` fetches them; only it and `clv-drift demo` need them"
        return Finding(check="embedded broker", status=Status.WARNING, found=found, hint=hint)
    return Finding(check="embedded broker", status=Status.OK, found=found)


def _web(settings: Settings) -> Finding:
    if loopback(settings.web_host) or settings.web_token is not None:
        kept = "with a token" if settings.web_token is not None else "for this machine alone"
        return Finding(check="web", status=Status.OK, found=f"served at {settings.web_host}, {kept}")
    return Finding(
        check="web",
        status=Status.WARNING,
        found=f"served at {settings.web_host} to whoever reaches it",
        hint="set CLV_DRIFT_WEB_TOKEN, or bind web_host to 127.0.0.1 and put a proxy with a login before it",
    )


_CHECKS = (
    _Check("web", _web),
    _Check("directories", _places),
    _Check("disk", _disk),
    _Check("registry", _registry),
    _Check("embedded broker", _embedded),
    _Check("broker", _broker),
    _Check("topics", _topics, needs_broker=True),
    _Check("clocks", _clocks, needs_broker=True),
)


def exit_code(findings: list[Finding]) -> ExitCode:
    """Return the code of the first check that failed; warnings are no failure."""
    return next((found.code for found in findings if found.status is Status.FAILED), ExitCode.OK)
