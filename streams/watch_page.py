"""The terminal view as Rich renderables.

Whatever comes from a topic is put into `Text`, never into markup, and stripped of control characters: a
customer or a feature may be named anything, the terminal must not obey it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from streams.decisions import Decision, Outcome
from streams.texts import clean
from streams.watch_model import Comparison, Performance, View, Window

WIDE = 120  # columns from which more is shown
STATE_STYLES = {"quiet": "green", "suspected": "yellow", "confirmed": "bold red", "resolved": "cyan"}
OUTCOME_STYLES = {Outcome.PROMOTED: "green", Outcome.ROLLED_BACK: "yellow", Outcome.EXPIRED: "red"}
WINDOWS_MAX = 12
WINDOWS_MIN = 3
OTHER_ROWS = 21  # of the page beside the windows: frames, headings, the other parts


class Page:
    """The whole view; fits the width, and the height if it is given (rows)."""

    def __init__(self, view: View, *, place: str, height: int | None = None) -> None:
        self.view = view
        self.place = place
        self.height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts from top to bottom."""
        wide = options.max_width >= WIDE
        shown = WINDOWS_MAX if self.height is None else max(WINDOWS_MIN, self.height - OTHER_ROWS)
        view = self.view
        yield _heading(view, self.place)
        if view.waiting_for:
            yield Text(f"waiting: {clean(view.waiting_for)}", style="yellow")
        yield Panel(_feed(view, wide=wide), title="feed", title_align="left")
        if view.open_warnings:
            yield _warnings(view)
        yield Panel(_windows(view, min(shown, WINDOWS_MAX), wide=wide), title="windows", title_align="left")
        yield Panel(_model(view, wide=wide), title="model", title_align="left")


def day(time: int | None) -> str:
    """Return the date of epoch seconds, UTC, or a dash."""
    return "-" if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")


def _minute(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")


def _heading(view: View, place: str) -> Text:
    text = Text("clv-drift", style="bold", no_wrap=True, overflow="ellipsis")
    text.append(f"  {clean(place)}", style="dim")
    if view.latest is not None:
        state = view.latest.state
        text.append("  ").append(clean(state), style=STATE_STYLES.get(state, "white"))
        if view.onset is not None:
            text.append(f" since {day(view.onset)}")
    if view.unreadable:
        text.append(f"  {view.unreadable} unreadable messages", style="red")
    return text


def _feed(view: View, *, wide: bool) -> RenderableType:
    feed = view.feed
    if not feed.records:
        return Text("no transactions yet: `clv-drift replay` writes some", style="yellow")
    rate = feed.rate
    arriving = "measuring" if rate is None else f"{rate:,.0f}/s"
    parts = [Text(f"{feed.records:,} records in the topic, {arriving} arriving, {feed.unread:,} unread")]
    if not feed.heads:
        return Group(*parts, Text("no checkpoint yet: `clv-drift worker` reads the topic", style="yellow"))
    counters = feed.counters
    fates = Text(f"read {counters.read:,} = {counters.on_time:,} on time")
    for name, style in (("late", "yellow"), ("duplicate", ""), ("control", ""), ("dead", "red")):
        count = getattr(counters, name)
        fates.append(" + ").append(f"{count:,} {name}", style=style if count else "")
    parts.append(fates)
    watermarks = feed.watermarks()
    known = [time for time in watermarks.values() if time is not None]
    line = Text(f"event time complete up to {_minute(min(known))}" if known else "event time not known yet")
    if wide:
        each = ", ".join(f"{p}: {day(time)}" for p, time in watermarks.items())
        line.append(f"   by partition {each}", style="dim")
    elif len(set(known)) > 1:
        line.append(f", the fastest partition to {_minute(max(known))}", style="dim")
    parts.append(line)
    missing = sorted(feed.ends.keys() - feed.heads.keys())
    if missing:
        names = ", ".join(map(str, missing))
        parts.append(Text(f"no checkpoint yet of partition {names}: windows wait for it", style="yellow"))
    return Group(*parts)


def _warnings(view: View) -> Text:
    """Return the newest early warning of the open window in a line, and how many there are."""
    found = view.open_warnings
    newest = found[-1]
    told = ", ".join(
        f"{clean(name)} {change:+.0%} since {clean(onset)}" for name, change, onset in newest.findings
    )
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("early warning", style="yellow")
    text.append(f" of {clean(newest.day)}, partition {newest.partition}: {told}")
    return text.append(f"; {len(found)} in the open window" if len(found) > 1 else "", style="dim")


def _windows(view: View, shown: int, *, wide: bool) -> RenderableType:
    if not view.windows:
        return Text("no window evaluated yet: the first closes after a week of event time", style="yellow")
    columns = [
        Column("week to", no_wrap=True, min_width=10),
        Column("state", no_wrap=True, min_width=9),
        Column("drift", no_wrap=True, min_width=5),
        Column("Evidently", no_wrap=True, min_width=9),
        Column("buyers", justify="right", no_wrap=True, min_width=6),
    ]
    if wide:
        columns += [
            Column("lines", justify="right", no_wrap=True),
            Column("R2", justify="right", no_wrap=True),
            Column("model", no_wrap=True, max_width=10),
            Column("asks for", no_wrap=True),
        ]
    columns.append(
        Column("strongest causes" if wide else "cause", no_wrap=True, overflow="ellipsis", ratio=1)
    )
    table = Table(*columns, box=None, expand=True, pad_edge=False, padding=(0, 1, 0, 0))
    for end in sorted(view.windows, reverse=True)[:shown]:
        table.add_row(*_window_row(view.windows[end], view.comparisons.get(end), wide=wide))
    return table


def _window_row(window: Window, compared: Comparison | None, *, wide: bool) -> Iterator[Text]:
    yield Text(day(window.window_end) + ("*" if window.partial else ""))
    yield Text(clean(window.state), style=STATE_STYLES.get(window.state, "dim"))
    yield _verdict(window.drift)
    yield _comparison(compared)
    yield Text(f"{window.customers:,}")
    if wide:
        yield Text(f"{window.lines_week:,}")
        yield Text(_r2(window))
        yield Text(clean(window.model_version or "-"))
        yield Text("" if window.action == "none" else clean(window.action), style="yellow")
    yield _causes(window, 3 if wide else 1)


def _verdict(drift: bool | None) -> Text:
    if drift is None:
        return Text("-", style="dim")
    return Text("yes", style="red") if drift else Text("no", style="green")


def _comparison(compared: Comparison | None) -> Text:
    if compared is None:
        return Text("waiting", style="dim")
    if compared.drift is None:
        return Text({"no_reference": "-"}.get(compared.status, clean(compared.status)), style="dim")
    word = "yes" if compared.drift else "no"
    return Text(
        f"{word} {compared.drifted_columns}/{compared.columns}", style="red" if compared.drift else "green"
    )


def _r2(window: Window) -> str:
    """Return R2 over the shortest horizon that has one; an estimate has a tilde."""
    for days in sorted(window.performance):
        figures = window.performance[days]
        if figures.r2 is not None:
            return ("" if figures.matured else "~") + f"{figures.r2:.2f}"
    return "-"


def _causes(window: Window, shown: int) -> Text:
    if not window.drift:
        return Text(clean(window.reason), style="dim")
    told = []
    for cause in window.causes[:shown]:
        where = f" {clean(cause.segment)}" if cause.segment else ""
        told.append(
            f"{clean(cause.feature)} {cause.effect:+.3g} {clean(cause.unit)}{where} ({cause.scale_weeks} w)"
        )
    return Text("; ".join(told))


def _model(view: View, *, wide: bool) -> RenderableType:
    latest = view.latest
    parts: list[RenderableType] = []
    if latest is None or latest.model_version is None:
        parts.append(Text("no model serves yet: the first is trained on the reference weeks", style="yellow"))
    else:
        line = Text(f"champion {clean(latest.model_version)} since {day(view.serving_since)}")
        for days in sorted(latest.performance):
            line.append(_performance(days, latest.performance[days]))
        parts.append(line)
    if latest is not None and latest.model_refused:
        parts.append(Text(f"a model was refused: {clean(latest.model_refused)}", style="red"))
    parts += [
        Text(
            f"asked for a model at {clean(asked.window_end)[:10]} ({clean(asked.state)}),"
            f" takes effect {clean(asked.effective_from)[:10]}: waiting for `clv-drift retrain`",
            style="yellow",
        )
        for asked in view.pending[-2:]
    ]
    parts += [_decision(decision) for decision in list(view.last_decisions)[-1 if not wide else -3 :][::-1]]
    if not view.last_decisions and not view.pending:
        parts.append(Text("no decision about a model yet", style="dim"))
    return Group(*parts)


def _performance(days: int, figures: Performance) -> str:
    """Return the two figures that people ask for, over one horizon."""
    if not figures.matured:
        return f", {days} d: no labels yet"
    told = [
        f"{name} {value:.2f}"
        for name, value in (("nMAE", figures.nmae), ("R2", figures.r2))
        if value is not None
    ]
    return f", {days} d: {' '.join(told) or 'undefined'}"


def _decision(decision: Decision) -> Text:
    text = Text(f"{day(decision.window_end)} ")
    text.append(decision.outcome.value, style=OUTCOME_STYLES.get(decision.outcome, "white"))
    if decision.version is not None:
        text.append(f" {clean(decision.version)}")
    # A reason often begins with the outcome.
    reason = clean(decision.reason).removeprefix(decision.outcome.value).lstrip(":, ")
    return text.append(f": {reason}")
