"""Errors that are the user's to mend: one clear message and an exit code, never a traceback."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What `clv-drift` exits with; scripts may rely on it."""

    OK = 0
    FAILURE = 1  # something failed that no code below describes
    USAGE = 2  # a wrong option or a refused setting
    INPUT = 3  # an input file that cannot be used
    BROKER = 4  # no broker, or a broker that refuses
    STATE = 5  # stored state that does not fit: another partition count, changed settings, a hole in the log
    JAVA = 6  # no usable Java runtime, or Kafka's jars are missing
    STORAGE = 7  # disk full or not writable
    MODEL = 8  # a model that is missing, damaged or does not fit
    DRIFT = 10  # of `clv-drift detect` only: the window drifted; no error


class UserError(Exception):
    """A mistake or a condition that the person in front can mend.

    `message` says what is wrong and with which value; `hint` says what to do.
    """

    def __init__(self, message: str, *, hint: str = "", code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
