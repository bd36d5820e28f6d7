"""What a process refuses at its start: one message that names the setting, before anything else happens."""

import os
import subprocess
import sys

import pytest

from streams import start_checks
from streams.errors import ExitCode, UserError
from streams.roles import Role
from streams.settings import Settings

NOWHERE = "127.0.0.1:9"  # nothing listens there: what is refused is refused before a broker is asked


@pytest.fixture
def blocked(tmp_path):
    """A path that no directory can be made at, whoever tries."""
    (tmp_path / "file").write_text("no directory")
    return tmp_path / "file" / "below"


def ended(tmp_path, *arguments: str, **given) -> subprocess.CompletedProcess[str]:
    named = {f"CLV_DRIFT_{name.upper()}": str(value) for name, value in given.items()}
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        cwd=tmp_path,
        env={**os.environ, "CLV_DRIFT_BOOTSTRAP_SERVERS": NOWHERE, "CLV_DRIFT_BROKER_WAIT_S": "1", **named},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "setting", "what"),
    [
        ("worker", "reports_dir", "cannot be written"),
        ("worker", "registry_dir", "cannot be read"),
        ("worker", "kafka_dir", "cannot be written"),
        ("retrain", "registry_dir", "cannot be written"),
        ("broker", "kafka_dir", "cannot be written"),
        ("broker", "kafka_cache_dir", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_used_is_named_by_its_setting(tmp_path, blocked, command, setting, what):
    place = blocked / "kafka" if (command, setting) == ("worker", "kafka_dir") else blocked
    refused = ended(tmp_path, command, **{setting: place})
    assert refused.returncode == ExitCode.STORAGE
    error, hint = refused.stderr.splitlines()
    assert error.startswith(f"error: {setting}: {blocked}")
    assert error.endswith(f"{what}: Not a directory")
    assert hint == f"hint: correct CLV_DRIFT_{setting.upper()}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"estimators": ("tweedie_glm", "oracle")},
            (
                "estimators: no estimator is called 'oracle'; known are random_forest, tweedie_glm,"
                " gradient_boosting, bg_nbd, best_two and"
            ),
        ),
        ({"estimators": ("sklearn.linear_model.Oracle",)}, "estimators: scikit-learn has no"),
        (
            {"detectors": ("baseline", "oracle"), "acting_detector": "baseline"},
            "detectors: there is no detector 'oracle'; known detectors: baseline",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path, given, said):
    settings = Settings(
        kafka_dir=tmp_path / "kafka", registry_dir=tmp_path / "models", reports_dir=tmp_path, **given
    )
    for check in (
        lambda: start_checks.check_worker(settings, Role.INGEST),
        lambda: start_checks.check_retrain(settings),
    ):
        with pytest.raises(UserError) as refused:
            check()
        assert refused.value.message.startswith(said)
        assert refused.value.code is ExitCode.USAGE


def test_a_backfill_refuses_an_unknown_estimator_before_it_reads(tmp_path):
    refused = ended(tmp_path, "backfill", "absent.csv", "--out", "out", estimators='["oracle"]')
    assert refused.returncode == ExitCode.USAGE
    assert refused.stderr.startswith("error: estimators: no estimator is called 'oracle'")


def test_a_list_without_an_estimator_is_refused(tmp_path):
    refused = ended(tmp_path, "retrain", estimators="[]")
    assert refused.returncode == ExitCode.USAGE
    assert "estimators" in refused.stderr


def test_each_role_needs_only_the_places_it_uses(tmp_path, blocked):
    kafka = tmp_path / "var" / "kafka"
    no_reports = Settings(kafka_dir=kafka, registry_dir=tmp_path / "none", reports_dir=blocked)
    start_checks.check_worker(no_reports, Role.INGEST)
    start_checks.check_worker(no_reports, Role.EVALUATE)
    for role in (Role.ALL, Role.COMPARE):
        with pytest.raises(UserError, match="reports_dir"):
            start_checks.check_worker(no_reports, role)
    no_registry = no_reports.model_copy(update={"registry_dir": blocked, "reports_dir": tmp_path / "reports"})
    start_checks.check_worker(no_registry, Role.INGEST)
    with pytest.raises(UserError, match="registry_dir"):
        start_checks.check_worker(no_registry, Role.EVALUATE)


def test_a_place_that_is_not_there_yet_is_made_where_it_is_written_only(tmp_path):
    settings = Settings(
        kafka_dir=tmp_path / "var" / "kafka", registry_dir=tmp_path / "models", reports_dir=tmp_path / "pages"
    )
    start_checks.check_worker(settings, Role.ALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pages", "var"]
    assert list((tmp_path / "pages").iterdir()) == []
    start_checks.check_retrain(settings)
    assert (tmp_path / "models").is_dir()
