"""Whether all is well, at a glance."""

from typing import Any

from parts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RECORDS_PER_S,
    RED,
    YELLOW,
    Place,
    Query,
    T,
    stat_panel,
    thresholds,
    words,
)

TITLE = "Overview"
STATES = {
    "1": ("warming", BLUE),
    "2": ("reference", BLUE),
    "3": ("quiet", GREEN),
    "4": ("suspected", YELLOW),
    "5": ("confirmed", RED),
    "6": ("resolved", GREEN),
}
SMALL = Place(4, 4)


def panels() -> list[Any]:
    """Return the panels in their order: the feed, the verdict, the model, what was done."""
    return [feed(), verdict(), model(), action(), window(), alerts()]


def feed() -> Any:
    """Return whether records come."""
    half_hour = f"clv_read_offset{{{T}}}[30m]"
    return (
        stat_panel(
            "Feed",
            "Records applied, all partitions together: a second now, and in the last half hour.",
            SMALL,
            Query(f"sum({RECORDS_PER_S})", "a second"),
            Query(f"sum(max_over_time({half_hour}) - min_over_time({half_hour}))", "in 30 min"),
        )
        .decimals(0)
        .thresholds(thresholds([(None, ORANGE), (0.001, GREEN)]))
    )


def verdict() -> Any:
    """Return the state of the stream, as one number: a panel can name and colour numbers."""
    state = " + ".join(
        f'{n} * max(clv_drift_state{{{T}, state="{name}"}})' for n, (name, _) in STATES.items()
    )
    says = "What is held to be true of the customers after the last window."
    return (
        stat_panel("Verdict", says, SMALL, Query(state))
        .mappings([words(STATES)])
        .thresholds(thresholds([(None, GREY)]))
    )


def model() -> Any:
    """Return which version serves."""
    query = Query(f"max by (version) (clv_model_info{{{T}}})", "{{version}}")
    return stat_panel("Model", "The version that serves.", SMALL, query, names=True)


def action() -> Any:
    """Return what was asked for last, and what was decided."""
    return stat_panel(
        "Last action",
        "What the last window that asked for something asked for, and what was decided last.",
        SMALL,
        Query(f"max by (action) (clv_last_action_info{{{T}}})", "asked: {{action}}"),
        Query(f"max by (outcome) (clv_last_decision_info{{{T}}})", "decided: {{outcome}}"),
        names=True,
    )


def window() -> Any:
    """Return which window was evaluated last."""
    return stat_panel(
        "Last window",
        "End of the last window evaluated, in event time. Prometheus lives in wall time: this joins the two.",
        SMALL,
        Query(f"max(clv_window_end_timestamp_seconds{{{T}}}) * 1000"),
    ).unit("dateTimeAsIso")


def alerts() -> Any:
    """Return how many alerts fire."""
    query = Query('count(ALERTS{alertstate="firing", alertname=~"CLV.*"}) or vector(0)')
    return stat_panel(
        "Alerts", "Alerts that fire now, of every topic; their runbooks say what to do.", SMALL, query
    ).thresholds(thresholds([(None, GREEN), (1, RED)]))
