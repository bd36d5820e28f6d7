"""A window as the page shows it: what of its evaluation and its comparison is drawn or told."""

from typing import Any

from streams.comparisons import REQUESTED

CAUSES_MAX = 5
TEXT_MAX = 400  # of a reason: what a plug-in or a customer's name may have made long
_MEASURES = ("nmae", "mae", "r2", "gini", "bias")


def row_of(data: dict[str, Any], acting_detector: str) -> dict[str, Any]:
    """Return JSON values of an evaluation; raises KeyError, TypeError or ValueError where it is none."""
    verdicts = dict(data["verdicts"])
    acting = verdicts.get(acting_detector)
    return {
        "end": day_of(data["window_end"]),
        "partial": bool(data["partial"]),
        "state": short(data["state"]),
        "lines_week": int(data["lines_week"]),
        "customers": int(data["customers"]),
        "expected_events": [short(name) for name in data["expected_events"]],
        "verdict": None if acting is None else _verdict(acting),
        "others": {
            short(name): _yes_or_no(verdict["drift"])
            for name, verdict in verdicts.items()
            if name != acting_detector
        },
        "performance": {days: _figures(found) for days, found in dict(data["performance"]).items()},
        "estimates": {days: number(found["mae"]) for days, found in dict(data["error_estimates"]).items()},
        "model_version": None if data["model_version"] is None else short(data["model_version"]),
        "action": short(data["action"]),
        "action_reason": short(data["action_reason"]),
        "comparison": None,
    }


def comparison_of(event: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the day of a window and Evidently's verdict on it; None where `event` only asks for one."""
    if event["type"] == REQUESTED:
        return None
    data = event["data"]
    found: dict[str, Any] = {"status": short(data["status"])}
    if data["status"] == "compared":
        found |= {
            "drift": bool(data["dataset_drift"]),
            "drifted": int(data["drifted_columns"]),
            "columns": len(data["columns"]),
        }
    return day_of(data["window_end"]), found


def causes_of(causes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the strongest causes."""
    return [
        {
            "feature": short(cause["feature"]),
            "scale_weeks": int(cause["scale_weeks"]),
            "segment": short(cause["segment"]),
            "effect": float(cause["effect"]),
            "unit": short(cause["unit"]),
        }
        for cause in causes[:CAUSES_MAX]
    ]


def day_of(time: Any) -> str:
    """Return the date of an ISO time; windows end at midnight UTC."""
    if not isinstance(time, str):
        raise TypeError(f"{time!r} is no time")
    return time[:10]


def number(value: Any) -> float | None:
    """Return a figure, None where there is none."""
    return None if value is None else float(value)


def short(text: Any) -> str:
    """Return a text of a bounded length."""
    told = str(text)
    return told if len(told) <= TEXT_MAX else told[: TEXT_MAX - 1] + "…"


def _verdict(verdict: dict[str, Any]) -> dict[str, Any]:
    onset = verdict["onset"]
    return {
        "drift": _yes_or_no(verdict["drift"]),
        "reason": short(verdict["reason"]),
        "statistic": number(verdict["statistic"]),
        "threshold": number(verdict["threshold"]),
        "false_alarm_probability": number(verdict["false_alarm_probability"]),
        "onset": None if onset is None else day_of(onset),
        "causes": causes_of(verdict["causes"]),
    }


def _yes_or_no(value: Any) -> bool | None:
    """Return a verdict; None where the detector cannot tell."""
    return None if value is None else bool(value)


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    of = found["window_end"]
    return {
        "status": short(found["status"]),
        "of": None if of is None else day_of(of),
        **{name: number(found.get(name)) for name in _MEASURES},
    }
