"""What is said between a process and its Evidently child: requests and replies over pipes.

A message is its length (4 bytes, big endian) and that many bytes of MessagePack; frames travel inside as
Arrow IPC streams.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from streams.detectors.interface import COMPARED_COLUMNS
from streams.detectors.statistics import Floats

LENGTH = struct.Struct("!I")


class ComparisonRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison to make: frames as Arrow IPC streams, the rest as `streams.evidently_report.compare`."""

    number: int
    current: bytes
    reference: bytes
    drift_share: float
    rows_max: int
    regression: tuple[bytes, bytes, bytes, bytes] | None  # float64, native order
    html: str | None  # an absolute path
    workspace: str | None = None  # of Evidently's user interface; an absolute path
    project: str = ""  # of the workspace
    window_end: int = 0  # epoch seconds, under which it stands there


class ComparisonReply(msgspec.Struct, frozen=True, kw_only=True):
    """The child's hello (number 0), or its answer to the request of that number: a result or an error."""

    number: int
    result: dict[str, Any] | None = None
    error: str | None = None


def make_request(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    drift_share: float,
    rows_max: int,
    regression: Sequence[Floats] | None,
    html: Path | None,
    workspace: Path | None = None,
    project: str = "",
    window_end: int = 0,
) -> ComparisonRequest:
    """Return the request that carries two frames (at least `COMPARED_COLUMNS`) to the child.

    `regression` holds labels and predictions in the order of `streams.evidently_report.RegressionPairs`.
    """
    pairs = None
    if regression is not None:
        one, two, three, four = (np.asarray(values, np.float64).tobytes() for values in regression)
        pairs = (one, two, three, four)
    return ComparisonRequest(
        number=0,
        current=_to_arrow(current),
        reference=_to_arrow(reference),
        drift_share=drift_share,
        rows_max=rows_max,
        regression=pairs,
        html=None if html is None else str(html.absolute()),
        workspace=None if workspace is None else str(workspace.absolute()),
        project=project,
        window_end=window_end,
    )


def framed(message: msgspec.Struct) -> bytes:
    """Return a message as it goes over the pipe."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def from_arrow(stream: bytes) -> pd.DataFrame:
    """Return the frame of an Arrow IPC stream."""
    frame: pd.DataFrame = pa.ipc.open_stream(stream).read_pandas()
    return frame


def _to_arrow(frame: pd.DataFrame) -> bytes:
    table = pa.Table.from_pandas(frame[list(COMPARED_COLUMNS)], preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream
