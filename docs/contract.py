"""Write docs/asyncapi.yml from the schemas, their examples and the catalogue of topics; `make docs` runs it.

    python docs/contract.py --release

takes the schemas as they are now for released, after which a change that breaks one is refused.
"""

import json
import sys
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from schema_changes import breaking, shape

from streams.carry import EVALUATION
from streams.cloudevents import CONTENT_TYPE
from streams.comparisons import COMPARISON, REQUESTED
from streams.decisions import KIND, Outcome
from streams.draft import ACTION_REQUESTED, CHANGED, DETECTED, REFERENCE_READY, RESOLVED
from streams.early_warnings import WARNING
from streams.scores import SCORE
from streams.settings import load_settings
from streams.topics import TopicSpec, catalogue
from streams.webhooks.notice import DEAD_LETTERS, DIGEST, TEST, TYPES

SCHEMAS = Path(__file__).resolve().parent / "schemas"
RELEASED = SCHEMAS / "released.json"
ARROW = "application/vnd.apache.arrow.stream"
SNAPSHOT, ROWS, DEAD_LETTER, STATE = "clv.snapshot", "clv.rows", "retail.dead_letter", "clv.state"
LINE, CONTROL = "retail.transaction", "retail.control"
INPUTS = frozenset({LINE, f"{LINE}.headers", CONTROL, f"{CONTROL}.headers"})  # that others write
DRIFTS = (REFERENCE_READY, DETECTED, CHANGED, RESOLVED, ACTION_REQUESTED)
DECISIONS = tuple(KIND.format(outcome.value) for outcome in Outcome)
BINDING = "0.5.0"

INTRODUCTION = """\
Every topic of clv-drift and every message in it. Addresses are those of the defaults: `topic_prefix` stands
before each, `input_topic` names the first. JSON messages are CloudEvents 1.0 in structured mode, but for the
transactions, which are plain JSON. How schemas may change, and how to read so that additions do no harm:
docs/contract.md.
"""

WAY_OUT = (
    "Programs written for the released schema break: leave it as it was, and publish the change as the next"
    " version beside it (docs/contract.md)"
)

HEADERS = {
    "type": "object",
    "properties": {"content-type": {"type": "string", "const": CONTENT_TYPE.decode()}},
    "required": ["content-type"],
}


@dataclass(frozen=True)
class Channel:
    """What of a topic the catalogue does not say."""

    messages: tuple[str, ...]
    key: str
    received: bool = False  # the program reads it, others write
    private: bool = False


CHANNELS = {
    "transactions": Channel((LINE, CONTROL), "the customer, or the invoice where unknown", received=True),
    "dead_letters": Channel((DEAD_LETTER,), "as the line's"),
    "state": Channel((STATE,), "the program's own", private=True),
    "snapshots": Channel((SNAPSHOT,), "window end/partition/chunk"),
    "rows": Channel((ROWS,), "partition/chunk: the same in every window"),
    "warnings": Channel((WARNING,), "day/partition"),
    "evaluations": Channel((EVALUATION,), "window end"),
    "comparisons": Channel((COMPARISON, REQUESTED), "window end; of a request, with `/request` behind"),
    "events": Channel(DRIFTS, "id of the event"),
    "models": Channel(DECISIONS, "the request; else the version, or the nonce of what a person asks for"),
    "scores": Channel((SCORE,), "the customer; without a value: the customer has no row any more"),
}
BY_HTTP = (DIGEST, TEST, DEAD_LETTERS)


def schemas() -> dict[str, dict[str, Any]]:
    """Return every schema by the name of its file."""
    return {
        path.name: json.loads(path.read_text()) for path in sorted(SCHEMAS.glob("*.json")) if path != RELEASED
    }


def schema_files(topic: str) -> list[str]:
    """Return the schemas of a topic's messages by name; `topic` is its field in the catalogue."""
    parts = {SNAPSHOT: ("meta", "row", "line"), ROWS: ("meta", "row")}
    names: list[str] = []
    for message in CHANNELS[topic].messages:
        names += [f"{SNAPSHOT}.{part}" for part in parts.get(message, ())]
        names += [name for name in (message, f"{message}.headers") if (SCHEMAS / f"{name}.json").is_file()]
    return names


def asyncapi_page() -> str:
    """Return the AsyncAPI document as YAML."""
    head = "# Written by docs/contract.py from docs/schemas and the catalogue of topics: `make docs`.\n"
    text: str = yaml.dump(document(), Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)
    return head + text


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice: anchors are for machines."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document."""
    settings = load_settings()
    topics = catalogue(settings)
    known = schemas()
    specs = {item.name: getattr(topics, item.name) for item in fields(topics)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "clv-drift",
            "version": version("clv-drift"),
            "description": " ".join(INTRODUCTION.split()),
            "license": {"name": "MIT"},
        },
        "defaultContentType": CONTENT_TYPE.decode(),
        "servers": {
            "kafka": {"host": settings.bootstrap_servers, "protocol": "kafka", "description": "The cluster."},
            "endpoint": {
                "host": "{host}",
                "protocol": "https",
                "description": "An endpoint that the settings name.",
                "variables": {"host": {"description": "Its host and port."}},
            },
        },
        "channels": {name: _channel(spec, CHANNELS[name]) for name, spec in specs.items()}
        | {"webhooks": _webhooks()},
        "operations": {name: _operation(name, CHANNELS[name]) for name in specs if not CHANNELS[name].private}
        | {"webhooks": _webhook_operation()},
        "components": {"messages": _messages(known)},
    }


def _channel(spec: TopicSpec, channel: Channel) -> dict[str, Any]:
    config: dict[str, Any] = {
        name: int(value) if value.lstrip("-").isdigit() else value for name, value in spec.config.items()
    }
    config["cleanup.policy"] = spec.config["cleanup.policy"].split(",")
    return {
        "address": spec.name,
        "title": spec.purpose,
        "description": f"Key: {channel.key}." + (" Private: no contract." if channel.private else ""),
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": _links(channel.messages),
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions,
                "replicas": spec.replication_factor,
                "topicConfiguration": config,
                "bindingVersion": BINDING,
            }
        },
        **({"x-private": True} if channel.private else {}),
    }


def _webhooks() -> dict[str, Any]:
    return {
        "address": None,
        "title": "webhooks in the format `cloudevents`",
        "description": "What each endpoint gets is chosen in the settings: docs/webhooks.md.",
        "servers": [{"$ref": "#/servers/endpoint"}],
        "messages": _links((*sorted(TYPES - set(BY_HTTP)), *BY_HTTP)),
    }


def _links(names: tuple[str, ...]) -> dict[str, Any]:
    return {_key(name): {"$ref": f"#/components/messages/{_key(name)}"} for name in names}


def _key(name: str) -> str:
    """Return the name of a message as a key: some tools take no dots there."""
    return name.replace(".", "-")


def _operation(name: str, channel: Channel) -> dict[str, Any]:
    return {
        "action": "receive" if channel.received else "send",
        "channel": {"$ref": f"#/channels/{name}"},
        "messages": [{"$ref": f"#/channels/{name}/messages/{_key(message)}"} for message in channel.messages],
    }


def _webhook_operation() -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": "#/channels/webhooks"},
        "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
    }


def _messages(known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found = {name: _plain(name, known) for name in (LINE, CONTROL)}
    found[DEAD_LETTER] = {
        "name": DEAD_LETTER,
        "title": "Dead letter",
        "summary": "A line that was not accepted, byte by byte.",
        "contentType": "application/octet-stream",
        "headers": {"$ref": "schemas/retail.dead_letter.headers.json"},
    }
    found |= {name: _arrow(name) for name in (SNAPSHOT, ROWS)}
    found[STATE] = {
        "name": STATE,
        "title": "State of a partition",
        "summary": "Private: may change in any release, and a worker then starts from the transactions anew.",
        "contentType": "application/octet-stream",
    }
    kinds = [kind for channel in CHANNELS.values() for kind in channel.messages if kind not in found]
    found |= {kind: _event(kind, known) for kind in (*kinds, *BY_HTTP)}
    return {_key(name): message for name, message in found.items()}


def _plain(name: str, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "title": known[f"{name}.json"]["title"],
        "summary": known[f"{name}.json"]["description"],
        "contentType": "application/json",
        "headers": {"$ref": f"schemas/{name}.headers.json"},
        "payload": {"$ref": f"schemas/{name}.json"},
        "examples": [example(name)],
    }


def _arrow(name: str) -> dict[str, Any]:
    holds = {"rows": {"$ref": "schemas/clv.snapshot.row.json"}}
    if name == SNAPSHOT:
        holds["lines"] = {"$ref": "schemas/clv.snapshot.line.json"}
    return {
        "name": name,
        "title": "Rows of customers" + (", and lines of the sampled" if name == SNAPSHOT else ""),
        "summary": "An Arrow IPC stream, buffers compressed with zstd; its schema's metadata `clv` is JSON.",
        "contentType": ARROW,
        "payload": {"type": "string", "format": "binary"},
        "x-arrow": {"metadata": {"clv": {"$ref": "schemas/clv.snapshot.meta.json"}}, "rows": holds},
    }


def _event(kind: str, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    schema = known[f"{kind}.json"]
    return {
        "name": kind,
        "title": schema["title"],
        "summary": schema["description"],
        "contentType": CONTENT_TYPE.decode(),
        "headers": HEADERS,
        "payload": {"$ref": f"schemas/{kind}.json"},
        "examples": [example(kind)],
    }


def example(name: str) -> dict[str, Any]:
    """Return the example of a message: its payload, and its headers where they say something."""
    found: dict[str, Any] = json.loads((SCHEMAS / "examples" / f"{name}.json").read_text())
    return found if name in {LINE, CONTROL} else {"payload": found}


def shapes() -> dict[str, dict[str, Any]]:
    """Return the schemas of messages without words, by the name of the message."""
    known = schemas()
    return {
        name.removesuffix(".json"): shape(schema, known, name)
        for name, schema in known.items()
        if name != "common.json"
    }


def unreleased() -> list[str]:
    """Return what is wrong with the schemas beside the released ones, each with what to do about it."""
    released: dict[str, dict[str, Any]] = json.loads(RELEASED.read_text()) if RELEASED.is_file() else {}
    now = shapes()
    found = [
        f"{name} was released and is gone: it stays for those who use it" for name in released.keys() - now
    ]
    for name in released.keys() & now:
        problems = breaking(released[name], now[name], others_write=name in INPUTS)
        found += [f"{name}: {problem}. {WAY_OUT}" for problem in problems]
    return sorted(found)


def release() -> None:
    """Take the schemas as they are for released; refuses what breaks a released one."""
    problems = unreleased()
    if problems:
        sys.exit("\n".join(problems))
    rows = [
        f"{json.dumps(name)}: {json.dumps(found, sort_keys=True)}" for name, found in sorted(shapes().items())
    ]
    RELEASED.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--release"]:
        sys.exit("usage: python docs/contract.py --release; `make docs` writes asyncapi.yml")
    release()
