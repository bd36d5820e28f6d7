"""Evidently's verdict as the one that acts, on a real broker: evaluations wait, and nobody waits in vain."""

import asyncio

import pytest
from line_factory import MONDAY, WEEK_S
from small_shop import SHORT, shop
from stream_run import backfilled, encoded, running

from streams import cloudevents
from streams.comparison_follower import ComparisonFollower
from streams.comparisons import COMPARISON, REQUESTED, Wanted
from streams.grid import iso
from streams.kafka_io import send_event, start_producer
from streams.log_follower import GivenBackError
from streams.settings import Settings
from streams.topic_admin import ensure_topics
from streams.topic_reader import read_all
from streams.topics import catalogue

pytestmark = pytest.mark.broker

TEXT, DRIFT = "customers=500,days=130,seed=5", "price:+60%@2011-03-28"
ACTING = {
    "detectors": ("baseline", "evidently_dataset", "evidently_any"),
    "acting_detector": "evidently_any",
    "decision_wait_s": 600.0,
    "training_timeout_s": 300.0,
    "comparison_timeout_s": 300.0,
}
NO_TIME_S = 0.01  # in which no child starts: each comparison fails
SOON_S = 60.0
WANTED = Wanted(window_end=MONDAY + WEEK_S, reference_end=MONDAY)


@pytest.fixture
def acting(settings) -> Settings:
    return settings.model_copy(update={**SHORT, **ACTING})


def messages(settings: Settings, kind: str) -> list[dict]:
    records = read_all(settings, catalogue(settings).comparisons.name)
    events = [cloudevents.decode(record.value) for record in records]
    return [event["data"] for event in events if event["type"] == kind]


@pytest.mark.slow
def test_the_stream_says_what_the_backfill_says(acting, tmp_path):
    expected = backfilled(shop(DRIFT, text=TEXT), acting, tmp_path / "backfill")
    with running(acting, tmp_path / "logs") as stream:
        stream.worker()
        stream.retrain()
        stream.replay("--synthetic", TEXT, "--inject", DRIFT, "--speed", "max")
        stream.wait_for(stream.ended, timeout_s=480)
        assert stream.evaluations() == encoded(expected.evaluations), stream.words()
        stream.wait_for(lambda: len(messages(acting, COMPARISON)) == len(expected.evaluations))
        made = {data["window_end"]: data for data in messages(acting, COMPARISON)}
    data = [event["data"] for event in expected.evaluations]
    assert "confirmed" in [item["state"] for item in data]
    for item in data:
        verdict = item["verdicts"].get("evidently_any")
        if verdict is not None and not item["partial"]:
            assert verdict["drifted_columns"] == made[item["window_end"]]["drifted_columns"]
            assert item["verdicts"]["evidently_dataset"]["statistic"] is not None
    assert [item["window_end"] for item in messages(acting, REQUESTED)] == [
        item["window_end"] for item in data if item["verdicts"] and not item["partial"]
    ]


@pytest.mark.slow
def test_evaluate_waits_until_somebody_compares_and_failures_end_the_wait(acting, tmp_path):
    """In processes of their own; the one that waits is replaced, and the request stands."""
    hasty = acting.model_copy(update={"comparison_timeout_s": NO_TIME_S})
    expected = backfilled(shop(text=TEXT), hasty, tmp_path / "backfill")
    with running(hasty, tmp_path / "logs") as stream:
        stream.worker("ingest")
        waiting = stream.worker("evaluate")
        stream.retrain()
        stream.replay("--synthetic", TEXT, "--speed", "max")
        stream.wait_for(lambda: messages(hasty, REQUESTED) != [])
        (request,) = messages(hasty, REQUESTED)
        assert request["window_end"] not in stream.evaluations()
        waiting.process.kill()
        waiting.process.wait()
        stream.worker("evaluate")
        stream.worker("compare")
        stream.wait_for(stream.ended)
        assert stream.evaluations() == encoded(expected.evaluations), stream.words()
    reasons = {
        event["data"]["verdicts"]["evidently_any"]["reason"]
        for event in expected.evaluations
        if event["data"]["verdicts"]
    }
    assert reasons == {
        f"Evidently's comparison failed: no comparison in 3 tries: the child gave no answer in {NO_TIME_S} s",
        "the window is partial: the input ended before it did",
    }


def follow(settings: Settings, scenario) -> None:
    """Run an async scenario with a follower that is loaded, and a producer."""
    ensure_topics(settings)

    async def run() -> None:
        producer = await start_producer(settings)
        follower = ComparisonFollower(settings, producer, pytest.fail)
        try:
            await follower.load()
            await scenario(follower, producer)
        finally:
            await follower.close()
            await producer.stop()

    asyncio.run(run())


def answer(settings: Settings, wanted: Wanted, share: float, *, source: str | None = None) -> dict:
    data = wanted.answer("compared", share=share)
    source = settings.event_source if source is None else source
    return cloudevents.envelope(kind=COMPARISON, source=source, window_end=wanted.window_end, data=data)


def test_the_first_comparison_of_exactly_this_window_and_reference_counts(settings):
    topic = catalogue(settings).comparisons.name
    of_another = Wanted(window_end=WANTED.window_end, reference_end=MONDAY - WEEK_S)

    async def scenario(follower, producer) -> None:
        waiting = asyncio.create_task(follower.compared(WANTED))
        await producer.send_and_wait(topic, b"not JSON", key=b"any", partition=0)
        for event in (
            answer(settings, of_another, 0.1),
            answer(settings, WANTED, 0.2, source="/a stranger/"),
            answer(settings, WANTED, 0.3),
            answer(settings, WANTED, 0.4),
        ):
            await send_event(producer, topic, iso(WANTED.window_end), event)
        found = await asyncio.wait_for(waiting, SOON_S)
        assert found["share"] == 0.3

    follow(settings, scenario)

    async def again(follower, _) -> None:
        assert (await asyncio.wait_for(follower.compared(WANTED), SOON_S))["share"] == 0.3

    follow(settings, again)
    requests = [r.value for r in read_all(settings, topic) if r.key.endswith(b"/request")]
    # One: an answer that stands is not asked for.
    assert requests == [cloudevents.encode(WANTED.to_event(settings.event_source))]


def test_whoever_waits_for_a_comparison_goes_when_the_partition_goes(settings):
    async def scenario(follower, _) -> None:
        waiting = asyncio.create_task(follower.compared(WANTED))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await follower.close()
        with pytest.raises(GivenBackError):
            await asyncio.wait_for(waiting, SOON_S)
        with pytest.raises(GivenBackError):
            await follower.load()

    follow(settings, scenario)
