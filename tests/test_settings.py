"""The settings: what is refused, in words that name the settings and the file in question."""

import re

import pytest

from streams.errors import ExitCode, UserError
from streams.settings import DEFAULT_FILE, Settings, load_settings


def refused(**given) -> UserError:
    with pytest.raises(UserError) as caught:
        load_settings(**given)
    assert caught.value.code is ExitCode.USAGE
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"window_days": 14},
            "short_window_days (7) <= mid_window_days (28) <= window_days (14) must hold",
        ),
        ({"window_days": 90}, "window_days (90) must be a multiple of window_hop_days (7)"),
        ({"window_hop_days": 1}, "window_hop_days (1) must be a multiple of 7: windows end on Mondays"),
        (
            {"acting_detector": "x"},
            "acting_detector ('x') must be one of detectors (['calibrated', 'baseline'])",
        ),
        ({"reference_weeks": 12}, "reference_weeks (12) must cover window_days (91)"),
        (
            {"decision_wait_s": 600.0},
            "decision_wait_s (600) must be more than training_timeout_s (600)",
        ),
        (
            {"training_timeout_s": 3600.0},
            "decision_wait_s (900) must be more than training_timeout_s (3600)",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_all_named(given, said):
    assert refused(**given).message == f"refused settings: {said}"


def test_a_setting_out_of_its_range_and_an_unknown_one_are_both_named():
    message = refused(partitions=0, nonsense=1).message
    assert re.fullmatch("refused settings: partitions: .*greater than 0; nonsense: .*", message)


def test_the_defaults_go_together():
    settings = Settings()
    assert settings.decision_wait_s > settings.training_timeout_s


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A settings file that `CLV_DRIFT_CONFIG` names; it is not there yet."""
    path = tmp_path / "named.toml"
    monkeypatch.setenv("CLV_DRIFT_CONFIG", str(path))
    return path


def test_a_settings_file_that_is_missing(named):
    assert refused().message == f"the settings file {named} does not exist"


def test_a_directory_for_a_settings_file(named):
    named.mkdir()
    assert refused().message == f"the settings file {named} is a directory"


def test_a_directory_where_the_settings_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    DEFAULT_FILE.mkdir(parents=True)
    assert refused().message == f"the settings file {DEFAULT_FILE} is a directory"


@pytest.mark.parametrize("content", [b"partitions = [", b"\xff\xfep\0", b"partitions"])
def test_a_settings_file_that_is_no_toml(named, content):
    named.write_bytes(content)
    assert refused().message.startswith(f"the settings file {named} is not TOML: ")


def test_a_list_that_is_no_json_in_the_environment(monkeypatch):
    monkeypatch.setenv("CLV_DRIFT_ESTIMATORS", "random_forest")
    caught = refused()
    assert "estimators" in caught.message
    assert '["a"]' in caught.hint


def test_the_environment_wins_over_the_file_and_an_option_over_both(named, monkeypatch):
    named.write_text("partitions = 2\nreplication_factor = 2\nseed = 2\n")
    monkeypatch.setenv("CLV_DRIFT_SEED", "3")
    monkeypatch.setenv("CLV_DRIFT_REPLICATION_FACTOR", "3")
    settings = load_settings(replication_factor=4)
    assert (settings.partitions, settings.seed, settings.replication_factor) == (2, 3, 4)


def test_a_variable_that_is_no_setting_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("CLV_DRIFT_WINDOW_DAY", "28")
    with pytest.raises(UserError, match="CLV_DRIFT_WINDOW_DAY") as refused:
        load_settings()
    assert refused.value.code is ExitCode.USAGE
