"""Logs: one JSON object a line, or a readable line, from our modules and the libraries alike."""

import asyncio
import json
import logging
import math
import os
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from streams.errors import UserError
from streams.settings import ENV_PREFIX, Settings

# Libraries that report every rebalance and request; heard from WARNING on, unless all is DEBUG.
NOISY = ("faust", "mode", "aiokafka", "kafka", "asyncio", "evidently", "urllib3")
HIDDEN = "[hidden]"

_SECRET_KEY = re.compile(r"password|passwd|secret|token|credential|authori[sz]ation|api_?key", re.IGNORECASE)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FIRST = ("timestamp", "level", "process", "pid", "logger", "event")


def configure(settings: Settings, *, process: str, stream: TextIO | None = None) -> None:
    """Send every log of this process to `stream` (stderr), in the form that `settings.log_format` asks for.

    Processes that go on for good give stdout, which has nothing else to say there.

    A JSON line has `timestamp` (UTC, ISO 8601), `level`, `process`, `pid`, `logger`, `event`, the keys of the
    call, and where there was an exception its traceback as `exception`. Exceptions that nobody catches, in
    the main thread, in others and in asyncio, are logged too. May be called again; the last call holds.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _Process(process),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[ProcessorFormatter.remove_processors_meta, *_rendering(settings.log_format, stream)],
    )
    handler = (_ForPrograms if settings.log_format == "json" else logging.StreamHandler)(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    quiet = max(logging.WARNING, root.level) if root.level > logging.DEBUG else logging.NOTSET
    for name in NOISY:
        noisy = logging.getLogger(name)
        noisy.handlers.clear()  # some install their own at import; theirs would say everything twice
        noisy.propagate = True
        noisy.setLevel(quiet)
    logging.captureWarnings(capture=True)
    _catch_uncaught()


class _ForPrograms(logging.StreamHandler[TextIO]):
    """The handler where nobody but programs reads the log: the settings ask for JSON by name."""


def tell_end(error: UserError) -> bool:
    """Log what ended this process, where only programs read its log; return whether it is so.

    Before `configure` the environment says it, so that a refused setting is logged too.
    """
    told = {"reason": error.message, "hint": error.hint, "exit_code": int(error.code)}
    if any(isinstance(handler, _ForPrograms) for handler in logging.getLogger().handlers):
        structlog.get_logger(__name__).critical("ended", **told)
        return True
    if os.environ.get(f"{ENV_PREFIX}LOG_FORMAT") != "json":
        return False
    line = {
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "level": "critical",
        "process": next(iter(sys.argv[1:]), ""),
        "pid": os.getpid(),
        "logger": __name__,
        "event": "ended",
        **told,
    }
    sys.stdout.write(_to_json(None, "", _hide(None, "", line)) + "\n")
    sys.stdout.flush()
    return True


def watch_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Log what tasks and callbacks of `loop` raise and nobody awaits, with its context as keys."""

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        told = {key: str(value) for key, value in context.items() if key not in {"exception", "message"}}
        structlog.get_logger(__name__).error(
            "uncaught in asyncio", reason=context.get("message", ""), exc_info=exc, **told
        )

    loop.set_exception_handler(report)


class _Process:
    """Says which process a line is from."""

    def __init__(self, process: str) -> None:
        self.process = process

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["process"] = self.process
        event["pid"] = os.getpid()  # asked each time: a forked child is another process
        return event


def _rendering(log_format: str, stream: TextIO) -> list[Processor]:
    if log_format == "console" or (log_format == "auto" and stream.isatty()):
        # An escape sequence from a message must not reach the terminal.
        return [
            _hide,
            _visible,
            # Without the values of local variables, which the default prints.
            ConsoleRenderer(colors=stream.isatty(), pad_event_to=30, exception_formatter=plain_traceback),
        ]
    return [structlog.processors.format_exc_info, _hide, _to_json]


def _hide(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Blank out what is named like a secret, and the login in a URL."""
    return {key: _hidden(key, value) for key, value in event.items()}


def _hidden(key: object, value: Any) -> Any:
    if isinstance(key, str) and _SECRET_KEY.search(key) and value is not None:
        return HIDDEN
    if isinstance(value, str):
        return _URL_LOGIN.sub(HIDDEN, value)
    if isinstance(value, dict):
        return {inner: _hidden(inner, item) for inner, item in value.items()}
    if isinstance(value, list):
        return [_hidden(None, item) for item in value]
    return value


def _visible(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace control characters in texts; tracebacks are added by the renderer, after this."""
    return {key: _CONTROL.sub("\ufffd", v) if isinstance(v, str) else v for key, v in event.items()}


def _to_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    ordered = {key: event[key] for key in _FIRST if key in event} | dict(event)
    # Plain ASCII: every separator that some reader takes for the end of a line is escaped.
    return json.dumps(_plain(ordered), ensure_ascii=True, allow_nan=False)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; what JSON does not know becomes text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value)


def _catch_uncaught() -> None:
    """Log exceptions that end the process or one of its threads."""
    log = structlog.get_logger(__name__)

    def ended(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, exc, trace)
        else:
            log.critical("uncaught exception", exc_info=(kind, exc, trace))

    def thread_ended(args: threading.ExceptHookArgs) -> None:
        if issubclass(args.exc_type, SystemExit):
            return
        exc = args.exc_value or args.exc_type()
        name = args.thread.name if args.thread else None
        log.critical(
            "uncaught exception in a thread",
            thread=name,
            exc_info=(args.exc_type, exc, args.exc_traceback),
        )

    def unraisable(args: Any) -> None:
        log.error("exception ignored", where=repr(args.object), exc_info=args.exc_value)

    sys.excepthook = ended
    threading.excepthook = thread_ended
    sys.unraisablehook = unraisable
