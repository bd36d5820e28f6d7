"""What a demo tells: a line a window on the way, a summary at the end."""

from collections.abc import Callable

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from models.features import DAY_S
from producers.scenarios import Scenario, parse
from streams.decisions import Decision, Outcome
from streams.grid import iso
from streams.settings import Settings
from streams.watch_model import View, Window


class Narrator:
    """Prints what is new in a view, for consoles that are no terminal."""

    def __init__(self, view: View, say: Callable[[str], None]) -> None:
        self._view = view
        self._say = say
        self._told = -1
        self._decisions: set[str] = set()

    def tell(self) -> None:
        """Print the windows and decisions that came since the last call."""
        for end in sorted(self._view.windows):
            if end > self._told:
                self._told = end
                self._say(describe(self._view.windows[end]))
        for request, (_, decision) in list(self._view.decisions.by_request.items()):
            if request not in self._decisions:
                self._decisions.add(request)
                self._say(f"  decision: {decision.reason}")


def describe(window: Window) -> str:
    """Return a window in one line."""
    words = [iso(window.window_end)[:10], f"{window.state:<9}", f"{window.customers:>6,} customers"]
    if window.causes:
        first = window.causes[0]
        words.append(f"{first.feature} {first.effect:+.3g} {first.unit}")
    elif window.drift is None and window.reason:
        words.append(window.reason)
    if window.model_version:
        words.append(f"model {window.model_version[:8]}")
    if window.action != "none":
        words.append(f"-> {window.action}")
    if window.partial:
        words.append("(the input ends within this window)")
    return "  ".join(words)


def summary(view: View, inject: tuple[str, ...], settings: Settings) -> Group:
    """Return what happened: windows, verdicts, when each injected change was seen, models, reports."""
    windows = [view.windows[end] for end in sorted(view.windows)]
    states = {
        state: sum(w.state == state for w in windows) for state in dict.fromkeys(w.state for w in windows)
    }
    counters = view.feed.counters
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        "lines",
        f"{counters.read:,} read: {counters.on_time:,} on time, {counters.late:,} late, "
        f"{counters.duplicate:,} duplicate, {counters.control:,} control, {counters.dead:,} dead",
    )
    table.add_row("windows", f"{len(windows)}: " + ", ".join(f"{n} {state}" for state, n in states.items()))
    for text in inject:
        table.add_row("injected", escape(f"{text}: {_seen(parse(text), windows)}"))
    for decision in (found for _, found in view.decisions.by_request.values()):
        table.add_row("model", escape(_decided(decision)))
    compared = sum(1 for c in view.comparisons.values() if c.status == "compared")
    drifted = sum(1 for c in view.comparisons.values() if c.drift)
    behind = len(windows) - len(view.comparisons)
    table.add_row(
        "Evidently",
        f"{compared} windows compared, drift in {drifted}" + (f"; {behind} windows behind" if behind else ""),
    )
    table.add_row("reports", escape(str(settings.reports_dir)))
    table.add_row("models in", escape(str(settings.registry_dir)))
    return Group(Text("\nThe demo is through.", style="bold"), table)


def _seen(scenario: Scenario, windows: list[Window]) -> str:
    """Return when a change was first confirmed with one of its features among the causes."""
    for window in windows:
        if window.window_end <= scenario.onset or window.state != "confirmed":
            continue
        matching = [cause for cause in window.causes if cause.feature in FEATURES_OF[scenario.kind.value]]
        if matching:
            weeks = (window.window_end - scenario.onset) / (7 * DAY_S)
            cause = matching[0]
            return (
                f"confirmed at {iso(window.window_end)[:10]}, {weeks:.0f} weeks later, by {cause.feature} "
                f"{cause.effect:+.3g} {cause.unit}"
            )
    return "not seen"


# What each kind of change moves first.
FEATURES_OF: dict[str, frozenset[str]] = {
    "price": frozenset({"AvgUnitPrice", "Monetary"}),
    "churn": frozenset({"Recency", "Frequency", "NumOrders"}),
    "newcomers": frozenset({"Recency", "Frequency", "NumOrders"}),
    "whales": frozenset({"TotalQuantity", "AvgQuantity", "Monetary"}),
    "country": frozenset({"Country"}),
    "basket": frozenset({"Frequency", "NumProducts", "TotalQuantity", "Monetary"}),
    "orders": frozenset({"Recency", "Frequency", "NumOrders", "Monetary"}),
}


def _decided(decision: Decision) -> str:
    day = iso(decision.window_end)[:10]
    version = f" {decision.version}" if decision.outcome is Outcome.PROMOTED else ""
    return f"{day}{version} {decision.reason}"
