"""Why a model says what it says, in a marketer's words: of one customer in money, of the model in error.

Features are taken together in topics that mean something to a person: the spend of 14, 30 and 60 days is one
story, and a model that reads them all splits it among them as its fit happens to.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pandas as pd

from models.lines import Floats
from models.metrics import performance

TOPICS: dict[str, tuple[str, ...]] = {
    "how recently they bought": ("Recency",),
    "how often they buy": ("NumOrders", "LifeOrders"),
    "spend of the window": ("Monetary",),
    "spend of the last two months": ("Spend14", "Spend30", "Spend60"),
    "spend and time as a customer": ("LifeSpend", "Tenure"),
    "size of the orders": ("MeanOrder", "MaxOrder"),
    "what is in the baskets": ("Frequency", "NumProducts", "AvgQuantity", "TotalQuantity", "AvgUnitPrice"),
    "country": ("Country",),
}

# Customers compared with, and shuffled; more change the second digit at most.
CUSTOMERS_MAX = 1_000
SHUFFLES = 3

#: Predictions of rows, shape (n,), currency units.
Score = Callable[[pd.DataFrame], Floats]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a topic adds to a prediction, currency units; the customer's features of it, and typical ones."""

    topic: str
    effect: float
    values: dict[str, float | str]
    typical: dict[str, float | str]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction taken apart: `average` + the sum of the effects is `prediction`, to rounding.

    `average` is the mean prediction of the `customers` compared with. Parts by size of effect.
    """

    prediction: float
    average: float
    customers: int
    parts: list[Part]


class Importance(msgspec.Struct, frozen=True, kw_only=True):
    """What a topic is worth to a model: how much worse it does on customers whose values are shuffled."""

    topic: str
    nmae_rise: float
    gini_loss: float


def explain(
    score: Score, features: Sequence[str], customer: pd.DataFrame, others: pd.DataFrame, *, seed: int = 0
) -> Explanation:
    """Take the prediction of `customer` (one row) apart, against the average of `others`.

    Shapley values (Shapley 1953; of topics of features, against a population: Lundberg and Lee 2017): an
    average customer is turned into this one topic by topic, and each topic is given the change that it
    brings, averaged over all of `others` and over orders of the topics drawn with `seed`. Each such way adds
    up to the whole difference, so their mean does, for any model. Of more than `CUSTOMERS_MAX` others, those
    at even ranks of the prediction stand for all. Raises ValueError where there are no others.
    """
    if others.empty or len(customer) != 1:
        raise ValueError(f"{len(customer)} customers to explain, {len(others)} to compare with")
    topics = _topics(features)
    picked = _spread(others[list(features)], score)
    orders = np.random.default_rng(seed).permuted(np.tile(np.arange(len(topics)), (len(picked), 1)), axis=1)
    effects = np.zeros(len(topics))
    # Each order forwards and backwards: what depends on the order cancels to a large part.
    for order in (orders, orders[:, ::-1]):
        effects += _effects(score, topics, customer, picked, order) / 2
    whole = float(score(customer[list(features)])[0])
    average = float(score(picked).mean())
    parts = [
        Part(
            topic=topic,
            effect=float(effect),
            values={name: _plain(customer[name].iloc[0]) for name in names},
            typical={name: _typical(others[name]) for name in names},
        )
        for (topic, names), effect in zip(topics.items(), effects, strict=True)
    ]
    parts.sort(key=lambda part: -abs(part.effect))
    return Explanation(prediction=whole, average=average, customers=len(picked), parts=parts)


def importance(score: Score, features: Sequence[str], labelled: pd.DataFrame) -> list[Importance]:
    """Return what each topic is worth on `labelled` rows (features, `label`), the most important first.

    Permutation importance (Breiman 2001): a topic's values are dealt out anew among the customers, together,
    `SHUFFLES` times. The rows are of customers whom the model was not fitted on, each once; of more than
    `CUSTOMERS_MAX` every second, third and so on is taken. Empty where labels or predictions leave the
    measures undefined.
    """
    rows = labelled.iloc[:: -(-len(labelled) // CUSTOMERS_MAX) or 1]
    if rows.empty:
        return []
    labels = rows["label"].to_numpy(np.float64)
    given = rows[list(features)].reset_index(drop=True)
    before = performance(labels, score(given))
    found = []
    rng = np.random.default_rng(0)
    for topic, names in _topics(features).items():
        worse = []
        for _ in range(SHUFFLES):
            shuffled = given.copy()
            dealt = rng.permutation(len(given))
            for name in names:
                shuffled[name] = given[name].to_numpy()[dealt]
            after = performance(labels, score(shuffled))
            worse.append([_rise(after["nmae"], before["nmae"]), _rise(before["gini"], after["gini"])])
        nmae_rise, gini_loss = np.mean(worse, axis=0).tolist()
        found.append(Importance(topic=topic, nmae_rise=nmae_rise, gini_loss=gini_loss))
    if not all(np.isfinite([item.nmae_rise, item.gini_loss]).all() for item in found):
        return []
    return sorted(found, key=lambda item: -item.nmae_rise)


def _effects(
    score: Score,
    topics: dict[str, tuple[str, ...]],
    customer: pd.DataFrame,
    picked: pd.DataFrame,
    order: np.ndarray,
) -> Floats:
    """Return each topic's mean effect where row i of `picked` is turned into `customer` in `order[i]`."""
    effects = np.zeros(len(topics))
    turned = picked.copy()
    before = score(turned)
    for step in range(len(topics)):
        for number, names in enumerate(topics.values()):
            now = order[:, step] == number
            for name in names:
                turned[name] = turned[name].where(~now, customer[name].iloc[0])
        after = score(turned)
        np.add.at(effects, order[:, step], (after - before) / len(picked))
        before = after
    return effects


def _topics(features: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the topics as far as `features` go; each feature must belong to one."""
    found = {topic: tuple(name for name in names if name in features) for topic, names in TOPICS.items()}
    told = {name for names in found.values() for name in names}
    assert told == set(features), f"no topic for {set(features) - told}"
    return {topic: names for topic, names in found.items() if names}


def _spread(others: pd.DataFrame, score: Score) -> pd.DataFrame:
    """Return the others, or where they are many, customers at even ranks of the prediction."""
    if len(others) <= CUSTOMERS_MAX:
        return others.reset_index(drop=True)
    rank = np.argsort(score(others), kind="stable")
    middles = (np.arange(CUSTOMERS_MAX) + 0.5) * len(others) / CUSTOMERS_MAX
    picked: pd.DataFrame = others.iloc[rank[middles.astype(int)]]
    return picked.reset_index(drop=True)


def _rise(after: float | None, before: float | None) -> float:
    return np.nan if after is None or before is None else after - before


def _typical(values: pd.Series) -> float | str:
    """Return the median, of texts the commonest."""
    return float(values.median()) if pd.api.types.is_numeric_dtype(values) else str(values.mode().iloc[0])


def _plain(value: object) -> float | str:
    return value if isinstance(value, str) else float(value)  # type: ignore[arg-type]
