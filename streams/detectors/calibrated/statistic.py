"""The statistics that are watched: what each compares, of which feature, over which window."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from streams.detectors.interface import CATEGORICAL, NUMERIC_UNITS


class Scale(NamedTuple):
    """Lengths of the long, the middle and the short window, in hops (weeks, unless set otherwise)."""

    long: int
    mid: int
    short: int


class Kind(StrEnum):
    """How a statistic compares a window with the reference."""

    COUNT = "count"  # log of a number of customers or orders
    MEAN_LOG = "mean_log"  # mean over customers of the log of a feature: follows a shift of all of them
    SAME_PRODUCT = "same_product"  # mean log ratio to what is usual for the product of each line
    SAME_CUSTOMER = "same_customer"  # mean log ratio to what the same customer did in the reference
    SHARE = "share"  # of customers, or of customers who were there before
    DISTRIBUTION = "distribution"  # Kolmogorov-Smirnov distance of a feature's distribution
    MIX = "mix"  # total variation distance of the shares of the countries


TOP_SHARE = 0.05
TOP = "top 5% of customers"
SAME_CUSTOMERS = "same customers"
SAME_PRODUCTS = "same products"

# What customers are counted by, besides all of them: not seen in the quarter before the window; seen there.
CUSTOMERS, ORDERS, ARRIVALS, RETURNING, RETAINED = "customers", "orders", "arrivals", "returning", "retained"
LINES_PER_ORDER = "LinesPerOrder"

UNITS = NUMERIC_UNITS | {
    LINES_PER_ORDER: "lines",
    CUSTOMERS: "customers",
    ORDERS: "orders",
    ARRIVALS: "customers",
    RETURNING: "customers",
    RETAINED: "percentage points",
    CATEGORICAL: "percentage points",
}


@dataclass(frozen=True)
class Statistic:
    """One number a window; `scale` is an index into `Scale`, `segment` says whom it is about."""

    kind: Kind
    feature: str
    scale: int
    segment: str = ""

    @property
    def one_sided(self) -> bool:
        """Whether only large values speak of drift: distances, and customers who changed country."""
        return self.kind in {Kind.DISTRIBUTION, Kind.MIX} or self.feature == CATEGORICAL

    @property
    def unit(self) -> str:
        """Unit of an effect."""
        return UNITS[self.feature]

    def name(self, scale: Scale) -> str:
        """Return a name that no other statistic has, as `count/customers/13`."""
        return "/".join(filter(None, (self.kind, self.feature, str(scale[self.scale]), self.segment)))


LONG, MID, SHORT = 0, 1, 2

# Means and counts; each is a numerator over a denominator, both sums over customers.
SUMS: tuple[Statistic, ...] = (
    *(Statistic(Kind.COUNT, CUSTOMERS, scale) for scale in (LONG, MID, SHORT)),
    *(Statistic(Kind.COUNT, ORDERS, scale) for scale in (MID, SHORT)),
    *(Statistic(Kind.COUNT, ARRIVALS, scale) for scale in (LONG, MID)),
    Statistic(Kind.COUNT, RETURNING, MID),
    Statistic(Kind.SHARE, RETAINED, LONG),
    *(
        Statistic(Kind.MEAN_LOG, feature, scale)
        for scale in (LONG, MID)
        for feature in ("Monetary", "Frequency", "NumOrders", LINES_PER_ORDER)
    ),
    *(Statistic(Kind.MEAN_LOG, feature, SHORT) for feature in ("Monetary", LINES_PER_ORDER)),
    *(
        Statistic(Kind.SAME_PRODUCT, feature, scale, SAME_PRODUCTS)
        for scale in (MID, SHORT)
        for feature in ("AvgUnitPrice", "AvgQuantity")
    ),
    *(
        Statistic(Kind.SAME_CUSTOMER, feature, scale, SAME_CUSTOMERS)
        for scale in (LONG, MID)
        for feature in ("Monetary", "NumOrders")
    ),
    *(
        Statistic(Kind.SAME_CUSTOMER, feature, scale, SAME_CUSTOMERS)
        for scale in (LONG, MID, SHORT)
        for feature in ("AvgUnitPrice", "AvgQuantity")
    ),
    *(Statistic(Kind.SAME_CUSTOMER, "AvgQuantity", scale, TOP) for scale in (LONG, MID, SHORT)),
    *(Statistic(Kind.SAME_CUSTOMER, "TotalQuantity", scale, TOP) for scale in (LONG, MID)),
    *(Statistic(Kind.SHARE, CATEGORICAL, scale, SAME_CUSTOMERS) for scale in (MID, SHORT)),
)

# Distances of distributions over customers.
DISTANCES: tuple[Statistic, ...] = (
    *(Statistic(Kind.DISTRIBUTION, feature, LONG) for feature in NUMERIC_UNITS),
    *(Statistic(Kind.DISTRIBUTION, feature, MID) for feature in NUMERIC_UNITS if feature != "Recency"),
    *(
        Statistic(Kind.DISTRIBUTION, feature, SHORT)
        for feature in ("Frequency", "Monetary", "AvgQuantity", "AvgUnitPrice")
    ),
    *(Statistic(Kind.MIX, CATEGORICAL, scale) for scale in (LONG, MID)),
)

STATISTICS = (*SUMS, *DISTANCES)
