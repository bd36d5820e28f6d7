"""How the served model does: on labels that matured; until then as its card says, marked as an estimate."""

from collections.abc import Callable
from typing import Any

from models.card import Card
from models.features import DAY_S
from models.metrics import performance
from models.training import TrainedModel, predict
from streams.carry import Carry, R2Reference
from streams.detectors.interface import Verdict, rounded
from streams.grid import iso
from streams.history import History

ModelLoader = Callable[[str], tuple[TrainedModel, Card]]


def performance_at(
    history: History, carry: Carry, load: ModelLoader, *, at: int, horizon_days: int
) -> dict[str, Any] | None:
    """Return the measures over `horizon_days` at window end `at`, or None while nothing is served.

    The newest window whose labels are known and in which a model served is scored with that model. Where none
    has matured yet, the hold-out figures of the champion's card stand in, `status` "estimated".
    """
    if carry.champion is None:
        return None
    ends = history.matured(horizon_s=horizon_days * DAY_S, at=at)
    served = [(end, version) for end in reversed(ends) if (version := carry.served_at(end)) is not None]
    if not served:
        _, card = load(carry.champion)
        return {
            "status": "estimated",
            "window_end": None,
            "model_version": carry.champion,
            **_figures(card.metrics if card.horizon_days == horizon_days else {}),
        }
    end, version = served[0]
    model, card = load(version)
    rows = history.labelled(end, horizon_s=horizon_days * DAY_S, at=at)
    scale = 1.0 if card.horizon_days == horizon_days else card.horizon_scale
    if scale is None:  # the model was trained where the short horizon could not be read off
        return None
    measures = performance(rows["label"], predict(model, rows) * scale, rows["SampleWeight"])
    return {
        "status": "matured",
        "window_end": iso(end),
        "model_version": version,
        **_figures(measures),
    }


def r2_drop(
    current: dict[str, Any] | None, reference: R2Reference | None, *, at: int, drop_max: float
) -> tuple[Verdict, R2Reference | None]:
    """Apply the original's rule to matured spend: model drift where R2 fell by more than `drop_max`.

    Compared with the first matured R2 of the same model, which is returned to be kept. The rule cries wolf in
    a quarter of all comparisons or more; it is published because the original had it.
    """
    if current is None or current["status"] != "matured" or current["r2"] is None:
        return Verdict(drift=None, reason="no labels have matured under the served model"), reference
    r2, version = float(current["r2"]), str(current["model_version"])
    if reference is None or reference.version != version:
        reference = R2Reference(version, at, r2)
    fall = reference.r2 - r2
    return Verdict(drift=fall > drop_max, statistic=fall, threshold=drop_max), reference


def _figures(measures: dict[str, float | None]) -> dict[str, float | None]:
    return {name: rounded(value) for name, value in measures.items()}
