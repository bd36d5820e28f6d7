"""Half an hour of harm at random, then the comparison to the byte: `make soak`.

`CLV_SOAK_MINUTES` says how long, `CLV_SOAK_SEED` repeats a schedule.
"""

import os
import sys
import time

import pytest
from harm import Expected, HarmedStream, harmed, paced
from small_shop import SHORT, shop

from streams.embedded_kafka import EmbeddedKafka
from streams.processes import Child

pytestmark = [pytest.mark.broker, pytest.mark.slow]

MINUTES = float(os.environ.get("CLV_SOAK_MINUTES", "30"))
SEED = int(os.environ.get("CLV_SOAK_SEED", str(time.time_ns() % 10**6)))
DAYS = 720
TEXT = f"customers=3000,days={DAYS},seed=8"
PAUSE_S = (1.0, 12.0)
REPLAYS_MAX = 3  # harm holds the replay up: so many times as long may it take
CHECK_S = 900.0


class Soak:
    """Two workers and a replay, kept alive through everything."""

    def __init__(self, stream: HarmedStream, kafka: EmbeddedKafka, seconds: float) -> None:
        self.stream = stream
        self.kafka = kafka
        self.replaying = paced(["replay", "--synthetic", TEXT], DAYS, seconds)
        self.replay = stream.stream.start(*self.replaying)
        self.workers = [stream.worker(), stream.worker()]

    def a_worker(self) -> Child:
        return self.stream.dice.choice(self.workers)

    def kill_a_worker(self) -> None:
        self.stream.kill(self.a_worker())

    def kill_both_workers(self) -> None:
        for worker in self.workers:
            self.stream.kill(worker)

    def stop_a_worker(self) -> None:
        self.stream.stop(self.a_worker())

    def freeze_a_worker(self) -> None:
        seconds = self.stream.dice.uniform(1, 2 * self.stream.settings.session_timeout_s)
        self.stream.freeze(self.a_worker().process.pid, "a worker", seconds)

    def kill_the_broker(self) -> None:
        self.kafka.kill()
        self.stream.note("killed the broker")
        time.sleep(self.stream.dice.uniform(0, 5))
        self.kafka.start()

    def freeze_the_broker(self) -> None:
        self.stream.freeze(self.kafka.pid, "the broker", self.stream.dice.uniform(1, 20))

    def kill_the_replay(self) -> None:
        if self.replay.poll() is None:
            self.stream.kill(self.replay)

    def mend(self) -> None:
        """Start again what has ended, as a supervisor would."""
        self.workers = [worker if worker.poll() is None else self.stream.worker() for worker in self.workers]
        if self.replay.poll() not in {None, 0}:
            self.replay = self.stream.stream.start(*self.replaying, "--resume")
            self.stream.note("resumed the replay")

    def run(self) -> None:
        """Do harm until the replay is through."""
        harm = [
            self.kill_a_worker,
            self.kill_a_worker,
            self.kill_both_workers,
            self.stop_a_worker,
            self.freeze_a_worker,
            self.kill_the_broker,
            self.freeze_the_broker,
            self.kill_the_replay,
        ]
        until = time.monotonic() + REPLAYS_MAX * 60 * MINUTES
        while self.replay.poll() != 0:
            assert time.monotonic() < until, self.stream.report()
            time.sleep(self.stream.dice.uniform(*PAUSE_S))
            self.mend()
            self.stream.dice.choice(harm)()
            self.mend()


@pytest.mark.timeout(REPLAYS_MAX * 60 * MINUTES + CHECK_S)
def test_soak(settings, own_kafka, tmp_path):
    own_kafka.start()
    there = settings.model_copy(
        update={**SHORT, "reference_weeks": 400, "bootstrap_servers": own_kafka.bootstrap_servers}
    )
    with harmed(there, tmp_path / "logs", SEED) as stream:
        soak = Soak(stream, own_kafka, 60 * MINUTES)
        soak.run()
        soak.mend()
        stream.check(Expected(shop(text=TEXT), there, tmp_path / "backfill"), duplicates=None)
        said = [*stream.done, "nothing counted twice, nothing missing", ""]
        sys.stdout.write("\n".join(said))
