"""The dashboard: as its code says, of metrics that exist, complete, and laid out for a desk and a phone."""

import json
import re
import subprocess
import sys
from itertools import pairwise

import pytest
import yaml
from conftest import PROJECT
from test_prometheus import metrics_of, unknown_metrics

from streams import logs

GRAFANA = PROJECT / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "clv-drift-monitoring.json"
ORIGINAL = {
    "Data drift events",
    "Model drift events",
    "R2 over time",
    "MAE and RMSE",
    "Drifted features",
    "Pipeline error logs",
    "Drift detection logs",
}
ROWS = ["Overview", "Drift", "Model", "Engine", "Logs"]
COLUMNS = 24
TITLE_MAX = 30  # letters that a phone shows in one line
PHONE_ROWS_MAX = 12  # that a phone shows at once, a panel's rows being 38 pixels each


def dashboard() -> dict:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[dict]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def promql_of() -> list[tuple[str, str]]:
    """Every query of panels and annotations, with a name that says where it is from."""
    found = [
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in panels()
        if panel["datasource"]["type"] == "prometheus"
        for target in panel["targets"]
    ]
    marks = [(f"annotation {item['name']}", item["expr"]) for item in dashboard()["annotations"]["list"]]
    return found + marks


def logql_of() -> list[str]:
    return [
        t["expr"] for panel in panels() if panel["datasource"]["type"] == "loki" for t in panel["targets"]
    ]


def variables_filled(expr: str, topic: str) -> str:
    """The query as Grafana sends it, with a topic and every version chosen."""
    for name, value in {"$topic": topic, "$version": ".*", "$__rate_interval": "20s"}.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def test_the_file_is_as_the_code_says():
    checked = subprocess.run(
        [sys.executable, "grafana/generate.py", "--check"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboard_is_what_was_promised():
    found = dashboard()
    assert found["title"] == "CLV Drift Monitoring"
    assert found["refresh"] == "5s"
    assert [panel["title"] for panel in found["panels"] if panel["type"] == "row"] == ROWS
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles))
    assert set(titles) >= ORIGINAL
    assert titles[:4] == ["Feed", "Verdict", "Model", "Last action"]
    assert [item["name"] for item in found["templating"]["list"]] == ["topic", "version"]
    assert {item["name"] for item in found["annotations"]["list"]} == {"Decisions", "Drift"}


@pytest.mark.parametrize("query", promql_of(), ids=lambda query: query[0])
def test_queries_ask_for_metrics_that_exist_and_for_the_chosen_topic(query):
    _, expr = query
    asked = metrics_of(expr.replace("$__rate_interval", "1m"))
    assert asked
    assert unknown_metrics(expr.replace("$__rate_interval", "1m")) == set()
    if asked != {"ALERTS"}:
        assert expr.count('topic="$topic"') >= len(asked)


def test_every_panel_says_what_it_shows():
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert all(target["refId"] for target in panel["targets"])


def test_the_layout_fills_a_desk():
    """Every line of panels is as wide as the screen, and nothing overlaps."""
    lines: dict[int, list[dict]] = {}
    for panel in dashboard()["panels"]:
        lines.setdefault(panel["gridPos"]["y"], []).append(panel["gridPos"])
    bottom = 0
    for y, places in sorted(lines.items()):
        assert y == bottom
        assert sum(place["w"] for place in places) == COLUMNS
        for left, right in pairwise(sorted(places, key=lambda place: place["x"])):
            assert left["x"] + left["w"] == right["x"]
        assert len({place["h"] for place in places}) == 1
        bottom = y + places[0]["h"]


def test_the_layout_reads_on_a_phone():
    """Below 768 pixels Grafana puts panels below each other, in their order and at their heights."""
    for panel in panels():
        assert len(panel["title"]) <= TITLE_MAX, panel["title"]
        assert 4 <= panel["gridPos"]["h"] <= PHONE_ROWS_MAX
        legend = panel["options"].get("legend")
        assert legend is None or legend["placement"] == "bottom"
    overview = [panel for panel in panels() if panel["gridPos"]["y"] == 1]
    assert len(overview) * 4 <= 2 * PHONE_ROWS_MAX  # two screens


def test_datasources_are_provisioned_as_the_dashboard_asks():
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/datasources.yml").read_text())
    known = {(source["type"], source["uid"]) for source in provisioned["datasources"]}
    asked = {tuple(sorted(panel["datasource"].items())) for panel in panels()}
    assert {(dict(item)["type"], dict(item)["uid"]) for item in asked} == known
    assert not any("password" in str(source).lower() for source in provisioned["datasources"])


def test_the_provider_reads_the_directory_of_the_dashboards():
    provisioned = yaml.safe_load((GRAFANA / "provisioning/dashboards/dashboards.yml").read_text())
    (provider,) = provisioned["providers"]
    assert provider["options"]["path"] == "${CLV_DASHBOARDS}"
    assert not provider["allowUiUpdates"]


def test_log_panels_ask_for_what_is_logged():
    """Loki runs in containers alone: the queries are held against the code that writes the lines."""
    written = "".join(path.read_text() for path in (PROJECT / "streams").glob("*.py"))
    queries = logql_of()
    assert len(queries) == 2
    for query in queries:
        assert query.startswith('{app="clv-drift"} | json | ')
        stages = re.fullmatch(r'\{.*?\} \| json \| (level|event)=~"([a-z |]+)" \| line_format "(.*)"', query)
        name, values, line = stages.groups()
        for value in values.split("|"):
            assert (f'"{value}"' in written) if name == "event" else (value in {"error", "critical"})
        for field in re.findall(r"{{\.(\w+)}}", line):
            assert field in logs._FIRST or f"{field}=" in written or f'"{field}"' in written
