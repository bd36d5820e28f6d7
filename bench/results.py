"""What `compare.py` has measured, in two halves that can be measured anew apart: the rates, the delays.

They are kept in `results/compare.json`, from which the page in `docs/` is written.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from contestants import CONTESTANTS, Contestant
from measure import Delay, Run

FILE = Path(__file__).resolve().parent / "results" / "compare.json"


@dataclass(frozen=True)
class Row:
    """A program beside the limit; `ratio` is its rate over bare aiokafka's."""

    contestant: Contestant
    run: Run
    ratio: float | None


@dataclass
class Results:
    """Both halves, each with words on how it was measured; an empty one was not measured yet."""

    rates_note: str = ""
    rows: list[Row] = field(default_factory=list)
    delays_note: str = ""
    delays: dict[tuple[str, int], Delay] = field(default_factory=dict)  # by program and rate asked for

    @classmethod
    def stored(cls) -> Self:
        """Return what the file has; nothing where there is none."""
        if not FILE.exists():
            return cls()
        found = json.loads(FILE.read_text())
        named = {contestant.name: contestant for contestant in CONTESTANTS}
        return cls(
            found["rates_note"],
            [Row(named[row["program"]], Run(**row["run"]), row["ratio"]) for row in found["rows"]],
            found["delays_note"],
            {(entry["program"], entry["rate"]): Delay(**entry["delay"]) for entry in found["delays"]},
        )

    def store(self) -> None:
        """Write the file."""
        found = {
            "rates_note": self.rates_note,
            "rows": [
                {"program": row.contestant.name, "run": asdict(row.run), "ratio": row.ratio}
                for row in self.rows
            ],
            "delays_note": self.delays_note,
            "delays": [
                {"program": name, "rate": rate, "delay": asdict(delay)}
                for (name, rate), delay in self.delays.items()
            ],
        }
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(found, indent=1) + "\n")

    def rates(self, names: Sequence[str]) -> list[int]:
        """Return the rates at which all of `names` were measured, rising."""
        return sorted(
            {rate for name, rate in self.delays if all((other, rate) in self.delays for other in names)}
        )
