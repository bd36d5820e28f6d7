"""With a key no customer id passes the border, and everything else stays as it was."""

import json

import msgspec
import odd_shop
import pytest
from line_factory import MONDAY, apply, entry, line, records_of, shop, state_config, windows_of
from line_factory import settings as short_settings

from producers import feed
from producers.lines import SURPLUS
from streams.backfill import Windows
from streams.checkpoints import Ledger, load
from streams.decode import Decoder
from streams.erasures import Erasures, without
from streams.errors import ExitCode, UserError
from streams.partition import PartitionState
from streams.pseudonyms import PREFIX, Pseudonyms, is_pseudonym
from streams.settings import Settings, load_settings
from streams.transactions import encode_line, record_headers
from streams.vocabulary import Vocabulary
from streams.withheld import shown_letter

KEY = "a key of these tests"
NAMES = Pseudonyms(KEY.encode())
WORKER = short_settings(customer_id_key=KEY)


def keyed_feed(lines, conf=WORKER, partitions=1):
    return feed.records(
        enumerate(lines, 1),
        source="shop",
        partitions=partitions,
        jump_max_days=conf.jump_max_days,
        jump_confirm_lines=conf.jump_confirm_lines,
        pseudonyms=conf.pseudonyms,
    )


# -- the names ----------------------------------------------------------------------------------------------


def test_a_name_depends_on_the_id_and_the_key_alone():
    name = NAMES.of("17850")
    assert name == Pseudonyms(KEY.encode()).of("17850") == "k1-846a617414f0f9713abdc5b7103b9f32"
    assert name not in {NAMES.of("17851"), Pseudonyms(b"another key of tests").of("17850")}
    assert NAMES.of(name) == name
    assert is_pseudonym(name)
    for other in (name[:-1], name.upper(), f"{name}\n", f" {name}", PREFIX, "17850"):
        assert not is_pseudonym(other)
        assert NAMES.of(other) != other


def test_neither_the_key_nor_an_id_is_shown():
    settings = Settings(customer_id_key=KEY)
    shown = repr(settings) + str(settings.pseudonyms) + settings.model_dump_json()
    assert KEY not in shown
    assert settings.revealed()["customer_id_key"] == KEY  # a child process needs it
    assert NAMES.fingerprint != Pseudonyms(b"another key of tests").fingerprint


@pytest.mark.parametrize("content", [b"short\n", b"", b"\xff" * 32, None])
def test_a_key_file_that_does_not_do_is_refused(tmp_path, content):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="customer_id_key_file") as refused:
        _ = load_settings(customer_id_key_file=path).pseudonyms
    assert refused.value.code is ExitCode.USAGE
    assert "short" not in refused.value.message


def test_a_key_comes_from_a_file_or_a_setting_but_not_both(tmp_path):
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    assert load_settings(customer_id_key_file=path).known_as("17850.0") == NAMES.of("17850")
    with pytest.raises(UserError, match="not both"):
        load_settings(customer_id_key_file=path, customer_id_key=KEY)
    with pytest.raises(UserError, match="customer_id_key") as refused:
        load_settings(customer_id_key="brief")
    assert "brief" not in refused.value.message


# -- the border ---------------------------------------------------------------------------------------------

ODD_IDS = ["CLEAR-1", ["CLEAR-2"], {"CLEAR-3": 1}, "CLEAR" * 60, True, 4711.5, None, ""]


def test_no_record_of_a_replay_holds_an_id():
    lines = [line(MONDAY + i, CustomerID=who) for i, who in enumerate(ODD_IDS)]
    lines.append(line(MONDAY + 60, CustomerID="Germany") | {SURPLUS: ["CLEAR-9"]})
    # Too many fields or too few: the id stands somewhere else.
    long = line(MONDAY + 70, Quantity="OF TEA", CustomerID="2.5", Country="CLEAR-10")
    lines.append(long | {SURPLUS: ["United Kingdom"]})
    short = line(MONDAY + 80, UnitPrice="CLEAR-11", CustomerID="United Kingdom")
    lines.append({name: told for name, told in short.items() if name != "Country"})
    lines.append({"InvoiceNo": "536365,85123A,CLEAR-12"})
    clear, keyed = list(records_of(lines, WORKER, 2)), list(keyed_feed(lines, partitions=2))
    told = b" ".join(record.value + (record.key or b"") for record in keyed)
    assert b"CLEAR" not in told
    assert b"4711" not in told

    def refused(records):
        found = Decoder(Vocabulary()).decode([r.value for r in records], [r.headers for r in records])
        return [records[letter.position].seq for letter in found.dead]

    # What is no id stays none: another name must not make a line good.
    assert sorted(refused(clear)) == sorted(refused(keyed)) == [2, 3, 4, 5, 6, 10, 11, 12]


def test_hashed_by_the_replay_or_by_the_worker_is_one():
    lines = shop(5, days=40, customers=40, orders_a_day=10)
    plain = short_settings()
    clear, there = windows_of(lines, plain), windows_of(lines, WORKER, partitions=2)
    here = list(Windows(plain, 3, 61).feed(keyed_feed(lines, plain, 3)))
    here_keyed = list(Windows(WORKER, 3, 61).feed(keyed_feed(lines, WORKER, 3)))
    assert [w.rows.to_pylist() for w in here] == [w.rows.to_pylist() for w in clear]  # no key, no change
    assert here_keyed == there
    assert len(there) > 4
    for named, told in zip(there, clear, strict=True):
        assert named.totals == told.totals
        renamed = [row | {"CustomerID": NAMES.of(row["CustomerID"])} for row in told.rows.to_pylist()]
        assert named.rows.to_pylist() == sorted(renamed, key=lambda row: row["CustomerID"])


def test_a_reason_names_no_id():
    for mapping in (None, odd_shop.example()):
        made = line(CustomerID=4711.5)
        value = odd_shop.record(made) if mapping else made
        found = Decoder(Vocabulary(), mapping, NAMES).decode([json.dumps(value).encode()], [()])
        (letter,) = found.dead
        assert "CustomerID" in letter.reason
        assert "4711" not in letter.reason


def test_a_state_goes_on_under_its_own_key_only():
    configs = [state_config(), *(config_of(names) for names in (NAMES, Pseudonyms(b"another key of tests")))]
    for config in configs:
        state, ledger, records = PartitionState(0, config), Ledger(), {}
        for cut in apply(state, [entry(MONDAY + i * 3600) for i in range(60)], 0, 60).cuts:
            records |= {k: v for k, v in ledger.commit(cut, state.words) if v is not None}
        assert load(0, config, records) is not None
        assert (b"17850" in b"".join(map(str.encode, state.words.customers))) == (config is configs[0])
        for other in configs:
            told = other.differences(config.as_stored)
            assert [words.split()[0] for words in told] == ([] if other is config else ["customer_ids"])
    # A state of before there were keys is one without.
    old = {name: value for name, value in configs[0].as_stored.items() if name != "customer_ids"}
    assert configs[0].differences(old) == []
    assert configs[1].differences(old)


def config_of(names):
    return state_config(customer_ids=names.fingerprint, pseudonyms=names)


# -- dead letters -------------------------------------------------------------------------------------------


def record(**changes) -> bytes:
    return encode_line(line(**changes))


WITHHELD = {
    "no JSON": b"CLEAR-1,536365",
    "a list": b'["CLEAR-1"]',
    "an id that is none": record(CustomerID=["CLEAR-1"]),
    "a fraction": record(CustomerID=4711.5),
    "none of the fields": b'{"customer":"CLEAR-1"}',
    "a field too few": record(CustomerID="CLEAR-1").replace(b'"Country"', b'"Land"'),
    "a field too few, shifted": record(CustomerID="7", Country="CLEAR-1").replace(b'"UnitPrice"', b'"x"'),
    "too deep": b'{"CustomerID":' + b"[" * 30_000,
    "too long": record(Description="CLEAR-1" * 20_000),
}


@pytest.mark.parametrize("name", WITHHELD)
def test_what_cannot_be_read_is_withheld(name):
    value = WITHHELD[name]
    key, shown, headers = shown_letter(value, [("customer", b"CLEAR-1")], NAMES, None)
    assert (key, headers) == (None, [])
    assert json.loads(shown)["bytes"] == len(value)
    assert b"CLEAR" not in shown
    assert b"4711" not in shown


def test_of_the_rest_a_lines_fields_stay_under_the_other_name():
    value = record(CustomerID="CLEAR-1", Quantity="x", Country={"a": "CLEAR-1"}, Mail="CLEAR-1")
    value = value.replace(b"{", b'{"CustomerID":"CLEAR-2",', 1)  # the last of two counts, the first is gone
    key, shown, _ = shown_letter(value, [], NAMES, None)
    told = msgspec.json.decode(shown)
    assert b"CLEAR" not in shown
    assert key.decode() == told["CustomerID"] == NAMES.of("CLEAR-1")
    assert (told["Quantity"], told["Country"]) == ("withheld", "withheld")
    assert told["InvoiceNo"] == line()["InvoiceNo"]


def test_a_replays_dead_letter_keeps_its_name_and_headers():
    value, headers = record(CustomerID=NAMES.of("1"), Quantity="x"), record_headers("shop", 7)
    for mapping in (None, odd_shop.example()):
        key, shown, kept = shown_letter(value, headers, NAMES, mapping)
        assert key.decode() == json.loads(shown)["CustomerID"] == NAMES.of("1")
        assert kept == headers
    assert shown_letter(None, headers, NAMES, None) == (None, None, headers)


def test_the_fields_of_another_shop_are_known():
    value = json.dumps(odd_shop.record(line(CustomerID="CLEAR-1")) | {"Telefon": "CLEAR-1"}).encode()
    key, shown, _ = shown_letter(value, [], NAMES, odd_shop.example())
    assert key == NAMES.of("CLEAR-1").encode()
    assert json.loads(shown)["Kundennr"] == NAMES.of("CLEAR-1")
    assert b"CLEAR" not in shown


# -- who was erased -----------------------------------------------------------------------------------------


def test_who_was_erased_is_not_scored(tmp_path):
    list_of = Erasures(tmp_path / "registry")
    assert list_of.digests() == frozenset()
    for _ in range(2):
        list_of.add("17850")
    assert len(list_of.path.read_text().split()) == 1
    assert "17850" not in list_of.path.read_text()
    scored = [("17850", b"a"), ("17851", b"b")]
    assert list(without(scored, list_of.digests())) == scored[1:]
    assert list(without(scored, frozenset())) == scored
