"""Policies: which model serves in each window, by a rule that knows the past alone."""

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from models.fitted import TrainedModel
from models.registry import Registry
from streams.backfill import store
from streams.carry import Carry
from streams.comparisons import Wanted
from streams.decisions import DecisionLog, Outcome
from streams.detectors import DetectionContext, make_detector, make_detectors
from streams.detectors.evidently import EVIDENTLY_DETECTORS
from streams.detectors.interface import Detector
from streams.evaluation import Evaluator
from streams.inline_comparison import InlineComparisons, inline_comparisons
from streams.model_cache import ModelCache
from streams.policy import PolicyState, State, step
from streams.retraining import answer_request
from streams.settings import Settings

from .streams import DAY_S, Floats, Watched

WEEK_S = 7 * DAY_S
RETRAINED, RECALIBRATED, ROLLED_BACK = "retrained", "recalibrated", "rolled back"


@dataclass
class Run:
    """What a policy did: its error in each judged window, the changes of the model, and when."""

    errors: Floats
    changes: list[tuple[int, str]] = field(default_factory=list)
    refused: int = 0

    @property
    def mean(self) -> float:
        """Mean error over the judged windows."""
        return float(np.nanmean(self.errors))

    def count(self, what: str) -> int:
        """How often the model was changed in that way."""
        return sum(kind == what for _, kind in self.changes)


def every(watched: Watched, first: int, judged: list[int], weeks: int | None) -> Run:
    """Retrain every so many weeks, without any gate; never with None."""
    asked = lambda end: weeks is not None and (end - first) // WEEK_S % weeks == 0  # noqa: E731
    return _replacing(watched, first, judged, asked)


def on_verdict(watched: Watched, first: int, judged: list[int], detector: str, settings: Settings) -> Run:
    """Retrain where a detector's drift is confirmed, without any gate; the reference goes along."""
    with inline_comparisons(settings) if detector in EVIDENTLY_DETECTORS else nullcontext() as comparisons:
        return _on_verdict(watched, first, judged, make_detector(detector, settings), settings, comparisons)


def _on_verdict(
    watched: Watched,
    first: int,
    judged: list[int],
    made: Detector,
    settings: Settings,
    comparisons: InlineComparisons | None,
) -> Run:
    whole, reference, carry = watched.whole, first, None
    state, last = PolicyState(), first
    wanted = set()
    for end in (e for e in watched.ends if e > first):
        context = DetectionContext(
            window_end=end,
            current=whole.windows[end].rows,
            reference=whole.windows[reference].rows,
            reference_window_end=reference,
            partial=False,
            history=whole,
            reference_ends=(reference,),
        )
        if comparisons is not None:
            wanted_now = Wanted(window_end=end, reference_end=reference)
            compared = comparisons.compared(wanted_now, context.current, context.reference)
            context = replace(context, comparison=compared)
        verdict, carry = made.judge(context, carry)
        state, _ = step(
            state,
            window_end=end,
            drift=verdict.drift,
            confirm_windows=settings.confirm_windows,
            resolve_windows=settings.resolve_windows,
        )
        if state.state is State.CONFIRMED and verdict.drift and end - last >= settings.cooldown_days * DAY_S:
            wanted.add(end)
            reference, last, carry, state = end, end, None, PolicyState()
    return _replacing(watched, first, judged, lambda end: end in wanted)


def _replacing(watched: Watched, first: int, judged: list[int], asked: Callable[[int], bool]) -> Run:
    """Put each retrained model into service a week after it was asked for."""
    model = watched.trained(first)
    assert model is not None
    serving: dict[int, TrainedModel] = {}
    changes = []
    waiting: TrainedModel | None = None
    for end in (e for e in watched.ends if e > first):
        if waiting is not None and waiting.version != model.version:
            model = waiting
            changes.append((end, RETRAINED))
        serving[end] = model
        waiting = watched.trained(end) if asked(end) else None
    errors = np.array([watched.errors(serving[end], [end])[0] for end in judged])
    return Run(errors, [change for change in changes if change[0] <= judged[-1]])


def ours(watched: Watched, judged: list[int], settings: Settings) -> Run:
    """Run this system over the stream: its detector, policy, remedies and gate."""
    with tempfile.TemporaryDirectory() as place:
        registry = Registry(Path(place))
        models = ModelCache(registry)
        evaluator = Evaluator(settings, make_detectors(settings), models.load)
        carry, decisions = Carry(), DecisionLog()
        serving: dict[int, str | None] = {}
        changes: list[tuple[int, str]] = []
        refused = 0
        for history in watched.histories():
            for request in carry.due(history.latest.window_end):
                answered = answer_request(history, request, models.load, settings)
                decision = store(answered, registry)
                decisions.add(len(decisions.by_request), decision.to_event(evaluator.source))
                if decision.outcome is Outcome.KEPT:
                    refused += 1
                elif decision.parent is not None:
                    kind = RETRAINED if (decision.card or {}).get("recalibrates") is None else RECALIBRATED
                    kind = ROLLED_BACK if decision.outcome is Outcome.ROLLED_BACK else kind
                    changes.append((history.latest.window_end, kind))
            carry = evaluator.evaluate(history, carry, decisions).carry
            serving[history.latest.window_end] = carry.champion
        errors = []
        for end in judged:
            version = serving[end]
            assert version is not None
            errors.append(watched.errors(models.load(version)[0], [end])[0])
    return Run(np.array(errors), [change for change in changes if change[0] <= judged[-1]], refused)


def hindsight(watched: Watched, first: int, judged: list[int], changes_max: int) -> Run:
    """Return the best schedule of at most `changes_max` retrains, the errors known beforehand.

    Dynamic programming over (window, retrains so far, model that serves): a model trained at one window may
    serve from the next on.
    """
    known = [end for end in watched.ends if first <= end < judged[-1] and watched.trained(end) is not None]
    cost = np.full((len(known), len(judged)), np.inf)
    for row, at in enumerate(known):
        model = watched.trained(at)
        assert model is not None
        after = [column for column, end in enumerate(judged) if end > at]
        cost[row, after] = watched.errors(model, [judged[column] for column in after])
    return _best(cost, judged, changes_max)


def _best(cost: Floats, judged: list[int], changes_max: int) -> Run:
    """Return the cheapest path through `cost` (models, windows) from model 0, later models only."""
    models, windows = cost.shape
    best = np.full((changes_max + 1, models), np.inf)
    best[0, 0] = 0.0
    back = np.zeros((windows, changes_max + 1, models), dtype=int)
    for window in range(windows):
        after = np.full_like(best, np.inf)
        for used in range(changes_max + 1):
            for model in range(models):
                stay = best[used, model]
                came, source = stay, model
                if used:
                    earlier = best[used - 1, :model]
                    if earlier.size and earlier.min() < came:
                        came, source = earlier.min(), int(earlier.argmin())
                after[used, model] = came + cost[model, window]
                back[window, used, model] = source
        best = after
    used, model = (int(index) for index in np.unravel_index(int(best.argmin()), best.shape))
    path = []
    for window in range(windows - 1, -1, -1):
        path.append(model)
        source = back[window, used, model]
        used -= int(source != model)
        model = int(source)
    path.reverse()
    errors = np.array([cost[chosen, window] for window, chosen in enumerate(path)])
    before = [0, *path[:-1]]
    changes = [
        (judged[window], RETRAINED) for window, (a, b) in enumerate(zip(before, path, strict=True)) if a != b
    ]
    return Run(errors, changes)
