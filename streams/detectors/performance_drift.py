"""Performance drift: a test of the served model's errors on matured labels, with a promise of silence."""

from collections.abc import Callable, Iterator, Sequence
from math import ceil, expm1
from typing import NamedTuple

import msgspec

from streams.detectors.error_sums import BIAS, MEASURES, SEGMENTS, ErrorSums, MaturedWindow, sum_errors
from streams.detectors.grouped_means import difference, normal_score, p_value
from streams.detectors.interface import Carry, Cause, Verdict

STATISTICS = len(MEASURES) * len(SEGMENTS)
CUSTOMERS_MIN = 30
LOG_RATIO_MAX = 700.0  # beyond it a double has no percentage


class Baseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is carried: the errors that `version` is measured by.

    `window_ends` are the windows summed: with `held_out`, windows whose labels were known when the model was
    trained, of customers it was not trained on; else the first that matured under it. `seen` is the newest
    window that was summed or judged.
    """

    version: str
    window_ends: tuple[int, ...] = ()
    held_out: bool = False
    seen: int | None = None
    errors: ErrorSums | None = None

    def having_seen(self, window_end: int) -> "Baseline":
        """Return the same baseline after a window that is not part of it."""
        return msgspec.structs.replace(self, seen=window_end)

    def plus(self, window_end: int, errors: ErrorSums) -> "Baseline":
        """Return the baseline with a window more."""
        if self.errors is not None:
            errors = {segment: sums.plus(errors[segment]) for segment, sums in self.errors.items()}
        ends = (*self.window_ends, window_end)
        return msgspec.structs.replace(self, window_ends=ends, seen=window_end, errors=errors)


class _Finding(NamedTuple):
    """One statistic of a window: its p-value, and what to say of it."""

    p_value: float
    cause: Cause


class PerformanceDrift:
    """Compares the newest matured window with what the model's errors were when it was trained.

    That is told by the hold-out customers of windows whose labels were known then, where the caller has them:
    the model never saw those customers. Else by the first `baseline_windows` that matured under it, which
    takes longer, and takes a drift that began before for the normal course of things. Watched are the bias,
    either way, and the absolute error, upwards, of each of `error_sums.SEGMENTS`. A window drifts where the
    smallest of the six p-values is at or below `false_alarm_probability` divided by all the comparisons of a
    run of `false_alarm_horizon_windows`: then a run without drift shows any alarm with at most that
    probability, however windows and statistics depend on each other (Bonferroni's inequality). That costs
    little here: measured on stationary streams, it is what their runs need. The error of the baseline is in
    every p-value.

    `statistic` and `threshold` are normal scores. The verdict's `false_alarm_probability` is the p-value of
    the whole run, to be held against the promise. Causes are the statistics beyond the threshold, the
    strongest first. +20 percent of bias: (1 + spend) came to be 20% more, in geometric mean, than the
    baseline has it at that prediction; of absolute error: the factor by which a prediction is missed grew by
    20%. `scale_weeks` is the length of the label.

    Customers are the unit of sampling: what moves all of them at once, such as a season, is drift here. It
    cannot tell without labels, without new ones, until the baseline is complete, where no segment has 30
    customers on both sides, or where errors do not differ between customers.

    >>> import numpy as np
    >>> rng, names = np.random.default_rng(7), [f"c{i}" for i in range(500)]
    >>> detector, carry = PerformanceDrift(horizon_days=30, baseline_windows=1), None
    >>> for end, factor in enumerate((1.0, 1.0, 1.5)):
    ...     spend, predicted = factor * rng.lognormal(4, 1, 500), np.full(500, 60.0)
    ...     window = MaturedWindow(end, "v1", names, spend, predicted, np.ones(500))
    ...     verdict, carry = detector.judge(window, carry)
    ...     print(verdict.drift, verdict.reason, [(c.feature, round(c.effect)) for c in verdict.causes[:1]])
    None the baseline has 1 of 1 windows []
    False  []
    True  [('bias', 65)]
    """

    name = "performance"

    def __init__(
        self,
        *,
        horizon_days: int,
        baseline_windows: int = 4,
        false_alarm_probability: float = 0.05,
        false_alarm_horizon_windows: int = 52,
    ) -> None:
        if not 0 < false_alarm_probability < 1:
            raise ValueError(f"false_alarm_probability is {false_alarm_probability}, not between 0 and 1")
        if min(horizon_days, baseline_windows, false_alarm_horizon_windows) < 1:
            raise ValueError("horizon_days, baseline_windows and false_alarm_horizon_windows are 1 or more")
        self.horizon_days = horizon_days
        self.baseline_windows = baseline_windows
        self.comparisons = false_alarm_horizon_windows * STATISTICS
        self.threshold = normal_score(false_alarm_probability / self.comparisons)

    def judge(
        self,
        matured: MaturedWindow | None,
        carry: Carry | None = None,
        before: Callable[[], Sequence[MaturedWindow]] = tuple,
    ) -> tuple[Verdict, Carry | None]:
        """Return the verdict on the newest matured window, if any, and what to hand to the next call.

        `before` is asked once a model version for the windows whose labels were known when it was trained,
        scored with it, hold-out customers only; those are the baseline if they hold 30 entries. The carry
        is JSON of bounded size, some 8 kB; it begins anew with another model version. Raises
        msgspec.ValidationError on a carry that is none.
        """
        if matured is None:
            return Verdict(drift=None, reason="no labels have matured under the served model"), carry
        baseline = None if carry is None else msgspec.convert(carry, Baseline)
        if baseline is None or baseline.version != matured.version:
            baseline = self._of_training(matured.version, before())
        if baseline.seen is not None and matured.window_end <= baseline.seen:
            return Verdict(drift=None, reason="no further labels have matured"), carry
        verdict, baseline = self._judge(matured.window_end, sum_errors(matured), baseline)
        return verdict, msgspec.to_builtins(baseline)

    def _of_training(self, version: str, windows: Sequence[MaturedWindow]) -> Baseline:
        """Return the baseline of a new version; an empty one where `windows` do not suffice."""
        baseline = Baseline(version=version, held_out=True)
        for window in windows:
            baseline = baseline.plus(window.window_end, sum_errors(window))
        errors = baseline.errors
        if errors is None or max(sums.entries for sums in errors.values()) < CUSTOMERS_MIN:
            return Baseline(version=version)
        return msgspec.structs.replace(baseline, seen=None)

    def _judge(self, window_end: int, current: ErrorSums, baseline: Baseline) -> tuple[Verdict, Baseline]:
        customers = max(sums.entries for sums in current.values())
        if customers < CUSTOMERS_MIN:
            reason = f"{customers} customers have matured labels, fewer than {CUSTOMERS_MIN}"
            return Verdict(drift=None, reason=reason), baseline.having_seen(window_end)
        if baseline.errors is None or not (
            baseline.held_out or len(baseline.window_ends) >= self.baseline_windows
        ):
            baseline = baseline.plus(window_end, current)
            windows = f"{len(baseline.window_ends)} of {self.baseline_windows} windows"
            return Verdict(drift=None, reason=f"the baseline has {windows}"), baseline
        findings = sorted(self._findings(current, baseline.errors), key=lambda finding: finding.p_value)
        return self._verdict(findings), baseline.having_seen(window_end)

    def _findings(self, current: ErrorSums, baseline: ErrorSums) -> Iterator[_Finding]:
        for segment in SEGMENTS:
            now, before = current[segment], baseline[segment]
            if min(now.entries, before.entries) < CUSTOMERS_MIN:
                continue
            for measure in MEASURES:
                found = difference(now.of(measure), before.of(measure))
                if found is not None:
                    cause = Cause(
                        feature=measure,
                        scale_weeks=ceil(self.horizon_days / 7),
                        segment=segment,
                        effect=_percent(found.effect),
                        unit="percent",
                    )
                    yield _Finding(p_value(found, two_sided=measure == BIAS), cause)

    def _verdict(self, findings: list[_Finding]) -> Verdict:
        if not findings:
            return Verdict(drift=None, reason="errors do not differ between customers")
        beyond = [f.cause for f in findings if normal_score(f.p_value) >= self.threshold]
        return Verdict(
            drift=bool(beyond),
            statistic=normal_score(findings[0].p_value),
            threshold=self.threshold,
            false_alarm_probability=min(1.0, self.comparisons * findings[0].p_value),
            causes=tuple(beyond),
        )


def _percent(log_ratio: float) -> float:
    """Return a difference of logs as percent."""
    return 100 * expm1(min(log_ratio, LOG_RATIO_MAX))
