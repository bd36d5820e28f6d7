"""The registry of models: a shared directory with one directory a version, written whole or not at all.

    <registry_dir>/<version>/card.json          what the version is; sha256 of the other files and of itself
    <registry_dir>/<version>/model.skops        the fitted pipeline
    <registry_dir>/<version>/reference.parquet  the rows that windows are compared with

A directory whose name begins with a dot is an unfinished or a damaged write that was put aside: no version,
free to be deleted. The hashes tell damage, not malice: who can write a model can write its card. Against
malice stands what `models.artefact` lets a model file hold.
"""

import io
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EEXIST, ENOTEMPTY
from hashlib import sha256
from pathlib import Path

import msgspec
import pandas as pd

from models.card import Card, CardError, card_json, read_card
from models.features import FEATURES, FEATURES_VERSION
from models.fitted import TrainedModel, library_versions

CARD = "card.json"
MODEL = "model.skops"
REFERENCE = "reference.parquet"

VERSION_PATTERN = re.compile(r"[0-9a-f]{12,64}")

# Renames tried before a version that others keep damaging is given up.
INSTALL_ATTEMPTS = 5


class RegistryError(Exception):
    """A version that is missing, damaged, not trusted or does not fit this program."""


class RegistryStorageError(RegistryError):
    """The registry's directory cannot be read or written: disk full, no permission, not a directory."""


@dataclass(frozen=True)
class Registry:
    """The model versions under `directory`; it need not exist before the first `save`."""

    directory: Path

    def save(self, model: TrainedModel, card: Card, reference: pd.DataFrame) -> Card:
        """Write a version and return its card with the hashes of the files.

        A version that stands already, whole, is left alone and its card returned: the version is a hash of
        the training, so the model is the same. A damaged one is put aside and replaced. Raises RegistryError
        on a model that `load` would refuse, RegistryStorageError where nothing can be written.
        """
        if card.version != model.version:
            raise RegistryError(f"the card is of version {card.version}, the model of {model.version}")
        from models.artefact import ArtefactError, dump_pipeline  # noqa: PLC0415  (seconds)

        final = self._path(model.version)
        try:
            files = {MODEL: dump_pipeline(model.pipeline), REFERENCE: reference.to_parquet(index=False)}
        except ArtefactError as exc:
            raise RegistryError(f"model {model.version} ({model.estimator}) cannot be saved: {exc}") from exc
        hashes = {name: sha256(data).hexdigest() for name, data in files.items()}
        complete = msgspec.structs.replace(card, artefacts=hashes)
        files[CARD] = card_json(complete)
        with _storage_errors(self.directory, "written"):
            self.directory.mkdir(parents=True, exist_ok=True)
            pending = self.directory / f".{model.version}-{secrets.token_hex(8)}"
            try:
                _write_files(pending, files)
                installed = self._install(pending, final)
            finally:
                shutil.rmtree(pending, ignore_errors=True)
        return complete if installed else self.card(model.version)

    def load(self, version: str) -> tuple[TrainedModel, Card]:
        """Return a version's model and card.

        Raises RegistryError where it is missing, half-written, altered, holds types that are not trusted, was
        made for other features or with another scikit-learn; the sentence says which.
        """
        from models.artefact import ArtefactError, load_pipeline  # noqa: PLC0415  (where there is a model)

        card, files = self._verified(version)
        _check_fit(card)
        try:
            pipeline = load_pipeline(files[MODEL])
        except ArtefactError as exc:
            raise RegistryError(f"{MODEL} of model {version} is refused: {exc}") from exc
        if not set(pipeline.feature_names_in_) <= set(card.features):
            raise RegistryError(f"model {version} reads other features than its card names")
        model = TrainedModel(
            version=card.version,
            estimator=card.estimator,
            seed=card.seed,
            parameters=card.parameters,
            features=card.features,
            features_version=card.features_version,
            training=card.training,
            horizon_scale=card.horizon_scale,
            libraries=card.libraries,
            pipeline=pipeline,
            level=card.level,
            intervals=card.intervals,
            importance=card.importance,
        )
        return model, card

    def load_reference(self, version: str) -> pd.DataFrame:
        """Return the reference rows saved with a version. Raises RegistryError as `load` does."""
        _, files = self._verified(version)
        try:
            return pd.read_parquet(io.BytesIO(files[REFERENCE]))
        except (OSError, ValueError) as exc:
            raise RegistryError(f"model {version} is damaged: {REFERENCE} cannot be read ({exc})") from exc

    def card(self, version: str) -> Card:
        """Return a version's card; the other files are not looked at. Raises RegistryError."""
        path = self._path(version)
        with _storage_errors(path, "read"):
            if not path.is_dir():
                raise RegistryError(f"model {version} is not in the registry {self.directory}")
            if not (path / CARD).is_file():
                raise RegistryError(f"model {version} is half-written: {path} has no {CARD}")
            data = (path / CARD).read_bytes()
        try:
            card = read_card(data)
        except CardError as exc:
            raise RegistryError(f"the card of model {version} is refused: {exc}") from exc
        if card.version != version:
            raise RegistryError(f"{path} holds the card of another version, {card.version}")
        return card

    def list_versions(self) -> list[str]:
        """Return the versions with a readable card, oldest training first (last window end, then version)."""
        cards, _ = self._scan()
        return [card.version for card in cards]

    def cards(self) -> list[Card]:
        """Return the readable cards in the order of `list_versions`."""
        return self._scan()[0]

    def damaged(self) -> dict[str, str]:
        """Return the versions whose card is refused, each with the reason."""
        return self._scan()[1]

    def _scan(self) -> tuple[list[Card], dict[str, str]]:
        cards: list[Card] = []
        refused: dict[str, str] = {}
        with _storage_errors(self.directory, "read"):
            names = sorted(path.name for path in self.directory.iterdir()) if self.directory.exists() else []
        for name in names:
            if not VERSION_PATTERN.fullmatch(name):
                continue
            try:
                cards.append(self.card(name))
            except RegistryError as exc:
                refused[name] = str(exc)
        return sorted(cards, key=lambda card: (card.training.last_window_end, card.version)), refused

    def _path(self, version: str) -> Path:
        if not VERSION_PATTERN.fullmatch(version):
            raise RegistryError(f"{version!r} is not a model version: 12 to 64 hex digits")
        return self.directory / version

    def _verified(self, version: str) -> tuple[Card, dict[str, bytes]]:
        """Return the card and the bytes of the other files, each with the hash that the card states."""
        card = self.card(version)
        files: dict[str, bytes] = {}
        for name in (MODEL, REFERENCE):
            path = self._path(version) / name
            with _storage_errors(path, "read"):
                if not path.is_file():
                    raise RegistryError(f"model {version} is half-written: {path.parent} has no {name}")
                files[name] = path.read_bytes()
            found = sha256(files[name]).hexdigest()
            stated = card.artefacts.get(name)
            if found != stated:
                raise RegistryError(f"model {version} was altered: {name} has sha256 {found}, not {stated}")
        return card, files

    def _install(self, pending: Path, final: Path) -> bool:
        """Rename `pending` to `final`; False where another writer's whole version already stands there."""
        for _ in range(INSTALL_ATTEMPTS):
            try:
                # Fails where `final` has files in it: whoever renames first wins, nothing is ever mixed.
                pending.rename(final)
            except OSError as exc:
                if exc.errno not in {EEXIST, ENOTEMPTY}:
                    raise
            else:
                _sync(self.directory)
                return True
            try:
                self._verified(final.name)
            except RegistryStorageError:
                raise
            except RegistryError:
                with suppress(FileNotFoundError):  # another writer put it aside first
                    final.rename(final.with_name(f".damaged-{final.name}-{secrets.token_hex(8)}"))
            else:
                return False
        raise RegistryStorageError(f"model {final.name} cannot be written: {final} keeps being damaged")


def _check_fit(card: Card) -> None:
    """Raise RegistryError where this program cannot use a version, though it is whole."""
    if card.features_version != FEATURES_VERSION:
        raise RegistryError(
            f"model {card.version} was made for version {card.features_version} of the features, "
            f"this program computes version {FEATURES_VERSION}"
        )
    unknown = sorted(set(card.features) - set(FEATURES))
    if unknown:
        raise RegistryError(f"model {card.version} needs features not computed here: {', '.join(unknown)}")
    # scikit-learn promises nothing across releases: another one may load the file and predict differently.
    made, here = card.libraries.get("scikit-learn", "none"), library_versions()["scikit-learn"]
    if made.split(".")[:2] != here.split(".")[:2]:
        raise RegistryError(f"model {card.version} was fitted with scikit-learn {made}, here is {here}")


def _write_files(directory: Path, files: dict[str, bytes]) -> None:
    """Write a new directory whose content is on the disk when this returns."""
    directory.mkdir()
    for name, data in files.items():
        with (directory / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    _sync(directory)


def _sync(directory: Path) -> None:
    """Bring a directory's entries to the disk: a rename is lasting only after this."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage_errors(path: Path, what: str) -> Iterator[None]:
    """Turn an OSError inside into a RegistryStorageError that names the place."""
    try:
        yield
    except OSError as exc:
        raise RegistryStorageError(
            f"the model registry at {path} cannot be {what}: {exc.strerror or exc}"
        ) from exc
