"""Remedies: what is asked for in a window, given the drift that lasts and what was done about it."""

from enum import StrEnum
from typing import NamedTuple

import msgspec


class Action(StrEnum):
    """What is asked for at a window."""

    NONE = "none"
    RECALIBRATE = "recalibrate"  # another level for the champion, on the labels of the short horizon
    RETRAIN = "retrain"
    REVIEW = "review"  # hold the champion against the model it replaced, or one in shadow
    ASK = "ask"  # a person


# What the retrain consumer answers.
REQUESTS = frozenset({Action.RECALIBRATE, Action.RETRAIN, Action.REVIEW})


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """A drift while it lasts, of the customers, of the model's errors or of both.

    `onset` is the end of the first window that it touched (epoch seconds, the newest estimate), `harmed`
    whether the model was seen to err more since, `tried` the actions that were asked for, each once.
    """

    onset: int
    harmed: bool = False
    tried: tuple[Action, ...] = ()

    def having_tried(self, action: Action) -> "Episode":
        """Return the episode after one more action."""
        tried = self.tried if action in self.tried else (*self.tried, action)
        return msgspec.structs.replace(self, tried=tried)


class Evidence(NamedTuple):
    """What a window knows of the episode.

    `drift` and `harm`: a confirmed drift of the customers, of the model's errors, seen in this very window.
    `blind`: the verdict on the errors cannot tell. `matured_short` and `matured_long` count the windows from
    the onset on whose labels over the short and over the served horizon are known.
    """

    drift: bool
    harm: bool
    blind: bool
    matured_short: int
    matured_long: int


class Choice(NamedTuple):
    """An action and the reason for it, or for doing nothing."""

    action: Action
    reason: str


def choose(
    episode: Episode | None, evidence: Evidence, *, harm_gate: bool, min_matured_windows: int, cooling: bool
) -> Choice:
    """Return what to do about `episode` in this window; the first row that holds decides.

    | what is known                                                        | action                      |
    | -------------------------------------------------------------------- | --------------------------- |
    | no episode                                                           | none                        |
    | no harm so far, with the harm gate                                   | none; ask, once, where the  |
    |                                                                      | matured labels cannot tell  |
    | the last request is too near (`cooling`)                             | none                        |
    | labels from after the onset have matured, not retrained yet          | retrain                     |
    | they have, the retrain did not help: this window still drifts        | ask, once; then retrain     |
    | short labels from after the onset have matured, not recalibrated yet | recalibrate, while it drifts|
    | otherwise                                                            | none                        |

    Labels have matured where `min_matured_windows` windows from the onset on have theirs over the served
    horizon. Without the harm gate (`harm_gate` False) a confirmed drift of the customers is as good as harm.
    """
    if episode is None:
        return Choice(Action.NONE, "no drift")
    matured = evidence.matured_long >= min_matured_windows
    if harm_gate and not episode.harmed:
        if evidence.drift and evidence.blind and matured and Action.ASK not in episode.tried:
            return Choice(Action.ASK, "customers changed, and the labels cannot tell whether it hurts")
        return Choice(Action.NONE, "the model is not seen to err more than before")
    if cooling:
        return Choice(Action.NONE, "the last request is too near")
    drifts = evidence.harm or (evidence.drift and not harm_gate)
    if not matured:
        return _recalibrate(episode, evidence, drifts=drifts)
    if harm_gate:
        calm = "the model is not seen to err more in this window"
    else:
        calm = "no drift is confirmed in this window"
    return _retrain(episode, drifts=drifts, calm=calm)


def _recalibrate(episode: Episode, evidence: Evidence, *, drifts: bool) -> Choice:
    if evidence.matured_short >= 1 and drifts and Action.RECALIBRATE not in episode.tried:
        return Choice(
            Action.RECALIBRATE, "short labels have matured since the onset, those to train on have not"
        )
    return Choice(Action.NONE, "labels from after the onset have to mature first")


def _retrain(episode: Episode, *, drifts: bool, calm: str) -> Choice:
    if Action.RETRAIN not in episode.tried:
        if drifts or Action.RECALIBRATE in episode.tried:
            return Choice(Action.RETRAIN, "labels from after the onset have matured")
        return Choice(Action.NONE, calm)
    if not drifts:
        return Choice(Action.NONE, calm)
    if Action.ASK not in episode.tried:
        return Choice(Action.ASK, "a retrain was tried, and it still drifts")
    return Choice(Action.RETRAIN, "it still drifts, and further labels have matured")
