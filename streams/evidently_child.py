"""Evidently in a process of its own: the child, and the parent's handle on it.

The child says hello once Evidently is imported, then answers one request after the other. It is started anew
by `python -m`, never forked: its parents run an event loop and threads.
"""

import asyncio
import os
import queue
import sys
import threading
import traceback
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from streams.evidently_protocol import LENGTH, ComparisonReply, ComparisonRequest, framed, from_arrow

TRIES_MAX = 3
CHILD_LOG = "evidently.log"  # in `reports_dir`
_NICENESS = 10
_HELLO = 0


class ComparisonFailed(Exception):  # noqa: N818  (says what happened to the window)
    """Evidently gave no comparison of a window; the message says what was tried and what came of it."""


class _ChildLostError(Exception):
    """The child died, fell silent or spoke nonsense."""


class EvidentlyChild:
    """The parent's handle: one child, one request at a time; a child that died is started anew.

    `timeout_s` bounds a start and a comparison; `log_path` takes what the child says on stderr.
    """

    def __init__(self, *, log_path: Path, timeout_s: float) -> None:
        self.log_path = log_path
        self.timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._number = _HELLO
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """The child's process id, None where there is none."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the child and wait until it is ready; raises ComparisonFailed where it does not get there.

        Need not be called: `compare` starts the child if there is none.
        """
        async with self._lock:
            try:
                await self._ready()
            except _ChildLostError as exc:
                raise ComparisonFailed(str(exc)) from exc

    async def compare(self, request: ComparisonRequest) -> dict[str, Any]:
        """Return the result of `streams.evidently_report.compare`.

        Raises ComparisonFailed when three tries gave none, or when the child was stopped meanwhile.
        """
        problem = ""
        async with self._lock:
            for _ in range(TRIES_MAX):
                try:
                    process = await self._ready()
                    self._number += 1
                    numbered = msgspec.structs.replace(request, number=self._number)
                    reply = await self._exchange(process, framed(numbered), self._number)
                except _ChildLostError as exc:
                    problem = str(exc)
                    continue
                if reply.result is not None:
                    return reply.result
                problem = reply.error or "the child's answer is empty"
        raise ComparisonFailed(f"no comparison in {TRIES_MAX} tries: {problem}")

    async def stop(self) -> None:
        """End the child for good, whatever it is doing; a comparison under way fails."""
        self._stopped = True
        await self._end()
        async with self._lock:  # what a start under way left behind
            await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def _ready(self) -> asyncio.subprocess.Process:
        if self._stopped:
            raise _ChildLostError("the child was stopped")
        if self._process is not None and self._process.returncode is None:
            return self._process
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal is the parent's to handle. -P: the modules of the
            # directory that the parent happens to run in are none of ours. -W: plots warn by the dozen.
            command = (sys.executable, "-P", "-W", "ignore", "-m", "streams.evidently_child")
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=log, start_new_session=True
            )
        self._process = process
        await self._exchange(process, b"", _HELLO)
        return process

    async def _exchange(
        self, process: asyncio.subprocess.Process, message: bytes, number: int
    ) -> ComparisonReply:
        """Send `message` and return the reply; ends the child on anything else, a cancellation included."""
        assert process.stdin is not None
        assert process.stdout is not None
        kept = False
        try:
            async with asyncio.timeout(self.timeout_s):
                process.stdin.write(message)
                await process.stdin.drain()
                (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
                answer = await process.stdout.readexactly(length)
            reply = msgspec.msgpack.decode(answer, type=ComparisonReply)
            kept = reply.number == number and not self._stopped
        except TimeoutError as exc:
            raise _ChildLostError(f"the child gave no answer in {self.timeout_s:g} s") from exc
        except (EOFError, OSError) as exc:
            raise _ChildLostError("the child died") from exc
        except msgspec.MsgspecError as exc:
            raise _ChildLostError(f"the child's answer cannot be read: {exc}") from exc
        finally:
            if not kept:
                await self._end()
        if not kept:
            raise _ChildLostError(f"the child answered request {reply.number} instead of {number}")
        return reply


def main() -> None:
    """Run the child until its stdin closes."""
    os.environ["DO_NOT_TRACK"] = "1"  # Evidently reports home unless told not to
    os.nice(_NICENESS)
    # The pipe is for answers alone: whatever a library prints goes to the log.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(sys.stdin.buffer, requests), daemon=True).start()

    # Ten seconds: only now, when the thread above already watches for the parent's end.
    import streams.evidently_report  # noqa: F401, PLC0415

    answers.write(framed(ComparisonReply(number=_HELLO)))
    answers.flush()
    while True:
        answers.write(framed(_answer(requests.get())))
        answers.flush()


def _read_requests(pipe: BinaryIO, requests: queue.SimpleQueue[bytes]) -> None:
    """Queue the requests of `pipe`; at its end, which is the parent's too, end the process at once."""
    while True:
        prefix = pipe.read(LENGTH.size)
        if len(prefix) < LENGTH.size:
            os._exit(0)
        (length,) = LENGTH.unpack(prefix)
        message = pipe.read(length)
        if len(message) < length:
            os._exit(0)
        requests.put(message)


def _answer(message: bytes) -> ComparisonReply:
    request = msgspec.msgpack.decode(message, type=ComparisonRequest)
    try:
        return ComparisonReply(number=request.number, result=_compare(request))
    except Exception as exc:  # noqa: BLE001  (whatever it was, the parent hears of it and the child lives on)
        traceback.print_exc()
        return ComparisonReply(number=request.number, error=f"{type(exc).__name__}: {exc}")


def _compare(request: ComparisonRequest) -> dict[str, Any]:
    from streams.evidently_report import RegressionPairs, compare  # noqa: PLC0415

    pairs = None
    if request.regression is not None:
        pairs = RegressionPairs(*(np.frombuffer(values, np.float64) for values in request.regression))
    return compare(
        from_arrow(request.current),
        from_arrow(request.reference),
        drift_share=request.drift_share,
        regression=pairs,
        html=None if request.html is None else Path(request.html),
        rows_max=request.rows_max,
        on_snapshot=partial(_fill, request),
    )


def _fill(request: ComparisonRequest, snapshot: Any) -> None:
    """Put Evidently's snapshot into its workspace, where there is one; a failure costs that run alone."""
    if request.workspace is None:
        return
    from streams.evidently_workspace import fill  # noqa: PLC0415

    try:
        fill(Path(request.workspace), request.project, request.window_end, snapshot)
    except Exception:  # noqa: BLE001  (the comparison stands; what went wrong is in the child's log)
        traceback.print_exc()


if __name__ == "__main__":
    main()
