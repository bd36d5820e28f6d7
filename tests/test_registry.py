"""The registry: what comes back, what is refused and why, and that a dying writer leaves nothing half."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pandas as pd
import pytest
import skops.io
from model_frames import labelled_frame
from msgspec.structs import replace as replace_card
from scipy.sparse import csr_matrix
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from models.artefact import ArtefactError, dump_pipeline, load_pipeline
from models.card import CardError, card_json, card_of, read_card
from models.fitted import predict
from models.registry import CARD, MODEL, REFERENCE, Registry, RegistryError, RegistryStorageError
from models.training import holdout_performance, train

FRAME = labelled_frame(customers=300)


def carded(estimator):
    model = train(FRAME, estimator, seed=42)
    card = card_of(
        model,
        horizon_days=90,
        metrics=holdout_performance(model, FRAME),
        requested_at="2011-06-06T00:00:00Z",
        parent="0123456789abcdef",
        gate={"promoted": True, "probability_better": 1.0},
    )
    return model, card


@pytest.fixture(scope="module")
def forest():
    return carded("random_forest")


@pytest.fixture(scope="module")
def glm():
    return carded("tweedie_glm")


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry")


@pytest.fixture
def saved(registry, glm):
    """A registry with one version, and that version."""
    registry.save(*glm, FRAME)
    return registry, glm[0].version


def write_version(registry, card, model_bytes):
    """Write a version as somebody would who knows the format, hashes included."""
    place = registry.directory / card.version
    place.mkdir(parents=True, exist_ok=True)
    reference = b"reference"
    hashes = {MODEL: sha256(model_bytes).hexdigest(), REFERENCE: sha256(reference).hexdigest()}
    (place / MODEL).write_bytes(model_bytes)
    (place / REFERENCE).write_bytes(reference)
    (place / CARD).write_bytes(card_json(replace_card(card, artefacts=hashes)))


@pytest.mark.parametrize("kind", ["forest", "glm"])
def test_a_saved_model_predicts_the_same_to_the_bit(kind, registry, request):
    model, card = request.getfixturevalue(kind)
    written = registry.save(model, card, FRAME)
    loaded, read = registry.load(model.version)
    assert read == written
    assert replace_card(read, artefacts={}) == card
    assert replace(loaded, pipeline=model.pipeline) == model
    assert (predict(loaded, FRAME) == predict(model, FRAME)).all()
    pd.testing.assert_frame_equal(registry.load_reference(model.version), FRAME)


def test_a_card_is_the_same_bytes_each_time_and_comes_back_whole(glm):
    _, card = glm
    assert card_json(card) == card_json(replace_card(card))
    assert read_card(card_json(card)) == card


def test_an_altered_card_is_refused(glm):
    text = card_json(glm[1]).decode()
    assert '"horizon_days": 90' in text
    with pytest.raises(CardError, match="sha256"):
        read_card(text.replace('"horizon_days": 90', '"horizon_days": 30').encode())
    with pytest.raises(CardError, match="not a JSON object"):
        read_card(text[: len(text) // 2].encode())


def test_saving_again_leaves_the_first_writing_alone(saved, glm):
    registry, version = saved
    before = {path.name: path.read_bytes() for path in (registry.directory / version).iterdir()}
    model, card = glm
    again = registry.save(model, replace_card(card, parent=None), FRAME)
    assert again == registry.card(version)
    assert again.parent == card.parent
    assert {path.name: path.read_bytes() for path in (registry.directory / version).iterdir()} == before
    assert [path.name for path in registry.directory.iterdir()] == [version]


def test_a_card_of_another_version_is_not_saved(registry, glm, forest):
    with pytest.raises(RegistryError, match="the card is of version"):
        registry.save(glm[0], forest[1], FRAME)
    assert not registry.directory.exists()


def test_versions_are_listed_by_the_training_s_end_then_by_version(registry, glm):
    model, card = glm
    ends = {"bbbbbbbbbbbb": "2011-06-06", "cccccccccccc": "2011-05-30", "aaaaaaaaaaaa": "2011-06-06"}
    assert registry.list_versions() == []
    for version, end in ends.items():
        facts = replace_card(card.training, last_window_end=f"{end}T00:00:00Z")
        registry.save(
            replace(model, version=version), replace_card(card, version=version, training=facts), FRAME
        )
    assert registry.list_versions() == ["cccccccccccc", "aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    (registry.directory / "cccccccccccc" / CARD).unlink()
    (registry.directory / ".dddddddddddd-unfinished").mkdir()
    assert registry.list_versions() == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    assert list(registry.damaged()) == ["cccccccccccc"]
    assert "half-written" in registry.damaged()["cccccccccccc"]


@pytest.mark.parametrize("name", [CARD, MODEL, REFERENCE])
def test_a_version_that_lacks_a_file_is_refused(saved, name):
    registry, version = saved
    (registry.directory / version / name).unlink()
    with pytest.raises(RegistryError, match=f"half-written: .* has no {name}"):
        registry.load(version)


@pytest.mark.parametrize(("name", "message"), [(MODEL, "altered: model.skops has sha256"), (CARD, "card of")])
def test_one_flipped_bit_is_refused(saved, name, message):
    registry, version = saved
    path = registry.directory / version / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RegistryError, match=message):
        registry.load(version)


def test_a_damaged_version_does_not_stop_the_others_and_is_repaired_by_saving(saved, glm, forest):
    registry, version = saved
    registry.save(*forest, FRAME)
    (registry.directory / version / MODEL).write_bytes(b"")
    with pytest.raises(RegistryError, match="altered"):
        registry.load(version)
    registry.load(forest[0].version)
    registry.save(*glm, FRAME)
    registry.load(version)
    aside = [path for path in registry.directory.iterdir() if path.name.startswith(".damaged-")]
    assert [(path / MODEL).read_bytes() for path in aside] == [b""]


@pytest.mark.parametrize("version", ["", "../../etc", "0123", "0123456789ABCDEF", "deadbeefdeadbeef"])
def test_versions_that_are_not_there_are_refused_by_name(saved, version):
    with pytest.raises(RegistryError, match=version or "''"):
        saved[0].load(version)


def test_a_version_under_another_s_name_is_refused(saved):
    registry, version = saved
    (registry.directory / version).rename(registry.directory / "feedfeedfeed")
    with pytest.raises(RegistryError, match="card of another version"):
        registry.load("feedfeedfeed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features_version": 99}, "made for version 99 of the features"),
        ({"features": ("Recency", "Karma")}, "features not computed here: Karma"),
        ({"features": ("Recency",)}, "reads other features than its card names"),
        ({"libraries": {"scikit-learn": "0.1.2"}}, "fitted with scikit-learn 0.1.2"),
    ],
)
def test_a_model_that_does_not_fit_this_program_is_refused(registry, glm, change, message):
    model, card = glm
    write_version(registry, replace_card(card, **change), dump_pipeline(model.pipeline))
    with pytest.raises(RegistryError, match=message):
        registry.load(card.version)


def test_a_file_with_a_foreign_function_is_refused_and_nothing_is_run(registry, glm, tmp_path):
    model, card = glm
    trap = FunctionTransformer(os.mkdir, kw_args={"path": str(tmp_path / "sprung")})
    pipeline = Pipeline([("trap", trap), ("regressor", model.pipeline.named_steps["regressor"])])
    write_version(registry, card, skops.io.dumps(pipeline))
    with pytest.raises(RegistryError, match=r"not trusted: .*mkdir"):
        registry.load(card.version)
    with pytest.raises(RegistryError, match="cannot be saved"):
        registry.save(replace(model, pipeline=pipeline), card, FRAME)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "child", [10**6, 0, -7], ids=["outside the tree", "back to the root", "a negative index"]
)
def test_a_tree_that_would_lead_outside_itself_is_refused(forest, child):
    pipeline = load_pipeline(dump_pipeline(forest[0].pipeline))
    pipeline.named_steps["regressor"].estimators_[7].tree_.children_left[0] = child
    with pytest.raises(ArtefactError, match="points outside itself"):
        load_pipeline(skops.io.dumps(pipeline))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a skops file"),
        (b"no archive", "not a skops file"),
        (skops.io.dumps([1, 2]), "holds a list"),
        (skops.io.dumps(Pipeline([("only", FunctionTransformer())])), "not a pipeline with a regressor"),
    ],
)
def test_bytes_that_are_no_pipeline_are_refused(data, message):
    with pytest.raises(ArtefactError, match=message):
        load_pipeline(data)


def test_a_truncated_file_is_refused(glm):
    data = dump_pipeline(glm[0].pipeline)
    with pytest.raises(ArtefactError):
        load_pipeline(data[: len(data) // 2])


def rewritten(data, *, compression=0, schema=lambda told: told, **members):
    """A skops file written anew, with another schema or other members of these names."""
    made = BytesIO()
    with ZipFile(BytesIO(data)) as old, ZipFile(made, "w", compression) as new:
        for name in old.namelist():
            told = members.get(name, old.read(name))
            new.writestr(name, json.dumps(schema(json.loads(told))) if name == "schema.json" else told)
    return made.getvalue()


def arrays(node):
    """The nodes of a skops schema that have a file."""
    if isinstance(node, dict):
        found = [node] if isinstance(node.get("file"), str) else []
        return found + [one for value in node.values() for one in arrays(value)]
    return [one for value in node for one in arrays(value)] if isinstance(node, list) else []


def test_a_file_that_unpacks_to_more_than_it_holds_is_refused(glm):
    data = dump_pipeline(glm[0].pipeline)
    assert load_pipeline(rewritten(data)).named_steps
    array = next(name for name in ZipFile(BytesIO(data)).namelist() if name.endswith(".npy"))
    bomb = rewritten(data, compression=ZIP_DEFLATED, **{array: bytes(50_000_000)})
    assert len(bomb) < 1_000_000
    with pytest.raises(ArtefactError, match=r"unpacks to 50,\d{3},\d{3} bytes, and has"):
        load_pipeline(bomb)


@pytest.mark.parametrize("owner", [0, 7], ids=["nobody", "another object"])
def test_a_file_in_which_arrays_share_bytes_is_refused(glm, owner):
    def shared(told):
        first, second = arrays(told)[:2]
        second.update(file=first["file"], __id__=owner)
        return told

    with pytest.raises(ArtefactError, match="is read more than once"):
        load_pipeline(rewritten(dump_pipeline(glm[0].pipeline), schema=shared))


def test_a_sparse_matrix_is_refused_for_it_is_compressed_inside():
    with pytest.raises(ArtefactError, match="a sparse matrix"):
        load_pipeline(skops.io.dumps(csr_matrix((1_000, 1_000))))


def test_a_place_that_cannot_be_a_directory_is_named(tmp_path, glm):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    registry = Registry(blocked / "registry")
    with pytest.raises(RegistryStorageError, match=r"registry at .*file/registry cannot be written"):
        registry.save(*glm, FRAME)
    with pytest.raises(RegistryStorageError, match="cannot be read"):
        Registry(blocked).list_versions()


def test_a_write_that_is_cut_short_leaves_nothing(registry, glm):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes: what a full disk does, at a known place
    try:
        with pytest.raises(RegistryStorageError, match="cannot be written: File too large"):
            registry.save(*glm, FRAME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(registry.directory.iterdir()) == []
    registry.save(*glm, FRAME)
    registry.load(glm[0].version)


def test_writers_of_one_version_at_once_leave_one_whole_version(registry, glm):
    start = threading.Barrier(8)
    returned, failed = [], []

    def write():
        start.wait()
        try:
            returned.append(registry.save(*glm, FRAME))
        except RegistryError as exc:
            failed.append(exc)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    _, card = registry.load(glm[0].version)
    assert returned == [card] * 8
    assert [path.name for path in registry.directory.iterdir()] == [glm[0].version]


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
import msgspec
from models.registry import Registry
source, target, version = Registry(Path(sys.argv[1])), Registry(Path(sys.argv[2])), sys.argv[3]
(model, card), reference = source.load(version), source.load_reference(version)
for number in range(100_000):
    name = f"{number:012x}"
    target.save(replace(model, version=name), msgspec.structs.replace(card, version=name), reference)
"""


def test_a_killed_writer_leaves_whole_versions_only(saved, tmp_path, request):
    registry, version = saved
    target = Registry(tmp_path / "target")
    command = [sys.executable, "-c", WRITER, str(registry.directory), str(target.directory), version]
    environment = {**os.environ, "PYTHONPATH": str(request.config.rootpath)}
    with subprocess.Popen(command, env=environment) as writer:
        deadline = time.monotonic() + 60
        while not target.list_versions() and time.monotonic() < deadline:
            assert writer.poll() is None
            time.sleep(0.05)
        time.sleep(0.333)
        writer.send_signal(signal.SIGKILL)
    assert target.damaged() == {}
    versions = target.list_versions()
    assert versions
    expected = predict(registry.load(version)[0], FRAME)
    for written in versions[-3:]:
        assert np.array_equal(predict(target.load(written)[0], FRAME), expected)


def test_a_reference_that_cannot_be_read_is_refused(registry, glm):
    model, card = glm
    write_version(registry, card, dump_pipeline(model.pipeline))
    with pytest.raises(RegistryError, match=r"reference\.parquet cannot be read"):
        registry.load_reference(card.version)


def test_a_card_is_json_that_any_program_reads(saved):
    registry, version = saved
    content = json.loads((registry.directory / version / CARD).read_bytes())
    assert content["version"] == version
    assert set(content["artefacts"]) == {MODEL, REFERENCE}
    assert list(content) == sorted(content)
