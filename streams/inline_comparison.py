"""Evidently's comparisons for code that runs without an event loop: the batch twin of the agent `compare`."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

from streams.comparisons import Wanted
from streams.evidently_child import CHILD_LOG, EvidentlyChild
from streams.evidently_comparison import compared
from streams.settings import Settings
from streams.start_checks import check_written


class InlineComparisons:
    """Has comparisons made in a child process and waits for each; `inline_comparisons` gives it."""

    def __init__(self, settings: Settings, runner: asyncio.Runner, child: EvidentlyChild) -> None:
        self._settings = settings
        self._runner = runner
        self._child = child

    def compared(self, wanted: Wanted, current: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
        """Return the data of a comparison, without a report and a regression, which no verdict reads."""
        return self._runner.run(compared(self._child, wanted, current, reference, self._settings))


@contextmanager
def inline_comparisons(settings: Settings) -> Iterator[InlineComparisons]:
    """Give the means to compare; the child starts with the first comparison and ends with the block.

    Raises UserError (STORAGE) where the child's log cannot be written into `reports_dir`.
    """
    check_written(settings, "reports_dir")
    log_path = settings.reports_dir / CHILD_LOG
    child = EvidentlyChild(log_path=log_path, timeout_s=settings.comparison_timeout_s)
    with asyncio.Runner() as runner:
        try:
            yield InlineComparisons(settings, runner, child)
        finally:
            runner.run(child.stop())
