"""Past windows, as far as they are needed: rows, lines, and the labels that have matured in them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.holdout import customer_hash
from models.lines import Codes, Floats, Lines
from models.targets import future_spend
from streams.closing import SAMPLE_KEY
from streams.joining import Snapshot
from streams.vocabulary import Interner


@dataclass(frozen=True)
class PastWindow:
    """A window that was joined; lines are those folded in it, amounts in thousandths."""

    window_end: int
    partial: bool
    rows: pd.DataFrame
    totals: dict[str, int]
    sample_bound: int | None
    split_customers: tuple[str, ...]
    row_customer: Codes
    row_country: Codes
    lines: Lines  # invoices are numbered within the window


class History:
    """Windows in the order of time, each added once."""

    def __init__(self) -> None:
        self.windows: dict[int, PastWindow] = {}
        self.first_end: int | None = None  # of the stream's first window, kept when it is forgotten
        self._customers = Interner()
        self._products = Interner()
        self._countries = Interner()
        self._hashes = np.empty(0, np.uint64)  # of the customers, by code; filled when asked for

    def add(self, snapshot: Snapshot) -> PastWindow:
        """Add the next window; raises ValueError if it is not later than the last one."""
        if self.windows and snapshot.window_end <= max(self.windows):
            raise ValueError(f"window {snapshot.window_end} does not follow {max(self.windows)}")
        rows = snapshot.rows.to_pandas()
        window = PastWindow(
            window_end=snapshot.window_end,
            partial=snapshot.partial,
            rows=rows,
            totals=snapshot.totals,
            sample_bound=snapshot.sample_bound,
            split_customers=snapshot.split_customers,
            row_customer=self._customers.codes(rows["CustomerID"].tolist()),
            row_country=self._countries.codes(rows["Country"].tolist()),
            lines=self._lines(snapshot.lines),
        )
        self.windows[snapshot.window_end] = window
        self.first_end = self.first_end or snapshot.window_end
        return window

    def _lines(self, table: pa.Table) -> Lines:
        """Return the lines of a snapshot, their texts as codes."""
        return Lines(
            time=pc.cast(table["event_time"], "int64").to_numpy(),
            customer=_codes(table["CustomerID"], self._customers),
            invoice=_codes(table["InvoiceNo"], Interner()),
            product=_codes(table["StockCode"], self._products),
            country=_codes(table["Country"], self._countries),
            quantity=table["Quantity"].to_numpy(),
            price=table["PriceThousandths"].to_numpy(),
        )

    def customer_ids(self, codes: Codes) -> list[str]:
        """Return the ids of customers."""
        return [self._customers.texts[code] for code in codes.tolist()]

    def country_name(self, code: int) -> str:
        """Return the country behind a code."""
        return self._countries.texts[code]

    def within(self, codes: Codes, bound: int | None) -> NDArray[np.bool_]:
        """Return which customers belong to a sample up to the hash `bound` (None: everyone does)."""
        if bound is None:
            return np.ones(len(codes), bool)
        return self._hash_of(codes) <= np.uint64(bound)

    def bound_of(self, codes: Codes, customers: int) -> int:
        """Return the hash up to which `customers` of the customers `codes` are sampled."""
        return int(np.partition(self._hash_of(codes), customers - 1)[customers - 1])

    def _hash_of(self, codes: Codes) -> NDArray[np.uint64]:
        known = len(self._hashes)
        if known < len(self._customers.texts):
            fresh = customer_hash(self._customers.texts[known:], SAMPLE_KEY)
            self._hashes = np.concatenate([self._hashes, fresh])
        return self._hashes[codes]

    @property
    def latest(self) -> PastWindow:
        """The last window added."""
        return self.windows[max(self.windows)]

    def known_until(self, at: int) -> int:
        """Return up to when all lines are known at window end `at`: the last whole window's end."""
        whole = [end for end, window in self.windows.items() if end <= at and not window.partial]
        return max(whole, default=-1)

    def matured(self, *, horizon_s: int, at: int) -> list[int]:
        """Return the whole windows whose labels over `horizon_s` are known at `at`, oldest first."""
        until = self.known_until(at)
        return [e for e, window in self.windows.items() if e + horizon_s <= until and not window.partial]

    def label(self, window_end: int, *, horizon_s: int, at: int) -> tuple[NDArray[np.bool_], Floats]:
        """Return (which rows have a label, the labels of all rows) of a matured window, as known at `at`.

        A row has a label if its customer stayed in the sample all along. Labels are net spend in
        [window_end, window_end + horizon), currency units.
        """
        window = self.windows[window_end]
        later = [self.windows[e] for e in self.windows if window_end < e <= at]
        empty = np.empty(0, np.int64)
        spend = future_spend(
            window.row_customer,
            np.concatenate([w.lines.customer for w in later] or [empty.astype(np.int32)]),
            np.concatenate([w.lines.time for w in later] or [empty]),
            np.concatenate([w.lines.amount for w in later] or [empty]),
            start=window_end,
            end=window_end + horizon_s,
        )
        bounds = [w.sample_bound for w in later if w.sample_bound is not None]
        stayed = np.ones(len(spend), bool)
        if bounds:
            stayed = customer_hash(window.rows["CustomerID"].tolist(), SAMPLE_KEY) <= min(bounds)
        return stayed, spend

    def labelled(self, window_end: int, *, horizon_s: int, at: int) -> pd.DataFrame:
        """Return the rows of a matured window that have a label, with columns `label` and `window_end`."""
        stayed, spend = self.label(window_end, horizon_s=horizon_s, at=at)
        rows = self.windows[window_end].rows.assign(
            label=spend, window_end=pd.Timestamp(window_end, unit="s", tz="UTC")
        )
        return rows[stayed]

    def forget(self, before: int, keep: set[int]) -> None:
        """Drop the windows that end before `before`, but for those in `keep`."""
        self.windows = {e: w for e, w in self.windows.items() if e >= before or e in keep}


def _codes(column: pa.ChunkedArray, words: Interner) -> Codes:
    """Return the codes of a column of texts; each text is looked up once, not once a line."""
    encoded = column.combine_chunks().dictionary_encode()
    codes: Codes = words.codes(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]
    return codes
