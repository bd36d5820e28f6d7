"""What changed about the customers."""

from typing import Any

from parts import (
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Place,
    Query,
    T,
    heat_panel,
    table_panel,
    threshold_line,
    thresholds,
    time_panel,
)

TITLE = "Drift"
RANKS = [(None, RED), (2, ORANGE), (4, YELLOW)]


def panels() -> list[Any]:
    """Return the panels in their order: that something changed, how much, what, and for whom."""
    return [
        events("data"),
        events("model"),
        columns(),
        statistics(),
        distances(),
        strengths(),
        paired(),
        causes_now(),
    ]


def events(drift_type: str) -> Any:
    """Return the drifts of a type that were confirmed."""
    return time_panel(
        f"{drift_type.capitalize()} drift events",
        f"Drifts of the type {drift_type} confirmed so far, as the log of events has them.",
        Place(6),
        Query(f'sum(clv:drift_detected:max{{{T}, drift_type="{drift_type}"}})', "confirmed"),
    ).decimals(0)


def columns() -> Any:
    """Return how many features drifted."""
    return time_panel(
        "Drifted features",
        "Columns that differ from the reference in the last window: ours, and those of Evidently.",
        Place(12),
        Query(f"max(clv_drifted_columns_count{{{T}}})", "acting detector"),
        Query(f"max(clv_comparison_drifted_columns{{{T}}})", "Evidently"),
    ).decimals(0)


def statistics() -> Any:
    """Return statistics by their thresholds; the baseline's is a p-value, where less is more."""
    chosen = f'{T}, detector!="baseline"'
    found = f"max by (detector) (clv_detector_statistic{{{chosen}}})"
    threshold = f"max by (detector) (clv_detector_threshold{{{chosen}}})"
    return (
        time_panel(
            "Statistic over threshold",
            "What each detector compares, divided by its threshold: drift from 1 on.",
            Place(12),
            Query(f"clamp_min({found} / {threshold}, 0)", "{{detector}}"),
        )
        .thresholds(thresholds([(None, GREEN), (1, RED)]))
        .thresholds_style(threshold_line())
    )


def distances() -> Any:
    """Return how far each feature is from its reference."""
    return heat_panel(
        "Distance by feature",
        "Distance of each feature's distribution from its reference, 0 to 1, in the last window.",
        Place(12),
        [(None, GREEN), (0.1, YELLOW), (0.2, ORANGE), (0.3, RED)],
        Query(f"max by (feature) (clv_drift_score{{{T}}})", "{{feature}}"),
    )


def strengths() -> Any:
    """Return how far each feature went towards the threshold, by the length of the window."""
    return heat_panel(
        "Drift by feature and scale",
        "The strongest sign of drift in each feature over windows of each length, as a share of the acting"
        " detector's threshold: red from 1 on. Empty where the detector gives none.",
        Place(12, 12),
        [(None, GREEN), (0.6, YELLOW), (0.8, ORANGE), (1, RED)],
        Query(
            f"max by (feature, scale_weeks) (clv_drift_strength{{{T}}})",
            "{{feature}}, {{scale_weeks}} weeks",
        ),
    )


def paired() -> Any:
    """Return the causes that each customer or product shows against itself."""
    return heat_panel(
        "Same customers, same products",
        "Causes found by comparing each customer or product with itself: change that no newcomer explains.",
        Place(12, 12),
        RANKS,
        Query(
            f'min by (feature, scale_weeks, scope) (clv_drift_cause_rank{{{T}, scope!~"all|Country"}})',
            "{{feature}}, {{scale_weeks}} weeks, {{scope}}",
        ),
    )


def causes_now() -> Any:
    """Return the causes in the last window with their effects in their own units."""
    return table_panel(
        "Causes now",
        "What differs from the reference in the last window, and by how much.",
        Place(24, 7),
        Query(f"max by (feature, scale_weeks, scope, unit) (clv_drift_cause_effect{{{T}}})"),
        {"feature": "feature", "scale_weeks": "weeks", "scope": "whose", "Value": "effect", "unit": "unit"},
    )
