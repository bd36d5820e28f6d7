"""What detectors read of a stream: a row a customer of a window, a row an order."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.features import MONEY_SCALE, latest_country, purchases, rfm_columns
from models.lines import pair_keys, starts_of

from .streams import START, WEEK_S, Stream, end_of

LONG_WEEKS = 13
Columns = dict[str, NDArray[Any]]


def customer_columns(stream: Stream, week: int, weeks: int = LONG_WEEKS) -> Columns:
    """Return the features of the customers active in the `weeks` weeks up to the end of `week`.

    Under the names of `models.features`; Country is a code of the stream's.
    """
    sales = stream.between(week - weeks, week)
    bought = purchases(sales)
    columns = rfm_columns(bought, int(end_of(np.array(week))))
    columns["Country"] = latest_country(sales, bought.customer, stream.words)
    return columns


def customer_frame(stream: Stream, week: int) -> pd.DataFrame:
    """Return `customer_columns` of the long window as a detector gets them: Country is a text."""
    columns: Mapping[str, Any] = customer_columns(stream, week)
    countries = np.array(stream.words.countries, dtype=object)
    return pd.DataFrame({**columns, "Country": countries[columns["Country"]]})


def order_columns(stream: Stream, begin_week: int, end_week: int) -> Columns:
    """Return the orders of the weeks from `begin_week` up to `end_week` in the order of time.

    `week` is the one at whose end the order's week ends; `wait_hours` is the time since the shop's last
    order, 0 at the first; `abroad` is 1 where the commonest country is not the order's.
    """
    sales = stream.between(0, end_week)
    sales = sales.select(np.argsort(pair_keys(sales.customer, sales.invoice), kind="stable"))
    starts = np.flatnonzero(starts_of(pair_keys(sales.customer, sales.invoice)))
    lines = np.diff(starts, append=len(sales))
    amount, pieces, prices = (
        np.add.reduceat(column, starts) for column in (sales.amount, sales.quantity, sales.price)
    )
    time = sales.time[starts]
    columns: Columns = {
        "week": (time - START) // WEEK_S + 1,
        "amount": amount / MONEY_SCALE,
        "lines": lines,
        "pieces": pieces,
        "mean_price": prices / (lines * MONEY_SCALE),
        "abroad": (sales.country[starts] != np.bincount(sales.country).argmax()).astype(np.int64),
    }
    in_time = np.argsort(time, kind="stable")
    columns = {name: column[in_time] for name, column in columns.items()}
    columns["wait_hours"] = np.diff(time[in_time], prepend=time.min()) / 3600
    asked = columns["week"] > begin_week
    return {name: column[asked] for name, column in columns.items()}
