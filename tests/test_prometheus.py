"""Prometheus' configuration and rules: valid, tested one by one, and of metrics that exist."""

import re
import subprocess

import pytest
import yaml
from conftest import PROJECT
from observed_run import CONFIG, tool

from models.features import DAY_S
from streams.metrics_table import METRICS
from streams.settings import Settings
from streams.topics import catalogue

RULES = sorted((CONFIG / "rules").glob("*.yml"))
RULE_TESTS = sorted((PROJECT / "tests" / "prometheus").glob("*.yml"))
# Not ours: what Prometheus and its client library make themselves.
FOREIGN = {"up", "ALERTS", "process_resident_memory_bytes", "process_cpu_seconds_total"}
PARTS_OF_A_HISTOGRAM = ("_bucket", "_sum", "_count")


def rules() -> list[dict]:
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[dict]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def metrics_of(expr: str) -> set[str]:
    """Names of the metrics that a PromQL expression asks for."""
    bare = re.sub(r'"[^"]*"', '""', expr)
    bare = re.sub(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}", "{}", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = re.sub(r"\boffset\s+\w+|\b\d[\w.]*", "", bare)
    words = {
        found[0]
        for found in re.finditer(r"[a-zA-Z_:][\w:]*", bare)
        if not bare[found.end() :].lstrip().startswith("(")
    }
    return words - {"and", "or", "unless", "bool"}


def unknown_metrics(expr: str) -> set[str]:
    """Names in an expression that neither a process, nor a rule, nor Prometheus exposes."""
    histograms = {spec.name for spec in METRICS if spec.type == "histogram"}
    parts = {name + part for name in histograms for part in PARTS_OF_A_HISTOGRAM}
    known = {spec.name for spec in METRICS} - histograms
    return metrics_of(expr) - known - parts - recorded() - FOREIGN


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_names_are_found_in_an_expression():
    expr = 'sum by (topic) (rate(a_total{b="c_d"}[5m])) unless on (e) f:g:max > 0 or h offset 1w'
    assert metrics_of(expr) == {"a_total", "f:g:max", "h"}
    assert unknown_metrics("clv_evaluation_seconds + clv_evaluation_seconds_bucket + clv_no_such") == {
        "clv_evaluation_seconds",
        "clv_no_such",
    }


def test_the_configuration_is_valid():
    checked = run(tool("promtool"), "check", "config", str(CONFIG / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "3 rule files found" in checked.stdout


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(path):
    checked = run(tool("promtool"), "test", "rules", str(path))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_tested_firing_and_silent_and_every_recorded_rule_asked_for():
    fired, silent, asked = set(), set(), set()
    for path in RULE_TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            series = " ".join(item["series"] for item in test["input_series"])
            topics = set(re.findall(r'topic="(\w+)"', series))
            for check in test.get("alert_rule_test", []):
                found = {alert["exp_labels"].get("topic") for alert in check["exp_alerts"]}
                fired |= {check["alertname"]} if found else set()
                silent |= {check["alertname"]} if topics - found else set()
            for check in test.get("promql_expr_test", []):
                asked |= metrics_of(check["expr"])
    assert fired == silent == {alert["alert"] for alert in alerts()}
    # What is only an intermediate step is tested with the rule that is made from it.
    asked |= {name for rule in rules() if rule.get("record") in asked for name in metrics_of(rule["expr"])}
    assert recorded() - asked == set()


def test_rules_ask_for_metrics_that_exist():
    for rule in rules():
        assert metrics_of(rule["expr"]), rule
        assert unknown_metrics(rule["expr"]) == set(), rule


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert):
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["labels"]["about"] in {"drift", "model", "feed", "engine"}
    assert "for" in alert
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"
    runbook = (PROJECT / alert["annotations"]["runbook_url"]).read_text()
    assert runbook.startswith(f"# {alert['alert']}\n")
    for heading in ("## What it means", "## How to look", "## What to do"):
        assert heading in runbook


def test_every_runbook_has_its_alert():
    pages = {path.stem for path in (PROJECT / "docs" / "runbooks").glob("*.md")}
    assert pages == {alert["alert"] for alert in alerts()}


def test_the_speed_named_in_the_documentation_shows_every_window():
    """Two scrapes a window: one of them sees it, however late it closes."""
    (speed,) = re.findall(r"clv-drift demo --speed (\d+)", (PROJECT / "docs" / "grafana.md").read_text())
    interval = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["global"]["scrape_interval"]
    window_s = Settings().window_hop_days * DAY_S / int(speed)
    assert window_s >= 2 * int(interval.removesuffix("s"))


def test_targets_are_where_the_settings_put_them():
    """The ports and the topic of the configuration are the settings' defaults."""
    defaults = Settings()
    jobs = {
        job["job_name"]: job
        for job in yaml.safe_load((CONFIG / "prometheus.yml").read_text())["scrape_configs"]
    }
    for job in ("worker", "retrain", "scores"):
        port = getattr(defaults, f"{job}_port")
        assert jobs[job]["dns_sd_configs"][0]["port"] == port
        (group,) = yaml.safe_load((CONFIG / "targets" / f"{job}.yml").read_text())
        assert group["targets"] == [f"{defaults.web_host}:{port}"]
        assert jobs[job]["relabel_configs"][0]["replacement"] == catalogue(defaults).transactions.name
