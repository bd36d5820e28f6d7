"""What changed, in one word: prices, how many customers buy, or how they buy."""

from collections.abc import Iterable
from enum import StrEnum


class Aspect(StrEnum):
    """One side of a shop."""

    PRICES = "prices"
    VOLUME = "volume"  # how many customers and orders there are: what a season moves first
    BEHAVIOUR = "behaviour"  # what and how much a customer buys, and who the customers are


_VOLUME = {"customers", "orders", "arrivals", "returning", "retained", "Recency"}
_PRICES = {"AvgUnitPrice"}
_FOLLOWS = {"Monetary"}  # follows from each of the others: it says something of its own only when alone


def aspects_of(features: Iterable[str]) -> tuple[Aspect, ...]:
    """Return the aspects behind features that changed, in their order.

    >>> [str(aspect) for aspect in aspects_of(["Monetary", "AvgUnitPrice", "arrivals"])]
    ['prices', 'volume']
    >>> [str(aspect) for aspect in aspects_of(["Monetary"])]
    ['behaviour']
    """
    named = list(features)
    telling = [feature for feature in named if feature not in _FOLLOWS] or named
    return tuple(dict.fromkeys(_aspect(feature) for feature in telling))


def _aspect(feature: str) -> Aspect:
    if feature in _PRICES:
        return Aspect.PRICES
    return Aspect.VOLUME if feature in _VOLUME else Aspect.BEHAVIOUR
