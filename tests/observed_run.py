"""Prometheus and Alertmanager as processes with the committed configuration, and what they were told."""

import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT

from streams.kafka_process import die_with_parent, free_port

CONFIG = PROJECT / "config"
TOOLS = {  # Debian's names
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
    "amtool": ("amtool",),
}
READY_S = 120


def tool(name: str) -> str:
    """The path of a program; without it the test is skipped, by name, and fails in continuous integration."""
    found = next(filter(None, map(shutil.which, TOOLS[name])), None)
    if found is None:
        missing = f"{name} is not installed (Debian: prometheus, prometheus-alertmanager)"
        pytest.fail(missing) if "CI" in os.environ else pytest.skip(missing)
    return found


class Receiver:
    """A chat's incoming webhook: keeps what is posted to it, by path."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                messages.append((self.path, json.loads(body)))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def attachments(self, path: str) -> list[dict[str, Any]]:
        """What a chat shows, in order: objects with `title` and `text`."""
        return [item for where, message in self.messages if where == path for item in message["attachments"]]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Observed:
    """A running Prometheus and Alertmanager; `home` holds the configuration as it is committed."""

    def __init__(self, home: Path, targets: dict[str, list[dict[str, Any]]], receiver: Receiver) -> None:
        self.home = home
        self.receiver = receiver
        self.processes: list[subprocess.Popen[bytes]] = []
        self.port, self.alertmanager_port = free_port(), free_port()
        config = home / "config"
        shutil.copytree(CONFIG, config, ignore=shutil.ignore_patterns("targets", "secrets"))
        (config / "targets").mkdir()
        (config / "secrets").mkdir()
        alertmanager = {"alertmanager": [{"targets": [f"127.0.0.1:{self.alertmanager_port}"]}]}
        for name, groups in (targets | alertmanager).items():
            (config / "targets" / f"{name}.yml").write_text(json.dumps(groups))  # JSON is YAML
        for name in ("chat", "on_call"):
            (config / "secrets" / f"{name}_url").write_text(f"{receiver.url}/{name}")

    def start(self) -> None:
        self.start_alertmanager()
        self._start(
            tool("prometheus"),
            "--config.file=prometheus.yml",
            f"--storage.tsdb.path={self.home / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        )
        self.wait_for(lambda: _answers(f"http://127.0.0.1:{self.port}/-/ready"), READY_S)

    def start_alertmanager(self) -> None:
        self._start(
            tool("alertmanager"),
            "--config.file=alertmanager.yml",
            f"--storage.path={self.home / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self.alertmanager_port}",
            "--cluster.listen-address=",
        )
        self.wait_for(lambda: _answers(f"http://127.0.0.1:{self.alertmanager_port}/-/ready"), READY_S)

    def _start(self, *command: str) -> None:
        log = self.home / f"{Path(command[0]).name}.log"
        with log.open("wb") as output:
            self.processes.append(
                subprocess.Popen(
                    command,
                    cwd=self.home / "config",
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=die_with_parent(),  # noqa: PLW1509  (it calls nothing but prctl)
                )
            )

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(120)

    def words(self) -> str:
        """What both said last, and what came of it, for the message of a failing test."""
        logs = [path.read_text()[-2000:] for path in sorted(self.home.glob("*.log"))]
        sent = [item["title"] for path in ("/chat", "/on_call") for item in self.receiver.attachments(path)]
        return "\n".join([*logs, *sent])

    def wait_for(self, what: Callable[[], bool], timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < until, f"timed out\n{self.words()}"
            time.sleep(0.5)

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that an instant query gives now."""
        return self._get("query", query=expr)["result"]

    def over(self, expr: str, start: float, end: float, step_s: int = 5) -> list[dict[str, Any]]:
        """The series that a query gives over a time (seconds since 1970)."""
        return self._get("query_range", query=expr, start=start, end=end, step=step_s)["result"]

    def tell(self, alerts: list[dict[str, str]]) -> None:
        """Tell Alertmanager that alerts with these labels fire."""
        url = f"http://127.0.0.1:{self.alertmanager_port}/api/v2/alerts"
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200

    def told_of(self, alerts: list[dict[str, str]]) -> list[dict[str, Any]]:
        """What Alertmanager says of these alerts, once it has seen them all and what they silence."""
        url = f"http://127.0.0.1:{self.alertmanager_port}/api/v2/alerts"
        names = {tuple(sorted(labels.items())) for labels in alerts}
        last: list[Any] = []

        def settled() -> bool:
            nonlocal last
            before = last
            with urllib.request.urlopen(url, timeout=60) as answer:
                last = json.load(answer)
            seen = {tuple(sorted(alert["labels"].items())) for alert in last}
            silenced = [[alert["status"]["inhibitedBy"] for alert in found] for found in (before, last)]
            return seen == names and any(silenced[1]) and silenced[0] == silenced[1]

        self.wait_for(settled, READY_S)
        return last

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: object) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{parameters}: {exc.read().decode()}") from exc
        assert found["status"] == "success", found
        assert not found.get("warnings"), found
        return found["data"]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


@contextmanager
def observing(
    home: Path, targets: dict[str, list[dict[str, Any]]], *, alertmanager_only: bool = False
) -> Iterator[Observed]:
    """Prometheus and Alertmanager over `targets` (scrape job: groups of targets), stopped at the end."""
    receiver = Receiver()
    observed = Observed(home, targets, receiver)
    try:
        if alertmanager_only:
            observed.start_alertmanager()
        else:
            observed.start()
        yield observed
    finally:
        observed.stop()
        receiver.close()
