"""A stream of eleven weeks with two requests for a model, and how the file answers them."""

import os
from pathlib import Path

import line_factory

from models.registry import Registry
from streams import backfill, cloudevents
from streams.carry import Request
from streams.history import History
from streams.partition import PartitionState
from streams.retrain import request_in
from streams.retraining import answer_request
from streams.snapshots import encode_part
from streams.state_config import StateConfig

PARTITIONS = 2
WEEKS, PRICES_FROM_WEEK = 11, 8
NOWHERE = "127.0.0.1:9"  # nothing listens there


class Story:
    """A stream of eleven weeks as a file tells it: a first model, prices that rise, a second request."""

    def __init__(self, directory: Path) -> None:
        self.settings = line_factory.settings(partitions=PARTITIONS)
        self.registry = Registry(directory)
        prices_from = line_factory.MONDAY + PRICES_FROM_WEEK * line_factory.WEEK_S
        lines = line_factory.shop(
            5, days=WEEKS * 7, customers=400, orders_a_day=120, price_factor=2.5, price_from=prices_from
        )
        self.records = list(line_factory.records_of(lines, self.settings, PARTITIONS))
        self.results = backfill.run(self.records, self.settings, self.registry, partitions=PARTITIONS)
        self.snapshots = list(self._messages())
        self.requests = [request for event in self.results.events if (request := request_in(event))]
        by_request = {event["data"]["request_id"]: event for event in self.results.decisions}
        self.decisions = [by_request[r.request_id] for r in self.requests if r.request_id in by_request]
        assert len(self.decisions) >= 2
        assert self.requests[0].champion is None
        assert self.requests[1].champion == self.decisions[0]["data"]["version"]

    def _messages(self):
        """What the workers write into the topic of snapshots: one partition's all, then the other's."""
        for partition in range(PARTITIONS):
            log = [record for record in self.records if record.partition == partition]
            state = PartitionState(partition, StateConfig.of(self.settings))
            applied = state.apply(range(len(log)), [r.value for r in log], [r.headers for r in log])
            for cut in applied.cuts:
                for part in cut.parts:
                    yield from encode_part(part, PARTITIONS)

    def events_to(self, request: Request) -> list[dict]:
        """The log of events up to the one that is `request`."""
        ids = [event["id"] for event in self.results.events]
        return self.results.events[: ids.index(request.request_id) + 1]

    def answered(self, request: Request, training_windows_max: int, history: History) -> bytes:
        changed = self.settings.model_copy(update={"training_windows_max": training_windows_max})
        answered = answer_request(history, request, self.registry.load, changed)
        return cloudevents.encode(answered.decision.to_event("/test"))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
