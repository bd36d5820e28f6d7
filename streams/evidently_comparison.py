"""One comparison, as it is published: asked of Evidently's child, answered or failed."""

from pathlib import Path
from typing import Any

import pandas as pd

from models.lines import Floats
from streams.comparisons import Wanted
from streams.evidently_child import ComparisonFailed, EvidentlyChild
from streams.evidently_protocol import make_request
from streams.settings import Settings


async def compared(
    child: EvidentlyChild,
    wanted: Wanted,
    current: pd.DataFrame,
    reference: pd.DataFrame,
    settings: Settings,
    *,
    regression: list[Floats] | None = None,
    html: Path | None = None,
    workspace: Path | None = None,
) -> dict[str, Any]:
    """Return the data of a comparison: Evidently's answer, or after three tries the reason why there is none.

    `html` is a place below `reports_dir` for the report, `workspace` that of Evidently's user interface if it
    is to be filled, `regression` as in `streams.evidently_protocol`.
    """
    try:
        request = make_request(
            current,
            reference,
            drift_share=settings.drift_share,
            rows_max=settings.sample_customers_max,
            regression=regression,
            html=html,
            workspace=workspace,
            project=settings.topic("clv-drift"),
            window_end=wanted.window_end,
        )
        result = await child.compare(request)
    except (ComparisonFailed, ValueError, KeyError) as exc:
        return wanted.answer("failed", reason=str(exc))
    report = None if html is None else str(html.relative_to(settings.reports_dir.resolve()))
    return wanted.answer("compared", **{"report": report, **result})
