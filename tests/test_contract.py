"""The contract: schemas for everything, messages as they say, changes that break nobody."""

import copy
import json
import re

import pytest
import yaml
from asyncapi3.models.asyncapi import AsyncAPI3
from contract_schemas import contract, files, problems, problems_of_event, schema_changes
from contract_story import EXAMPLES, PROJECT, chosen, lines, messages, paths
from jsonschema import Draft7Validator, Draft202012Validator

from streams.settings import Settings
from streams.topics import catalogue
from streams.transactions import encode_line

TYPE = re.compile(r"\"(clv\.[a-z_.{}]+\.v\d+)\"")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return messages(tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="module")
def document():
    return yaml.safe_load((PROJECT / "docs" / "asyncapi.yml").read_text())


def event_types() -> set[str]:
    return {name.removesuffix(".json") for name in files() if re.search(r"\.v\d+\.json$", name)}


# -- messages ---------------------------------------------------------------------------------------------


def test_every_message_is_as_its_schema_says(told):
    assert [problem for event in told for problem in problems_of_event(event)] == []


def test_a_run_gives_every_type(told):
    assert {event["type"] for event in told} == event_types()


def test_a_schema_is_more_than_a_name(told):
    """Every promised field of every type is missed when it is gone, and a wrong type is seen."""
    for kind, event in chosen(told).items():
        for name in ("id", "source", "time", "data"):
            assert problems(kind, {key: value for key, value in event.items() if key != name})
        for name in event["data"]:
            wrong = copy.deepcopy(event)
            wrong["data"][name] = {"neither": ["a text", "nor a number"]}
            assert problems(kind, wrong) or name == "carry", f"{kind} takes anything as {name}"
        assert problems(kind, event | {"type": "clv.other.v1"})


def test_the_examples_are_what_a_run_gives(told):
    fresh = {kind: event for kind, event in chosen(told).items() if kind != "clv.comparison.v1"} | lines()
    for kind, example in fresh.items():
        kept = json.loads((EXAMPLES / f"{kind}.json").read_text())
        words = f"{kind} has another form than its example: `python tests/contract_story.py` writes it anew"
        assert paths(kept) == paths(example), words


def test_the_examples_are_as_their_schemas_say():
    names = {path.stem for path in EXAMPLES.glob("*.json")}
    assert names == event_types() | {contract.LINE, contract.CONTROL}
    for name in names:
        example = contract.example(name)
        assert problems(name, example["payload"]) == []
        if "headers" in example:
            assert problems(f"{name}.headers", example["headers"]) == []


def test_later_and_earlier_drafts_read_the_schemas_alike():
    """Many tools know no later draft than 7; what is used here means the same in both."""
    for name, schema in files().items():
        Draft202012Validator.check_schema(schema)
        Draft7Validator.check_schema({key: value for key, value in schema.items() if key != "$schema"})
        assert schema["$id"] == name
        assert not re.search(r'"(unevaluated\w+|prefixItems|dependent\w+|\$dynamicRef)"', json.dumps(schema))
    for kind in event_types():
        assert problems(kind, contract.example(kind)["payload"], Draft7Validator) == []
        assert problems(kind, {}, Draft7Validator)


@pytest.mark.parametrize(
    ("field", "value"),
    [("Quantity", 1.5), ("Quantity", None), ("Country", ""), ("InvoiceDate", "3/1/2011"), ("UnitPrice", "2")],
)
def test_what_the_schema_of_a_line_refuses_the_program_refuses(field, value):
    from streams.decode import Decoder
    from streams.vocabulary import Vocabulary

    line = lines()["retail.transaction"]["payload"]
    decoder = Decoder(Vocabulary())
    assert not problems("retail.transaction", line)
    assert not decoder.decode([encode_line(line)], [[]]).dead
    assert problems("retail.transaction", line | {field: value})
    assert decoder.decode([encode_line(line | {field: value})], [[]]).dead


# -- types ------------------------------------------------------------------------------------------------


def test_every_type_in_the_code_has_a_schema_and_the_other_way_round():
    named = set()
    for package in ("streams", "models", "producers"):
        for path in (PROJECT / package).rglob("*.py"):
            named |= set(TYPE.findall(path.read_text()))
    template = "clv.model.{}.v1"
    assert template in named
    assert (named - {template}) | set(contract.DECISIONS) == event_types()


def test_every_topic_has_its_channel():
    names = {spec.name for spec in catalogue(Settings()).specs}
    channels = contract.document()["channels"].values()
    assert {channel["address"] for channel in channels} == names | {None}


# -- AsyncAPI ---------------------------------------------------------------------------------------------


def test_the_document_is_asyncapi_3(document):
    AsyncAPI3.model_validate(document)
    # That the models see what is wrong:
    for wrong in ({"asyncapi": "2.6.0"}, {"info": {}}, {"operations": {"a": {"action": "publish"}}}):
        with pytest.raises(ValueError, match="validation error"):
            AsyncAPI3.model_validate(document | wrong)


def references(value, at="#"):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield at, value["$ref"]
        for name, item in value.items():
            yield from references(item, f"{at}/{name}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from references(item, f"{at}/{number}")


def test_every_reference_leads_somewhere(document):
    found = list(references(document))
    assert len(found) > 100
    for at, reference in found:
        name, _, pointer = reference.partition("#")
        target = document if not name else files()[name.removeprefix("schemas/")]
        for step in filter(None, pointer.split("/")):
            assert step in target, f"{at} refers to {reference}"
            target = target[step]


def test_operations_use_messages_of_their_channels(document):
    for name, operation in document["operations"].items():
        channel = operation["channel"]["$ref"]
        assert channel == f"#/channels/{name}"
        for message in operation.get("messages", ()):
            assert message["$ref"].startswith(f"{channel}/messages/")
    private = {name for name, channel in document["channels"].items() if channel.get("x-private")}
    assert document["channels"].keys() - document["operations"].keys() == private == {"state"}


# -- changes ----------------------------------------------------------------------------------------------


def test_no_released_schema_is_broken():
    assert contract.unreleased() == []


def test_every_schema_is_released_as_it_is():
    """A further field breaks nobody, and would be promised to nobody: it could go again unseen."""
    released, now = json.loads(contract.RELEASED.read_text()), json.loads(json.dumps(contract.shapes()))
    differing = {name for name in released.keys() | now.keys() if released.get(name) != now.get(name)}
    assert differing == set(), "`python docs/contract.py --release` takes additions into released.json"


def test_an_addition_is_seen_until_it_is_released(monkeypatch, tmp_path):
    real = contract.shapes()

    def more():
        now = copy.deepcopy(real)
        now[SCORE]["properties"]["data"]["properties"]["further"] = {"type": ["string"]}
        return now

    kept = tmp_path / "released.json"
    kept.write_bytes(contract.RELEASED.read_bytes())
    monkeypatch.setattr(contract, "RELEASED", kept)
    monkeypatch.setattr(contract, "shapes", more)
    assert contract.unreleased() == []
    with pytest.raises(AssertionError, match="--release"):
        test_every_schema_is_released_as_it_is()
    contract.release()
    test_every_schema_is_released_as_it_is()


SCORE = "clv.score.v1"


def changed(change):
    """The problems of the score's schema after `change` of its data's schema."""
    old = contract.shapes()[SCORE]
    new = copy.deepcopy(old)
    change(new["properties"]["data"])
    return schema_changes.breaking(old, new)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data["properties"].pop("decile"), "data.decile is gone"),
        (lambda data: data["required"].remove("decile"), "data.decile may be missing"),
        (lambda data: data["properties"]["decile"].update(type=["number"]), "data.decile may be number"),
        (lambda data: data["properties"]["decile"].update(type=["integer", "null"]), "data.decile may be"),
        (lambda data: data["properties"]["decile"].update(maximum=100), "`maximum` of data.decile"),
    ],
)
def test_a_change_that_breaks_readers_is_named(change, problem):
    assert any(problem in found for found in changed(change))


def test_an_addition_breaks_nobody():
    def add(data):
        data["properties"]["segment"] = {"type": ["string"]}
        data["required"] = sorted([*data["required"], "segment"])

    assert changed(add) == []
    assert changed(lambda data: data["properties"]["low"].update(type=["number"])) == []


def test_new_values_break_readers_and_fewer_do_not():
    old = {"type": ["string"], "enum": ["info", "warning"]}
    assert schema_changes.breaking(old, {"type": ["string"], "enum": ["info", "page", "warning"]})
    assert schema_changes.breaking(old, {"type": ["string"], "enum": ["info"]}) == []
    assert schema_changes.breaking(old, {"type": ["string"]})


def test_a_null_that_never_was_breaks_readers():
    verdict = {"type": ["object"], "required": ["drift"], "properties": {"drift": {"type": ["boolean"]}}}
    either = {"anyOf": [verdict, {"type": ["null"]}]}
    assert schema_changes.breaking(verdict, either)
    assert schema_changes.breaking(either, verdict) == []
    assert schema_changes.breaking(either, either) == []


def test_what_others_write_may_ask_for_less_and_not_for_more():
    old = contract.shapes()[contract.LINE]
    more, less = copy.deepcopy(old), copy.deepcopy(old)
    more["properties"]["Till"] = {"type": ["string"]}
    assert schema_changes.breaking(old, more, others_write=True) == []
    more["required"] = sorted([*more["required"], "Till"])
    assert schema_changes.breaking(old, more, others_write=True) == ["Till may be missing"]
    less["required"].remove("Country")
    assert schema_changes.breaking(old, less, others_write=True) == []
    assert schema_changes.breaking(old, less) == ["Country may be missing"]


def test_a_break_names_the_way_out(monkeypatch):
    real = contract.shapes()

    def broken():
        now = copy.deepcopy(real)
        del now[SCORE]["properties"]["data"]["properties"]["decile"]
        del now["clv.warning.v1"]
        return now

    monkeypatch.setattr(contract, "shapes", broken)
    gone, breaks = sorted(contract.unreleased(), key=lambda text: SCORE in text)
    assert "clv.warning.v1 was released and is gone" in gone
    assert "data.decile is gone" in breaks
    assert "next version" in breaks
    with pytest.raises(SystemExit, match=r"data\.decile is gone"):
        contract.release()
