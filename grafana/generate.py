"""Write the dashboard "CLV Drift Monitoring" as Grafana reads it. `make dashboard` runs it."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    QueryVariable,
    Row,
    TimePicker,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from parts import PROMETHEUS, T
from rows import drift, engine, log_lines, model, overview

# In the order in which somebody on call looks at them.
ROWS = (overview, drift, model, engine, log_lines)
ANNOTATION_STEP = "30s"
TARGET = Path(__file__).resolve().parent / "dashboards" / "clv-drift-monitoring.json"


def dashboard() -> Dashboard:
    """Return the dashboard: rows of panels, variables, annotations."""
    found = (
        Dashboard("CLV Drift Monitoring")
        .uid("clv-drift-monitoring")
        .description(
            "Is the feed alive, did the customers change, does the model hold, what was done about it?"
        )
        .tags(["clv-drift"])
        .refresh("5s")
        .time("now-30m", "now")
        .timepicker(TimePicker().refresh_intervals(["5s", "10s", "30s", "1m", "5m", "1h"]))
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(variable("topic", "Topic", 'label_values(up{job="worker"}, topic)'))
        .with_variable(
            with_all(variable("version", "Model version", f"label_values(clv_model_info{{{T}}}, version)"))
        )
    )
    newest = f"max by (topic, drift_type, event_id) (clv_last_drift_event_info{{{T}}})"
    event = f" * on (topic, drift_type) group_left (event_id) {newest}"
    for name, color, expr, more, title in (
        ("Decisions", "blue", "clv:decisions:max", "", "{{outcome}}"),
        (
            "Drift",
            "red",
            "clv:drift_detected:max",
            event,
            "{{drift_type}} drift confirmed, event {{event_id}}",
        ),
    ):
        # Not `increase`: a rise between the samples of two steps is in neither of their ranges.
        # Nor what stood there just before: while a worker takes over nothing does.
        before = f"last_over_time({expr}{{{T}}}[1h] offset {ANNOTATION_STEP})"
        rise = f"({expr}{{{T}}} - {before} > 0){more}"
        found.annotation(annotation(name, color, rise, title))
    for row in ROWS:
        found.with_row(Row(row.TITLE))
        for panel in row.panels():
            found.with_panel(panel)
    return found


def variable(name: str, label: str, query: str) -> QueryVariable:
    """Return a variable of the values that a query gives; the first of them unless chosen otherwise."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query({"query": query, "refId": name})
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def with_all(chosen: QueryVariable) -> QueryVariable:
    """Return the variable with several values at a time, all of them unless chosen otherwise."""
    everything = VariableOption(text="All", value="$__all", selected=True)
    return chosen.include_all(include_all=True).all_value(".*").multi(multi=True).current(everything)


def annotation(name: str, color: str, expr: str, title: str) -> AnnotationQuery:
    """Return marks in every panel at the times when a query has a value."""
    return (
        AnnotationQuery()
        .name(name)
        .datasource(PROMETHEUS)
        .enable(enable=True)
        .icon_color(color)
        .expr(expr)
        .step(ANNOTATION_STEP)
        .title_format(title)
        .target(
            prometheus.Dataquery().expr(expr).ref_id("Anno").datasource(PROMETHEUS).interval(ANNOTATION_STEP)
        )
    )


def text() -> str:
    """Return the dashboard as JSON, its keys sorted so that two versions can be compared."""
    built = json.loads(json.dumps(dashboard().build(), cls=JSONEncoder))
    for number, panel in enumerate(built["panels"], start=1):
        panel["id"] = number  # links to a panel go by it
    return json.dumps(built, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file; with `--check`, return 1 where it is not as the code says."""
    if "--check" not in sys.argv:
        TARGET.write_text(text(), encoding="utf-8")
    elif not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text():
        print(f"not as the code says, run `make dashboard`: {TARGET.name}")  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
