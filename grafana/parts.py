"""What panels are made of: queries, and the few kinds of panel with the looks that they share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import (
    bargauge,
    logs,
    loki,
    prometheus,
    stat,
    statushistory,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = common.DataSourceRef(type_val="prometheus", uid="clv-prometheus")
LOKI = common.DataSourceRef(type_val="loki", uid="clv-loki")
# The chosen topic, and how fast its records are applied: by offsets, for counters move with checkpoints only.
T = 'topic="$topic"'
RECORDS_PER_S = f"clamp_min(deriv(clv_read_offset{{{T}}}[1m]), 0)"
STEP = "5s"  # the scrape interval: a finer step would draw what nobody has measured

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"
# From which value on a colour holds; the first has no lower end.
Steps = Sequence[tuple[float | None, str]]


class Query(NamedTuple):
    """A query in PromQL, with the variables `$topic` and `$version`, and what its series are called."""

    expr: str
    legend: str = ""


class Place(NamedTuple):
    """How large a panel is: `width` of 24 columns, `height` in rows of 30 pixels and their gaps."""

    width: int
    height: int = 8


def stat_panel(title: str, says: str, place: Place, *queries: Query, names: bool = False) -> stat.Panel:
    """Return a panel of one large value; with `names` it shows the legend, for values that are labels."""
    mode = common.BigValueTextMode.NAME if names else common.BigValueTextMode.AUTO
    return (
        _prepared(stat.Panel(), title, says, place, queries, instant=names)
        .text_mode(mode)
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def time_panel(
    title: str, says: str, place: Place, *queries: Query, least: float | None = 0
) -> timeseries.Panel:
    """Return a panel of lines; values of windows hold until the next one, hence the steps.

    The axis begins at `least`, or where the values do.
    """
    panel = (
        _prepared(timeseries.Panel(), title, says, place, queries)
        .line_interpolation(common.LineInterpolation.STEP_AFTER)
        .line_width(2)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            # Below the lines: beside them it would leave a phone no room for them.
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    )
    return panel if least is None else panel.min(least)


def heat_panel(title: str, says: str, place: Place, steps: Steps, *queries: Query) -> statushistory.Panel:
    """Return a panel of coloured cells: a row a series, a column a point of time."""
    return (
        _prepared(statushistory.Panel(), title, says, place, queries)
        .thresholds(thresholds(steps))
        .color_scheme(dashboard_builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.9)
        .col_width(1.0)
        .max_data_points(120)
    )


def bar_panel(title: str, says: str, place: Place, *queries: Query) -> bargauge.Panel:
    """Return a panel of bars, one a series, with its last value."""
    return (
        _prepared(bargauge.Panel(), title, says, place, queries, instant=True)
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def table_panel(title: str, says: str, place: Place, query: Query, columns: dict[str, str]) -> table.Panel:
    """Return a table of a query's labels and value; `columns` are the labels to show and their headings."""
    panel = _titled(table.Panel(), title, says, place, PROMETHEUS)
    panel.with_target(_promql(query, "A", instant=True).format(PromQueryFormat.TABLE))
    shown = {
        "id": "organize",
        "options": {
            "indexByName": dict(zip(columns, range(len(columns)), strict=True)),
            "renameByName": columns,
        },
    }
    for transformer in (
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        shown,
    ):
        panel.with_transformation(
            dashboard.DataTransformerConfig(id_val=transformer["id"], options=transformer["options"])
        )
    return panel


def log_panel(title: str, says: str, place: Place, expr: str) -> logs.Panel:
    """Return a panel of log lines, the newest first; `expr` is LogQL."""
    return (
        _titled(logs.Panel(), title, says, place, LOKI)
        .with_target(loki.Dataquery().expr(expr).ref_id("A").max_lines(200))
        .show_time(show_time=True)
        .wrap_log_message(wrap_log_message=True)
        .enable_log_details(enable_log_details=True)
        .sort_order(common.LogsSortOrder.DESCENDING)
    )


def thresholds(steps: Steps) -> dashboard_builders.ThresholdsConfig:
    """Return the colours of values."""
    return (
        dashboard_builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=color) for value, color in steps])
    )


def words(texts: dict[str, tuple[str, str]]) -> dashboard.ValueMap:
    """Return words and colours to show instead of values."""
    return dashboard.ValueMap(
        options={
            value: dashboard.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(texts.items())
        }
    )


def threshold_line() -> common_builders.GraphThresholdsStyleConfig:
    """Return that a panel draws its threshold as a dashed line."""
    return common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)


def _prepared(
    panel: Any, title: str, says: str, place: Place, queries: Sequence[Query], *, instant: bool = False
) -> Any:
    panel = _titled(panel, title, says, place, PROMETHEUS)
    for name, query in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(_promql(query, name, instant=instant))
    return panel


def _titled(panel: Any, title: str, says: str, place: Place, source: common.DataSourceRef) -> Any:
    return panel.title(title).description(says).span(place.width).height(place.height).datasource(source)


def _promql(query: Query, ref_id: str, *, instant: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ref_id).datasource(PROMETHEUS)
    if query.legend:
        target.legend_format(query.legend)
    return target.instant() if instant else target.range().interval(STEP)
