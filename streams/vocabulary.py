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
        texts = sorted(map(self.texts.__getitem__, distinct(codes).tolist()))
        rank = np.empty(len(self.texts), np.int32)
        rank[self.codes(texts)] = np.arange(len(texts), dtype=np.int32)
        return rank[codes], texts


class Vocabulary:
    """The four dictionaries of a partition.

    Codes are private to a process: whatever leaves it (checkpoints, snapshots) carries texts.
    """

    def __init__(self) -> None:
        self.customers = Interner()
        self.invoices = Interner()
        self.products = Interner()
        self.countries = Interner()
