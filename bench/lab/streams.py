"""Streams of sales in which nothing changes: a real year with its time taken out, and simulated shops."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.features import DAY_S, SortWords
from models.lines import Lines
from producers.feed import encode
from producers.inputs import Input, find_input
from producers.source import DEFAULT_INPUTS
from producers.synthetic import TENURE_MAX_DAYS, Shop, Synthetic
from producers.synthetic_customers import COUNTRIES, Behaviour
from streams.decode import Decoder
from streams.vocabulary import Vocabulary

WEEK_S = 7 * DAY_S
START = int(datetime(2010, 11, 29, tzinfo=UTC).timestamp())  # the Monday before the real data begin
WEEKS = 53  # that the real data touch
REFERENCE_WEEKS = 26
WATCHED = range(REFERENCE_WEEKS + 1, WEEKS + 1)  # a window is named by the week at whose end it ends
ONSET_WEEK = REFERENCE_WEEKS + 6  # whole weeks before a drift begins
AFTER_ONSET = range(ONSET_WEEK + 1, ONSET_WEEK + 14)  # a drift is found in these windows, or not at all

_BATCH_LINES = 20_000


@dataclass(frozen=True)
class Stream:
    """The sales of a shop's known customers over `WEEKS` weeks from `START`, in the order of time.

    An order is a pair of customer and invoice: customers drawn twice from one original share its invoices.
    """

    lines: Lines
    words: SortWords

    @property
    def customers(self) -> int:
        """Number of customer codes, also of those who bought nothing."""
        return int(self.lines.customer.max(initial=-1)) + 1

    def country(self, name: str) -> int:
        """Return the code of a country; raises ValueError where nobody lives there."""
        return list(self.words.countries).index(name)

    def between(self, begin_week: int, end_week: int) -> Lines:
        """Return the lines of the weeks from `begin_week` (counted from nought) up to `end_week`."""
        edges = end_of(np.array([begin_week, end_week]))
        first, last = np.searchsorted(self.lines.time, edges).tolist()
        return self.lines.select(slice(first, last))

    def with_lines(self, lines: Lines) -> "Stream":
        """Return the stream with other lines, sorted by time; those of one moment keep their order."""
        return replace(self, lines=lines.select(np.argsort(lines.time, kind="stable")))


def end_of(week: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the moments (epoch seconds) at which `week` weeks have passed."""
    return START + week * WEEK_S


# -- the real year -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Year:
    """The sales of one year's known customers, by customer and time."""

    lines: Lines
    words: SortWords
    title: str = field(compare=False, default="")

    @staticmethod
    def read(source: Input) -> "Year":
        """Read a source's lines; returns and lines without a customer are left out, as in the features."""
        words = Vocabulary()
        decoder = Decoder(words)
        parts, values = [], []
        for _, line in source.lines():
            values.append(encode(line))
            if len(values) == _BATCH_LINES:
                parts.append(decoder.decode(values, [()] * len(values)).lines)
                values = []
        parts.append(decoder.decode(values, [()] * len(values)).lines)
        lines = Lines.concat(parts)
        lines = lines.select(lines.is_sale & (lines.customer >= 0))
        lines = lines.select(np.lexsort((lines.time, lines.customer)))
        texts = SortWords(words.invoices.texts, words.products.texts, words.countries.texts)
        return Year(lines, texts, source.title)

    def as_it_was(self) -> Stream:
        """Return the year itself, with its season and its growth; what lies after `WEEKS` weeks is cut."""
        whole = self.lines.select(self.lines.time < START + WEEKS * WEEK_S)
        return Stream(whole, self.words).with_lines(whole)

    def shuffled(self, seed: int) -> Stream:
        """Return as many customers drawn with replacement, each one's year turned by whole weeks.

        The year is taken as a circle of `WEEKS` weeks, and each customer's turn is drawn evenly from it, so
        every week is like every other: whatever the shop's season and growth were, nothing is left of them.
        What a customer does within a quarter, a week and a day stays as it was.
        """
        rng = np.random.default_rng([seed, 1])
        first, count = self._histories
        drawn = rng.integers(0, len(first), len(first))
        turn = rng.integers(0, WEEKS, len(first))
        lines = count[drawn]
        begin = np.cumsum(lines) - lines
        at = np.repeat(first[drawn] - begin, lines) + np.arange(lines.sum())
        weeks = np.repeat(turn, lines)
        time = START + (self.lines.time[at] - START + weeks * WEEK_S) % (WEEKS * WEEK_S)
        customer = np.repeat(np.arange(len(first), dtype=np.int32), lines)
        turned = replace(self.lines.select(at), time=time, customer=customer)
        return Stream(turned, self.words).with_lines(turned)

    @cached_property
    def _histories(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each customer's lines begin, and how many they are."""
        _, first, count = np.unique(self.lines.customer, return_index=True, return_counts=True)
        return first, count


@cache
def real_year() -> Year:
    """Return the Online Retail year, from the file that ONLINE_RETAIL names or the one in `data/`."""
    named = os.environ.get("ONLINE_RETAIL")
    source, _ = find_input(Path(named) if named else None, None)
    return Year.read(source)


def has_real_year() -> bool:
    """Whether the real data are here."""
    return bool(os.environ.get("ONLINE_RETAIL")) or any(path.is_file() for path in DEFAULT_INPUTS)


# -- simulated shops ---------------------------------------------------------------------------------------

GROWTH_A_WEEK = 0.01
BUSY_DAY, BUSY_SHARE = 3, 0.6  # Thursday
# Of a shop's customers, three years' worth, these come to the shop within the 53 weeks.
_COME_WITHIN_WEEKS = 0.62


class GrowingShop(Synthetic):
    """A shop that more customers join every week than the week before, in its reference too."""

    @cached_property
    def births(self) -> NDArray[np.float64]:
        """Time of each customer's first purchase, days since the start: exponentially denser."""
        rate = np.log1p(GROWTH_A_WEEK) / 7
        low, high = np.exp(-rate * TENURE_MAX_DAYS), np.exp(rate * self.shop.days)
        drawn = np.random.default_rng([self.shop.seed, 2]).uniform(low, high, self.shop.customers)
        births: NDArray[np.float64] = np.log(drawn) / rate
        return births


def _shop(seed: int, *, coming: int = 4_300, rate_days: float = Behaviour.rate_days) -> Shop:
    """Return a shop to which about `coming` customers come within the weeks."""
    return Shop(
        customers=round(coming / _COME_WITHIN_WEEKS),
        days=7 * WEEKS,
        seed=seed,
        start=date(2010, 11, 29),
        behaviour=Behaviour(rate_days=rate_days),
    )


def simulated(world: Synthetic) -> Stream:
    """Return the sales of a simulated shop's known customers."""
    # The public form of the lines is a dictionary each: for the largest shop eight million of them.
    drawn = world._lines()  # noqa: SLF001
    sale = (drawn.customer >= 0) & (drawn.quantity > 0)
    customer = drawn.customer[sale]
    invoices, invoice = np.unique(drawn.invoice[sale], return_inverse=True)
    product = drawn.product[sale]
    lines = Lines(
        time=drawn.time[sale],
        customer=customer.astype(np.int32),
        invoice=invoice.astype(np.int32),
        product=product.astype(np.int32),
        country=world.customers.country[customer].astype(np.int32),
        quantity=drawn.quantity[sale],
        price=np.rint(world.range.prices[product] * 1000).astype(np.int64),
    )
    texts = SortWords([str(number) for number in invoices.tolist()], world.range.codes, list(COUNTRIES))
    return Stream(lines, texts)


def _busy(seed: int) -> Stream:
    """Return a shop with a strong season within the week: most orders move to its busy day."""
    stream = simulated(Synthetic(_shop(seed)))
    lines = stream.lines
    moves = np.random.default_rng([seed, 2]).random(len(stream.words.invoices)) < BUSY_SHARE
    within = (lines.time - START) % WEEK_S
    moved = lines.time - within + BUSY_DAY * DAY_S + within % DAY_S
    return stream.with_lines(replace(lines, time=np.where(moves[lines.invoice], moved, lines.time)))


def _plain(seed: int, *, coming: int = 4_300, rate_days: float = Behaviour.rate_days) -> Stream:
    return simulated(Synthetic(_shop(seed, coming=coming, rate_days=rate_days)))


def _real(seed: int) -> Stream:
    return real_year().shuffled(seed)


@dataclass(frozen=True)
class Population:
    """A kind of streams: `make` returns the quiet stream of a seed, the same each time.

    Of the streams asked for, the `share` is watched: the promise is measured on the first kind, and looked
    after on the others.
    """

    name: str
    words: str
    make: Callable[[int], Stream] = field(compare=False)
    share: float = 0.5


POPULATIONS = {
    population.name: population
    for population in (
        Population("real", "Online Retail, customers drawn anew and their years turned", _real, share=1.0),
        Population("plain", "simulated shop of about the same size", _plain, share=1.0),
        Population(
            "growing",
            f"the same, {GROWTH_A_WEEK:.0%} more new customers every week",
            lambda seed: simulated(GrowingShop(_shop(seed))),
        ),
        Population("few", "simulated, 200 customers in the year", partial(_plain, coming=200)),
        Population("many", "simulated, 100,000 customers in the year", partial(_plain, coming=100_000), 0.1),
        Population("rare", "simulated, customers buy a quarter as often", partial(_plain, rate_days=200.0)),
        Population("busy", f"simulated, {BUSY_SHARE:.0%} of the orders on one day of the week", _busy),
    )
}
