"""`backfill`, `train` and `detect` as a person or a scheduler calls them."""

import json
import shutil

import pytest
from small_shop import DRIFT, clv_drift, set_environment, shop, short_settings, write_csv

from models.registry import Registry
from producers.batch_input import batch_records
from streams import output
from streams.batch_models import train_on
from streams.errors import ExitCode

FEW = "customers=300,days=70,seed=2"


@pytest.fixture(autouse=True)
def _plain(monkeypatch, tmp_path):
    """Settings for five months, wide lines, nothing outside of the test's directory."""
    set_environment(monkeypatch, registry_dir=tmp_path / "registry")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The shop as a CSV file: as it is, with rising prices, and its first ten weeks."""
    directory = tmp_path_factory.mktemp("files")
    return {
        "quiet": write_csv(directory / "quiet.csv", shop()),
        "drifting": write_csv(directory / "drifting.csv", shop(DRIFT)),
        "few": write_csv(directory / "few.csv", shop(text=FEW)),
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A registry with the model that `train` makes of the quiet shop, and its version."""
    directory = tmp_path_factory.mktemp("trained")
    settings = short_settings(registry_dir=directory)
    return directory, train_on(batch_records(settings, shop()), settings).card.version


# -- backfill ------------------------------------------------------------------


def test_backfill_writes_its_files_and_says_what_became_of_the_lines(files, tmp_path, capsys):
    assert clv_drift("backfill", files["few"], "--out", "out") == 0
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} >= set(output.NAMES) - {output.MODELS}
    rows = len(files["few"].read_text().splitlines()) - 1
    assert f"on time {rows:,} + late 0 + duplicate 0" in said
    assert "dead 0" in said
    assert "2010-12-06 to 2011-02-14" in said
    assert "warming from 2010-12-06" in said
    assert "results in out" in said


def test_backfill_of_a_shop_by_description_is_that_of_its_file(files, tmp_path):
    assert clv_drift("backfill", files["few"], "--out", "file") == 0
    assert clv_drift("backfill", "--synthetic", FEW, "--partitions", "2", "--out", "shop") == 0
    for name in (output.SNAPSHOTS, output.EVALUATIONS):
        assert (tmp_path / "file" / name).read_bytes() == (tmp_path / "shop" / name).read_bytes()


def test_backfill_takes_scenarios_and_a_limit(files, tmp_path, capsys):
    arguments = ("--limit", "1000", "--inject", "price:+100%@2010-12-01")
    assert clv_drift("backfill", files["few"], "--out", "out", *arguments) == 0
    assert "on time 1,000 + late 0" in capsys.readouterr().out
    assert clv_drift("backfill", files["few"], "--out", "plain", "--limit", "1000") == 0
    ours, plain = (
        json.loads((tmp_path / name / output.EVALUATIONS).read_text().splitlines()[0])
        for name in ("out", "plain")
    )
    assert ours["data"]["lines"] == plain["data"]["lines"]
    assert (tmp_path / "out" / output.SNAPSHOTS).read_bytes() != (
        tmp_path / "plain" / output.SNAPSHOTS
    ).read_bytes()


def test_backfill_reports_verdicts_causes_and_decisions(files, capsys):
    assert clv_drift("backfill", files["drifting"], "--out", "out") == 0
    said = capsys.readouterr().out
    assert "suspected from 2011-04-04, confirmed from 2011-04-11" in said
    drifts, decisions = said.split("decisions\n")
    assert any("2011-04-04" in line and "AvgUnitPrice (+" in line for line in drifts.splitlines())
    assert "promoted, first model" in decisions
    assert "2011-02-21" in decisions


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("missing.csv", "--out", "out"), ExitCode.INPUT, "missing.csv"),
        (("--synthetic", FEW, "--out", "."), ExitCode.USAGE, "which is no result of a backfill"),
        (("--synthetic", FEW, "--out", "out", "--inject", "price"), ExitCode.USAGE, "price"),
        (("--synthetic", FEW, "--out", "out", "--decisions", "none.jsonl"), ExitCode.INPUT, "none.jsonl"),
    ],
)
def test_backfill_refuses_what_it_cannot_do(arguments, code, words, tmp_path, capsys):
    (tmp_path / "mine").write_text("")
    assert clv_drift("backfill", *arguments) == code
    said = capsys.readouterr()
    assert words in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()


# -- train ---------------------------------------------------------------------


def test_train_stores_a_version_that_serves_nobody_yet(files, trained, tmp_path, capsys):
    assert clv_drift("train", files["quiet"]) == 0
    said = capsys.readouterr().out
    version = trained[1]
    assert Registry(tmp_path / "registry").list_versions() == [version]
    _, card = Registry(tmp_path / "registry").load(version)
    assert (card.gate, card.parent, card.requested_at) == (None, None, "2011-04-25T00:00:00Z")
    # Labels of 28 days are known for the windows up to four weeks before the end; the newest four are used.
    assert card.training.last_window_end == "2011-03-28T00:00:00Z"
    assert card.training.first_window_end == "2011-03-07T00:00:00Z"
    assert f"nmae               │ {card.metrics['nmae']:.4g}" in said
    assert f"model {version} stored in" in said

    assert clv_drift("train", files["quiet"]) == 0
    assert f"model {version} stood already in" in capsys.readouterr().out


def test_train_takes_another_registry(files, tmp_path):
    assert clv_drift("train", files["quiet"], "--registry", "elsewhere") == 0
    assert len(Registry(tmp_path / "elsewhere").list_versions()) == 1
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"horizon_days": 60}, ExitCode.INPUT, "take 13 weeks of lines"),
        ({"window_days": 84}, ExitCode.INPUT, "none of them whole"),
        ({"estimators": ("oracle",)}, ExitCode.USAGE, "oracle"),
        ({"registry_dir": "/dev/null/registry"}, ExitCode.STORAGE, "/dev/null/registry"),
    ],
)
def test_train_says_what_is_missing(files, changes, code, words, monkeypatch, capsys):
    set_environment(monkeypatch, **changes)
    name = "few" if code is ExitCode.INPUT else "quiet"
    assert clv_drift("train", files[name]) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


# -- detect --------------------------------------------------------------------


def detect(source, trained, *arguments):
    directory, version = trained
    return clv_drift("detect", source, "--reference", version, "--registry", directory, *arguments)


def test_detect_exits_with_ten_where_the_window_drifted(files, trained, tmp_path, capsys):
    assert detect(files["drifting"], trained, "--out", "verdict.json") == 10
    said = capsys.readouterr().out
    assert "window to 2011-04-25" in said
    assert "AvgUnitPrice (+" in said
    assert "baseline: drift" in said
    result = json.loads((tmp_path / "verdict.json").read_text())
    assert result["drift"] is True
    assert result["window_end"] == result["reference_end"] == "2011-04-25T00:00:00Z"
    assert result["model_version"] == trained[1]
    assert result["verdicts"]["baseline"]["causes"][0]["feature"] == "AvgUnitPrice"
    assert [path.name for path in tmp_path.iterdir()] == ["verdict.json"]


def test_detect_exits_with_zero_where_nothing_drifted(files, trained, capsys):
    assert detect(files["drifting"], trained, "--window-end", "2011-03-28") == 0
    said = capsys.readouterr().out
    assert "window to 2011-03-28" in said
    assert "baseline: no drift" in said


def test_detect_says_when_it_may_compare_the_reference_with_itself(files, trained, capsys):
    assert detect(files["quiet"], trained) == 0
    assert "of the same input, it is the reference" in capsys.readouterr().out


def test_detect_says_that_it_cannot_tell(trained, tmp_path, capsys):
    tiny = write_csv(tmp_path / "tiny.csv", shop(text="customers=60,days=70,seed=2"))
    assert detect(tiny, trained) == 0
    said = capsys.readouterr().out
    assert "baseline: cannot tell" in said
    assert "customers" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        # The input ends within this window.
        (("--window-end", "2011-05-02"), ExitCode.INPUT, "from 2010-12-27T00:00:00Z to 2011-04-25T00:00:00Z"),
        (("--window-end", "2011-04-19"), ExitCode.INPUT, "no whole window that ends at 2011-04-19"),
        (("--window-end", "2010-12-20"), ExitCode.INPUT, "no whole window that ends at 2010-12-20"),
        (("--reference", "0123456789abcdef"), ExitCode.MODEL, "is not in the registry"),
        (("--reference", "../../etc"), ExitCode.MODEL, "is not a model version"),
        (("--drift-share", "0.3"), ExitCode.USAGE, "--evidently"),
        (("--out", "/dev/null/verdict.json"), ExitCode.STORAGE, "/dev/null/verdict.json"),
    ],
)
def test_detect_refuses_what_it_cannot_do(files, trained, arguments, code, words, capsys):
    assert detect(files["quiet"], trained, *arguments) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_detect_refuses_a_reference_that_was_altered(files, trained, tmp_path, capsys):
    directory, version = trained
    shutil.copytree(directory, tmp_path / "copy")
    (tmp_path / "copy" / version / "reference.parquet").write_bytes(b"other rows")
    assert detect(files["quiet"], (tmp_path / "copy", version)) == ExitCode.MODEL
    assert f"model {version} was altered" in capsys.readouterr().err


@pytest.mark.slow
def test_detect_shows_evidently_beside_its_own_verdict(files, trained, tmp_path, capsys):
    arguments = ("--evidently", "report.html", "--drift-share", "0.1", "--out", "verdict.json")
    assert detect(files["drifting"], trained, *arguments) == 10
    said = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("│")] for line in said.splitlines()]
    assert ["evidently", "drift"] in [row[1:3] for row in cells]
    result = json.loads((tmp_path / "verdict.json").read_text())
    assert result["evidently"]["drift_share"] == 0.1
    assert result["evidently"]["columns"]["AvgUnitPrice"]["drift"] is True
    assert "AvgUnitPrice" in (tmp_path / "report.html").read_text()
