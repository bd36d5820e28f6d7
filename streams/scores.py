"""Scores: what each customer of a window is predicted to spend, as messages for whoever subscribes to them.

A score is a function of a customer's row at a window end, the model that served then, and the deciles that
the evaluation of that window gives: whoever makes it again makes the same bytes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.card import Card
from models.fitted import TrainedModel, predict
from models.intervals import interval
from models.lines import Floats
from streams import cloudevents
from streams.grid import iso

SCORE = "clv.score.v1"
_PENCE = 2  # digits of an amount


def decile_cuts(predicted: Floats, weight: Floats) -> list[float]:
    """Return the nine amounts that part weighted predictions, shape (n,), into tenths; n is 1 or more.

    The k-th is the least amount that k tenths of the weight do not exceed.
    """
    order = np.argsort(predicted, kind="stable")
    reached = np.cumsum(weight[order]) / weight.sum()
    places = np.searchsorted(reached, np.arange(1, 10) / 10 - 1e-9)
    return [round(float(amount), _PENCE) for amount in predicted[order][places]]


def decile_of(amounts: Floats, cuts: Sequence[float]) -> NDArray[np.intp]:
    """Return the tenth that each amount lies in: 1 the customers worth least, 10 those worth most."""
    return np.searchsorted(np.asarray(cuts), amounts, side="right") + 1


def score_messages(
    rows: pa.Table, model: TrainedModel, card: Card, cuts: Sequence[float], *, window_end: int, source: str
) -> Iterator[tuple[str, bytes]]:
    """Yield (customer, message) for each row, in their order; `rows` as in a snapshot.

    Amounts are in currency units over the model's horizon, in pence. An interval is null where the model was
    given none. Raises FrameError as `predict` does.
    """
    if not rows.num_rows:
        return
    predicted = predict(model, rows.to_pandas())
    amounts = np.round(predicted, _PENCE)
    deciles = decile_of(amounts, cuts)
    low, high = [None] * len(amounts), [None] * len(amounts)
    coverage = None
    if model.intervals is not None:
        edges = interval(model.intervals, predicted, model.level)
        low, high = (np.round(edge, _PENCE).tolist() for edge in edges)
        coverage = model.intervals.coverage
    end = iso(window_end)
    customers = rows.column("CustomerID").to_pylist()
    for customer, value, least, most, decile in zip(
        customers, amounts.tolist(), low, high, deciles.tolist(), strict=True
    ):
        data: dict[str, Any] = {
            "customer": customer,
            "window_end": end,
            "predicted_spend": value,
            "low": least,
            "high": most,
            "coverage": coverage,
            "decile": decile,
            "horizon_days": card.horizon_days,
            "model_version": model.version,
        }
        event = cloudevents.envelope(
            kind=SCORE,
            source=source,
            window_end=window_end,
            data=data,
            event_id=f"{end}/{model.version}/{customer}",
        )
        yield customer, cloudevents.encode({**event, "subject": customer})
