"""What a synthetic shop sells: products, drawn once, and the baskets that make up an order's value."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PRICE_MIN, PRICE_MAX = 0.19, 60.0

_COLOURS = ("RED", "BLUE", "GREEN", "IVORY", "PINK", "SILVER", "ROSE", "GREY", "OAK", "STRIPED")
_KINDS = ("MUG", "LAMP", "TRAY", "CLOCK", "FRAME", "BASKET", "CUSHION", "CANDLE", "TIN", "NOTEBOOK", "BOWL")
_EXTRAS = ("SMALL", "LARGE", "SET OF 4", "WITH LID", "FOR THE GARDEN", "IN GIFT BOX")


class Baskets(NamedTuple):
    """Lines as parallel arrays: the order of each (rising), its product, its quantity (at least 1)."""

    order: Ints
    product: Ints
    quantity: Ints


@dataclass(frozen=True)
class ProductRange:
    """Products as parallel sequences."""

    codes: list[str]
    descriptions: list[str]
    prices: Floats  # decimal units, at most two decimals
    popularity: Floats  # cumulative shares, the last is 1

    @classmethod
    def draw(cls, rng: np.random.Generator, products: int) -> Self:
        """Draw a range: prices around 2 with a long upper tail, few products that everybody buys."""
        prices = np.clip(np.exp(rng.normal(0.75, 0.85, products)), PRICE_MIN, PRICE_MAX)
        popularity = np.exp(rng.normal(0.0, 1.2, products)).cumsum()
        looks = zip(
            rng.integers(len(_COLOURS), size=products),
            rng.integers(len(_EXTRAS), size=products),
            strict=True,
        )
        return cls(
            codes=[str(20_000 + number) for number in range(products)],
            descriptions=[
                f"{_COLOURS[colour]} {_KINDS[number % len(_KINDS)]} {_EXTRAS[extra]}"
                for number, (colour, extra) in enumerate(looks)
            ],
            prices=np.round(prices, 2),
            popularity=popularity / popularity[-1],
        )

    def baskets(self, rng: np.random.Generator, values: Floats, *, lines_mean: float) -> Baskets:
        """Fill a basket for each order value (decimal units).

        An order has 1 + negative-binomial lines before those that come to nothing are dropped. Quantities are
        rounded up or down at random so that a basket's expected sum is exactly the order's value.
        """
        extra = rng.negative_binomial(1.5, 1.5 / (1.5 + lines_mean - 1), len(values))
        order = np.repeat(np.arange(len(values)), 1 + extra)
        product = np.searchsorted(self.popularity, rng.random(len(order)), side="right")
        weights = rng.exponential(size=len(order))
        totals = np.bincount(order, weights, minlength=len(values))
        wanted = values[order] * weights / totals[order]
        quantity = np.floor(wanted / self.prices[product] + rng.random(len(order))).astype(np.int64)
        bought = quantity > 0
        return Baskets(order[bought], product[bought], quantity[bought])
