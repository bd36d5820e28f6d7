"""Write the reference pages from the code: settings, commands, metrics, topics. `make docs` runs it."""

import sys
from dataclasses import fields
from pathlib import Path

import typer
from contract import asyncapi_page, schema_files

from streams.cli import build
from streams.metrics_table import METRICS
from streams.settings import ENV_PREFIX, Settings, load_settings
from streams.topics import catalogue

HERE = Path(__file__).resolve().parent


def settings_page() -> str:
    """Return the page of all settings."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = str(list(default)) if isinstance(default, tuple) else str(default)
        rows.append(f"| `{name}` | `{shown}` | {field.description} |")
    return "\n".join(
        [
            "# Settings",
            "",
            f"Each can be given as `{ENV_PREFIX}<NAME>` in the environment (lists as JSON) or in",
            f"`config/clv-drift.toml`; `{ENV_PREFIX}CONFIG` names another file. The environment wins.",
            "Unknown and impossible values are refused at the start, by name.",
            "",
            "| setting | default | meaning |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def commands_page() -> str:
    """Return the page of all commands."""
    lines = [
        "# Commands",
        "",
        "[Operations](operations.md) lists the exit codes.",
        "",
    ]
    root = typer.main.get_command(build())
    commands = sorted(root.commands.items())  # type: ignore[attr-defined]
    for name, command in commands:
        if hasattr(command, "commands"):
            lines += [f"## `clv-drift {name}`", "", command.help or "", ""]
            for inner, leaf in sorted(command.commands.items()):
                lines += _command(f"{name} {inner}", leaf, "###")
        else:
            lines += _command(name, command, "##")
    return "\n".join(lines)


def _command(name: str, command: object, mark: str) -> list[str]:
    lines = [f"{mark} `clv-drift {name}`", "", str(getattr(command, "help", "") or ""), ""]
    rows = []
    for parameter in getattr(command, "params", []):
        if parameter.name == "help":
            continue
        option = parameter.opts[0].startswith("-")
        words = " / ".join(parameter.opts) if option else (parameter.metavar or parameter.name.upper())
        help_text = " ".join((getattr(parameter, "help", None) or "").split())
        rows.append(f"| `{words}` | {help_text} |")
    if rows:
        lines += ["| argument or option | meaning |", "| --- | --- |", *rows, ""]
    return lines


def metrics_page() -> str:
    """Return the page of all metrics."""
    rows = [
        f"| `{spec.name}` | {spec.type} | {', '.join(spec.labels) or '-'} | {spec.unit or '-'} | {spec.help} |"
        for spec in METRICS
    ]
    return "\n".join(
        [
            "# Metrics",
            "",
            "Served at `/metrics` by the worker (`worker_port`), the retrain consumer (`retrain_port`), the scores (`scores_port`)",
            "and the webhooks process (`webhooks_port`);",
            "`clv_batch_...` are what `clv-drift train` and `detect` push to `pushgateway_url` or write into",
            "`textfile_dir`, where the settings name one.",
            "What describes the log of evaluations is set from that log by its one owner: a restart or another",
            "worker counts nothing twice.",
            "",
            "| metric | type | labels | unit | meaning |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def topics_page() -> str:
    """Return the table of topics."""
    rows = []
    topics = catalogue(load_settings())
    for item in fields(topics):
        spec = getattr(topics, item.name)
        links = ", ".join(f"[{name}](schemas/{name}.json)" for name in schema_files(item.name))
        config = ", ".join(f"`{key}={value}`" for key, value in spec.config.items())
        rows.append(
            f"| `{spec.name}` | {spec.partitions} | {spec.purpose} | {links or 'private'} | {config} |"
        )
    return "\n".join(
        [
            "# Topics",
            "",
            "`clv-drift topics` creates them; names take `topic_prefix`. [The contract](contract.md)",
            "says what is promised of their messages, [architecture](architecture.md) how they come about.",
            "",
            "| topic | partitions | purpose | schemas | configuration |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


PAGES = {
    "settings.md": settings_page,
    "commands.md": commands_page,
    "metrics.md": metrics_page,
    "topics.md": topics_page,
    "asyncapi.yml": asyncapi_page,
}


def main() -> int:
    """Write the pages; with `--check`, return 1 where one is not as the code says."""
    stale = []
    for name, page in PAGES.items():
        path, text = HERE / name, page()
        if "--check" in sys.argv:
            if not path.is_file() or path.read_text() != text:
                stale.append(name)
        else:
            path.write_text(text)
    if stale:
        print(f"not as the code says, run `make docs`: {', '.join(stale)}")  # noqa: T201
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
