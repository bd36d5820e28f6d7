"""What the processes say; docs/grafana.md has the label that the log shipper must set."""

from typing import Any

from parts import Place, log_panel

TITLE = "Logs"
LOGS = '{app="clv-drift"} | json'
HALF = Place(12, 10)


def panels() -> list[Any]:
    """Return the panels in their order."""
    return [errors(), detections()]


def errors() -> Any:
    """Return what went wrong anywhere."""
    line = "{{.process}}: {{.event}} {{.reason}}"
    return log_panel(
        "Pipeline error logs",
        "Errors of every process.",
        HALF,
        f'{LOGS} | level=~"error|critical" | line_format "{line}"',
    )


def detections() -> Any:
    """Return the drift events and evaluations, with the ids that lead to the messages in Kafka."""
    line = "{{.window_end}} {{.event}} {{.drift_type}} {{.state}} {{.action}} {{.event_id}}"
    return log_panel(
        "Drift detection logs",
        "Drift events and evaluated windows, with the ids that lead to the messages in Kafka.",
        HALF,
        f'{LOGS} | event=~"drift event|window evaluated" | line_format "{line}"',
    )
