"""Kafka's jars: fetched once by their coordinates, kept in a cache, checked against pinned sha256 sums.

The pins stand in `kafka_jars.sha256` beside this file, a line a jar: the sum, two spaces,
`group:artifact:version`.
Fetching by exact coordinates asks for no dependency metadata: nothing can be resolved otherwise than pinned.
`python -m streams.kafka_jars` resolves `ROOTS` anew and prints the pins of a new version.
"""

import errno
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from streams.errors import ExitCode, UserError
from streams.file_lock import exclusive

KAFKA_VERSION = "4.3.1"

# The broker, and what makes its libraries' slf4j log through the log4j that the broker brings.
# On a conflict the later root wins.
ROOTS = ("org.apache.logging.log4j:log4j-slf4j-impl:2.25.4", f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")

PINS_FILE = "kafka_jars.sha256"
_STAMP_FILE = "verified.json"
_FETCHES_AT_ONCE = 4

Stamp = dict[str, list[int]]


@dataclass(frozen=True)
class Pin:
    """One jar as it must be."""

    sha256: str
    group: str
    artifact: str
    version: str

    @property
    def file_name(self) -> str:
        """Name of the jar in the cache."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def coordinate(self) -> str:
        """Name of the jar in a Maven repository."""
        return f"{self.group}:{self.artifact}:{self.version}"


def parse_pins(text: str) -> tuple[Pin, ...]:
    """Return the pins of a pins file; their order is the order of the class path."""
    rows = (line.split() for line in text.splitlines())
    return tuple(Pin(sha256, *coordinate.split(":")) for sha256, coordinate in rows)


def pinned_text() -> str:
    """Return the text of the pins file that belongs to this version of the program."""
    return (files("streams") / PINS_FILE).read_text(encoding="utf-8")


def jars_dir(cache_dir: Path) -> Path:
    """Return where the jars lie below a cache."""
    return cache_dir / f"kafka-{KAFKA_VERSION}"


def ensure_jars(
    cache_dir: Path, *, pins: tuple[Pin, ...] | None = None, say: Callable[[str], None] | None = None
) -> tuple[Path, ...]:
    """Return the class path, after fetching what is missing and verifying what is new or was touched.

    Several processes may do so on one cache at once: one fetches, the others wait. `say` is told before
    a fetch. Raises UserError: ExitCode.JAVA on a jar that differs from its pin or cannot be fetched,
    ExitCode.STORAGE where the cache cannot be written.
    """
    wanted = parse_pins(pinned_text()) if pins is None else pins
    directory = jars_dir(cache_dir)
    paths = tuple(directory / pin.file_name for pin in wanted)
    if _read_stamp(directory) == _stamp_of(paths):
        return paths
    with storage_errors(cache_dir):
        directory.mkdir(parents=True, exist_ok=True)
        with exclusive(cache_dir / "jars.lock"):
            missing = tuple(pin for pin in wanted if not (directory / pin.file_name).exists())
            if missing:
                if say is not None:
                    say(f"fetching {len(missing)} jars of Kafka {KAFKA_VERSION} into {directory}")
                _fetch_all(missing, directory)
            for pin in wanted:
                _verify(pin, directory / pin.file_name, "delete it; the next start fetches it anew")
            _write_stamp(directory, _stamp_of(paths))
    return paths


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turn a failure of the file system at `place` into a UserError (ExitCode.STORAGE)."""
    try:
        yield
    except OSError as exc:
        full = exc.errno in {errno.ENOSPC, errno.EDQUOT}
        raise UserError(
            f"{'the disk is full' if full else 'cannot write'} at {place}: {exc}",
            hint="make room there" if full else "choose a directory that exists or can be made, and written",
            code=ExitCode.STORAGE,
        ) from exc


def _stamp_of(paths: tuple[Path, ...]) -> Stamp | None:
    """Return size and time of change of each jar; None if one is missing."""
    try:
        stats = {path.name: path.stat() for path in paths}
    except OSError:
        return None
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _read_stamp(directory: Path) -> object:
    """Return what was verified last; after an unreadable stamp the jars are only verified again."""
    try:
        return json.loads((directory / _STAMP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_stamp(directory: Path, stamp: Stamp | None) -> None:
    fresh = directory / (_STAMP_FILE + ".new")
    fresh.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    fresh.replace(directory / _STAMP_FILE)


def _verify(pin: Pin, path: Path, hint: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != pin.sha256:
        raise UserError(
            f"{path} is not the pinned {pin.coordinate}: its sha256 is {found}, expected {pin.sha256}",
            hint=hint,
            code=ExitCode.JAVA,
        )


def _fetch_all(pins: tuple[Pin, ...], directory: Path) -> None:
    """Fetch into a directory aside; only what is verified moves, whole, to its place."""
    for left in directory.glob("fetching-*"):  # by a process that was killed; the lock is ours
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=directory) as aside:
        context = _maven(Path(aside))
        with ThreadPoolExecutor(_FETCHES_AT_ONCE) as pool:
            fetched = list(pool.map(lambda pin: _fetch(context, pin), pins))
        for pin, path in zip(pins, fetched, strict=True):
            _verify(pin, path, "nothing was kept; a proxy on the way may have altered it")
            path.replace(directory / pin.file_name)


def _maven(repository: Path) -> Any:
    """Return jgo's access to Maven Central, with its local copies in `repository` and nowhere else."""
    try:
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  (an extra)
    except ImportError as exc:
        raise UserError(
            "the package jgo, which fetches Kafka's jars, is not installed",
            hint='pip install "clv-drift[embedded]"',
            code=ExitCode.JAVA,
        ) from exc
    return MavenContext(resolver=PythonResolver(), repo_cache=repository, local_repos=[], timeout=30)


def _fetch(context: Any, pin: Pin) -> Path:
    """Return the fetched jar; network failures are told apart from those of the disk by their errno."""
    try:
        return _download(context, pin)
    except (OSError, RuntimeError) as exc:
        # What jgo raises for the network derives from OSError too, but without an errno of the file system.
        if isinstance(exc, OSError) and exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}:
            raise
        raise UserError(
            f"cannot fetch {pin.coordinate}: {exc}",
            hint="the first start needs access to Maven Central; later ones do not",
            code=ExitCode.JAVA,
        ) from exc


@retry(
    stop=stop_after_attempt(3),
    wait=wait_exponential(multiplier=0.5),
    retry=retry_if_exception_type(OSError),
    reraise=True,
)
def _download(context: Any, pin: Pin) -> Path:
    artifact = context.project(pin.group, pin.artifact).at_version(pin.version).artifact()
    # jgo leaves what a broken connection brought, and would take it for the whole.
    artifact.cached_path.unlink(missing_ok=True)
    return Path(context.resolver.download(artifact))


def resolve_roots() -> str:
    """Return the text of a new pins file: `ROOTS` with all they need, from Maven Central."""
    from jgo.parse import Coordinate  # noqa: PLC0415  (an extra)

    with tempfile.TemporaryDirectory() as aside:
        context = _maven(Path(aside))
        versions: dict[tuple[str, str], str] = {}
        for root in ROOTS:
            # One at a time: together, jgo lets the managed versions of one root rule the other's.
            inputs, others = context.resolver.resolve([context.create_dependency(Coordinate.parse(root))])
            versions |= {(found.groupId, found.artifactId): found.version for found in (*inputs, *others)}
        pins = [Pin("", group, name, version) for (group, name), version in sorted(versions.items())]
        with ThreadPoolExecutor(_FETCHES_AT_ONCE) as pool:
            jars = list(pool.map(lambda pin: _fetch(context, pin), pins))
        sums = [hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars]
    return "".join(f"{sha256}  {pin.coordinate}\n" for sha256, pin in zip(sums, pins, strict=True))


if __name__ == "__main__":
    sys.stdout.write(resolve_roots())
