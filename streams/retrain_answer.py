"""One request answered from the topic of snapshots: what the child of the retrain consumer does."""

from collections.abc import Callable, Iterable

import structlog

from models.features import DAY_S
from models.registry import Registry
from streams.backfill import store
from streams.carry import Request
from streams.decisions import Decision
from streams.grid import iso
from streams.history import History
from streams.joining import Joiner
from streams.retention import retained_s
from streams.retrain_child import kept
from streams.retraining import answer_request
from streams.settings import Settings
from streams.snapshots import decode_chunk
from streams.topic_reader import read_all
from streams.topics import catalogue

log = structlog.get_logger(__name__)


class WindowNotThereError(Exception):
    """The topic does not hold the window of a request yet."""


class NoSuchWindowError(Exception):
    """The topic went on beyond the window of a request without ever holding it."""


def decide(settings: Settings, request: Request) -> Decision:
    """Return the decision on `request`; a model that was trained for it is in the registry then.

    Raises WindowNotThereError, UserError where the topic cannot be read, RegistryError where the model cannot
    be stored.
    """
    registry = Registry(settings.registry_dir)
    try:
        history = _read_history(settings, request.requested_at)
    except NoSuchWindowError as exc:
        return kept(request, str(exc))
    return store(answer_request(history, request, registry.load, settings), registry)


def history_until(
    window_end: int, values: Iterable[bytes | None], settings: Settings, refuse: Callable[[str], None]
) -> History:
    """Return the history that the messages `values` of the topic make, up to `window_end` (epoch seconds).

    It ends with that window and begins with the first that a request there trains on, so the memory does not
    grow with the topic. `refuse` is told why of each message that is no snapshot. Raises
    WindowNotThereError, NoSuchWindowError.
    """
    joiner = Joiner(settings.partitions, settings.sample_customers_max)
    history = History()
    for value in values:
        if value is None:
            continue
        try:
            joiner.add(decode_chunk(value))
        except ValueError as exc:
            refuse(str(exc))
            continue
        for snapshot in joiner.pop():
            if snapshot.window_end > window_end:
                raise NoSuchWindowError(f"the snapshots hold no window {iso(window_end)}")
            history.add(snapshot)
            _forget(history, settings)
            if snapshot.window_end == window_end:
                return history
    raise WindowNotThereError(f"the snapshots do not reach {iso(window_end)} yet")


def _forget(history: History, settings: Settings) -> None:
    """Drop the windows that no answer at the latest window, or at a later one, looks at.

    Those to train on are counted in windows that have matured: a week without a line has no window.
    """
    at = history.latest.window_end
    matured = history.matured(horizon_s=settings.horizon_days * DAY_S, at=at)
    if len(matured) > settings.training_windows_max:
        oldest = matured[-settings.training_windows_max]
        history.forget(min(oldest, at - retained_s(settings)), keep=set())


def _read_history(settings: Settings, window_end: int) -> History:
    topic = catalogue(settings).snapshots.name
    return history_until(
        window_end,
        (record.value for record in read_all(settings, topic)),
        settings,
        lambda reason: log.error("snapshot message refused", reason=reason),
    )
