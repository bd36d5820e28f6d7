"""Texts as small integers: what the columns of a partition's state refer to."""

from collections.abc import Iterable

import numpy as np

from models.lines import Codes, distinct

UNKNOWN = -1  # a line without a customer


class Interner(dict[str, int]):
    """Gives each new text the next code; `texts[code]` leads back.

    A dictionary with `__missing__`, because looking codes up by `map` then costs one C call a text.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        super().__init__()
        self.texts: list[str] = []
        for text in texts:
            self[text]  # looking it up gives it a code

    def __missing__(self, text: str) -> int:
        code = len(self.texts)
        self.texts.append(text)
        self[text] = code
        return code

    def codes(self, texts: Iterable[str]) -> Codes:
        """Return the codes of `texts`, giving new ones where needed."""
        return np.fromiter(map(self.__getitem__, texts), np.int32)

    def ranked(self, codes: Codes) -> tuple[Codes, list[str]]:
        """Return `codes` as ranks among the texts that occur in them, and those texts, sorted."""
        used = sorted(distinct(codes).tolist(), key=self.texts.__getitem__)
        return self._numbered(codes, used)

    def numbered(self, codes: Codes) -> tuple[Codes, list[str]]:
        """Return `codes` numbered anew by first appearance, and the texts in that order."""
        used = distinct(codes)
        first = np.empty(len(self.texts), np.int32)
        first[codes[::-1]] = np.arange(
            len(codes) - 1, -1, -1, dtype=np.int32
        )  # the last write is the first line
        return self._numbered(codes, used[np.argsort(first[used])].tolist())

    def _numbered(self, codes: Codes, used: list[int]) -> tuple[Codes, list[str]]:
        number = np.empty(len(self.texts), np.int32)  # only what is written here is read: no need to clear it
        number[used] = np.arange(len(used), dtype=np.int32)
        return number[codes], [self.texts[code] for code in used]


class Vocabulary:
    """The four dictionaries of a partition.

    Codes are private to a process: whatever leaves it (checkpoints, snapshots) carries texts.
    """

    def __init__(self) -> None:
        self.customers = Interner()
        self.invoices = Interner()
        self.products = Interner()
        self.countries = Interner()
