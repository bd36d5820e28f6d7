"""Models by version, loaded once."""

from models.card import Card
from models.fitted import TrainedModel
from models.registry import Registry

KEPT_MAX = 8


class ModelCache:
    """Loads versions from a registry and keeps the last few used."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._loaded: dict[str, tuple[TrainedModel, Card]] = {}

    def load(self, version: str) -> tuple[TrainedModel, Card]:
        """Return a version's model and card; raises RegistryError as the registry does."""
        found = self._loaded.pop(version, None) or self.registry.load(version)
        self._loaded[version] = found
        while len(self._loaded) > KEPT_MAX:
            del self._loaded[next(iter(self._loaded))]
        return found
