"""Training in a process of its own: the child, and the parent's handle on it.

The child answers one request and ends, so the windows it read and the model it trained take memory only while
they are needed. It is started anew by `python -m`, never forked: its parent has threads of the Kafka client.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog

from streams.carry import Request
from streams.decisions import Decision, Outcome
from streams.errors import UserError
from streams.faults import strike
from streams.settings import Settings

log = structlog.get_logger(__name__)

_NICENESS = 10


class Job(msgspec.Struct, frozen=True):
    """What the child is told, one JSON line on its stdin: the request, and every setting of its parent."""

    request: Request
    settings: dict[str, Any]


class Answered(msgspec.Struct, frozen=True, tag=True):
    """The decision, as a CloudEvent; the model is in the registry."""

    event: dict[str, Any]


class Later(msgspec.Struct, frozen=True, tag=True):
    """Nothing is wrong with the request: what the answer needs cannot be had yet."""

    reason: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The try came to nothing."""

    reason: str


Reply = Answered | Later | Failed
_REPLY: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def kept(request: Request, reason: str) -> Decision:
    """Return the decision that no model came of `request`, so that nobody waits for one."""
    return Decision(
        outcome=Outcome.KEPT,
        reason=reason,
        window_end=request.requested_at,
        request_id=request.request_id,
        parent=request.champion,
    )


class Training:
    """The parent's handle: a context manager that starts the child and, at the end, sees that it is gone."""

    def __init__(self, settings: Settings, request: Request) -> None:
        self.settings = settings
        self.request = request

    def __enter__(self) -> Self:
        self._answer = tempfile.TemporaryFile()  # not a pipe, which might fill up unread
        self._deadline = time.monotonic() + self.settings.training_timeout_s
        # A session of its own: Ctrl-C at the terminal is the parent's to handle. -P: the modules of the
        # directory that the parent happens to run in are none of ours.
        command = (sys.executable, "-P", "-m", "streams.retrain_child")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=self._answer, start_new_session=True
        )
        job = Job(self.request, self.settings.revealed())
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # a child that died so early is noticed by `reply`
            self._process.stdin.write(msgspec.json.encode(job) + b"\n")
            self._process.stdin.flush()  # and left open: its end tells the child that the parent is gone
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._answer.close()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def reply(self) -> Reply | None:
        """Return what came of it, None while the child is at work; never blocks."""
        code = self._process.poll()
        if code is None:
            if time.monotonic() < self._deadline:
                return None
            return Failed(f"the training gave no answer in {self.settings.training_timeout_s:g} s")
        self._answer.seek(0)
        try:
            return _REPLY.decode(self._answer.read())
        except msgspec.DecodeError:
            how = f"by signal {-code}" if code < 0 else f"with code {code}"
            return Failed(f"the training process ended {how}")


def main() -> None:
    """Run the child: one job from stdin, one reply to stdout."""
    os.nice(_NICENESS)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Stdout is for the reply alone: whatever a library prints goes where the logs go.
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    settings = Settings(**job.settings)

    from streams import logs  # noqa: PLC0415

    logs.configure(settings, process="retrain-child")
    with reply:
        reply.write(msgspec.json.encode(_reply(settings, job.request)))


def _end_with_parent() -> None:
    """End this process when the parent is gone, who holds the other end of stdin and says nothing more."""
    # Not through `sys.stdin`: a thread that waits in it makes the interpreter abort at its end.
    os.read(0, 1)
    os._exit(1)


def _reply(settings: Settings, request: Request) -> Reply:
    strike(settings, "retrain-child:before_training")
    # Seconds of imports: only here, when the thread already watches for the parent's end.
    from streams.retrain_answer import WindowNotThereError, decide  # noqa: PLC0415

    try:
        return Answered(decide(settings, request).to_event(settings.event_source))
    except WindowNotThereError as exc:
        return Later(str(exc))
    except UserError as exc:  # no broker, no topic: no fault of this request
        return Later(exc.message)
    except (
        Exception
    ) as exc:  # whatever it was: the parent hears of it, tries again and then says so in public
        log.exception("training failed", request_id=request.request_id)
        return Failed(f"{type(exc).__name__}: {exc}")


if __name__ == "__main__":
    main()
