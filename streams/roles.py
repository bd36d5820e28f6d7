"""The roles of a worker."""

from enum import StrEnum


class Role(StrEnum):
    """Which agents a worker runs; each role but `all` has a group of its own."""

    ALL = "all"
    INGEST = "ingest"
    EVALUATE = "evaluate"
    COMPARE = "compare"
