"""With a key, on a real broker: no id behind the border, wherever it came in; and one customer is erased."""

import json

import pytest
from kafka import KafkaProducer
from line_factory import DAY_S, MONDAY, SHORT_WINDOWS, line, shop
from small_shop import clv_drift, write_csv
from stream_run import running

from streams.checkpoints import load
from streams.processes import environment_of
from streams.snapshots import decode_chunk
from streams.state_config import StateConfig
from streams.topic_reader import read_all
from streams.topics import catalogue
from streams.transactions import encode_line

pytestmark = [pytest.mark.broker]

KEY = "a key of these tests"
WHO = "CLEAR-12350"
RULES = SHORT_WINDOWS | {"partitions": 2, "customer_id_key": KEY, "write_watermarks": False}


class Shop:
    """Lines like those of `line_factory.shop`, as an input that can be written to a file."""

    def lines(self):
        lines = shop(4, days=35, customers=40, orders_a_day=12, start=MONDAY + 2 * DAY_S)
        named = [
            made | {"CustomerID": made["CustomerID"] and f"CLEAR-{made['CustomerID']}"} for made in lines
        ]
        return enumerate(named, 1)


FOREIGN = [
    encode_line(line(MONDAY + 2 * DAY_S, CustomerID=WHO, InvoiceNo="1", StockCode="FOREIGN")),
    encode_line(line(MONDAY + 2 * DAY_S, CustomerID=WHO, Quantity="x")),
    encode_line(line(MONDAY + 2 * DAY_S, CustomerID=["CLEAR-7"])),
    b"CLEAR-8;no;json",
]


def send_foreign(conf) -> None:
    producer = KafkaProducer(bootstrap_servers=conf.bootstrap_servers)
    for value in FOREIGN:
        producer.send(
            conf.topic("retail.transactions"),
            key=WHO.encode(),
            value=value,
            partition=0,
            headers=[("customer", b"CLEAR-9")],
        )
    producer.flush()
    producer.close()


def behind(conf) -> dict[str, list]:
    """What the topics behind the border hold, unpacked, by topic."""
    topics = catalogue(conf)
    found: dict[str, list] = {}
    for spec in topics.specs[1:]:
        for partition in range(spec.partitions):
            records = list(read_all(conf, spec.name, partition))
            told = found.setdefault(spec.name, [])
            told += [(record.key, record.value, record.headers) for record in records]
            if spec.name in {topics.snapshots.name, topics.rows.name}:
                told += [decode_chunk(record.value).table.to_pydict() for record in records if record.value]
            if spec.name == topics.state.name:
                live = {record.key: record.value for record in records}
                state, _ = load(partition, StateConfig.of(conf), {k: v for k, v in live.items() if v})
                told += [list(state.words.customers), state.guard.state()]
    return found


@pytest.mark.timeout(600)
def test_no_id_gets_behind_the_border_and_one_customer_is_erased(
    settings, tmp_path, monkeypatch, capsys, own_logging
):
    conf = type(settings)(**(settings.model_dump() | RULES))
    with running(conf, tmp_path / "logs") as stream:
        send_foreign(conf)
        stream.worker("ingest")
        stream.worker("evaluate")
        stream.replay(str(write_csv(tmp_path / "shop.csv", Shop())), "--speed", "max")
        stream.wait_for(stream.ended)

    name = conf.known_as(WHO)
    topics = catalogue(conf)
    found = behind(conf)
    assert {"CLEAR" in str(told) for told in found.values()} == {False}
    for path in (tmp_path / "logs").iterdir():
        assert b"CLEAR" not in path.read_bytes(), path
        assert KEY.encode() not in path.read_bytes(), path
    # The input holds ids where another producer wrote it, and none where the replay did.
    told = [record for p in (0, 1) for record in read_all(conf, topics.transactions.name, p)]
    assert sum(b"CLEAR" in record.value for record in told) == len(FOREIGN)
    # Both ways lead to one customer, and the lines that were refused are known by name or withheld.
    assert {name in str(found[spec.name]) for spec in (topics.snapshots, topics.rows, topics.state)} == {True}
    assert "FOREIGN" in str(found[topics.snapshots.name])
    letters = [(key, json.loads(value)) for key, value, _ in found[topics.dead_letters.name]]
    assert letters[0][0] == name.encode()
    assert letters[0][1]["CustomerID"] == name
    assert [value.get("bytes") for _, value in letters[1:]] == [len(value) for value in FOREIGN[2:]]

    # -- erased, by the id that the shop knows
    producer = KafkaProducer(bootstrap_servers=conf.bootstrap_servers)
    for who in (name, "k1-of-another"):
        producer.send(topics.scores.name, key=who.encode(), value=b"{}", partition=1).get(60)
    producer.close()
    for variable, value in environment_of(conf).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("COLUMNS", "200")
    assert clv_drift("erase", WHO, "--yes") == 0
    said = capsys.readouterr().out
    for spec in (topics.transactions, topics.dead_letters, topics.state, topics.snapshots, topics.rows):
        assert spec.name in said
    assert "destroy the key" in said
    assert "partition 1" in said
    standing = [(record.key, record.value) for record in read_all(conf, topics.scores.name, 1)]
    assert standing[-1] == (name.encode(), None)
    assert (b"k1-of-another", b"{}") in standing
    assert clv_drift("erase", WHO, "--yes") == 0  # again: nothing to erase, and no harm
    assert "no score stands" in capsys.readouterr().out
