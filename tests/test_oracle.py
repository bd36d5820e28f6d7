"""An independent computation in pandas of every feature, total and label, from the definitions alone."""

import math

import numpy as np
import pandas as pd
import pytest
from line_factory import DAY_S, WEEK_S, records_of, shop
from line_factory import settings as short_settings

from producers.source import read_lines
from streams.backfill import Windows
from streams.history import History
from streams.settings import Settings

MEANS = ("AvgQuantity", "AvgUnitPrice", "MeanOrder")


def windows_of(lines, conf, partitions):
    return list(Windows(conf, partitions, 5_000).feed(records_of(lines, conf, partitions)))


def frame_of(lines):
    """The lines as a table: event time in seconds, money in whole thousandths."""
    frame = pd.DataFrame(lines)
    moments = pd.to_datetime(frame["InvoiceDate"], utc=True)
    frame["time"] = (moments - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    frame["price"] = (frame["UnitPrice"] * 1000).round().astype("int64")
    frame["amount"] = frame["Quantity"] * frame["price"]
    frame["known"] = frame["CustomerID"].notna()
    frame["sale"] = frame["known"] & (frame["Quantity"] > 0) & (frame["UnitPrice"] > 0)
    return frame


def expected_ends(frame, window_days):
    """Mondays after the first line up to the one that the last line's week ends with, that saw any line."""
    first, last = frame["time"].min(), frame["time"].max()
    monday = 4 * DAY_S  # 5 January 1970
    ends = range(monday + (first - monday) // WEEK_S * WEEK_S + WEEK_S, last + WEEK_S + 1, WEEK_S)
    times = np.sort(frame["time"].to_numpy())
    return [
        end for end in ends if np.searchsorted(times, end) > np.searchsorted(times, end - window_days * DAY_S)
    ]


def described(sales, suffix=""):
    """What is said of sale lines at every scale, a row a customer."""
    by = sales.groupby("CustomerID")
    return pd.DataFrame(
        {
            f"Frequency{suffix}": by.size(),
            f"Monetary{suffix}": by["amount"].sum() / 1000,
            f"AvgQuantity{suffix}": by["Quantity"].mean(),
            f"TotalQuantity{suffix}": by["Quantity"].sum(),
            f"AvgUnitPrice{suffix}": by["price"].mean() / 1000,
            f"NumOrders{suffix}": by["InvoiceNo"].nunique(),
            f"NumProducts{suffix}": by["StockCode"].nunique(),
        }
    )


def expected_rows(frame, end, conf):
    """The features of section 5, a row a customer with a sale in the long window."""
    sales = frame[frame["sale"]]
    ever, ever_sales = frame[frame["known"] & (frame["time"] < end)], sales[sales["time"] < end]
    inside = ever_sales[ever_sales["time"] >= end - conf.window_days * DAY_S]
    rows = described(inside)
    rows["Recency"] = (end - inside.groupby("CustomerID")["time"].max()) // DAY_S
    rows["LifeSpend"] = ever.groupby("CustomerID")["amount"].sum() / 1000
    rows["LifeOrders"] = ever_sales.groupby("CustomerID")["InvoiceNo"].nunique()
    rows["Tenure"] = (end - ever_sales.groupby("CustomerID")["time"].min()) // DAY_S
    for days in (14, 30, 60):
        recent = inside[inside["time"] >= end - days * DAY_S]
        rows[f"Spend{days}"] = recent.groupby("CustomerID")["amount"].sum() / 1000
    orders = inside.groupby(["CustomerID", "InvoiceNo"])["amount"].sum() / 1000
    rows["MaxOrder"] = orders.groupby("CustomerID").max()
    rows["MeanOrder"] = orders.groupby("CustomerID").mean()
    for days in (conf.mid_window_days, conf.short_window_days):
        part = inside[inside["time"] >= end - days * DAY_S]
        rows = rows.join(described(part, f"_{days}d"))
    ordered = inside.sort_values(["time", "InvoiceNo", "StockCode", "Country"])
    rows["Country"] = ordered.groupby("CustomerID")["Country"].last()
    return rows.fillna(0).sort_index()


def expected_totals(frame, end, conf):
    inside = frame[(frame["time"] < end) & (frame["time"] >= end - conf.window_days * DAY_S)]
    totals = {
        "lines": len(inside),
        "lines_week": int((inside["time"] >= end - conf.short_window_days * DAY_S).sum()),
    }
    mid, short = conf.mid_window_days, conf.short_window_days
    for days, suffix in ((conf.window_days, ""), (mid, f"_{mid}d"), (short, f"_{short}d")):
        part = inside[inside["sale"] & (inside["time"] >= end - days * DAY_S)]
        totals |= {
            f"customers{suffix}": part["CustomerID"].nunique(),
            f"sale_lines{suffix}": len(part),
            f"orders{suffix}": len(part.drop_duplicates(["CustomerID", "InvoiceNo"])),
            f"pieces{suffix}": int(part["Quantity"].sum()),
            f"amount{suffix}": int(part["amount"].sum()),
        }
    return totals


def assert_rows_equal(found, expected, end):
    assert found["CustomerID"].tolist() == expected.index.tolist(), end
    assert set(found.columns) - {"CustomerID", "SampleWeight"} == set(expected.columns)
    for name in expected.columns:
        ours, theirs = found[name].to_numpy(), expected[name].to_numpy()
        if name.startswith(MEANS):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9, err_msg=f"{name} at {end}")
        else:
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name} at {end}")


def assert_lines_equal(snapshots, frame):
    """Every known customer's line stands in the one window in whose week it lies."""
    for before, snapshot in zip([None, *snapshots], snapshots, strict=False):
        start = -math.inf if before is None else before.window_end
        week = frame[frame["known"] & (frame["time"] >= start) & (frame["time"] < snapshot.window_end)]
        found = snapshot.lines.to_pandas()
        amounts = (found["Quantity"] * found["PriceThousandths"]).groupby(found["CustomerID"]).sum()
        pd.testing.assert_series_equal(
            amounts, week.groupby("CustomerID")["amount"].sum(), check_names=False, check_index_type=False
        )
        assert len(found) == len(week)


def assert_labels_equal(snapshots, frame, horizons):
    history = History()
    for snapshot in snapshots:
        history.add(snapshot)
    at = snapshots[-1].window_end
    whole = [snapshot.window_end for snapshot in snapshots if not snapshot.partial]
    for days in horizons:
        matured = [end for end in whole if end + days * DAY_S <= max(whole)]
        assert history.matured(horizon_s=days * DAY_S, at=at) == matured
        assert matured, f"no window matures over {days} days"
        for end in matured:
            found = history.labelled(end, horizon_s=days * DAY_S, at=at)
            later = frame[frame["known"] & (frame["time"] >= end) & (frame["time"] < end + days * DAY_S)]
            spend = later.groupby("CustomerID")["amount"].sum() / 1000
            np.testing.assert_array_equal(
                found["label"].to_numpy(), spend.reindex(found["CustomerID"], fill_value=0).to_numpy()
            )


def check(lines, conf, partitions, horizons, frame=None):
    frame = frame_of(lines) if frame is None else frame
    snapshots = windows_of(lines, conf, partitions)
    assert [s.window_end for s in snapshots] == expected_ends(frame, conf.window_days)
    assert [s.partial for s in snapshots] == [False] * (len(snapshots) - 1) + [True]
    for snapshot in snapshots:
        end = snapshot.window_end
        rows = snapshot.rows.to_pandas()
        assert_rows_equal(rows, expected_rows(frame, end, conf), end)
        assert (rows["SampleWeight"] == 1).all()
        assert snapshot.totals == expected_totals(frame, end, conf), end
        assert snapshot.split_customers == ()
    assert_lines_equal(snapshots, frame)
    assert_labels_equal(snapshots, frame, horizons)


@pytest.mark.parametrize(("seed", "partitions"), [(1, 1), (2, 3)])
def test_a_synthetic_shop(seed, partitions):
    check(shop(seed, days=80, customers=60, orders_a_day=9), short_settings(), partitions, (14, 30))


def test_a_shop_that_closes_for_a_month():
    """Windows over the gap shrink to nothing and grow again; lifetime figures stand."""
    spring = shop(5, days=20, customers=30, orders_a_day=6)
    gap_s = 28 * DAY_S  # below the jump that would ask for witnesses
    summer = shop(5, days=20, customers=30, orders_a_day=6, start=int(frame_of(spring)["time"].max()) + gap_s)
    renamed = [item | {"InvoiceNo": f"s{item['InvoiceNo']}"} for item in summer]
    check([*spring, *renamed], short_settings(window_days=14), 2, (7,))


def test_the_full_lengths():
    check(shop(4, days=150, customers=25, orders_a_day=3), Settings(), 2, (30, 90))


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_the_real_file(online_retail):
    """Read here by pandas alone, so that the producer's reading is checked too."""
    texts = {"InvoiceNo": str, "StockCode": str, "CustomerID": str}
    raw = pd.read_csv(online_retail, dtype=texts, encoding="latin-1")
    moments = pd.to_datetime(raw["InvoiceDate"], format="%d-%m-%Y %H:%M", utc=True)
    raw["CustomerID"] = raw["CustomerID"].str.removesuffix(".0")
    frame = frame_of(raw.assign(InvoiceDate=moments))
    assert len(frame) == 541_909
    check(read_lines(online_retail), Settings(), 4, (30, 90), frame)
