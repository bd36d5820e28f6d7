"""What a replay can send: a file, a synthetic shop, an endless synthetic feed; named by content."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from producers import scenarios
from producers.lines import Line, NumberedLine, numbered
from producers.scenarios import Scenario
from producers.source import DEFAULT_INPUTS, read_lines, row_count, source_identity
from streams.errors import ExitCode, UserError
from streams.mapping import Mapping

DEFAULT_SHOP = "customers=4000,days=373,seed=1"


@dataclass(frozen=True)
class Input:
    """An input of a replay."""

    title: str  # in the words of a person
    source: str  # its name by content: the header of every record
    read: Callable[[], Iterator[Line]]  # a fresh iterator over its lines
    scenarios: tuple[Scenario, ...] = ()
    rows: int | None = None  # about how many, where it is cheap to know
    start: int | None = None  # where its event time begins, where that is known; else it is looked for
    endless: bool = False

    def lines(self) -> Iterator[NumberedLine]:
        """Return the lines with their numbers, scenarios applied."""
        return scenarios.apply(self.scenarios, numbered(self.read()))

    def row_of(self, seq: int) -> int:
        """Return the row that a record's number stands for (a scenario's newcomers share a row)."""
        return seq // scenarios.stride(self.scenarios)


def file_input(path: Path, changes: Sequence[Scenario] = (), mapping: Mapping | None = None) -> Input:
    """Return a file as an input, read by a mapping if given; raises UserError (INPUT) for what is none."""
    read_lines(path, mapping)
    chosen = scenarios.prepared(changes, lambda: read_lines(path, mapping))
    fingerprint = scenarios.fingerprint(chosen)
    if mapping is not None:
        fingerprint += f" {mapping.fingerprint}"
    identity = source_identity(path, fingerprint)
    return Input(str(path), identity, lambda: read_lines(path, mapping), chosen, row_count(path))


def synthetic_input(text: str, changes: Sequence[Scenario] = ()) -> Input:
    """Return the synthetic shop that a text describes (see `synthetic.parse_shop`)."""
    from producers.synthetic import Synthetic, parse_shop  # noqa: PLC0415  (numpy is not cheap to import)

    shop = parse_shop(text)
    world = Synthetic(shop)
    chosen = scenarios.prepared(changes, world.lines)
    identity = _identity(f"{shop}", chosen)
    return Input(f"synthetic shop, {text or 'defaults'}", identity, world.lines, chosen)


def live_input(seed: int, changes: Sequence[Scenario] = (), *, now: Callable[[], float]) -> Input:
    """Return an endless feed with the times of the clock `now`; each run is a source of its own."""
    from producers.synthetic_live import live_lines  # noqa: PLC0415

    start = int(now())
    return Input(
        "endless synthetic feed",
        _identity(f"live {seed} {start}", changes),
        lambda: live_lines(seed, now=now),
        tuple(changes),
        start=start,
        endless=True,
    )


def find_input(
    path: Path | None,
    synthetic: str | None,
    changes: Sequence[Scenario] = (),
    mapping: Mapping | None = None,
) -> tuple[Input, str]:
    """Return the input that was asked for, and a note where it had to be chosen.

    Without a path and a shop it is the first of `DEFAULT_INPUTS` that exists, else the default shop; a
    mapping goes with a path only. Raises UserError (USAGE) where both are given.
    """
    if path is not None and synthetic is not None:
        raise UserError(
            "both an input file and --synthetic are given", hint="leave one out", code=ExitCode.USAGE
        )
    if synthetic is not None:
        return synthetic_input(synthetic, changes), ""
    if path is not None:
        return file_input(path, changes, mapping), ""
    for candidate in DEFAULT_INPUTS:
        if candidate.is_file():
            return file_input(candidate, changes), f"no input given: {candidate} it is"
    looked = ", ".join(str(candidate) for candidate in DEFAULT_INPUTS)
    note = f"no input given and none of {looked} is here: synthetic data of a made-up shop instead"
    return synthetic_input(DEFAULT_SHOP, changes), note


def _identity(text: str, changes: Sequence[Scenario]) -> str:
    return hashlib.sha256(f"{text} {scenarios.fingerprint(changes)}".encode()).hexdigest()[:20]
