"""Alertmanager's configuration: who is told what, and what keeps silent beside what."""

import re
import subprocess
from itertools import product

import pytest
from observed_run import CONFIG, observing, tool
from test_prometheus import alerts

ALERTMANAGER = CONFIG / "alertmanager.yml"


def labels_of(alert: dict, topic: str = "retail.transactions") -> dict[str, str]:
    return {"alertname": alert["alert"], "topic": topic} | alert["labels"]


@pytest.fixture(scope="module")
def silenced(tmp_path_factory) -> dict[str, set[str]]:
    """By alert: those that a real Alertmanager does not tell while it fires on the same topic."""
    posted = []
    for source, target in product(alerts(), repeat=2):
        topic = f"{source['alert']} beside {target['alert']}"  # each pair by itself
        posted += [labels_of(source, topic), labels_of(target, topic)]
    with observing(tmp_path_factory.mktemp("alerts"), {}, alertmanager_only=True) as observed:
        observed.tell(posted)
        found = observed.told_of(posted)
    silent: dict[str, set[str]] = {alert["alert"]: set() for alert in alerts()}
    for alert in found:
        if alert["status"]["inhibitedBy"]:
            source, _, target = alert["labels"]["topic"].partition(" beside ")
            name = alert["labels"]["alertname"]
            silent[source if name == target else target].add(name)
    return silent


def test_the_configuration_is_valid():
    checked = subprocess.run(
        [tool("amtool"), "check-config", str(ALERTMANAGER)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_reaches_whom_it_is_for(alert):
    receiver = {"critical": "on-call", "warning": "chat"}[alert["labels"]["severity"]]
    routed = subprocess.run(
        [
            tool("amtool"),
            "config",
            "routes",
            "test",
            f"--config.file={ALERTMANAGER}",
            f"--verify.receivers={receiver}",
            *(f"{name}={value}" for name, value in labels_of(alert).items()),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert routed.returncode == 0, routed.stdout + routed.stderr
    assert routed.stdout.split() == [receiver]


OF_THEIR_OWN = {"CLVModelRefused", "CLVRetrainDown"}  # they follow from nothing that a feed or a worker does


@pytest.mark.parametrize(
    "source",
    [
        "CLVFeedSilent",
        "CLVWorkerDown",
        "CLVPartitionsUnread",
        "CLVEvaluationsMissing",
        "CLVEvaluationStalled",
    ],
)
def test_who_cannot_see_does_not_speak_of_drift(silenced, source):
    verdicts = {alert["alert"] for alert in alerts() if alert["labels"]["about"] in {"drift", "model"}}
    assert len(verdicts) >= 6
    assert silenced[source] & verdicts == verdicts - OF_THEIR_OWN


def test_one_message_for_a_dead_worker(silenced):
    others = {"CLVWorkerDown", "CLVWebhookFailing"} | OF_THEIR_OWN
    assert silenced["CLVWorkerDown"] == {alert["alert"] for alert in alerts()} - others


def test_another_topic_is_told_all_the_same(tmp_path):
    labels = {alert["alert"]: labels_of(alert) for alert in alerts()}
    with observing(tmp_path, {}, alertmanager_only=True) as observed:
        same = [labels["CLVWorkerDown"], labels["CLVModelDriftDetected"]]
        other = [labels["CLVDataDriftDetected"] | {"topic": "other"}]
        observed.tell(same + other)
        found = observed.told_of(same + other)
    silent = {alert["labels"]["alertname"] for alert in found if alert["status"]["inhibitedBy"]}
    assert silent == {"CLVModelDriftDetected"}


@pytest.mark.parametrize(
    "source", ["CLVDataDriftDetected", "CLVModelDriftDetected", "CLVLagGrowing", "CLVDeadLetters"]
)
def test_drift_and_lag_silence_nothing(silenced, source):
    assert silenced[source] == set()


def test_no_alert_on_the_way_to_the_verdicts_is_silenced_by_a_silent_feed(silenced):
    engine = {alert["alert"] for alert in alerts() if alert["labels"]["about"] in {"engine", "feed"}}
    assert silenced["CLVFeedSilent"] & engine == set()


def test_secrets_are_files_that_are_not_committed():
    text = ALERTMANAGER.read_text()
    values = re.findall(r"^\s*(?:- )?(\w*(?:url|key|password|token)\w*): (.*)$", text, re.MULTILINE)
    assert len(values) == 3
    assert all(name.endswith("_file") and value.startswith("secrets/") for name, value in values)
    assert (CONFIG / "secrets" / ".gitignore").read_text().splitlines()[1] == "*"
