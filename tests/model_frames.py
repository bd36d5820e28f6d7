"""Frames of customers: labelled ones to train on, and plain ones to compare with one another."""

import numpy as np
import pandas as pd

from models.features import NUMERIC_FEATURES
from streams.detectors.interface import NUMERIC_UNITS

COUNTRIES = ("United Kingdom", "Germany", "France")


def labelled_frame(customers: int = 400, windows: int = 2, seed: int = 1) -> pd.DataFrame:
    """Return `customers` x `windows` rows whose spend depends on the features.

    A fifth of the labels are 0, returns make one negative.
    """
    rng = np.random.default_rng(seed)
    parts = []
    wealth = rng.gamma(0.8, 200.0, customers)
    for number in range(windows):
        orders = 1 + rng.poisson(2, customers)
        spend = np.round(wealth * orders, 2)
        frame = pd.DataFrame({name: rng.integers(1, 90, customers) for name in NUMERIC_FEATURES})
        frame["Monetary"] = spend
        frame["LifeSpend"] = np.round(spend * 1.5 - 10, 2)
        frame["NumOrders"] = orders
        frame["MeanOrder"] = np.round(spend / orders, 2)
        frame["Country"] = rng.choice(COUNTRIES, customers, p=(0.8, 0.1, 0.1))
        frame["CustomerID"] = [str(12346 + code) for code in range(customers)]
        frame["window_end"] = pd.Timestamp("2011-03-07", tz="UTC") + pd.Timedelta(days=7 * number)
        frame["SampleWeight"] = 1.0
        noisy = np.round(spend * rng.gamma(2, 0.5, customers), 2)
        frame["label"] = np.where(rng.random(customers) < 0.2, 0.0, noisy)
        frame.loc[3, "label"] = -25.5
        frame["label_short"] = np.round(frame["label"] / 4, 2)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def customers(seed: int, n: int, *, scale: float = 1.0) -> pd.DataFrame:
    """Return `n` rows with the columns that detectors compare."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.lognormal(3, 1, n) * scale for name in NUMERIC_UNITS})
    return frame.assign(Country=rng.choice(["United Kingdom", "France", "Spain"], n, p=[0.9, 0.07, 0.03]))


def pairs(seed: int) -> tuple[np.ndarray, ...]:
    """Return labels and predictions now, labels and predictions before, as a comparison takes them."""
    rng = np.random.default_rng(seed)
    target = rng.lognormal(5, 1, 300)
    return (target, target + 10, target[:200], target[:200] - 20)
