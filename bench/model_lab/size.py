"""Training at size: seconds and memory of a fit on as many rows as asked for, in a process of its own."""

import multiprocessing
import resource
import time
from multiprocessing.connection import Connection

import numpy as np
import pandas as pd

from models.features import FEATURES, NUMERIC_FEATURES
from models.fitted import predict
from models.training import train

COUNTRIES = ("United Kingdom", "Germany", "France", "Spain")
WINDOWS = 4


def frame(rows: int, seed: int = 1) -> pd.DataFrame:
    """Return labelled rows of made-up customers: spend spans five decades, a third spend nothing more."""
    rng = np.random.default_rng(seed)
    customers = rows // WINDOWS
    orders = 1 + rng.poisson(rng.gamma(1.0, 1.5, rows))
    value = rng.lognormal(5.5, 0.9, rows)
    tenure = rng.integers(1, 360, rows)
    recency = (rng.random(rows) * np.minimum(tenure, 91)).astype(int)
    columns = {name: rng.lognormal(2, 1, rows) for name in NUMERIC_FEATURES}
    spend = orders * value
    columns |= {
        "Recency": recency,
        "Tenure": tenure,
        "NumOrders": orders,
        "LifeOrders": orders + rng.poisson(tenure / 60),
        "Monetary": spend,
        "LifeSpend": spend * (1 + tenure / 180),
        "MeanOrder": value,
        "MaxOrder": value * 1.3,
    }
    ends = pd.Timestamp("2011-03-07", tz="UTC") + pd.to_timedelta(np.arange(WINDOWS) * 7, unit="D")
    number = np.arange(rows)
    return pd.DataFrame(columns).assign(
        Country=rng.choice(COUNTRIES, rows, p=(0.85, 0.05, 0.05, 0.05)),
        CustomerID=(number % max(customers, 1)).astype(str),
        window_end=ends[np.minimum(number // max(customers, 1), WINDOWS - 1)],
        SampleWeight=1.0,
        label=np.where(rng.random(rows) < 0.35, 0.0, spend * rng.gamma(2.0, 0.5, rows)),
    )


def measure(name: str, rows: int) -> tuple[float, float, float]:
    """Return the seconds of training and of scoring all rows, and the peak MB of the process."""
    context = multiprocessing.get_context("spawn")  # a fork would begin with this process's peak
    ours, theirs = context.Pipe()
    child = context.Process(target=_train, args=(name, rows, theirs))
    child.start()
    theirs.close()
    try:
        train_s, score_s, peak_mb = ours.recv()
    except EOFError:
        raise SystemExit(f"training {name} on {rows:,} rows failed, see above") from None
    finally:
        child.join()
    return float(train_s), float(score_s), float(peak_mb)


def _train(name: str, rows: int, answer: Connection) -> None:
    given = frame(rows)
    assert set(FEATURES) <= set(given.columns), "a feature is not made up"
    begun = time.perf_counter()
    model = train(given, name, seed=1)
    trained = time.perf_counter()
    predict(model, given)
    scored = time.perf_counter()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer.send((trained - begun, scored - trained, peak_mb))
