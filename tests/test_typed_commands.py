"""Every command line that the pages show, typed into a shell in the order in which a new user comes to it.

The commands of the same process (a broker, workers) run at the same time, on one small shop's export.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import odd_shop
import pytest
from conftest import KAFKA_CACHE, PROJECT
from small_shop import SHORT, shop
from test_documented_commands import SHOWN, lines_of_shells
from webhook_receiver import SECRET, receiving, wait_for

from models.registry import Registry
from streams.errors import ExitCode
from streams.kafka_process import die_with_parent, free_port
from streams.settings import ENV_PREFIX
from streams.transactions import FIELDS

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(900)]

# Command lines that others run, and those that no machine without Docker can.
ELSEWHERE = {
    "clv-drift model mirror": "test_mlflow.py",
    "make demo": "test_demo.py runs what it starts",
    "make test": "runs this",
    "make compose-env": "test_compose.py",
    "(cd config && prometheus": "test_prometheus_live.py",
    "docker": "needs an engine; test_compose.py runs what the containers start",
}
KNOWN_CUSTOMER = "17850"  # whom the pages speak of
END = "2011-03-14"  # of the export; the till goes on from there


class Shell:
    """A shell of a person in a directory of their own; what was typed is kept as the pages show it."""

    def __init__(self, home: Path, env: dict[str, str]) -> None:
        self.home = home
        self.env = env
        self.typed: list[str] = []
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.words: dict[str, str] = {}  # what stands for the pages' capital letters

    def _line(self, shown: str) -> str:
        self.typed.append(shown)
        return re.sub(
            r"\[?\b[A-Z]{3,}\b\]?|\.\.\.", lambda it: self.words.get(it[0].strip("[]"), it[0]), shown
        )

    def run(self, shown: str, *more: str, code: int = 0, answers: str = "", **env: str) -> str:
        """Type a line, and `more` at its end; return what it says."""
        line = " ".join([self._line(shown), *more])
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.home,
            env=self.env | env,
            input=answers.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        said = done.stdout.decode()
        assert done.returncode == code, f"{line}\n{said}\n{self.logs()}"
        assert "Traceback" not in said, f"{line}\n{said}"
        return said

    def begin(self, shown: str, **env: str) -> str:
        """Type a line that goes on until it is interrupted; return its name for `end`."""
        name = f"{len(self.typed):02d}"
        with (self.home / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                ["bash", "-c", self._line(shown)],
                cwd=self.home,
                env=self.env | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509  (it calls nothing but prctl)
            )
        return name

    def end(self, name: str) -> None:
        """Interrupt what was begun."""
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(120)
        assert code in {0, 130, -signal.SIGINT}, f"{code}\n{self.log(name)}"
        assert "Traceback" not in self.log(name)

    def log(self, name: str) -> str:
        return (self.home / f"{name}.log").read_text(errors="replace")

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in self.home.glob("*.log"))

    def wait_for_page(self, name: str, setting: str) -> None:
        """Wait until a process says that it is ready on its port."""
        url = f"http://127.0.0.1:{self.env[ENV_PREFIX + setting]}/readyz"

        def ready() -> bool:
            assert self.running[name].poll() is None, self.log(name)
            try:
                with urllib.request.urlopen(url, timeout=20) as answer:
                    return answer.status == 200
            except OSError:
                return False

        wait_for(ready)

    def close(self) -> None:
        for process in self.running.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def environment(hook: str) -> dict[str, str]:
    """What is set on this machine: ports that are free, a short story, one endpoint."""
    endpoint = {"url": hook, "secret_env": "HOOK_SECRET", "allow_hosts": ["127.0.0.1"]}
    settings: dict[str, Any] = {
        **SHORT,
        "bootstrap_servers": f"127.0.0.1:{free_port()}",
        "broker_wait_s": 60,
        "kafka_cache_dir": str(KAFKA_CACHE),
        "partitions": 2,
        "webhooks": {"ops": endpoint},
        **{f"{name}_port": free_port() for name in ("worker", "retrain", "webhooks", "scores")},
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    for name, value in settings.items():
        env[ENV_PREFIX + name.upper()] = value if isinstance(value, str) else json.dumps(value)
    path = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return env | {"PATH": path, "HOOK_SECRET": SECRET, "COLUMNS": "200"}


def write_files(home: Path) -> list[dict[str, Any]]:
    """Write the export of a till in its own form and in ours, and the mapping; return the lines after it."""
    lines = [line | {"InvoiceDate": line["InvoiceDate"][:17] + "00"} for _, line in shop().lines()]
    ((spoken_of, _),) = Counter(filter(None, (line["CustomerID"] for line in lines))).most_common(1)
    for line in lines:
        if line["CustomerID"] == spoken_of:
            line["CustomerID"] = KNOWN_CUSTOMER
    before = [line for line in lines if line["InvoiceDate"] < END]
    odd_shop.write(home / "export.csv", before)
    with (home / "ours.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(before)
    shutil.copy(odd_shop.EXAMPLE, home / "mapping.toml")
    return lines[len(before) :]


@pytest.fixture
def shell(tmp_path):
    with receiving() as hook:
        found = Shell(tmp_path, environment(hook.url))
        found.words = {"INPUT": "ours.csv", "DIR": "out", "NAME": "ops", "...": "'as the page says'"}
        found.words["CUSTOMER"] = KNOWN_CUSTOMER
        found.hook = hook
        yield found
        found.close()


def look_at_the_export(shell: Shell) -> None:
    assert "Belegnr" in shell.run("clv-drift check export.csv", code=ExitCode.INPUT)
    assert "customers" in shell.run("clv-drift check export.csv --mapping mapping.toml")
    shell.run("clv-drift check INPUT")
    shell.run("clv-drift backfill export.csv --mapping mapping.toml --out results")
    shell.run("clv-drift backfill INPUT --out DIR")
    names = ("evaluations.jsonl", "events.jsonl")
    assert all((shell.home / "out" / name).read_bytes() for name in names)
    assert [(shell.home / "results" / name).read_bytes() for name in names] == [
        (shell.home / "out" / name).read_bytes() for name in names
    ]


def set_up(shell: Shell) -> dict[str, str]:
    """Start the processes; return their names by command."""
    found = {"broker": shell.begin("clv-drift broker")}
    shell.run("clv-drift topics")
    shell.run("clv-drift topics --check")
    assert "User:clv-worker" in shell.run("clv-drift rights worker --principal User:clv-worker")
    assert "clv.scores" in shell.run("clv-drift rights erase")
    shell.run("clv-drift rights")
    for name in ("worker", "retrain", "scores", "webhooks"):
        found[name] = shell.begin(f"clv-drift {name}")
        shell.wait_for_page(found[name], f"{name.upper()}_PORT")
    assert "broker" in shell.run("clv-drift doctor")
    return found


def tell_others(shell: Shell) -> None:
    shell.run("clv-drift webhooks test NAME")
    assert len(shell.hook.got) == 1
    assert "no dead delivery" in shell.run("clv-drift webhooks dead")
    shell.run("clv-drift webhooks redeliver NAME")


def feed(shell: Shell, later: list[dict[str, Any]]) -> None:
    """Replay the past until a model serves, then go on with the till."""
    shell.run("clv-drift replay export.csv --mapping mapping.toml --no-end")
    wait_for(lambda: "promoted" in shell.run("clv-drift watch"))
    first = registry(shell).list_versions()
    shell.words["VERSION"] = first[0]
    shell.run("clv-drift model show VERSION")
    shell.run("clv-drift train", "ours.csv")
    trained = next(name for name in registry(shell).list_versions() if name not in first)
    shell.run("clv-drift model diff", first[0], trained)
    shell.words["VERSION"] = trained
    shell.run("clv-drift model promote VERSION --reason ...")
    till = odd_shop.write(shell.home / "till.csv", later)
    follower = shell.begin("clv-drift replay --follow till.csv --mapping mapping.toml")
    wait_for(lambda: f"champion {trained}" in shell.run("clv-drift watch"))
    shell.end(follower)
    till.write_bytes(b"".join(till.read_bytes().splitlines(keepends=True)[:50]))
    piped = shell.begin("tail -n +1 -F till.csv | clv-drift replay --follow - --mapping mapping.toml")
    wait_for(lambda: "49" in shell.log(piped))
    shell.end(piped)


def decide(shell: Shell) -> None:
    assert shell.words["VERSION"] in shell.run("clv-drift model list")
    assert "as the page says" in shell.run("clv-drift watch")
    shell.run("clv-drift model rollback --reason ...")
    shell.run("clv-drift model request", "--reason", "'to see it answered'")
    shell.run("clv-drift model explain CUSTOMER")
    shell.run("clv-drift model explain 17850")
    told = shell.run("clv-drift detect", "ours.csv --reference", shell.words["VERSION"])
    assert "against the reference of model" in told


def forget(shell: Shell) -> None:
    shell.run("clv-drift erase CUSTOMER", answers="y\n")
    shell.run("clv-drift erase 17850", answers="y\n")
    shell.run("clv-drift erase 17850 --everywhere", answers="y\n")


def read_a_foreign_topic(shell: Shell) -> None:
    env = "export CLV_DRIFT_INPUT_TOPIC=shop.lines CLV_DRIFT_MAPPING=mapping.toml"
    shell.run(f"{env}\nclv-drift topics", CLV_DRIFT_TOPIC_PREFIX="till.")
    worker = shell.begin(f"{env}\nclv-drift worker", CLV_DRIFT_TOPIC_PREFIX="till.")
    shell.wait_for_page(worker, "WORKER_PORT")
    shell.end(worker)


def run_the_demo(shell: Shell) -> None:
    demo = shell.begin("clv-drift demo --speed 30000")
    shell.wait_for_page(demo, "WORKER_PORT")
    shell.end(demo)


def registry(shell: Shell) -> Registry:
    return Registry(shell.home / "var" / "registry")


def test_every_line_that_the_pages_show_is_typed(shell):
    later = write_files(shell.home)
    look_at_the_export(shell)
    processes = set_up(shell)
    tell_others(shell)
    feed(shell, later)
    decide(shell)
    shell.run("clv-drift replay [INPUT]")
    for name in ("worker", "scores", "retrain", "webhooks"):
        shell.end(processes[name])
    forget(shell)
    read_a_foreign_topic(shell)
    shell.end(processes["broker"])
    run_the_demo(shell)

    typed = {line for lines in shell.typed for line in lines.splitlines()}
    typed |= {line.rpartition(" | ")[2] for line in typed}
    shown = {" ".join(command.split()) for _, command in SHOWN} | set(lines_of_shells())
    missing = {line for line in shown if not any(f"{it} ".startswith(f"{line} ") for it in typed)}
    assert {line for line in missing if not line.startswith(tuple(ELSEWHERE))} == set()


def test_what_is_run_elsewhere_is_shown():
    shown = {" ".join(command.split()) for _, command in SHOWN} | set(lines_of_shells())
    assert [line for line in ELSEWHERE if not any(it.startswith(line) for it in shown)] == []
    tests = {name for said in ELSEWHERE.values() for name in re.findall(r"test_\w+\.py", said)}
    assert all((PROJECT / "tests" / name).is_file() for name in tests)
