"""The batch twin of the stream: the same results from a file, written into a directory."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.registry import Registry, RegistryError, RegistryStorageError
from streams import cloudevents
from streams.backfill import DeadRecord, InputRecord, Step, run_into
from streams.decisions import DecisionLog
from streams.errors import ExitCode, UserError
from streams.output import MODELS, ResultFiles, whole_directory
from streams.settings import Settings
from streams.state_config import Counters


@dataclass
class Summary:
    """What a backfill found, in short. Window ends are in ISO 8601."""

    counters: Counters = field(default_factory=Counters)
    windows: list[str] = field(default_factory=list)
    states: list[tuple[str, str]] = field(default_factory=list)  # (window end, state) where it changed
    drifts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # (window end, verdicts of drift)
    decisions: list[dict[str, Any]] = field(default_factory=list)  # data of the events, those followed too
    missing_models: list[str] = field(default_factory=list)  # named by decisions, not usable

    def add(self, step: Step) -> None:
        """Take note of a window."""
        data = step.evaluation["data"]
        end = data["window_end"]
        self.windows.append(end)
        if not self.states or self.states[-1][1] != data["state"]:
            self.states.append((end, data["state"]))
        drifted = {name: verdict for name, verdict in data["verdicts"].items() if verdict["drift"]}
        if drifted:
            self.drifts.append((end, drifted))
        self.decisions += [event["data"] for event in step.decisions]


@dataclass
class _Both:
    """A sink that writes the files and keeps the summary."""

    files: ResultFiles
    summary: Summary
    watch: Callable[[str], None]

    def window(self, step: Step) -> None:
        self.files.window(step)
        self.summary.add(step)
        self.watch(self.summary.windows[-1])

    def dead(self, record: DeadRecord) -> None:
        self.files.dead(record)

    def warning(self, event: dict[str, Any]) -> None:
        self.files.warning(event)

    def score(self, customer: str, message: bytes) -> None:
        self.files.score(customer, message)


def backfill(
    records: Iterable[InputRecord],
    settings: Settings,
    out: Path,
    *,
    partitions: int = 1,
    followed: Path | None = None,
    force: bool = False,
    watch: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Run the whole stream over `records` and write its results into the directory `out`.

    `followed` is a file of decisions, a CloudEvent a line as in `clv.models`; the models they name are taken
    from the registry of `settings` as far as it can load them. `watch` is told each window's end. Raises
    UserError for an `out` that is taken, a file of decisions that is none, a place that cannot be written.
    """
    given = read_decisions(followed) if followed else []
    log = DecisionLog()
    summary = Summary(decisions=[event["data"] for event in given])
    with whole_directory(out, force=force) as part, registry_errors():
        registry = Registry(part / MODELS)
        with ResultFiles(part, settings) as files:
            for position, event in enumerate(given):
                log.add(position, event)
                files.decision(event)
            summary.missing_models = _copy_models(log, Registry(settings.registry_dir), registry)
            sink = _Both(files, summary, watch)
            summary.counters = run_into(sink, records, settings, registry, partitions=partitions, log=log)
    c = summary.counters
    assert c.read == c.on_time + c.late + c.duplicate + c.control + c.dead, "a record was dropped silently"
    return summary


def read_decisions(path: Path) -> list[dict[str, Any]]:
    """Return the decisions in a file of CloudEvents, one a line; UserError (INPUT) where it is none."""
    events: list[dict[str, Any]] = []
    try:
        with path.open("rb") as file:
            for line in file:
                event = cloudevents.decode(line)
                DecisionLog().add(0, event)  # raises ValueError where it is no decision
                events.append(event)
    except OSError as exc:
        raise UserError(f"{path} cannot be read: {exc.strerror or exc}", code=ExitCode.INPUT) from exc
    except (ValueError, KeyError) as exc:
        raise UserError(
            f"line {len(events) + 1} of {path} is no decision: {exc}",
            hint="expected are the messages of the topic of models, one a line",
            code=ExitCode.INPUT,
        ) from exc
    return events


def _copy_models(log: DecisionLog, source: Registry, target: Registry) -> list[str]:
    """Copy the models that decisions put into service; return the versions that `source` cannot load.

    Those are refused by the evaluations too, as they are on the stream.
    """
    decisions = [decision for _, decision in log.by_request.values()]
    decisions += [made.decision for made in log.by_hand.values()]
    missing = []
    for version in sorted({d.version for d in decisions if d.version is not None}):
        try:
            model, card = source.load(version)
            reference = source.load_reference(version)
        except RegistryStorageError:
            raise
        except RegistryError:
            missing.append(version)
        else:
            target.save(model, card, reference)
    return missing


@contextmanager
def registry_errors() -> Iterator[None]:
    """Turn what the registry of models refuses into a UserError: MODEL, or STORAGE for its directory."""
    try:
        yield
    except RegistryStorageError as exc:
        raise UserError(
            str(exc), hint="look at the space and the permissions there", code=ExitCode.STORAGE
        ) from exc
    except RegistryError as exc:
        raise UserError(
            str(exc), hint="`clv-drift model list` shows what is there", code=ExitCode.MODEL
        ) from exc
