"""A broker that does not answer, or refuses, as one message that the person in front can act on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from kafka.errors import KafkaError

from streams.broker_refusal import refusal
from streams.errors import ExitCode, UserError
from streams.settings import Settings

CLIENT_LOGGERS = ("kafka", "aiokafka")
SILENT = logging.CRITICAL + 1


@contextmanager
def connecting(settings: Settings) -> Iterator[None]:
    """Turn a failure to connect inside into a UserError (BROKER) that names the address tried.

    What the client logs of each attempt is kept back: the message says it once, and all that can be done.
    """
    try:
        with quiet_clients():
            yield
    except (KafkaError, OSError, ValueError) as exc:
        with quiet_clients():
            refused = refusal(settings)
        if refused is not None:
            raise UserError(refused[0], hint=refused[1], code=ExitCode.BROKER) from exc
        raise UserError(
            f"no Kafka broker answered at {settings.bootstrap_servers} within {settings.broker_wait_s:g} s",
            hint="start one (`clv-drift broker`) or set CLV_DRIFT_BOOTSTRAP_SERVERS to a running one",
            code=ExitCode.BROKER,
        ) from exc


@contextmanager
def asking(settings: Settings) -> Iterator[None]:
    """Turn what a broker refuses inside, or fails in, into a UserError (BROKER), as quietly."""
    try:
        with quiet_clients():
            yield
    except KafkaError as exc:
        raise UserError(
            f"the Kafka broker at {settings.bootstrap_servers} refused or failed: {exc}",
            hint="the broker's own log says more",
            code=ExitCode.BROKER,
        ) from exc


class _Quiet:
    """The levels of the clients' loggers while at least one block wants them silent, in whatever thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks = 0
        self._before: dict[logging.Logger, int] = {}

    def enter(self) -> None:
        """Silence the loggers, if this is the first block; those that log at DEBUG stay as they are."""
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                loggers = map(logging.getLogger, CLIENT_LOGGERS)
                self._before = {it: it.level for it in loggers if it.getEffectiveLevel() > logging.DEBUG}
                for logger in self._before:
                    logger.setLevel(SILENT)

    def leave(self) -> None:
        """Let the loggers speak as before, if this was the last block."""
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                for logger, level in self._before.items():
                    logger.setLevel(level)


_quiet = _Quiet()


@contextmanager
def quiet_clients() -> Iterator[None]:
    """Silence the logs of the Kafka clients inside; whoever logs at DEBUG wants to hear them all the same.

    Blocks may nest and overlap, in several threads too.
    """
    _quiet.enter()
    try:
        yield
    finally:
        _quiet.leave()
