"""The project as a whole: imports point one way, dependencies are pinned, mistakes end in one message."""

import os
import re
import socket
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from streams.cli import GROUP
from streams.errors import ExitCode
from streams.kafka_process import free_port
from streams.settings import Settings

PROJECT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LOCKS = sorted((PROJECT / "requirements").glob("*.txt"))
PARTED_HOSTS = (
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("maven", "org"),
    ("maven.apache", "org"),
    ("npmjs", "org"),
)


def run(*arguments: str, cwd: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=cwd,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def project_files() -> list[Path]:
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    assert listed.returncode == 0, listed.stderr
    return [PROJECT / name for name in listed.stdout.split("\0") if name and (PROJECT / name).is_file()]


def test_imports_point_one_way():
    checked = run("lint-imports", "--no-cache")
    assert checked.returncode == 0, checked.stdout


def test_a_day_has_one_definition():
    sources = [path for part in ("producers", "streams", "models") for path in (PROJECT / part).rglob("*.py")]
    defined = [path.name for path in sources if re.search(r"^DAY_S = ", path.read_text(), re.MULTILINE)]
    assert defined == ["features.py"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_with_a_hash(lock):
    logical = lock.read_text().replace("\\\n", " ").splitlines()
    assert logical
    for line in logical:
        assert re.fullmatch(
            r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+( ; [^#]+?)?\s+(--hash=sha256:[0-9a-f]{64}\s*)+", line
        )


def test_the_locks_agree():
    def pins(name):
        lines = (PROJECT / "requirements" / name).read_text().splitlines()
        return {
            line.split(" ;")[0].rstrip(" \\")  # markers differ where the other list has more to agree with
            for line in lines
            if "==" in line and not line.startswith(" ")
        }

    assert pins("base.txt") <= pins("dev.txt")


def test_no_file_names_a_package_registry():
    hosts = re.compile("|".join(re.escape(".".join(parts)) for parts in PARTED_HOSTS))
    named = [
        str(path.relative_to(PROJECT))
        for path in project_files()
        if hosts.search(path.read_text(encoding="utf-8", errors="ignore"))
    ]
    assert named == []


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is(name):
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith((".", "seconds")) or description[-1].isalpha()


def test_every_registered_command_is_listed_with_a_description():
    listed = run("clv-drift", "--help", COLUMNS="200")
    assert listed.returncode == ExitCode.OK
    registered = {entry.name for entry in entry_points(group=GROUP)}
    assert {"broker", "topics"} <= registered
    for name in registered:
        assert re.search(rf"^. {re.escape(name)} +\w", listed.stdout, re.MULTILINE), name


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        (
            ("topics",),
            {"CLV_DRIFT_BROKER_WAIT_S": "1"},
            ExitCode.BROKER,
            "no Kafka broker answered at 127.0.0.1",
        ),
        (("topics",), {"CLV_DRIFT_PARTITIONS": "0"}, ExitCode.USAGE, "refused settings: partitions"),
        (("topics",), {"CLV_DRIFT_BOOTSTRAP_SERVERS": "nowhere"}, ExitCode.USAGE, "bootstrap_servers"),
        (("topics",), {"CLV_DRIFT_CONFIG": "absent.toml"}, ExitCode.USAGE, "absent.toml does not exist"),
        (("topics", "--nonsense"), {}, ExitCode.USAGE, "No such option"),
        (("broker", "--port", "70000"), {}, ExitCode.USAGE, "less than or equal to 65535"),
    ],
)
def test_a_mistake_ends_in_one_message(tmp_path, arguments, environment, code, said):
    given = {"CLV_DRIFT_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}", "COLUMNS": "200", **environment}
    ended = run("clv-drift", *arguments, cwd=tmp_path, **given)
    assert ended.returncode == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        cache = str(PROJECT / ".cache" / "kafka")
        ended = run("clv-drift", "broker", "--port", port, cwd=tmp_path, CLV_DRIFT_KAFKA_CACHE_DIR=cache)
    assert ended.returncode == ExitCode.BROKER
    assert f"port {port} of 127.0.0.1 cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_does_not_load_what_only_commands_need():
    program = (
        "import sys\nfrom streams.cli import build\nbuild()\n"
        "print(sorted({'kafka', 'faust', 'pandas', 'evidently', 'sklearn', 'pyarrow'} & set(sys.modules)))"
    )
    loaded = run(sys.executable, "-c", program)
    assert loaded.stdout.strip() == "[]", loaded.stderr


@pytest.mark.parametrize("process", ["worker", "retrain", "scores"])
def test_who_has_no_model_starts_without_scikit_learn(process):
    program = (
        f"import sys\nimport streams.{process}, streams.app\n"
        "print(sorted({'sklearn', 'skops', 'evidently', 'river'} & set(sys.modules)))"
    )
    loaded = run(sys.executable, "-c", program)
    assert loaded.stdout.strip() == "[]", loaded.stderr
