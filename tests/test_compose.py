"""The containers, as far as they can be checked without an engine; what none of this shows is told
in docs/containers.md.

The program's own services run here as plain processes, with the environment and the command that
docker-compose.yml gives them.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import urllib.request
import uuid
from pathlib import Path

import pytest
import yaml
from brokers import IMAGE
from conftest import PROJECT
from stream_run import StreamRun
from test_grafana import logql_of

from streams.kafka_config import CLUSTER_ID, server_properties
from streams.kafka_process import free_port
from streams.processes import Child, stop_all
from streams.settings import ENV_PREFIX, load_settings

COMPOSE = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict] = COMPOSE["services"]
OURS = ("topics", "worker", "retrain", "scores", "webhooks", "replay")
BIN = Path(sys.executable).parent

# Two whose digest is not known here, and the image that is built from this tree.
BY_TAG = {"cadvisor": "v0.60.6", "kafka-ui": "v1.5.0", **dict.fromkeys(OURS, "0.1.0")}
ONE_SHOT = {"topics", "replay"}  # they end; nothing could be asked whether they are well
YOURS = {"./data", "./config/secrets/webhooks"}  # what is in them, whoever runs it puts there
ROOT = {"alloy", "cadvisor"}  # Docker's log files and control groups are root's

each_service = pytest.mark.parametrize("name", SERVICES)


def resolved(value: str, **given: str) -> str:
    """A value with its variables replaced, as compose does it: `${NAME:-default}`, and `$$` for a dollar."""
    found = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: given.get(match[1], match[2]), value)
    return found.replace("$$", "$")


def environment(name: str) -> dict[str, str]:
    return {key: resolved(value) for key, value in SERVICES[name].get("environment", {}).items()}


def mounts(name: str) -> list[dict]:
    """The mounts of a service, whichever way they are written."""
    found = []
    for mount in SERVICES[name].get("volumes", []):
        if isinstance(mount, dict):
            found.append({**mount, "source": resolved(mount["source"])})
            continue
        source, target, *mode = resolved(mount).split(":")
        kind = "bind" if source.startswith((".", "/")) else "volume"
        flags = mode[0].split(",") if mode else []
        found.append({"type": kind, "source": source, "target": target, "read_only": "ro" in flags})
    return found


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / arguments[0]), *arguments[1:]],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"),
        ("compose-lint", "check", "--strict-config", "--quiet", "docker-compose.yml"),
        ("hadolint", "Dockerfile"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_linters_are_content(arguments):
    checked = tool(*arguments)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.docker
def test_docker_itself_reads_the_file():
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("this docker has no compose")
    read = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--quiet"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.returncode == 0, read.stderr


@pytest.mark.docker
def test_the_image_can_be_built_and_says_what_it_can():
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    if subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("no Docker engine answers")
    built = subprocess.run(
        ["docker", "build", "--quiet", "."], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    said = subprocess.run(
        ["docker", "run", "--rm", built.stdout.strip()], capture_output=True, text=True, check=True
    )
    assert "worker" in said.stdout


@each_service
def test_images_are_pinned(name):
    image = SERVICES[name]["image"]
    if name in BY_TAG:
        assert image.rpartition(":")[2] == BY_TAG[name]
    else:
        assert re.fullmatch(r"[a-z/.-]+:v?\d+\.\d+\.\d+@sha256:[0-9a-f]{64}", image)


def test_the_tests_use_the_same_kafka():
    assert SERVICES["kafka"]["image"] == IMAGE


@each_service
def test_a_service_can_do_no_more_than_it_must(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"privileged", "cap_add", "pid", "network_mode", "devices", "container_name"} & set(service)
    if name != "kafka-ui":  # whose image names its user, without a number
        assert service["user"].startswith("0:") == (name in ROOT)
    bound = [mount for mount in mounts(name) if mount["type"] == "bind"]
    assert all(mount["read_only"] for mount in bound)
    if name != "cadvisor":
        assert not [mount for mount in bound if "docker.sock" in mount["source"] or mount["source"] == "/"]


@each_service
def test_a_service_is_bounded(name):
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] == 512
    assert service["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")


@each_service
def test_a_service_says_whether_it_is_well(name):
    health = SERVICES[name]["healthcheck"]
    assert health == {"disable": True} if name in ONE_SHOT else health["test"][0] == "CMD"


@each_service
def test_ports_are_of_this_machine_alone(name):
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d*:\d+", resolved(port)), port
    if name == "worker":
        assert SERVICES[name]["ports"] == ["127.0.0.1::8001"], "several workers cannot share a port"


@each_service
def test_waiting_is_for_what_can_be_waited_for(name):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert how["condition"] == wanted
        assert "profiles" not in SERVICES[other]


@each_service
def test_what_is_mounted_exists(name):
    for mount in mounts(name):
        if mount["type"] == "volume":
            assert mount["source"] in COMPOSE["volumes"]
        elif mount["source"].startswith("./") and mount["source"] not in YOURS:
            assert (PROJECT / mount["source"]).exists(), mount["source"]
    for secret in SERVICES[name].get("secrets", []):
        assert (secret if isinstance(secret, str) else secret["source"]) in COMPOSE["secrets"]


@each_service
def test_no_secret_stands_in_the_file(name):
    for key, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|_KEY", key):
            assert key.endswith("__FILE"), key
            assert value.removeprefix("/run/secrets/") in SERVICES[name]["secrets"]


def test_every_volume_and_secret_is_used():
    used = {mount["source"] for name in SERVICES for mount in mounts(name) if mount["type"] == "volume"}
    assert used == set(COMPOSE["volumes"])
    asked = [secret for service in SERVICES.values() for secret in service.get("secrets", [])]
    assert {item if isinstance(item, str) else item["source"] for item in asked} == set(COMPOSE["secrets"])


def test_prometheus_finds_its_targets():
    config = yaml.safe_load((PROJECT / "config/prometheus.yml").read_text())
    found = config["scrape_configs"] + config["alerting"]["alertmanagers"]
    names = {name for item in found for sd in item.get("dns_sd_configs", []) for name in sd["names"]}
    assert names <= set(SERVICES)
    for name in names:
        assert "watch" in SERVICES[name]["networks"], name


def test_kafka_is_set_as_the_embedded_broker_is():
    given = environment("kafka")
    assert given.pop("CLUSTER_ID") == CLUSTER_ID
    assert given.pop("KAFKA_HEAP_OPTS")
    own = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in given.items()}
    embedded = server_properties(Path("/var/lib/kafka/data"), port=9092, controller_port=9093)
    assert own.keys() == embedded.keys()
    differing = {name for name in own if own[name] != embedded[name]}
    assert differing == {
        "listeners",  # two: the other containers' and this machine's
        "advertised.listeners",
        "listener.security.protocol.map",
        "controller.quorum.voters",  # localhost, by that name
    }


def test_grafana_is_given_what_its_provisioning_asks_for():
    provisioning = "".join(path.read_text() for path in (PROJECT / "grafana/provisioning").rglob("*.yml"))
    asked = set(re.findall(r"\$\{(\w+)\}", provisioning))
    given = environment("grafana")
    assert asked <= set(given)
    assert given["CLV_DASHBOARDS"] in {mount["target"] for mount in mounts("grafana")}
    for variable in ("PROMETHEUS_URL", "LOKI_URL"):
        assert re.fullmatch(r"http://(\w+):\d+", given[variable])[1] in SERVICES


@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_one_of_settings(name, monkeypatch, tmp_path):
    given = environment(name)
    (config,) = [m for m in mounts(name) if m["target"] == given["CLV_DRIFT_CONFIG"]]
    monkeypatch.setenv("CLV_DRIFT_CONFIG", str(PROJECT / config["source"]))
    for key, value in given.items():
        if key != "CLV_DRIFT_CONFIG":
            monkeypatch.setenv(key, value)
    settings = load_settings()
    assert settings.bootstrap_servers == "kafka:9092"
    assert settings.web_host == "0.0.0.0"
    writable = {mount["target"]: not mount.get("read_only") for mount in mounts(name)}
    for directory, written_by in (
        (settings.registry_dir, "retrain"),
        (settings.reports_dir, "worker"),
        (settings.webhooks_dir, "webhooks"),
    ):
        if name == written_by:
            assert writable[str(directory)]
    assert str(settings.kafka_dir.parent).startswith("/tmp/")


def test_the_image_holds_what_the_services_need():
    text = (PROJECT / "Dockerfile").read_text()
    for name in OURS:
        for mount in mounts(name):
            if mount["type"] == "volume":
                assert mount["target"] in text, "a new volume takes its owner from the image"
    assert SERVICES["worker"]["user"] in text
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    copied = {
        part for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for part in line.split()
    }
    assert ignored[1] == "*"
    assert copied == {line.removeprefix("!") for line in ignored if line.startswith("!")}


# -- logs


def alloy_blocks() -> dict[str, str]:
    """The components of the configuration, by name; braces in strings and comments do not count."""
    text = (PROJECT / "config/alloy/config.alloy").read_text()
    text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    bare = re.sub(r'"(?:[^"\\]|\\.)*"|`[^`]*`', lambda match: "_" * len(match[0]), text)
    blocks, depth, start = {}, 0, 0
    for place, letter in enumerate(bare):
        if letter == "{":
            depth += 1
            if depth == 1:
                start = place
        elif letter == "}":
            depth -= 1
            assert depth >= 0, f"a brace too many at {place}"
            if depth == 0:
                kind, label = re.search(r'([\w.]+) "(\w+)" $', text[:start]).groups()
                blocks[f"{kind}.{label}"] = text[start + 1 : place]
    assert depth == 0, "a brace is not closed"
    return blocks


def test_components_of_alloy_refer_to_each_other():
    blocks = alloy_blocks()
    assert len(blocks) == 4
    exports = {"local.file_match": "targets", "loki.process": "receiver", "loki.write": "receiver"}
    for name, body in blocks.items():
        for kind, label, export in re.findall(r"\b((?:loki|local)\.\w+)\.(\w+)\.(\w+)", body):
            assert f"{kind}.{label}" in blocks, f"{name} refers to {kind}.{label}"
            assert exports[kind] == export
    pushed = re.search(r'url = "http://(\w+):(\d+)/', blocks["loki.write.loki"])
    assert pushed[1] in SERVICES
    port = yaml.safe_load((PROJECT / "config/loki.yml").read_text())["server"]["http_listen_port"]
    assert int(pushed[2]) == port


def test_alloy_reads_what_docker_is_told_to_write():
    lines = alloy_blocks()["loki.process.lines"]
    options = next(iter(SERVICES.values()))["logging"]["options"]
    for label in options["labels"].split(","):
        assert f'attrs.\\"{label}\\"' in lines
    assert f'project!=\\"{COMPOSE["name"]}\\"' in lines
    assert set(re.search(r'service=~\\"([a-z|]+)\\"', lines)[1].split("|")) == set(OURS)
    paths = re.search(r'"(/\S+?)/\*/', alloy_blocks()["local.file_match.containers"])[1]
    assert paths in {mount["target"] for mount in mounts("alloy")}


def test_streams_are_few_and_have_the_label_that_the_dashboard_asks_for():
    lines = alloy_blocks()["loki.process.lines"]
    labels = set()
    for body in re.findall(r"stage\.(?:static_)?labels {\s*values = {([^}]*)}", lines):
        labels |= set(re.findall(r"(\w+)\s*=", body))
    dropped = set(re.findall(r'"(\w+)"', re.search(r"label_drop {\s*values = \[(.*)\]", lines)[1]))
    assert labels - dropped == {"app", "service", "level", "stream"}
    limits = yaml.safe_load((PROJECT / "config/loki.yml").read_text())["limits_config"]
    assert len(labels - dropped) <= limits["max_label_names_per_series"]
    assert limits["retention_period"] == "720h"
    for query in logql_of():
        assert query.startswith('{app="clv-drift"}')
    assert 'values = {app = "clv-drift"}' in lines


# -- secrets


def written_secrets(directory: Path) -> dict[str, str]:
    done = subprocess.run(
        ["sh", str(PROJECT / "config/compose-env.sh"), str(directory)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert (directory / "webhooks").is_dir()  # which the container of that name mounts
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


def test_secrets_are_written_once_and_for_this_user_alone(tmp_path):
    directory = tmp_path / "secrets"
    first = written_secrets(directory)
    assert set(first) == {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (directory / "chat_url").write_text("http://chat.example/hook")
    assert written_secrets(directory) == {**first, "chat_url": "http://chat.example/hook"}
    other = written_secrets(tmp_path / "other")
    passwords = ("grafana_admin_password", "grafana_secret_key", "kafka_ui.yml")
    assert all(first[name] != other[name] for name in passwords)
    assert all(re.fullmatch(r"[0-9a-f]{48}", first[name]) for name in passwords[:2])
    login = yaml.safe_load(first["kafka_ui.yml"])
    assert login["auth"]["type"] == environment("kafka-ui")["AUTH_TYPE"] == "LOGIN_FORM"
    assert len(login["spring"]["security"]["user"]["password"]) == 48


def test_secrets_are_never_committed():
    for secret in COMPOSE["secrets"].values():
        ignored = subprocess.run(["git", "check-ignore", "--quiet", secret["file"]], cwd=PROJECT, check=False)
        assert ignored.returncode == 0, secret["file"]


# -- the services as plain processes


class Services(StreamRun):
    """Services of the file as processes; changed is only what this machine has in another place."""

    def __init__(self, settings, logs: Path, here: dict[str, str]) -> None:
        super().__init__(settings, logs)
        self.here = here
        self.ports = {name: free_port() for name in ("worker", "retrain", "scores")}

    def begin(self, name: str, *more: str, **variables: str) -> Child:
        assert set(self.here) <= set(environment(name))
        plain = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
        child = Child.start(
            [*(resolved(word, **variables) for word in SERVICES[name]["command"]), *more],
            env=plain | environment(name) | self.here,
            log_path=self.logs / f"{name}.log",
        )
        self.children.append(child)
        return child

    def page(self, name: str, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=5) as answer:
            return answer.read().decode()

    def is_ready(self, name: str) -> bool:
        for child in self.children:
            assert child.poll() in {None, 0}, self.words()
        try:
            return bool(self.page(name, "/readyz"))
        except OSError:
            return False


@pytest.fixture
def services(settings, tmp_path, monkeypatch):
    here = {
        "CLV_DRIFT_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "CLV_DRIFT_TOPIC_PREFIX": f"c{uuid.uuid4().hex[:8]}.",
        "CLV_DRIFT_CONFIG": str(PROJECT / "config/clv-drift.toml"),
        "CLV_DRIFT_REGISTRY_DIR": str(tmp_path / "registry"),
        "CLV_DRIFT_REPORTS_DIR": str(tmp_path / "reports"),
        "CLV_DRIFT_KAFKA_DIR": str(tmp_path / "kafka"),
    }
    for name, value in (environment("worker") | here).items():
        monkeypatch.setenv(name, value)
    # In the image the working directory cannot be written.
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    run = Services(load_settings(), tmp_path, here)
    yield run
    stop_all(run.children)


@pytest.mark.parametrize("name", ["worker", "retrain", "scores", "webhooks"])
def test_health_is_asked_where_it_is_served(name):
    asked = re.search(r"127\.0\.0\.1:(\d+)/readyz", SERVICES[name]["healthcheck"]["test"][-1])
    assert int(asked[1]) == getattr(load_settings(), f"{name}_port")


@pytest.mark.broker
@pytest.mark.slow
def test_the_services_run_as_processes_with_the_same_environment(services):
    assert services.begin("topics").process.wait(180) == 0, services.words()
    processes = [services.begin(name, "--port", str(port)) for name, port in services.ports.items()]
    services.wait_for(lambda: all(services.is_ready(name) for name in services.ports), timeout_s=300)
    shop = "customers=200,days=21,seed=1,start=2011-07-18"
    replay = services.begin("replay", "--synthetic", shop, REPLAY_SPEED="max")
    assert replay.process.wait(180) == 0, services.words()
    services.wait_for(services.ended, timeout_s=300)
    for name in services.ports:
        assert "clv_" in services.page(name, "/metrics")
    stop_all(processes)
    assert {process.poll() for process in processes} == {0}, services.words()
    assert list(Path.cwd().iterdir()) == []
    for name in services.ports:
        lines = (services.logs / f"{name}.log").read_text().splitlines()
        assert lines
        assert all({"timestamp", "level", "event"} <= set(json.loads(line)) for line in lines)
