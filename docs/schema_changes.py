"""What a change of a released schema breaks: a conservative comparison of two versions of a message.

Where others read a message, every message of the new schema must be one of the old: nothing that was promised
is gone, nothing takes a value that it never took. Where others write it, it is the other way round. What this
module cannot prove harmless counts as breaking.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]

_WORDS = frozenset({"$schema", "$id", "title", "description", "examples", "$defs"})  # that bind nobody
_COMPARED = frozenset(
    {"type", "const", "enum", "properties", "required", "items", "additionalProperties", "anyOf"}
)


def shape(schema: Mapping[str, Any], files: Mapping[str, Schema], base: str) -> Schema:
    """Return a schema of the file `base` without words: references put in, `allOf` merged into one.

    `files` holds every file by its name.
    """
    found: Schema = {}
    for part in schema.get("allOf", ()):
        _merge(found, shape(part, files, base))
    if "$ref" in schema:
        name, _, pointer = str(schema["$ref"]).partition("#")
        target: Any = files[name or base]
        for step in filter(None, pointer.split("/")):
            target = target[step]
        _merge(found, shape(target, files, name or base))
    _merge(found, _own(schema, files, base))
    return found


def _own(schema: Mapping[str, Any], files: Mapping[str, Schema], base: str) -> Schema:
    """Return what a schema itself says, each list in one order."""
    own: Schema = {}
    for key, value in schema.items():
        if key in {"properties", "patternProperties"}:
            own[key] = {name: shape(inner, files, base) for name, inner in value.items()}
        elif key in {"items", "additionalProperties"} and isinstance(value, dict):
            own[key] = shape(value, files, base)
        elif key == "anyOf":
            own[key] = [shape(inner, files, base) for inner in value]
        elif key in {"required", "enum"}:
            own[key] = sorted(value)
        elif key == "type":
            own[key] = sorted([value] if isinstance(value, str) else value)
        elif key not in {"allOf", "$ref", *_WORDS}:
            own[key] = value
    return own


def _merge(into: Schema, more: Schema) -> None:
    """Add what a second schema asks for of the same value."""
    for key, value in more.items():
        if key not in into:
            into[key] = value
        elif key in {"properties", "patternProperties"}:
            for name, inner in value.items():
                into[key][name] = both = dict(into[key].get(name, {}))
                _merge(both, inner)
        elif key == "required":
            into[key] = sorted({*into[key], *value})
        elif key == "type":
            into[key] = sorted(set(into[key]) & set(value))
        elif into[key] in (True, value) or value is not True:
            into[key] = value


def breaking(old: Schema, new: Schema, *, others_write: bool = False) -> list[str]:
    """Return what of a change breaks whom: nothing where the new shape may take the place of the old."""
    if others_write:
        return list(_wider(old, new, "", gone=False))
    return list(_wider(new, old, "", gone=True))


def _wider(sub: Schema, sup: Schema, at: str, *, gone: bool) -> Iterator[str]:
    """Yield where a value of `sub` may be none of `sup`; with `gone`, also what only `sup` promised."""
    where = at or "the message"
    yield from _other_values(sub, sup, where)
    for name in sorted(set(sup.get("required", ())) - set(sub.get("required", ()))):
        yield f"{_path(at, name)} may be missing"
    inner, expected = sub.get("properties", {}), sup.get("properties", {})
    for name, schema in expected.items():
        if name in inner:
            yield from _wider(inner[name], schema, _path(at, name), gone=gone)
        elif gone:
            yield f"{_path(at, name)} is gone"
    for key, mark in (("items", "[]"), ("additionalProperties", "*")):
        if isinstance(sup.get(key), dict):
            yield from _wider(sub.get(key) or {}, sup[key], _path(at, mark), gone=gone)
    yield from _alternatives(sub, sup, at, gone=gone)
    for key in sorted((sub.keys() | sup.keys()) - _COMPARED):
        if key in sup and sub.get(key) != sup[key]:
            yield f"`{key}` of {where} is another"


def _other_values(sub: Schema, sup: Schema, where: str) -> Iterator[str]:
    types, allowed = sub.get("type"), sup.get("type")
    if allowed is not None and (types is None or not _types_within(types, allowed)):
        yield f"{where} may be {_listed(types)}, not only {_listed(allowed)}"
    values, known = _values(sub), _values(sup)
    if known is not None and (values is None or not set(values) <= set(known)):
        yield f"{where} takes other values than {_listed(known)}"


def _alternatives(sub: Schema, sup: Schema, at: str, *, gone: bool) -> Iterator[str]:
    """Yield what is wrong with `anyOf`: each alternative of `sub` must be within one of `sup`."""
    if "anyOf" not in sup:
        return
    for one in sub.get("anyOf", [{key: value for key, value in sub.items() if key in _COMPARED}]):
        found = [list(_wider(one, other, at, gone=gone)) for other in sup["anyOf"]]
        if all(found):
            yield from min(found, key=len)


def _types_within(types: list[str], allowed: list[str]) -> bool:
    numbers = {"integer"} if "number" in allowed else set()
    return set(types) <= {*allowed, *numbers}


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _path(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _listed(words: list[Any] | None) -> str:
    return "anything" if words is None else " or ".join(map(str, words))
