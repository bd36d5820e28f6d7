"""All of it on one machine: broker, topics, worker, retrain consumer, replay, view, and a summary."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from producers.demo_story import Narrator, summary
from streams.embedded_kafka import EmbeddedKafka
from streams.errors import ExitCode, UserError
from streams.kafka_process import free_port, require_free
from streams.processes import Child, environment_of, stop_all
from streams.settings import Settings, load_settings
from streams.topic_admin import ensure_topics
from streams.watch import open_reader
from streams.watch_model import View
from streams.watch_page import Page

COMPARISONS_WAIT_S = 60.0  # at the end, for Evidently to catch up
RETRAIN_WAIT_S = 120.0


@dataclass(frozen=True)
class DemoOptions:
    """What was asked for on the command line."""

    home: Path
    input_path: Path | None
    synthetic: str | None
    speed: str
    inject: tuple[str, ...]
    fresh: bool


def run(options: DemoOptions, console: Console) -> int:
    """Run the demo until its input is through, or until it is interrupted; return the exit code."""
    home = options.home.resolve()
    if options.fresh and home.exists():
        shutil.rmtree(home)
    (home / "logs").mkdir(parents=True, exist_ok=True)
    console.print(f"everything of this demo lies in {home}", highlight=False, markup=False)
    with EmbeddedKafka(home / "kafka", load_settings().kafka_cache_dir.resolve()) as kafka:
        settings = _settings(home, kafka.bootstrap_servers)
        differences = ensure_topics(settings)
        if differences:
            raise UserError(
                "the topics of an earlier demo do not fit: " + "; ".join(map(str, differences)),
                hint="`clv-drift demo --fresh` begins anew",
                code=ExitCode.STATE,
            )
        console.print(
            f"live page http://{settings.web_host}:{settings.worker_port}/, Kafka {kafka.bootstrap_servers},"
            f" metrics http://{settings.web_host}:{settings.worker_port}/metrics"
            f" and http://{settings.web_host}:{settings.retrain_port}/metrics",
            highlight=False,
            markup=False,
        )
        with _children(options, settings, home / "logs") as children:
            view = _follow(settings, children, console)
    console.print(summary(view, options.inject, settings))
    return ExitCode.OK


def _settings(home: Path, bootstrap_servers: str) -> Settings:
    base = load_settings()
    return load_settings(
        bootstrap_servers=bootstrap_servers,
        kafka_dir=home / "kafka",
        registry_dir=home / "registry",
        reports_dir=home / "reports",
        worker_port=_port(base.worker_port),
        retrain_port=_port(base.retrain_port),
    )


def _port(wanted: int) -> int:
    """Return `wanted` if it is free, else a free one: a demo does not fail for a port."""
    try:
        require_free(wanted)
    except UserError:
        return free_port()
    return wanted


@contextmanager
def _children(options: DemoOptions, settings: Settings, logs: Path) -> Iterator[dict[str, Child]]:
    """Give the running processes; end them all, whatever happens."""
    env = environment_of(settings)
    what = [str(options.input_path.resolve())] if options.input_path else []
    if options.synthetic is not None:
        what = ["--synthetic", options.synthetic]
    injections = [word for spec in options.inject for word in ("--inject", spec)]
    children: dict[str, Child] = {}
    try:
        for name, arguments in (
            ("worker", []),
            ("retrain", []),
            ("replay", [*what, "--resume", "--speed", options.speed, *injections]),
        ):
            children[name] = Child.start([name, *arguments], env=env, log_path=logs / f"{name}.log")
        yield children
    finally:
        stop_all(list(children.values()))


def _follow(settings: Settings, children: dict[str, Child], console: Console) -> View:
    """Show what happens until everything is through; raises UserError where a process ends that must not."""
    view = View(settings.acting_detector)
    ending = _Ending(settings, children, view)
    with open_reader(settings, view) as reader:
        if console.is_terminal:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                while not ending.reached():
                    reader.step()
                    live.update(Page(view, place="demo; Ctrl-C ends it", height=console.height), refresh=True)
        else:
            narrator = Narrator(view, lambda text: console.print(escape(text), highlight=False))
            while not ending.reached():
                reader.step()
                narrator.tell()
    return view


class _Ending:
    """Knows when a demo is through: all lines evaluated, no decision awaited, Evidently up to date."""

    def __init__(self, settings: Settings, children: dict[str, Child], view: View) -> None:
        self._settings = settings
        self._children = children
        self._view = view
        self._quiet_since: float | None = None
        self._clock: Callable[[], float] = time.monotonic

    def reached(self) -> bool:
        """Return whether nothing more is to come."""
        for name, child in self._children.items():
            code = child.poll()
            if code is not None and (name != "replay" or code != 0):
                raise UserError(
                    f"the {name} process ended with exit code {code}: {child.last_words()}",
                    hint=f"its log is {child.log_path}",
                    code=ExitCode(code) if code in set(ExitCode) and code else ExitCode.FAILURE,
                )
        latest = self._view.latest
        sent = self._children["replay"].poll() == 0
        if not sent or latest is None or not latest.partial or self._view.feed.unread:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = self._clock()
        waited_s = self._clock() - self._quiet_since
        if self._view.pending and waited_s < RETRAIN_WAIT_S:
            return False
        compared = latest.window_end in self._view.comparisons
        return compared or waited_s >= COMPARISONS_WAIT_S
