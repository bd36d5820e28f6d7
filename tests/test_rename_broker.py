"""One customer is erased everywhere, on a real broker; the stream goes on with the figures that it had."""

import pytest
from line_factory import DAY_S, MONDAY, SHORT_WINDOWS, shop
from small_shop import clv_drift, write_csv
from stream_run import backfilled, running

from producers.inputs import file_input
from streams import cloudevents
from streams.checkpoints import load
from streams.erasures import Erasures
from streams.errors import ExitCode
from streams.grid import iso
from streams.processes import environment_of
from streams.rename import PREFIX
from streams.rights import holders
from streams.snapshots import decode_chunk
from streams.state_config import StateConfig
from streams.topic_reader import read_live
from streams.topics import catalogue

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

RULES = SHORT_WINDOWS | {"partitions": 2}
DAYS, HALF = 42, 21
WHO = "12350"  # who buys nothing in the second half: else they would be somebody new there


class Shop:
    def lines(self):
        half = iso(MONDAY + HALF * DAY_S)[:10]
        lines = shop(4, days=DAYS, customers=40, orders_a_day=12, start=MONDAY)
        return enumerate([x for x in lines if x["CustomerID"] != WHO or x["InvoiceDate"] < half], 1)


def held(conf) -> dict[str, str]:
    """What the topics with customers hold, compacted and unpacked, as text by topic."""
    topics = catalogue(conf)
    found = {}
    for spec in (topics.snapshots, topics.rows):
        values = [value for p in range(spec.partitions) for value in read_live(conf, spec.name, p).values()]
        found[spec.name] = str([decode_chunk(value).table.to_pydict() for value in values])
    states = [
        load(p, StateConfig.of(conf), read_live(conf, topics.state.name, p)) for p in range(conf.partitions)
    ]
    found[topics.state.name] = str([list(state.words.customers) for state, _ in states])
    return found


def counted(evaluations) -> list[tuple]:
    """What of the evaluations does not depend on the order of customers."""
    told = [event["data"] for event in evaluations]
    return [(data["window_end"], data["state"], data["customers"], data["partial"]) for data in told]


def test_a_customer_is_erased_everywhere_and_the_stream_goes_on(
    settings, tmp_path, monkeypatch, capsys, own_logging
):
    conf = type(settings)(**(settings.model_dump() | RULES))
    path = write_csv(tmp_path / "shop.csv", Shop())
    half = sum(1 for _, made in Shop().lines() if made["InvoiceDate"] < iso(MONDAY + HALF * DAY_S)[:10])
    for variable, value in environment_of(conf).items():
        monkeypatch.setenv(variable, value)
    with running(conf, tmp_path / "logs") as stream:
        worker = stream.worker()
        stream.replay(str(path), "--speed", "max", "--limit", str(half + 5), "--no-end")
        stream.wait_for(lambda: len(stream.evaluations()) >= 2)
        assert {WHO in text for text in held(conf).values()} == {True}

        assert clv_drift("erase", WHO, "--everywhere", "--yes") == ExitCode.STATE
        assert "stop workers" in capsys.readouterr().err
        worker.process.terminate()
        assert worker.process.wait(120) == 0

        assert clv_drift("erase", WHO, "--everywhere", "--yes") == 0
        said = capsys.readouterr().out
        assert "records written anew" in said
        after = held(conf)
        assert [WHO in text for text in after.values()] == [False] * 3
        assert [PREFIX in text for text in after.values()] == [True] * 3
        assert len(Erasures(conf.registry_dir).digests()) == 2
        assert clv_drift("erase", WHO, "--everywhere", "--yes") == 0
        assert "0 records written anew" in capsys.readouterr().out

        stream.worker()
        stream.replay(str(path), "--speed", "max", "--resume")
        stream.wait_for(stream.ended)
        again = held(conf)
        assert [WHO in text for text in again.values()] == [False] * 3
        found = [cloudevents.decode(value) for _, value in sorted(stream.evaluations().items())]
    expected = backfilled(file_input(path), conf, tmp_path / "backfill").evaluations
    assert counted(found) == counted(expected)
    assert len(found) >= 5


def test_the_groups_that_are_looked_at(settings):
    names = {name.removeprefix(settings.topic_prefix) for name in holders(settings)}
    assert names == {f"clv-drift-{role}" for role in ("all", "ingest", "evaluate", "compare", "scores")}
