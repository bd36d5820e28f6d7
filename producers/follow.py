"""A growing file, or a pipe, as lines of text: what is there now, and what became of the file.

Rules. A line counts once its newline is there. A file that was replaced (another file under its name) is read
to its end first; one that is shorter than what was read was begun anew. In both cases what follows starts
from its first line; an unfinished last line of what went counts as it stands. Where the name is gone, the old
file is followed until there is another.
"""

import codecs
import os
import select
from dataclasses import dataclass, field
from functools import partial
from io import BufferedReader
from pathlib import Path

from producers.parquet_table import PARQUET_MAGIC
from producers.tables import GZIP_MAGIC, ZIP_MAGIC, unusable
from streams.errors import ExitCode, UserError

READ_BYTES = 1 << 18
LINE_CHARS_MAX = 1 << 20
CUT_CHARS = 100
STDIN = "-"


@dataclass
class News:
    """What a look at the file brought: whole lines with their ends, and whether the file is over or new."""

    lines: list[str] = field(default_factory=list)
    begun_anew: bool = False  # no line of this file follows; the next look reads the one that took its place
    ended: bool = False  # nothing follows at all
    waiting: bool = False  # nothing more is there for now


class LineCutter:
    """Cuts bytes into lines as they come; holds at most `chars_max` characters.

    A longer line is dropped to its end but for its beginning and a note of its length.
    """

    def __init__(self, encoding: str, errors: str, *, chars_max: int = LINE_CHARS_MAX) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._chars_max = chars_max
        self._open = ""
        self._dropped = 0  # characters of the open line that are not held

    def cut(self, data: bytes, *, final: bool = False) -> list[str]:
        """Return the lines that are whole now; with `final` also what is left."""
        *whole, rest = self._decoder.decode(data, final).split("\n")
        lines = []
        for text in whole:
            self._add(text)
            lines.append(self._taken("\n"))
        self._add(rest)
        if final and (self._open or self._dropped):
            lines.append(self._taken(""))
        return lines

    def _add(self, text: str) -> None:
        if self._dropped or len(self._open) + len(text) > self._chars_max:
            self._dropped += len(text)
            if len(self._open) > CUT_CHARS:
                self._dropped += len(self._open) - CUT_CHARS
                self._open = self._open[:CUT_CHARS]
            elif room := CUT_CHARS - len(self._open):
                self._open += text[:room]
                self._dropped -= len(text[:room])
        else:
            self._open += text

    def _taken(self, end: str) -> str:
        text, dropped = self._open, self._dropped
        self._open, self._dropped = "", 0
        if not dropped:
            return text + end
        # Neither quote nor separator of the beginning may reach into what follows.
        plain = "".join(letter if letter.isalnum() else " " for letter in text)
        return f"{plain} ... {dropped:,} characters more than a line may have{end}".replace(",", " ")


class FollowedFile:
    """Follows a file by name."""

    def __init__(self, path: Path, encoding: str, errors: str, *, chars_max: int = LINE_CHARS_MAX) -> None:
        self.path = path
        self._make = partial(LineCutter, encoding, errors, chars_max=chars_max)
        self._cutter: LineCutter = self._make()
        self._file = open_followed(path)
        self._read = 0

    def look(self) -> News:
        """Return what is new; at most `READ_BYTES` at a time. Raises UserError (INPUT)."""
        data = self._file.read(READ_BYTES)
        if data:
            self._read += len(data)
            return News(self._cutter.cut(data))
        here = os.fstat(self._file.fileno())
        if here.st_size < self._read:
            self._file.seek(0)
            return self._anew()
        try:
            there = self.path.stat()
        except OSError:
            return News(waiting=True)
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            return News(waiting=True)
        if self._file.read(1):  # written between the two looks
            self._file.seek(-1, os.SEEK_CUR)
            return News()
        file = open_followed(self.path)
        self._file.close()
        self._file = file
        return self._anew()

    def _anew(self) -> News:
        left = self._cutter.cut(b"", final=True)
        self._cutter, self._read = self._make(), 0
        return News(left, begun_anew=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FollowedPipe:
    """Follows what is piped in, to its end."""

    def __init__(
        self, descriptor: int, encoding: str, errors: str, *, chars_max: int = LINE_CHARS_MAX
    ) -> None:
        self._descriptor = descriptor
        self._cutter = LineCutter(encoding, errors, chars_max=chars_max)

    def look(self) -> News:
        """Return what is new, without waiting for it."""
        if not select.select([self._descriptor], [], [], 0)[0]:
            return News(waiting=True)
        data = os.read(self._descriptor, READ_BYTES)
        return News(self._cutter.cut(data, final=not data), ended=not data)

    def close(self) -> None:
        """Leave the pipe to whoever opened it."""


def open_followed(path: Path) -> BufferedReader:
    """Open a file that can be followed; raises UserError (INPUT) for one that cannot."""
    try:
        if not path.is_file():
            raise UserError(
                f"there is no file {path} to follow",
                hint="start this once the file is there; `-` follows what is piped in",
                code=ExitCode.INPUT,
            )
        file = path.open("rb")
    except OSError as exc:
        raise UserError(f"cannot read {path}: {exc.strerror or exc}", code=ExitCode.INPUT) from exc
    magic = file.read(4)
    file.seek(0)
    if magic.startswith((GZIP_MAGIC, ZIP_MAGIC, PARQUET_MAGIC)):
        file.close()
        raise unusable(path, "cannot be followed: it is no plain CSV file; replay it without --follow")
    return file
