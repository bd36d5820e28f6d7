"""A stream evaluated window by window, with whoever answers its requests."""

import json

from line_factory import MONDAY, settings

from streams import cloudevents
from streams.backfill import store
from streams.carry import Carry
from streams.decisions import Decision, DecisionLog, Outcome
from streams.detectors import make_detector
from streams.evaluation import Evaluator
from streams.history import History
from streams.model_cache import ModelCache
from streams.retraining import answer_request

CONF = settings()


class Stream:
    """Evaluates windows one after another; `decide` answers requests when they fall due."""

    def __init__(self, registry, decide=None, conf=CONF):
        detectors = [make_detector(name, conf) for name in conf.detectors]
        self.conf, self.registry, self.load = conf, registry, ModelCache(registry).load
        self.evaluator = Evaluator(conf, detectors, self.load)
        self.decide = decide or (lambda request: decision(Outcome.EXPIRED, request))
        self.history, self.carry, self.log = History(), Carry(), DecisionLog()
        self.requests, self.position, self.out = [], 0, []

    def tell(self, made):
        counts = self.log.add(self.position, made.to_event("/test"))
        self.position += 1
        return counts

    def evaluate(self, snapshot):
        self.history.add(snapshot)
        for request in self.carry.due(snapshot.window_end):
            self.requests.append(request)
            self.tell(self.decide(request))
        evaluated = self.evaluator.evaluate(self.history, self.carry, self.log)
        # What is carried must survive the topic it is kept in.
        self.carry = Carry.from_dict(json.loads(cloudevents.encode(evaluated.evaluation))["data"]["carry"])
        assert self.carry == evaluated.carry
        self.out.append(evaluated)
        return evaluated.evaluation["data"]

    def run(self, snapshots):
        return [self.evaluate(snapshot) for snapshot in snapshots]

    def answer(self, request):
        """Answer as the retrain consumer does."""
        return store(answer_request(self.history, request, self.load, self.conf), self.registry)

    def bytes(self):
        return [[cloudevents.encode(e) for e in [*one.events, one.evaluation]] for one in self.out]


def decision(outcome, request=None, version=None, nonce=None, window_end=MONDAY):
    return Decision(
        outcome=outcome,
        reason="as the test says",
        window_end=request.requested_at if request else window_end,
        request_id=request.request_id if request else None,
        version=version,
        parent=request.champion if request else None,
        nonce=nonce,
    )


def events_of(stream, kind):
    return [event for one in stream.out for event in one.events if event["type"] == kind]
