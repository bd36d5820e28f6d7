"""A stream as the history that detectors are given: windows with their rows and their week's lines."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.features import latest_country, purchases, rfm_columns, scaled_columns
from models.holdout import customer_hash
from streams.closing import SAMPLE_KEY
from streams.history import History, PastWindow

from .streams import Stream, end_of

LONG_WEEKS, MID_WEEKS, SHORT_WEEKS = 13, 4, 1


class StreamHistory(History):
    """The windows of a stream up to `last_week`, every customer sampled; codes are the stream's.

    Those up to the end of `shared` (a history of a stream that was the same so far) are taken from there.
    """

    def __init__(self, stream: Stream, last_week: int, shared: "StreamHistory | None" = None) -> None:
        super().__init__()
        self.stream = stream
        if shared is not None:
            self.windows = dict(shared.windows)
        for week in range(len(self.windows) + 1, last_week + 1):
            window = past_window(stream, week)
            self.windows[window.window_end] = window
        self.first_end = min(self.windows, default=None)
        self._hashes = customer_hash([str(code) for code in range(stream.customers)], SAMPLE_KEY)

    def customer_ids(self, codes: NDArray[np.int32]) -> list[str]:
        """Return the ids of customers: their codes, as texts that sort as numbers do."""
        return [f"{code:09d}" for code in codes.tolist()]

    def country_name(self, code: int) -> str:
        """Return the country behind a code."""
        return self.stream.words.countries[code]

    def up_to(self, week: int) -> "StreamHistory":
        """Return a history of the same windows as far as the end of `week`."""
        earlier = StreamHistory(self.stream, 0)
        last = int(end_of(np.array(week)))
        earlier.windows = {end: window for end, window in self.windows.items() if end <= last}
        return earlier


def past_window(stream: Stream, week: int) -> PastWindow:
    """Return the window that ends with `week`."""
    end = int(end_of(np.array(week)))
    long, mid, short = (stream.between(week - weeks, week) for weeks in (LONG_WEEKS, MID_WEEKS, SHORT_WEEKS))
    bought = purchases(long)
    columns = rfm_columns(bought, end)
    for sales, weeks in ((mid, MID_WEEKS), (short, SHORT_WEEKS)):
        columns |= scaled_columns(purchases(sales), bought.customer, end, weeks * 7)
    return PastWindow(
        window_end=end,
        partial=False,
        rows=pd.DataFrame(columns),
        totals={"customers": len(bought), "lines": int(bought.lines.sum())},
        sample_bound=None,
        split_customers=(),
        row_customer=bought.customer,
        row_country=latest_country(long, bought.customer, stream.words),
        lines=short,
    )
