"""Years in which nothing changes: what a model promises must not change either, however old they grow."""

import numpy as np
import pandas as pd

from models.features import (
    DAY_S,
    MONEY_SCALE,
    RECENT_SPEND_DAYS,
    latest_country,
    purchases,
    rfm_columns,
    spend_since,
)
from models.fitted import predict
from models.lines import distinct, pair_keys
from models.targets import future_spend
from models.training import train

from .streams import WEEKS, Stream, Year, end_of

LONG_WEEKS, HORIZON_WEEKS, HORIZON_DAYS = 13, 13, 90
TRAINED_ON = LONG_WEEKS  # the first window that is whole: the youngest a model can be
ASKED = (13, 20, 27, 34, 40)  # the last one whose labels the year holds


def levels(year: Year, names: tuple[str, ...], seeds: range) -> pd.DataFrame:
    """Return what is promised to all over what comes, by estimator and week, the mean over the years."""
    found = []
    for seed in seeds:
        stream = year.shuffled(seed)
        frames = {week: labelled(stream, week) for week in ASKED}
        for name in names:
            model = train(frames[TRAINED_ON], name, seed=1)
            found += [
                {"estimator": name, "week": week, "level": predict(model, rows).sum() / rows["label"].sum()}
                for week, rows in frames.items()
            ]
    return pd.DataFrame(found).pivot_table(index="estimator", columns="week", values="level", sort=False)


def labelled(stream: Stream, week: int) -> pd.DataFrame:
    """Return the rows of the window that ends with `week`, with all features and the label."""
    assert week + HORIZON_WEEKS <= WEEKS, "the label lies beyond the year"
    end = int(end_of(np.array(week)))
    sales, past = stream.between(week - LONG_WEEKS, week), stream.between(0, week)
    bought = purchases(sales)
    who = bought.customer
    columns = rfm_columns(bought, end)
    spend = np.bincount(past.customer, weights=past.amount, minlength=stream.customers)
    orders = distinct(pair_keys(past.customer, past.invoice)) >> 32
    first = np.full(stream.customers, end)
    np.minimum.at(first, past.customer, past.time)
    columns["LifeSpend"] = spend[who] / MONEY_SCALE
    columns["LifeOrders"] = np.bincount(orders, minlength=stream.customers)[who]
    columns["Tenure"] = (end - first[who]) // DAY_S
    for days in RECENT_SPEND_DAYS:
        columns[f"Spend{days}"] = spend_since(sales, who, end - days * DAY_S) / MONEY_SCALE
    columns["MaxOrder"] = bought.max_order / MONEY_SCALE
    columns["MeanOrder"] = bought.amount / (bought.orders * float(MONEY_SCALE))
    later = stream.between(week, week + HORIZON_WEEKS)
    columns["label"] = future_spend(
        who, later.customer, later.time, later.amount, start=end, end=end + HORIZON_DAYS * DAY_S
    )
    countries = latest_country(sales, who, stream.words)
    return pd.DataFrame(columns).assign(
        Country=[stream.words.countries[code] for code in countries],
        CustomerID=[str(code) for code in who],
        SampleWeight=1.0,
        window_end=pd.Timestamp(end, unit="s", tz="UTC"),
    )
