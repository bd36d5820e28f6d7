"""What the batch jobs show a person: tables and sentences for a terminal."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from models.card import Card
from models.explain import Importance
from models.metrics import METRICS
from streams.batch import Summary
from streams.explaining import Told
from streams.state_config import Counters

CAUSES_SHOWN = 3
_ANSWERS = {True: "drift", False: "no drift", None: "cannot tell"}


def summary_report(summary: Summary) -> Iterator[RenderableType]:
    """Yield what a backfill found: lines by what became of them, windows, verdicts, decisions."""
    yield counters_line(summary.counters)
    if not summary.windows:
        yield Text("no window: the input has no lines")
        return
    yield Text(f"{len(summary.windows)} windows, {_date(summary.windows[0])} to {_date(summary.windows[-1])}")
    yield Text("states: " + ", ".join(f"{state} from {_date(end)}" for end, state in summary.states))
    if summary.drifts:
        yield _drifts_table(summary.drifts)
    else:
        yield Text("no window with a verdict of drift")
    if summary.decisions:
        yield _decisions_table(summary.decisions)
    else:
        yield Text("no decision about a model")
    if summary.missing_models:
        yield Text(f"decided on, but not in the registry: {', '.join(summary.missing_models)}")


def counters_line(counters: Counters) -> Text:
    """Return the balance of the records, one line."""
    c = counters
    return Text(
        f"records read {c.read:,} = on time {c.on_time:,} + late {c.late:,} + duplicate {c.duplicate:,}"
        f" + control {c.control:,} + dead {c.dead:,}"
    )


def detection_report(result: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what `clv-drift detect` found, given `Detection.to_dict()`, with `evidently` if that ran."""
    yield Text(
        f"window to {_date(result['window_end'])} ({result['customers']:,} customers) against the reference"
        f" of model {result['model_version']}, to {_date(result['reference_end'])}"
    )
    table = Table("detector", "verdict", "statistic", "threshold", "columns", "causes")
    for name, verdict in result["verdicts"].items():
        table.add_row(*map(Text, _verdict_cells(name, verdict)))
    if "evidently" in result:
        table.add_row(*map(Text, _evidently_cells(result["evidently"])))
    yield table
    if result["window_end"] == result["reference_end"]:
        yield Text(
            "note: the window ends where the reference does; of the same input, it is the reference itself"
        )
    yield Text(f"{result['acting_detector']}: {_ANSWERS[result['drift']]}")


def _verdict_cells(name: str, verdict: Mapping[str, Any]) -> Iterator[str]:
    yield name
    yield _ANSWERS[verdict["drift"]]
    yield _figure(verdict["statistic"])
    yield _figure(verdict["threshold"])
    yield f"{verdict['drifted_columns']} of {verdict['columns']}"
    yield verdict["reason"] or causes_text(verdict["causes"], shown=None)


def _evidently_cells(summary: Mapping[str, Any]) -> Iterator[str]:
    columns = summary["columns"]
    yield "evidently"
    yield _ANSWERS[summary["dataset_drift"]]
    yield _figure(summary["share"])
    yield _figure(summary["drift_share"])
    yield f"{summary['drifted_columns']} of {len(columns)}"
    yield ", ".join(sorted(name for name, column in columns.items() if column["drift"]))


def causes_text(causes: Iterable[Mapping[str, Any]], *, shown: int | None = CAUSES_SHOWN) -> str:
    """Return the first causes in words, such as `Monetary (+12.3 currency)`."""
    listed = list(causes)
    texts = [
        f"{cause['feature']}{cause['segment'] and ' of ' + cause['segment']}"
        f" ({cause['effect']:+.4g} {cause['unit']})"
        for cause in listed[:shown]
    ]
    more = len(listed) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more else "")


def metrics_table(metrics: Mapping[str, float | None]) -> Table:
    """Return the measures of a model on its hold-out customers."""
    table = Table("measure", "hold-out")
    for name in METRICS:
        table.add_row(name, _figure(metrics.get(name)))
    return table


def cards_table(cards: Iterable[Card], damaged: Mapping[str, str]) -> Table:
    """Return the versions of a registry, oldest first, then the damaged ones with the reason."""
    table = Table(Column("version", no_wrap=True), "as of", "estimator", "nMAE", "Gini", "gate", box=SIMPLE)
    for card in cards:
        gate = "by hand" if card.gate is None else ("promoted" if card.gate["promoted"] else "kept")
        table.add_row(
            card.version,
            _date(card.requested_at) if card.requested_at else "-",
            Text(card.estimator),
            _figure(card.metrics.get("nmae")),
            _figure(card.metrics.get("gini")),
            gate,
        )
    for version, reason in damaged.items():
        table.add_row(version, "damaged", Text(reason))
    return table


def card_report(card: Card) -> Iterator[RenderableType]:
    """Yield the card of a version."""
    training = card.training
    facts = {
        "version": card.version,
        "estimator": f"{card.estimator}, seed {card.seed}",
        "horizon": f"{card.horizon_days} days",
        "trained on": f"windows {_date(training.first_window_end)} to {_date(training.last_window_end)},"
        f" {training.rows:,} rows of {training.customers:,} customers",
        "as of": card.requested_at or "-",
        "parent": card.parent or "-",
        "level": f"{card.level:g}" + (f" times the fit of {card.recalibrates}" if card.recalibrates else ""),
        "answers a drift of": _date(card.onset) if card.onset else "-",
        "gate": card.gate["reason"] if card.gate else "none: trained by hand",
        "features": ", ".join(card.features),
        "libraries": ", ".join(f"{name} {version}" for name, version in sorted(card.libraries.items())),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(name, Text(value))
    yield table
    yield metrics_table(card.metrics)
    if card.importance:
        yield importance_table(card.importance)


def importance_table(found: Iterable[Importance]) -> Table:
    """Return what a model lives on: how much worse it does where a topic's values are shuffled."""
    table = Table("what the model looks at", "nMAE without it", "Gini without it")
    for item in found:
        table.add_row(item.topic, f"{item.nmae_rise:+.3f}", f"{-item.gini_loss:+.3f}")
    return table


def explanation_report(told: Told) -> Iterator[RenderableType]:
    """Yield a customer's prediction taken apart, in currency units."""
    found = told.explanation
    span = ""
    if told.low is not None and told.high is not None and told.coverage is not None:
        span = f" ({told.coverage:.0%} of customers alike: {told.low:,.0f} to {told.high:,.0f})"
    yield Text(
        f"customer {told.customer} at {_date(told.window_end)}, by model {told.version}:"
        f" {found.prediction:,.2f} over the next {told.horizon_days} days{span}"
    )
    table = Table("", Column("by", justify="right"), "this customer", "a typical one", box=SIMPLE)
    table.add_row(f"average customer, of {found.customers:,}", f"{found.average:,.2f}")
    for part in found.parts:
        table.add_row(
            part.topic, f"{part.effect:+,.2f}", Text(_values(part.values)), Text(_values(part.typical))
        )
    table.add_row("this customer", f"{found.prediction:,.2f}", style="bold")
    yield table
    formula = f"{told.original_value:,.0f} by the original system's formula, which decides nothing here"
    yield Text(formula, style="dim")


def _values(values: Mapping[str, float | str]) -> str:
    told = (f"{value:,.4g}" if isinstance(value, float) else value for value in values.values())
    return ", ".join(f"{name} {value}" for name, value in zip(values, told, strict=True))


def card_differences(card: Card, other: Card) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two cards differ, nested ones as `metrics.nmae`, each with both values.

    What the gate saw and the hashes of files are left out: each version has its own.
    """
    left, right = (dict(_flat(msgspec.to_builtins(one))) for one in (card, other))
    names = [*left, *(name for name in right if name not in left)]
    passed_over = ("gate.", "gate", "artefacts.")
    return {
        name: (left.get(name), right.get(name))
        for name in names
        if left.get(name) != right.get(name) and not name.startswith(passed_over)
    }


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def differences_table(version: str, other: str, found: Mapping[str, tuple[Any, Any]]) -> Table:
    """Return the differences of two cards, as `card_differences` found them."""
    table = Table("", Column(version), Column(other))
    for name, values in found.items():
        table.add_row(Text(name), *(Text(_told(value)) for value in values))
    return table


def _told(value: Any) -> str:
    if isinstance(value, float):
        return _figure(value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _drifts_table(drifts: Iterable[tuple[str, Mapping[str, Any]]]) -> Table:
    table = Table("window end", "detector", "causes", title="windows with drift", title_justify="left")
    for end, verdicts in drifts:
        for name, verdict in verdicts.items():
            figures = f"{_figure(verdict['statistic'])} against {_figure(verdict['threshold'])}"
            table.add_row(_date(end), name, Text(causes_text(verdict["causes"]) or figures))
    return table


def _decisions_table(decisions: Iterable[Mapping[str, Any]]) -> Table:
    table = Table("asked at", "outcome", "version", "reason", title="decisions", title_justify="left")
    for decision in decisions:
        version = decision["version"] or "-"
        table.add_row(_date(decision["window_end"]), decision["outcome"], version, Text(decision["reason"]))
    return table


def _date(moment: str) -> str:
    """Return the day of a window end, which is a midnight."""
    return moment[:10]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
