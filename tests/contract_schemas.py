"""Messages against the schemas in docs/schemas, without a network."""

import sys
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator
from referencing import Registry, Resource

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "docs"))  # the generator is no package
import contract  # noqa: E402
import schema_changes  # noqa: E402

__all__ = ["contract", "files", "problems", "problems_of_event", "schema_changes", "validator"]


@cache
def files() -> dict[str, Any]:
    return contract.schemas()


@cache
def validator(name: str, kind: type = Draft202012Validator) -> Any:
    """A validator of that file; with `Draft7Validator`, as tools that know no later draft read it."""
    registry = Registry().with_resources(
        [(file, Resource.from_contents(schema)) for file, schema in files().items()]
    )
    schema = files()[f"{name}.json"]
    if kind is Draft7Validator:
        schema = {key: value for key, value in schema.items() if key != "$schema"}
    return kind(schema, registry=registry)


def problems(name: str, instance: Any, kind: type = Draft202012Validator) -> list[str]:
    """What of an instance is not as the schema says."""
    return [
        f"{name} {error.json_path}: {error.message[:200]}"
        for error in validator(name, kind).iter_errors(instance)
    ]


def problems_of_event(event: dict[str, Any]) -> list[str]:
    """What of an event is not as its type's schema says; that the type has none, too."""
    name = event["type"]
    return problems(name, event) if f"{name}.json" in files() else [f"{name} has no schema"]
