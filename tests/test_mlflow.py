"""Models mirrored into a real MLflow server: runs, figures, registered versions, who serves."""

import os
import subprocess
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from small_shop import shop, short_settings
from stream_run import backfilled

from models.registry import Registry
from streams.errors import ExitCode, UserError
from streams.kafka_process import HOST, free_port
from streams.mirror_child import MirrorChild
from streams.mlflow_mirror import CHAMPION, VERSION_TAG, metrics_of, mirror, parameters_of

PROJECT = Path(__file__).resolve().parent.parent
SERVER = PROJECT / ".venv-mlflow" / "bin" / "mlflow"
TEXT = "customers=3000,days=150,seed=3"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not SERVER.exists():
        pytest.skip(f"{SERVER} is not there: `make test` sets it up")
    directory, port = tmp_path_factory.mktemp("mlflow"), free_port()
    url = f"http://{HOST}:{port}"
    command = [
        SERVER, "server", "--host", HOST, "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{directory}/mlflow.db",
        "--artifacts-destination", directory / "artifacts",
    ]  # fmt: skip
    env = {**os.environ, "PATH": f"{SERVER.parent}{os.pathsep}{os.environ['PATH']}", "DO_NOT_TRACK": "true"}
    env.pop("PYTHONPATH", None)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=directory, env=env, start_new_session=True
        )
    try:
        until = time.monotonic() + 300
        while not answers(url):
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < until, (directory / "log").read_text()
            time.sleep(0.3)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(120)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    directory = tmp_path_factory.mktemp("registry")
    conf = short_settings(retrain_every_days=14)  # two versions and more
    backfilled(shop(text=TEXT), conf, directory)
    return directory


@pytest.fixture
def conf(server, registry):
    return short_settings(registry_dir=registry, mlflow_tracking_uri=server)


def client_of(server):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=server, registry_uri=server)


def test_every_version_has_a_run_and_a_registered_version(server, conf, registry):
    cards = {card.version: card for card in Registry(registry).cards()}
    assert len(cards) >= 2
    first, *_, last = cards
    done = mirror(conf, first)
    assert set(done.runs) == set(done.versions) == set(cards)
    assert done.champion == first
    client = client_of(server)
    found = client.search_model_versions(f"name = '{conf.mlflow_model}'")
    assert {version.tags[VERSION_TAG] for version in found} == set(cards)
    for version in found:
        card = cards[version.tags[VERSION_TAG]]
        run = client.get_run(version.run_id)
        assert run.info.status == "FINISHED"
        assert run.data.metrics == pytest.approx(metrics_of(card))
        assert run.data.params == parameters_of(card)
        files = {Path(item.path).name for item in client.list_artifacts(version.run_id, "model")}
        assert files == {"card.json", "model.skops"}
    # Again: nothing is left to be done, but another champion is followed.
    again = mirror(conf, last)
    assert (again.runs, again.versions, again.champion) == ([], [], last)
    alias = client.get_model_version_by_alias(conf.mlflow_model, CHAMPION)
    assert alias.tags[VERSION_TAG] == last


def test_a_run_that_was_cut_short_is_made_again(server, conf, registry):
    mirror(conf, None)
    client = client_of(server)
    experiment = client.get_experiment_by_name(conf.mlflow_experiment)
    run = client.search_runs([experiment.experiment_id])[0]
    client.update_run(run.info.run_id, status="RUNNING")
    assert mirror(conf, None).runs == [run.data.tags[VERSION_TAG]]


def test_only_a_version_that_is_there_becomes_the_champion(conf):
    assert mirror(conf, "0123456789abcdef").champion is None


def test_the_retrain_consumer_s_child_mirrors_by_itself(server, conf):
    there = conf.model_copy(
        update={
            "mlflow_model": "by-child",
            "mlflow_experiment": "by-child",
            "bootstrap_servers": f"{HOST}:{free_port()}",  # who serves cannot be told, and need not be
            "broker_wait_s": 1.0,
        }
    )
    child, client = MirrorChild(there), client_of(server)
    with closing(child):
        child.want()
        until = time.monotonic() + 300
        while len(client.search_model_versions("name = 'by-child'")) < 2:
            assert time.monotonic() < until
            child.look()
            time.sleep(0.2)


def test_a_server_that_is_not_there_is_named_without_its_password(registry):
    conf = short_settings(
        registry_dir=registry, mlflow_tracking_uri=f"http://user:secret@{HOST}:{free_port()}"
    )
    with pytest.raises(UserError, match=HOST) as caught:
        mirror(conf, None)
    assert caught.value.code is ExitCode.BROKER
    assert "secret" not in caught.value.message
    with pytest.raises(UserError, match="mlflow_tracking_uri is not set"):
        mirror(short_settings(registry_dir=registry), None)
