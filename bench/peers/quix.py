"""The job in quixstreams: its own hopping windows, closed by the time of the partition, state in RocksDB."""

import tempfile
from datetime import timedelta
from typing import Any

from meter import Line, Meter, Task, is_sale, moment, spend
from quixstreams import Application
from quixstreams.dataframe.windows import Count, Reduce, Sum


def event_time_ms(value: Line, _headers: Any, _timestamp_ms: float, _kind: Any) -> int:
    """Return the event time of a line or of a control record, epoch milliseconds."""
    return round((moment(value).timestamp() if "InvoiceDate" in value else value["event_time"]) * 1000)


def first_order(line: Line) -> list[Any]:
    """Return the invoice met last and the number of orders after a window's first line."""
    return [line["InvoiceNo"], 1]


def next_order(orders: list[Any], line: Line) -> list[Any]:
    """Return the invoice met last and the number of orders after a further line."""
    return [line["InvoiceNo"], orders[1] + (line["InvoiceNo"] != orders[0])]


def run(task: Task) -> None:
    """Process all records of the task."""
    meter = Meter(task.records, timed=task.timed)
    current: Line = {}

    def processed(_topic: str, _partition: int, _offset: int) -> None:
        meter.count()
        meter.note(current)
        if meter.full:
            app.stop()

    app = Application(
        broker_address=task.bootstrap_servers,
        consumer_group=task.group,
        auto_offset_reset="earliest",
        state_dir=tempfile.mkdtemp(),
        on_message_processed=processed,
        consumer_poll_timeout=0.1,
        loglevel="WARNING",
    )
    lines = app.topic(task.topic, value_deserializer="json", timestamp_extractor=event_time_ms)
    windows = app.topic(task.output_topic, value_serializer="json")
    frame = app.dataframe(lines)
    if task.timed:
        frame = frame.update(current.update)
    frame = frame.filter(is_sale)
    frame["Spend"] = frame.apply(spend)
    frame = (
        frame.hopping_window(timedelta(days=91), timedelta(days=7), grace_ms=timedelta(days=1))
        .agg(lines=Count(), spend=Sum("Spend"), orders=Reduce(reducer=next_order, initializer=first_order))
        .final(closing_strategy="partition")
    )
    frame.to_topic(windows)
    app.run()
    meter.finish()


if __name__ == "__main__":
    run(Task.given())
