"""Whether the way from the topic to the verdict is in order."""

from typing import Any

from parts import GREEN, ORANGE, RECORDS_PER_S, Place, Query, T, heat_panel, time_panel

TITLE = "Engine"
THIRD = Place(8)


def panels() -> list[Any]:
    """Return the panels in their order: reading, closing windows, what else takes time and memory."""
    return [
        rate(),
        lag(),
        watermarks(),
        durations(),
        fates(),
        waiting(),
        evidently(),
        memory(),
        processor(),
    ]


def rate() -> Any:
    """Return how fast records are applied."""
    query = Query(f"sum by (partition) ({RECORDS_PER_S})", "{{partition}}")
    return time_panel("Records a second", "Records applied, by partition.", THIRD, query)


def lag() -> Any:
    """Return how many records wait."""
    query = Query(f"max by (partition) (clv_lag_records{{{T}}})", "{{partition}}")
    return time_panel(
        "Lag", "Records in the topic that are not applied yet, by partition.", THIRD, query
    ).decimals(0)


def watermarks() -> Any:
    """Return which partition is behind in event time."""
    fastest = f"scalar(max(clv_watermark_seconds{{{T}}}))"
    return time_panel(
        "Watermark behind the fastest",
        "Event time by which a partition trails the one furthest ahead: the slowest holds windows back.",
        THIRD,
        Query(f"{fastest} - max by (partition) (clv_watermark_seconds{{{T}}})", "{{partition}}"),
    ).unit("s")


def durations() -> Any:
    """Return how long windows take."""
    queries = (
        Query(
            f"histogram_quantile({share}, sum by (le) (rate({name}_bucket{{{T}}}[5m])))",
            f"{word}, p{share * 100:.0f}",
        )
        for name, word in (("clv_window_close_seconds", "close"), ("clv_evaluation_seconds", "evaluation"))
        for share in (0.5, 0.95)
    )
    return time_panel(
        "Window close and evaluation",
        "Time to apply a batch that closes windows, and to evaluate one: median and 95th percentile.",
        THIRD,
        *queries,
    ).unit("s")


def fates() -> Any:
    """Return what became of records that are not plainly on time."""
    return time_panel(
        "Late, duplicate and dead",
        "Records by what became of them, as of the newest checkpoints.",
        THIRD,
        Query(f'sum by (fate) (clv:lines:max{{{T}, fate=~"late|duplicate|dead"}})', "{{fate}}"),
    ).decimals(0)


def waiting() -> Any:
    """Return who holds the next window back."""
    return heat_panel(
        "Partitions waited for",
        "Input partitions that hold the next window back.",
        THIRD,
        [(None, GREEN), (1, ORANGE)],
        Query(f"max by (partition) (clv_window_waiting{{{T}}})", "{{partition}}"),
    )


def evidently() -> Any:
    """Return how far Evidently is, and what it says."""
    return time_panel(
        "Evidently",
        "Windows that wait for its comparison, and the share of columns it calls drifted in percent.",
        THIRD,
        Query(f"max(clv_comparisons_behind{{{T}}})", "windows behind"),
        Query(f"100 * max(clv_comparison_drift_share{{{T}}})", "drifted columns, %"),
    )


def memory() -> Any:
    """Return the memory of the processes."""
    query = Query(f"sum by (job, instance) (process_resident_memory_bytes{{{T}}})", "{{job}} {{instance}}")
    return time_panel("Memory", "Resident memory of our processes.", THIRD, query).unit("bytes")


def processor() -> Any:
    """Return the processor time of the processes."""
    rates = f"rate(process_cpu_seconds_total{{{T}}}[$__rate_interval])"
    query = Query(f"sum by (job, instance) ({rates})", "{{job}} {{instance}}")
    return time_panel("CPU", "Processor time of our processes, in cores.", THIRD, query)
