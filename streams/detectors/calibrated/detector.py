"""The calibrated detector: a verdict whose false alarms are promised for a year, not for a window."""

from dataclasses import dataclass, field

import numpy as np

from models.lines import Floats
from streams.detectors.calibrated import causes
from streams.detectors.calibrated.calibration import Calibration, calibrate
from streams.detectors.calibrated.onset import SPAN_HOPS_MAX, onset
from streams.detectors.calibrated.statistic import (
    ARRIVALS,
    CUSTOMERS,
    LINES_PER_ORDER,
    ORDERS,
    RETAINED,
    RETURNING,
    SHORT,
    STATISTICS,
    SUMS,
    Kind,
    Statistic,
)
from streams.detectors.calibrated.window import (
    Grid,
    NotComparableError,
    Observer,
    reference_of,
)
from streams.detectors.interface import COMPARED_COLUMNS, Carry, DetectionContext, Verdict
from streams.history import History, PastWindow

CUSTOMERS_MIN = 30
REFERENCES_KEPT = 2  # the one in force and the first of all
CUSTOMERS_MAX = 6_000  # whose weeks are laid on the circle: what a calibration costs stays bounded


@dataclass
class _Prepared:
    """A reference with its calibration, kept while it is the reference."""

    windows: tuple[PastWindow, ...]
    observer: Observer
    calibration: Calibration
    # By window end: standardised statistics of the short windows.
    z_short: dict[int, Floats] = field(default_factory=dict)

    def of(self, history: History, windows: tuple[PastWindow, ...]) -> "_Prepared | None":
        """Return what serves a history with these windows as its reference; None where they are others."""
        if len(windows) != len(self.windows) or any(
            one is not other for one, other in zip(windows, self.windows, strict=True)
        ):
            return None
        if self.observer.history is history:
            return self
        known = self.observer.history.windows
        same = {end for end, window in history.windows.items() if known.get(end) is window}
        z_short = {end: z for end, z in self.z_short.items() if end in same}
        return _Prepared(windows, self.observer.of(history, same), self.calibration, z_short)


class CalibratedDetector:
    """Rank statistics, counts and same-customer comparisons over three windows, calibrated on the reference.

    A window drifts where the largest strength of a statistic (`statistic` of the verdict) passes `threshold`.
    The threshold promises that `horizon` windows in a row without drift pass it at all with the probability
    `false_alarm_rate`, whatever the shop: it is learnt from the reference, by resampling its customers.
    `false_alarm_probability` is that of the strength seen. Customers who all change at once for a reason that
    the reference does not show (a season, a holiday) are a change, and are called one.

    Cannot tell: partial windows, fewer than 30 customers, a reference shorter than 20 hops, a week without
    orders. Carries the id of the calibration, so that it is published when it is new.

    `hops_min` is the least length of a reference, more than that of the long window.
    """

    name = "calibrated"

    def __init__(
        self, *, grid: Grid, hops_min: int, false_alarm_rate: float, horizon: int, seed: int
    ) -> None:
        self.grid = grid
        self.hops_min = hops_min
        self.false_alarm_rate = false_alarm_rate
        self.horizon = horizon
        self.seed = seed
        self._prepared: list[_Prepared] = []  # the newest last

    def judge(self, context: DetectionContext, carry: Carry | None = None) -> tuple[Verdict, Carry | None]:
        """Return the verdict on the window; `carry` names the calibration published last."""
        try:
            prepared = self._prepare(context)
            verdict = self._verdict(context, prepared)
        except NotComparableError as exc:
            return Verdict(drift=None, reason=str(exc)), carry
        published = prepared.calibration.published
        if carry is None or carry.get("calibration") != published["id"]:
            verdict = verdict.with_calibration(published)
        return verdict, {"calibration": published["id"]}

    def _prepare(self, context: DetectionContext) -> _Prepared:
        """Return the reference and its calibration: those at hand, or new ones."""
        ends = context.reference_ends
        if context.partial:
            raise NotComparableError("the window is partial: the input ended before it did")
        windows = tuple(context.history.windows[end] for end in ends)
        for i, at_hand in enumerate(self._prepared):
            found = at_hand.of(context.history, windows)
            if found is not None:
                self._prepared[i] = found
                return found
        earlier = [end for end in ends if end < context.window_end]
        if len(earlier) < self.hops_min:
            raise NotComparableError(
                f"the reference has {len(earlier)} weeks, {self.hops_min} are needed to tell drift"
            )
        known = reference_of(context.history, ends, self.grid.hop_s, CUSTOMERS_MAX)
        if known.reference.customers < CUSTOMERS_MIN:
            raise NotComparableError(
                f"the reference has {known.reference.customers} customers, fewer than {CUSTOMERS_MIN}"
            )
        calibration = calibrate(
            known.reference,
            self.grid.scale,
            false_alarm_rate=self.false_alarm_rate,
            horizon=self.horizon,
            seed=self.seed,
        )
        observer = Observer(context.history, known, calibration.circle, self.grid)
        prepared = _Prepared(windows, observer, calibration)
        self._prepared = [*self._prepared[-(REFERENCES_KEPT - 1) :], prepared]
        return prepared

    def _verdict(self, context: DetectionContext, prepared: _Prepared) -> Verdict:
        observer, calibration = prepared.observer, prepared.calibration
        sums, counts = observer.sums(context.window_end)
        active = sums[2 * _INDEX[Kind.COUNT, CUSTOMERS, 0]]
        if active < CUSTOMERS_MIN:
            raise NotComparableError(f"the window has {active:.0f} customers, fewer than {CUSTOMERS_MIN}")
        if not sums[2 * _INDEX[Kind.COUNT, ORDERS, SHORT]]:
            raise NotComparableError("no orders in the last week: the shop or the feed stood still")
        values = observer.values(sums, counts, calibration.reference_values)
        hop = (context.window_end - observer.known.reference.start) // self.grid.hop_s
        strengths = calibration.strengths(values, hop)
        # Those of the short window need no earlier one, so `_z_short` would find the same.
        prepared.z_short[context.window_end] = strengths * calibration.rare
        largest = float(np.abs(strengths).max())
        drift = largest > calibration.threshold
        window = context.history.windows[context.window_end]
        found = causes.ranked(observer, calibration, window, strengths, values, counts) if drift else ()
        observer.forget()
        kept = context.history.windows
        prepared.z_short = {end: z for end, z in prepared.z_short.items() if end in kept}
        return Verdict(
            drift=drift,
            statistic=largest,
            threshold=calibration.threshold,
            false_alarm_probability=calibration.false_alarm_probability(largest),
            causes=found,
            scores=causes.distances(values),
            strengths=causes.nearness(observer, calibration, strengths),
            drifted_columns=len({cause.feature for cause in found} & set(COMPARED_COLUMNS)),
            columns=len(COMPARED_COLUMNS),
            onset=self._onset(context, prepared, strengths) if drift else None,
        )

    def _onset(self, context: DetectionContext, prepared: _Prepared, strengths: Floats) -> int:
        """Return the begin (epoch seconds) of the first short window that the leading cause reached."""
        leading = STATISTICS[int(np.argmax(np.abs(strengths)))]
        index = _weekly(leading)
        hop_s = self.grid.hop_s
        first = max(context.window_end - SPAN_HOPS_MAX * hop_s, prepared.windows[-1].window_end)
        ends = [
            end
            for end in range(first + hop_s, context.window_end + 1, hop_s)
            if end in context.history.windows
        ]
        series = [float(self._z_short(prepared, end)[index]) for end in ends]
        return ends[onset(series)] - hop_s if ends else context.window_end - hop_s

    def _z_short(self, prepared: _Prepared, end: int) -> Floats:
        """Return the standardised statistics `SUMS` of the short window that ends at `end`."""
        found = prepared.z_short.get(end)
        if found is None:
            observer, calibration = prepared.observer, prepared.calibration
            sums = observer.short_sums(end)
            values = observer.values(sums, observer.circle.histograms, calibration.reference_values)
            hop = (end - observer.known.reference.start) // self.grid.hop_s
            found = prepared.z_short[end] = calibration.strengths(values, hop) * calibration.rare
        return found


_INDEX = {(s.kind, s.feature, s.scale): i for i, s in enumerate(SUMS) if not s.segment}

# The weekly statistic that shows when a slower one began to move.
_FOLLOWED = {
    CUSTOMERS: Statistic(Kind.COUNT, CUSTOMERS, SHORT),
    ARRIVALS: Statistic(Kind.COUNT, CUSTOMERS, SHORT),
    RETURNING: Statistic(Kind.COUNT, CUSTOMERS, SHORT),
    RETAINED: Statistic(Kind.COUNT, CUSTOMERS, SHORT),
    "Recency": Statistic(Kind.COUNT, CUSTOMERS, SHORT),
    ORDERS: Statistic(Kind.COUNT, ORDERS, SHORT),
    "NumOrders": Statistic(Kind.COUNT, ORDERS, SHORT),
    "Monetary": Statistic(Kind.MEAN_LOG, "Monetary", SHORT),
    "Frequency": Statistic(Kind.MEAN_LOG, LINES_PER_ORDER, SHORT),
    "NumProducts": Statistic(Kind.MEAN_LOG, LINES_PER_ORDER, SHORT),
    LINES_PER_ORDER: Statistic(Kind.MEAN_LOG, LINES_PER_ORDER, SHORT),
    "TotalQuantity": Statistic(Kind.MEAN_LOG, "Monetary", SHORT),
}


def _weekly(leading: Statistic) -> int:
    """Return the index of the weekly statistic, signed if there is one, that follows what `leading` does."""
    for i, statistic in enumerate(SUMS):
        same = (statistic.feature, statistic.scale) == (leading.feature, SHORT)
        if same and statistic.segment == leading.segment:
            return i
    if leading.feature in _FOLLOWED:
        return SUMS.index(_FOLLOWED[leading.feature])
    return next(i for i, s in enumerate(SUMS) if (s.feature, s.scale) == (leading.feature, SHORT))
