"""Bytes of anybody: each reader raises what it promises or gives a result that holds, in bounded memory."""

import csv
import io
import json
import sqlite3
import struct
import tracemalloc
import zipfile
from datetime import datetime

import msgspec
import odd_shop
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from line_factory import MONDAY, apply, entry, line, shop, state_config
from line_factory import settings as short_settings
from model_frames import labelled_frame
from test_joining import parts_by_partition

from models.artefact import ArtefactError, dump_pipeline, load_pipeline
from models.card import CardError, card_json, card_of, read_card
from models.training import train
from producers.source import read_lines
from streams import arrow_bounds, checkpoints, cloudevents
from streams.checkpoints import Ledger, StateUnusableError, load, newest_head
from streams.decisions import DecisionLog
from streams.decode import Decoder
from streams.errors import ExitCode, UserError
from streams.joining import Joiner
from streams.mapping import Mapping
from streams.partition import PartitionState
from streams.pseudonyms import Pseudonyms
from streams.score_book import NewestRows, ScoreBook, champion_in
from streams.settings import ENV_PREFIX, Settings, load_settings
from streams.snapshots import decode_chunk
from streams.transactions import FIELDS, encode_line
from streams.vocabulary import Vocabulary
from streams.webhooks.intake import event_in
from streams.webhooks.store import FILE, Store, storage_errors
from streams.withheld import shown_letter

MIB = 1 << 20


def few(examples):
    """Bounded: the same examples in every run, none of them timed by itself."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """Return `whole` with some bytes changed, a piece cut out, doubled, or its end missing."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.sampled_from([1, 1, 2, 4, 8, 64]))
        match draw(st.sampled_from(["set", "number", "cut", "double", "end"])):
            case "set":
                data[at : at + size] = draw(st.binary(min_size=size, max_size=size))
            case "number":
                data[at : at + 8] = struct.pack("<q", draw(st.sampled_from([-1, 0, 1, 2**31, 2**40, 2**62])))
            case "cut":
                del data[at : at + size]
            case "double":
                data[at:at] = data[at : at + size]
            case "end":
                del data[at:]
    return bytes(data)


# -- JSON ---------------------------------------------------------------------------------------------------


def objects(values):
    return st.dictionaries(st.text(max_size=8), values, max_size=3)


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=20)
    | st.sampled_from(["2011-01-03T00:00:00Z", "9999-12-31T00:00:00Z", "", "\x1b[2J", "clv.score.v1"])
)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=8)


def encoded(value) -> bytes:
    """JSON with what JSON cannot hold: NaN, lone surrogates."""
    return json.dumps(value).encode()


@st.composite
def changed(draw, message: dict):
    """Return a message in which some values, at any depth, are anything, missing, or told twice."""
    made = json.loads(json.dumps(message))
    for _ in range(draw(st.integers(1, 3))):
        place = made
        while True:
            name = draw(st.sampled_from(sorted(place)))
            if isinstance(place[name], dict) and place[name] and draw(st.booleans()):
                place = place[name]
                continue
            break
        if draw(st.booleans()):
            place[name] = draw(anything)
        else:
            del place[name]
            if not made or not place:
                break
    text = encoded(made)
    return text if draw(st.integers(0, 9)) else b"{" + text[1:-1] * 2 + b"}"


records = st.binary(max_size=200) | anything.map(encoded) | changed(line()) | damaged(encode_line(line()))


@few(60)
@given(st.lists(records, max_size=5))
@pytest.mark.parametrize("mapping", [None, odd_shop.example()], ids=["ours", "foreign"])
def test_a_record_is_a_line_or_a_dead_letter(mapping, values):
    names = Pseudonyms(b"a key of these tests")
    good = json.dumps(odd_shop.record(line())).encode() if mapping else encode_line(line())
    found = Decoder(Vocabulary(), mapping, names).decode([good, *values, good], [()] * (len(values) + 2))
    told = {*found.positions.tolist(), *(letter.position for letter in found.dead)}
    assert told == set(range(len(values) + 2))
    assert {0, len(values) + 1} <= set(found.positions.tolist())
    assert len(found.lines) + len(found.dead) == len(values) + 2
    for value in values:
        _, shown, _ = shown_letter(value, (), names, mapping)
        assert shown is not None
        json.loads(shown)


EVENT = cloudevents.envelope(
    kind="clv.score.v1",
    source="/clv-drift/",
    window_end=MONDAY,
    data={
        "window_end": cloudevents.iso(MONDAY),
        "model_version": "0123456789abcdef",
        "predicted": {"decile_cuts": [1.0] * 9},
        "outcome": "promoted",
        "version": "0123456789abcdef",
        "request_id": "r",
        "parent": None,
        "reason": "",
        "gate": None,
        "card": None,
        "nonce": None,
        "effective_from": None,
    },
)
READERS = {
    "cloudevents": cloudevents.decode,
    "scores": lambda value: ScoreBook().read(b"1", value),
    "evaluations": lambda value: champion_in(value.replace(b"clv.score.v1", b"clv.evaluation.v1")),
    "decisions": lambda value: DecisionLog().add(0, cloudevents.decode(value)),
    "webhooks": event_in,
}


@few(60)
@given(st.binary(max_size=60) | anything.map(encoded) | changed(EVENT) | damaged(encoded(EVENT)))
@pytest.mark.parametrize("reader", READERS)
def test_a_message_is_taken_or_a_value_error(reader, value):
    try:
        READERS[reader](value)
    except ValueError:
        return
    assert isinstance(json.loads(value.replace(b"clv.score.v1", b"x"), strict=False), dict)


@pytest.mark.parametrize("reader", READERS)
def test_deep_nesting_is_a_value_error(reader):
    with pytest.raises(ValueError, match="not JSON"):
        READERS[reader](b'{"data":' + b"[" * 50_000)


# -- files --------------------------------------------------------------------------------------------------

SHOP_ROWS = [
    [
        f"53636{i}",
        "85123A",
        'WHITE "HEART", é\nlarge',
        i,
        datetime.fromisoformat("2010-12-13T08:26"),
        2.5,
        "17850",
        "UK",
    ]
    for i in range(8)
]


def csv_file() -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([FIELDS, *SHOP_ROWS])
    return text.getvalue().encode()


def parquet_file(compression) -> bytes:
    file = io.BytesIO()
    columns = dict(zip(FIELDS, map(list, zip(*SHOP_ROWS, strict=True)), strict=True))
    pq.write_table(pa.table(columns), file, compression=compression)
    return file.getvalue()


def xlsx_file() -> bytes:
    file, book = io.BytesIO(), openpyxl.Workbook()
    for row in [FIELDS, *SHOP_ROWS]:
        book.active.append(row)
    book.save(file)
    return file.getvalue()


@st.composite
def damaged_part(draw, whole: bytes) -> bytes:
    """Return a zip archive, itself whole, of which one part is damaged."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as before, zipfile.ZipFile(file, "w") as after:
        hit = draw(st.sampled_from(before.namelist()))
        for name in before.namelist():
            after.writestr(name, draw(damaged(before.read(name))) if name == hit else before.read(name))
    return file.getvalue()


CSV, XLSX = csv_file(), xlsx_file()
odd_texts = st.sampled_from(['"', '""', ",", "\0", "\r", "\n", "\r\n", "\ufeff", "é", "'", ";", "\u2028"])
FILES = {
    "csv": damaged(CSV)
    | st.tuples(st.integers(0, len(CSV)), st.lists(odd_texts, min_size=1, max_size=5)).map(
        lambda put: CSV[: put[0]] + "".join(put[1]).encode() + CSV[put[0] :]
    )
    | st.sampled_from(["utf-16", "utf-7", "utf-32", "latin-1", "cp437"]).map(CSV.decode().encode)
    | st.binary(max_size=100),
    "xlsx": damaged(XLSX) | damaged_part(XLSX) | st.binary(max_size=60).map(lambda rest: b"PK\3\4" + rest),
    "parquet": damaged(parquet_file("zstd"))
    | damaged(parquet_file("none"))
    | st.binary(max_size=60).map(lambda rest: b"PAR1" + rest + b"PAR1"),
}
SHOPS = {
    "ours": None,
    "another's": Mapping.model_validate({"columns": {name: name for name in FIELDS}}),
}


@few(150)
@given(data=st.data())
@pytest.mark.parametrize("shop_of", SHOPS)
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_read_or_refused_in_words(tmp_path, kind, shop_of, data):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data.draw(FILES[kind]))
    made = []
    code = refused_as(lambda: made.extend(read_lines(path, SHOPS[shop_of])))
    assert code in {None, ExitCode.INPUT}
    # What was made is told line by line whether it is one.
    values = [encode_line(it) for it in made]
    found = Decoder(Vocabulary()).decode(values, [()] * len(values))
    assert len(found.lines) + len(found.dead) == len(made)


# -- Arrow --------------------------------------------------------------------------------------------------

CONF = short_settings()
LINES = shop(3, days=16, customers=20, orders_a_day=4)
CHUNKS = [value for messages in parts_by_partition(LINES, CONF, 1) for value in messages]
ROWS, FOLDED = CHUNKS[-2], CHUNKS[-1]


def joined(values):
    joiner = Joiner(1, 1_000)
    for value in values:
        joiner.add(decode_chunk(value))
    return list(joiner.pop())


@few(120)
@given(st.one_of(damaged(ROWS), damaged(FOLDED), st.binary(max_size=300)))
def test_a_snapshot_message_is_refused_or_can_be_joined(value):
    before = pa.total_allocated_bytes()
    try:
        chunk = decode_chunk(value)
    except ValueError:
        assert pa.total_allocated_bytes() - before < MIB
        return
    # Whatever came through can be followed: no index of it leads outside.
    assert len(chunk.table.to_pylist()) == chunk.table.num_rows
    try:
        joined([*CHUNKS, value])
    except ValueError:
        return


def rewritten(value, *, columns=None, **meta) -> bytes:
    """A message with other metadata or columns, packed as ours are."""
    with pa.ipc.open_stream(value) as reader:
        table = reader.read_all()
    told = json.loads(table.schema.metadata[b"clv"]) | meta
    for name, column in (columns or {}).items():
        table = table.set_column(table.column_names.index(name), name, column)
    table = table.replace_schema_metadata({b"clv": json.dumps(told).encode()})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


COUNT = decode_chunk(ROWS).table.num_rows
POISONED = {
    "another partition count": {"partitions": 10**9},
    "a chunk beyond the count": {"chunk": 7, "chunks": 2},
    "a count of none": {"chunks": 0},
    "10^12 chunks": {"chunks": 10**12},
    "a window in words": {"window_end": "soon"},
    "a window before the one before": {"after": "2999-01-03T00:00:00Z"},
    "a list for totals": {"totals": []},
    "no customers in the totals": {"totals": {"lines": 1}},
    "totals in text": {"totals": {"lines": "1", "customers": "1"}},
    "totals beyond 64 bits": {"totals": {"lines": 1, "customers": 10**30}},
    "a bound beyond 64 bits": {"sample_bound": 10**30},
    "an earliest time beyond time": {"earliest_s": 10**30},
    "another kind": {"kind": "code"},
    "rows for lines": {"kind": "lines"},
    "other features": {"features_version": 99},
    "an infinite version": {"features_version": float("inf")},
    "texts for numbers": {"columns": {"Monetary": pa.array(["x"] * COUNT)}},
    "numbers for ids": {"columns": {"CustomerID": pa.array(range(COUNT))}},
    "ids that are missing": {"columns": {"CustomerID": pa.array([None] * COUNT, pa.string())}},
    "no number": {"columns": {"Monetary": pa.array([float("nan")] * COUNT)}},
    "infinity": {"columns": {"Monetary": pa.array([float("inf")] * COUNT)}},
}


def test_a_message_written_anew_is_taken():
    assert decode_chunk(rewritten(ROWS)).table == decode_chunk(ROWS).table


@pytest.mark.parametrize("name", POISONED)
def test_a_poisoned_snapshot_is_refused(name):
    with pytest.raises(ValueError, match=r"\w"):
        decode_chunk(rewritten(ROWS, **POISONED[name]))


def test_a_dictionary_that_points_outside_is_refused():
    """Arrow itself follows such an index into foreign memory."""
    indices = pa.array([10_000_000] * decode_chunk(FOLDED).table.num_rows, pa.int32())
    wrong = pa.DictionaryArray.from_arrays(indices, pa.array(["x"]), safe=False)
    with pytest.raises(ValueError, match="not a snapshot message"):
        decode_chunk(rewritten(FOLDED, columns={"Country": wrong}))


def test_a_message_that_unpacks_to_too_much_is_not_unpacked():
    table = pa.table({"CustomerID": pa.array(["x" * 1_000]).take(pa.array([0] * 100_000))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    value = bytes(sink.getvalue())
    assert len(value) < MIB
    before = pa.total_allocated_bytes()
    del table, sink, writer
    with pytest.raises(ValueError, match="asks for"):
        decode_chunk(value)
    assert pa.total_allocated_bytes() <= before


def test_the_bounds_are_what_arrow_takes():
    """What is read out of a message by hand is what Arrow makes of it."""
    found = [
        arrow_bounds._asked_for(message.metadata.to_pybytes(), memoryview(message.body))
        for message in pa.ipc.MessageReader.open_stream(ROWS)
        if message.body is not None and message.body.size
    ]
    table = decode_chunk(ROWS).table
    assert sum(found) == pytest.approx(table.nbytes, rel=0.1, abs=64 * table.num_columns)


def test_chunks_that_do_not_go_together_are_refused():
    first = rewritten(ROWS, chunk=0, chunks=3)
    for other in (rewritten(ROWS, chunk=1, chunks=2), ROWS):
        joiner, rows = Joiner(1, 1_000), NewestRows()
        joiner.add(decode_chunk(first))
        rows.add(first)
        with pytest.raises(ValueError, match="chunks"):
            joiner.add(decode_chunk(other))
        with pytest.raises(ValueError, match="chunks"):
            rows.add(other)
    with pytest.raises(ValueError, match="lines"):
        NewestRows().add(FOLDED)


# -- checkpoints --------------------------------------------------------------------------------------------


def stored() -> dict[bytes, bytes]:
    state, ledger, live = PartitionState(0, state_config()), Ledger(), {}
    log = [entry(MONDAY + i * 20_000, CustomerID=str(i % 7), InvoiceNo=str(i)) for i in range(90)]
    for cut in apply(state, log, 0, len(log)).cuts:
        live |= dict(ledger.commit(cut, state.words))
    return {key: value for key, value in live.items() if value is not None}


STORED = stored()


def as_loaded(records):
    state, ledger = load(0, state_config(), records)
    return state.read_offset, state.counters, sorted(state.words.customers), ledger


@few(120)
@given(st.data())
def test_a_damaged_state_is_refused_and_never_half_loaded(data):
    key = data.draw(st.sampled_from(sorted(STORED)))
    value = data.draw(damaged(STORED[key]) | st.binary(max_size=100))
    if value == STORED[key]:
        return
    with pytest.raises(StateUnusableError):
        load(0, state_config(), STORED | {key: value})
    if b"head" in key:
        with pytest.raises(StateUnusableError):
            newest_head([(key, value)])


@few(60)
@given(st.data())
def test_a_forged_state_is_refused_or_loads(data):
    """Sealed as ours, its content anything: whoever may write the topic could."""
    key = data.draw(st.sampled_from(sorted(STORED)))
    name = key.rsplit(b"/", 1)[0] if key.count(b"/") == 2 else key
    content = msgspec.msgpack.decode(checkpoints._unseal(name, STORED[key]))
    field = data.draw(st.sampled_from(sorted(content)))
    if data.draw(st.booleans()):
        content[field] = data.draw(
            anything.filter(lambda it: abs(it or 0) < 2**63 if type(it) is int else True)
        )
    else:
        del content[field]
    try:
        forged = checkpoints._seal(name, msgspec.msgpack.encode(content))
    except (OverflowError, UnicodeEncodeError):  # what msgpack cannot hold
        return
    tracemalloc.start()
    try:
        load(0, state_config(), STORED | {key: forged})
    except StateUnusableError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20 * MIB


def test_a_state_that_asks_for_too_much_is_refused():
    key = max(key for key in STORED if key.endswith(b"head"))
    body = (2**50).to_bytes(8, "little") + STORED[key][24:]
    with pytest.raises(StateUnusableError, match="more than it can hold"):
        load(0, state_config(), STORED | {key: checkpoints._digest(key, body) + body})


# -- models -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return train(labelled_frame(customers=120), "tweedie_glm", seed=42)


@few(15)
@given(data=st.data())
def test_a_damaged_artefact_is_refused_or_whole(model, data):
    value = data.draw(damaged(dump_pipeline(model.pipeline)) | st.binary(max_size=60))
    try:
        pipeline = load_pipeline(value)
    except ArtefactError:
        return
    assert "regressor" in pipeline.named_steps


@few(60)
@given(data=st.data())
def test_a_damaged_card_is_refused(model, data):
    whole = card_json(card_of(model, horizon_days=90, metrics={}))
    value = data.draw(damaged(whole) | st.binary(max_size=60) | anything.map(encoded))
    try:
        card = read_card(value)
    except CardError:
        return
    assert card == read_card(whole)  # only blanks can have changed
    with pytest.raises(CardError):
        read_card(b"[" * 50_000)


# -- settings and files -------------------------------------------------------------------------------------

names = st.sampled_from([*Settings.model_fields, "x"])
toml_values = st.sampled_from(
    [
        "1",
        "-1",
        "1e999",
        "nan",
        "9" * 5_000,
        "''",
        "'\\u0000'",
        "[]",
        "[[[]]]",
        "{a=1}",
        "2011-01-01",
        "true",
        "'x'",
    ]
)


def refused_as(work):
    """Return the code of the UserError that `work` ends in, None where it does its work."""
    try:
        work()
    except UserError as exc:
        return exc.code


@few(60)
@given(
    st.binary(max_size=40)
    | st.text(max_size=40).map(str.encode)
    | st.lists(st.tuples(names, toml_values), max_size=3).map(
        lambda pairs: "\n".join(f"{name} = {value}" for name, value in pairs).encode()
    )
    | st.just(b"a = " + b"[" * 20_000)
)
def test_a_settings_file_is_taken_or_refused_in_words(tmp_path, monkeypatch, content):
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    monkeypatch.setenv(f"{ENV_PREFIX}CONFIG", str(path))
    assert refused_as(load_settings) in {None, ExitCode.USAGE}


@few(60)
@given(
    names,
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | toml_values,
)
def test_a_variable_is_taken_or_refused_in_words(monkeypatch, name, value):
    with monkeypatch.context() as patched:
        patched.setenv(f"{ENV_PREFIX}{name.upper()}", value)
        assert refused_as(load_settings) in {None, ExitCode.USAGE}


@few(20)
@given(data=st.data())
def test_a_damaged_store_of_webhooks_is_refused_in_words(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("store")
    with Store(home) as store:
        store.enrol("a", "t", 0)
        store.take("t", 0, "e", encoded(EVENT), ["a"], now=1.0)
    path = home / FILE
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    path.write_bytes(data.draw(damaged(path.read_bytes())))

    def opened():
        with Store(home) as store, storage_errors(home):  # as the process that has it does
            store.positions("t")
            store.head("a")

    assert refused_as(opened) in {None, ExitCode.STATE, ExitCode.STORAGE}
