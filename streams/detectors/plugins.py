"""Detectors as plug-ins: found by name among entry points, and never trusted with the stream's life."""

import copy
import re
import traceback
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec
import numpy as np
import structlog

from streams.detectors.evidently import EVIDENTLY_DETECTORS, waits_for_comparison
from streams.detectors.interface import Carry, DetectionContext, Detector, Verdict
from streams.errors import ExitCode, UserError
from streams.grid import iso
from streams.settings import Settings

log = structlog.get_logger(__name__)

GROUP = "clv_drift.detectors"
# Verdicts on models are published beside those of detectors, under these names.
RESERVED = re.compile(r"r2_drop|performance(_\d+d)?")
# An evaluation is one message of at most 1 MB, with the answers of all detectors in it.
ANSWER_BYTES_MAX = 250_000
REASON_LENGTH_MAX = 300


class _AnswerError(Exception):
    """What a detector answered is no answer."""


def make_detectors(settings: Settings) -> list[Detector]:
    """Return the detectors whose verdicts stand in the evaluations; raises UserError as `make_detector` does.

    These are all of `detectors`, save Evidently's where none of those acts: evaluations do not wait for a
    comparison then, and its verdict stands in the topic of comparisons alone.
    """
    made = [make_detector(name, settings) for name in settings.detectors]
    if waits_for_comparison(settings):
        return made
    return [detector for detector in made if detector.name not in EVIDENTLY_DETECTORS]


def make_detector(name: str, settings: Settings) -> Detector:
    """Return the detector registered as `name`.

    Raises UserError (USAGE) where there is none or more than one, and where it cannot be imported or made.
    """
    entry = _registered(name)
    try:
        factory = entry.load()
    except Exception as exc:  # whatever a stranger's module raises
        raise _refused(entry, f"cannot be imported: {_told(exc)}") from exc
    try:
        detector = factory(settings)
    except UserError:
        raise
    except Exception as exc:
        raise _refused(entry, f"cannot be made: {_told(exc)}") from exc
    if not callable(getattr(detector, "judge", None)):
        raise _refused(entry, f"is no detector: {entry.value} returned {type(detector).__name__}")
    if getattr(detector, "name", None) != name:
        raise _refused(entry, f"calls itself {getattr(detector, 'name', None)!r}, not {name!r}")
    return detector  # type: ignore[no-any-return]


def judged(
    detector: Detector, context: DetectionContext, carry: Carry | None
) -> tuple[Verdict, Carry | None]:
    """Return the detector's verdict and what it carries, checked and as plain values.

    Where it raises, or answers anything but a Verdict and JSON to carry, the verdict cannot tell and says
    why, and `carry` is handed on as it was. Frames and carry that it is given are its own: what it changes
    in them shows nowhere else.
    """
    own = replace(context, current=context.current.copy(), reference=context.reference.copy())
    try:
        return _checked(detector.judge(own, copy.deepcopy(carry)))
    except Exception as exc:  # noqa: BLE001  (whatever it is, the stream goes on)
        # As text: with `exc_info` a default renderer shows local variables too, which are customers' rows.
        trace = "".join(traceback.format_exception(exc))
        log.error(
            "detector failed", detector=detector.name, window_end=iso(context.window_end), exception=trace
        )
        return Verdict(drift=None, reason=f"{detector.name} failed: {_told(exc)}"), carry


def _checked(answer: Any) -> tuple[Verdict, Carry | None]:
    """Return an answer made of plain values; raises where it cannot be published and carried."""
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], Verdict)):
        raise _AnswerError(f"it answered {type(answer).__name__}, not a Verdict and what to carry")
    verdict = msgspec.convert(msgspec.to_builtins(answer[0], enc_hook=_plain), Verdict)
    told = msgspec.json.encode((verdict.to_dict(), verdict.calibration))
    carried = _encoded_carry(answer[1])
    if len(told) + len(carried) > ANSWER_BYTES_MAX:
        raise _AnswerError(
            f"its verdict has {len(told)} bytes and its carry {len(carried)}, more than {ANSWER_BYTES_MAX}"
        )
    return verdict, msgspec.json.decode(carried)


def _encoded_carry(carry: Any) -> bytes:
    """Return a carry as JSON; raises where it would come back as anything else."""
    if carry is not None and not isinstance(carry, dict):
        raise _AnswerError(f"it carries a {type(carry).__name__}, not an object of JSON")
    try:
        encoded = msgspec.json.encode(carry)
    except (TypeError, ValueError, RecursionError) as exc:
        raise _AnswerError(f"what it carries is no JSON: {exc}") from exc
    if msgspec.json.decode(encoded) != carry:
        raise _AnswerError("what it carries comes back from JSON as something else")
    return encoded


def _plain(value: Any) -> Any:
    """Return the Python number in one of numpy's, which detectors are bound to hand out."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a verdict holds a {type(value).__name__}")


def _registered(name: str) -> EntryPoint:
    every = entry_points(group=GROUP)
    found = list(every.select(name=name))
    if not found:
        known = ", ".join(sorted({entry.name for entry in every}))
        raise UserError(
            f"there is no detector {name!r}", hint=f"known detectors: {known}", code=ExitCode.USAGE
        )
    if RESERVED.fullmatch(name):
        raise _refused(found[0], "has a name under which verdicts on models are published")
    if len(found) > 1:
        raise UserError(
            f"there is more than one detector {name!r}: {_origins(found)}",
            hint="uninstall one, or have it registered under another name",
            code=ExitCode.USAGE,
        )
    return found[0]


def _origins(entries: Iterable[EntryPoint]) -> str:
    return " and ".join(sorted(f"{entry.value} of {_distribution(entry)}" for entry in entries))


def _distribution(entry: EntryPoint) -> str:
    return "an unknown distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _refused(entry: EntryPoint, problem: str) -> UserError:
    return UserError(
        f"the detector {entry.name!r} ({entry.value} of {_distribution(entry)}) {problem}",
        hint=f"mend or uninstall it, or leave {entry.name!r} out of `detectors`",
        code=ExitCode.USAGE,
    )


def _told(exc: Exception) -> str:
    """Return an exception in one short line that any encoding takes."""
    if isinstance(exc, _AnswerError):
        words = str(exc)
    else:
        # A syntax error tells its place first; notes come last. An exception may fail at telling itself.
        words = traceback.format_exception_only(exc)[-1 if isinstance(exc, SyntaxError) else 0]
    return " ".join(words.encode(errors="replace").decode().split())[:REASON_LENGTH_MAX]
