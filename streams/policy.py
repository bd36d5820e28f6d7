"""The policy: verdicts of windows in a row become a state."""

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec


class State(StrEnum):
    """What is held to be true of the stream."""

    QUIET = "quiet"
    SUSPECTED = "suspected"
    CONFIRMED = "confirmed"
    RESOLVED = "resolved"


class PolicyState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the policy carries from window to window.

    `onset` is the end of the first window of the drift (epoch seconds), None exactly where all is quiet.
    `drift_run` and `quiet_run` count windows in a row with and without drift; one of them is zero.
    """

    state: State = State.QUIET
    onset: int | None = None
    drift_run: int = 0
    quiet_run: int = 0

    def __post_init__(self) -> None:
        if (self.state is State.QUIET) != (self.onset is None):
            raise ValueError(f"state {self.state} does not go with onset {self.onset}")
        if min(self.drift_run, self.quiet_run) != 0:
            raise ValueError(f"runs {self.drift_run} and {self.quiet_run}: one must be zero")

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PolicyState":
        """Return the state that `to_dict` wrote; raises msgspec.ValidationError on anything else."""
        missing = set(cls.__struct_fields__) - set(values)
        if missing:
            raise msgspec.ValidationError(f"the policy's state lacks {', '.join(sorted(missing))}")
        return msgspec.convert(values, cls)


class Step(NamedTuple):
    """The state after a window, and whether it is another one than before."""

    state: PolicyState
    changed: bool


def step(
    state: PolicyState, *, window_end: int, drift: bool | None, confirm_windows: int, resolve_windows: int
) -> Step:
    """Return what the verdict on the window that ends at `window_end` (epoch seconds) makes of `state`.

    | state               | drift                                | no drift                         |
    | ------------------- | ------------------------------------ | -------------------------------- |
    | quiet, resolved     | suspected; onset is this window      | quiet; no onset                  |
    | suspected           | confirmed at the `confirm_windows`th | quiet; no onset                  |
    | confirmed           | confirmed                            | resolved at `resolve_windows`th  |

    The windows of a run follow each other; with `confirm_windows` = 1 the first one confirms. A verdict of
    None (cannot tell) changes nothing: it neither lengthens a run nor ends one.
    """
    if drift is None:
        return Step(state, changed=False)
    if drift:
        after = _with_drift(state, window_end, confirm_windows)
    else:
        after = _without_drift(state, resolve_windows)
    return Step(after, changed=after.state is not state.state)


def after_promotion(state: PolicyState) -> PolicyState:
    """Return the state once a model was promoted, or the reference began anew: both runs start again.

    What was counted was counted against the old reference. A confirmed drift stays confirmed until
    `resolve_windows` windows without drift.
    """
    return msgspec.structs.replace(state, drift_run=0, quiet_run=0)


def _with_drift(state: PolicyState, window_end: int, confirm_windows: int) -> PolicyState:
    run = state.drift_run + 1
    onset = window_end if state.state in {State.QUIET, State.RESOLVED} else state.onset
    confirmed = state.state is State.CONFIRMED or run >= confirm_windows
    return msgspec.structs.replace(
        state,
        state=State.CONFIRMED if confirmed else State.SUSPECTED,
        onset=onset,
        drift_run=run,
        quiet_run=0,
    )


def _without_drift(state: PolicyState, resolve_windows: int) -> PolicyState:
    run = state.quiet_run + 1
    if state.state is not State.CONFIRMED:
        return msgspec.structs.replace(state, state=State.QUIET, onset=None, drift_run=0, quiet_run=run)
    resolved = run >= resolve_windows
    return msgspec.structs.replace(
        state, state=State.RESOLVED if resolved else State.CONFIRMED, drift_run=0, quiet_run=run
    )
