"""Early warnings on a real broker are those of a backfill, though the worker is killed right after one."""

import pytest
from harm import harmed, paced, records_of
from small_shop import DRIFT, SHOP, SHORT, shop

from streams.batch import backfill
from streams.output import WARNINGS
from streams.settings import Settings

pytestmark = [pytest.mark.broker, pytest.mark.slow]

DAYS = 150


@pytest.fixture
def two(settings) -> Settings:
    quick = {"session_timeout_s": 3.0, "heartbeat_interval_s": 0.5, "partitions": 2}
    return settings.model_copy(update={**SHORT, **quick, "reference_weeks": 40})


def test_the_worker_is_killed_after_a_warning(two, tmp_path):
    records = records_of(shop(DRIFT), two)
    backfill(records, two, tmp_path / "out", partitions=2)
    expected = (tmp_path / "out" / WARNINGS).read_bytes().splitlines()
    assert len(expected) >= 4
    with harmed(two, tmp_path / "logs") as stream:
        worker = stream.worker(role="ingest")
        arguments = ["replay", "--synthetic", SHOP, "--inject", DRIFT]
        replay = stream.stream.start(*paced(arguments, DAYS, 8))
        stream.stream.wait_for(stream.stream.warnings)
        stream.kill(worker)
        stream.worker(role="ingest")
        assert replay.process.wait(300) == 0
        stream.stream.wait_for(lambda: stream.stream.counters().get("read", 0) == len(records))
        found = stream.stream.warnings()
        assert [found[key] for key in sorted(found)] == expected, stream.report()
