"""A worker that loses every batch once, between its gate and its agents; run as a program."""

import sys
from collections.abc import Sequence
from typing import Any

from faust.types import TP

from streams import consumption
from streams.cli import main

admit = consumption.Gate.admit
lost: set[tuple[TP, int]] = set()


def admit_and_lose(gate: consumption.Gate, tp: TP, records: Sequence[Any]) -> consumption.Batch | None:
    """Let pass what the gate lets pass, but not when it ends in a record for the first time."""
    batch = admit(gate, tp, list(records))
    if batch is None or (tp, batch.offsets[-1]) in lost:
        return batch
    lost.add((tp, batch.offsets[-1]))
    sys.stdout.write(f"lost up to {batch.offsets[-1]} of {tp.topic} {tp.partition}\n")
    sys.stdout.flush()
    return None


if __name__ == "__main__":
    consumption.Gate.admit = admit_and_lose  # type: ignore[method-assign,assignment]
    main()
