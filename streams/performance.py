"""The rule of the original: model drift where R2 on matured labels fell by more than a setting."""

from collections.abc import Callable
from typing import Any

from models.card import Card
from models.fitted import TrainedModel
from streams.carry import R2Reference
from streams.detectors.interface import Verdict

ModelLoader = Callable[[str], tuple[TrainedModel, Card]]


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
