"""river's ADWIN and KSWIN on the stream of orders: a detector a feature, an alarm in a week where any fires.

Features of an order, all as logs: amount, lines, pieces, mean price, hours since the shop's last order, and
whether the order comes from abroad. Both run with river's defaults, and strictly, at levels that were chosen
on the seeds for tuning. A detector sees every order up to a window's end; KSWIN, which remembers 100 orders,
begins with the last six weeks of the reference.
"""

import copy
import time
from collections.abc import Callable

import numpy as np
from river.base import DriftDetector
from river.drift.adwin import ADWIN
from river.drift.kswin import KSWIN
from task import QUIET, Table, Task

FEATURES = ("amount", "lines", "pieces", "mean_price", "wait_hours", "abroad")
ADWIN_DELTA, KSWIN_ALPHA = 1e-5, 1e-6  # the strict ones
KSWIN_WARM_WEEKS = 6


class Panel:
    """One detector a feature."""

    def __init__(self, make: Callable[[], DriftDetector]) -> None:
        self.detectors = [make() for _ in FEATURES]

    def watch(self, orders: Table, begin_week: int, end_week: int) -> set[int]:
        """Show the orders after `begin_week` up to `end_week`; return the weeks in which any fired."""
        chosen = (orders["week"] > begin_week) & (orders["week"] <= end_week)
        fired = set()
        for name, detector in zip(FEATURES, self.detectors, strict=True):
            values = np.log1p(orders[name][chosen].astype(float)).tolist()
            for week, value in zip(orders["week"][chosen].tolist(), values, strict=True):
                detector.update(value)
                if detector.drift_detected:
                    fired.add(week)
        return fired


def watch(task: Task, method: str, make: Callable[[], DriftDetector], begin_week: int) -> None:
    panel = Panel(make)
    quiet = task.table(QUIET, "orders")
    panel.watch(quiet, begin_week, task.reference_week)
    begun = time.process_time()
    fired = panel.watch(quiet, task.reference_week, task.onset_week)
    changed = {name: copy.deepcopy(panel) for name in task.watched if name != QUIET}
    fired |= panel.watch(quiet, task.onset_week, max(task.watched[QUIET]))
    cpu_s = time.process_time() - begun
    task.note(method, QUIET, {week: week in fired for week in task.watched[QUIET]}, cpu_s=cpu_s)
    for stream, own in changed.items():
        weeks = task.watched[stream]
        begun = time.process_time()
        fired = own.watch(task.table(stream, "orders"), task.onset_week, max(weeks))
        cpu_s = time.process_time() - begun
        task.note(method, stream, {week: week in fired for week in weeks}, cpu_s=cpu_s)


def main() -> None:
    task = Task.given()
    warm = task.reference_week - KSWIN_WARM_WEEKS
    watch(task, "ADWIN", ADWIN, 0)
    watch(task, "ADWIN, strict", lambda: ADWIN(delta=ADWIN_DELTA), 0)
    watch(task, "KSWIN", lambda: KSWIN(seed=1), warm)
    watch(task, "KSWIN, strict", lambda: KSWIN(alpha=KSWIN_ALPHA, seed=1), warm)
    task.finish()


if __name__ == "__main__":
    main()
