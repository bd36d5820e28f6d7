"""Whether the model still holds."""

from typing import Any

from parts import BLUE, Place, Query, T, bar_panel, heat_panel, thresholds, time_panel

TITLE = "Model"
# Only while one of the chosen versions served.
SERVED = f'and on (topic) max by (topic) (clv_model_info{{{T}, version=~"$version"}})'


def panels() -> list[Any]:
    """Return the panels in their order: how well it does, how well another one did, who served."""
    return [r2(), errors(), estimate(), gate(), certainty(), versions(), decisions()]


def r2() -> Any:
    """Return R2, which may be below zero."""
    return time_panel(
        "R2 over time",
        "R2 of the served model on the newest matured labels, and its first matured one.",
        Place(12),
        Query(f"clv_model_r2_score{{{T}}} {SERVED}", "now"),
        Query(f'max by (topic) (clv_r2_score{{{T}, data_type="reference"}}) {SERVED}', "reference"),
        least=None,
    ).max(1)


def errors() -> Any:
    """Return the errors in money."""
    measured = (
        Query(f'max by (topic) (clv_model_performance{{{T}, metric="{name}"}}) {SERVED}', name.upper())
        for name in ("mae", "rmse")
    )
    return time_panel(
        "MAE and RMSE",
        "Errors of the served model on the newest matured labels, in the currency of the shop.",
        Place(12),
        *measured,
    )


def estimate() -> Any:
    """Return the error that is known beside the one that is expected."""
    return time_panel(
        "Error: matured and estimated",
        "Mean absolute error on labels that matured, and what is expected of windows whose labels have not.",
        Place(12),
        Query(
            f'max by (topic, horizon) (clv_model_performance_matured{{{T}, metric="mae"}}) {SERVED}',
            "matured, {{horizon}} days",
        ),
        Query(
            f'max by (topic, horizon) (clv_model_error_estimated{{{T}, metric="mae"}}) {SERVED}',
            "estimated, {{horizon}} days",
        ),
    )


def gate() -> Any:
    """Return champion and challenger as the gate saw them."""
    return (
        bar_panel(
            "Champion and challenger",
            "Error over spend (nMAE) on the hold-out customers, as the gate last saw them: less is better.",
            Place(6),
            Query(f'max by (model) (clv_gate_performance{{{T}, metric="nmae"}})', "{{model}}"),
        )
        .min(0)
        .decimals(3)
        .thresholds(thresholds([(None, BLUE)]))
    )


def certainty() -> Any:
    """Return how sure the gate was, and had to be."""
    return (
        bar_panel(
            "Is the challenger better?",
            "Probability that the challenger errs less, and what the gate asks for.",
            Place(6),
            Query(f"max(clv_gate_probability_better{{{T}}})", "found"),
            Query(f"max(clv_gate_probability_required{{{T}}})", "required"),
        )
        .min(0)
        .max(1)
        .unit("percentunit")
        .thresholds(thresholds([(None, BLUE)]))
    )


def versions() -> Any:
    """Return which version served when."""
    query = Query(f"max by (version) (clv_model_info{{{T}}})", "{{version}}")
    return heat_panel(
        "Versions in service", "Which version served when.", Place(12, 6), [(None, BLUE)], query
    )


def decisions() -> Any:
    """Return what was decided about models."""
    return time_panel(
        "Decisions",
        "Decisions about models so far, by outcome; each is a mark in every panel too.",
        Place(12, 6),
        Query(f"sum by (outcome) (clv:decisions:max{{{T}}}) > 0", "{{outcome}}"),
    ).decimals(0)
