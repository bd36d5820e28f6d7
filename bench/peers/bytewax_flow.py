"""The job in bytewax: its own sliding windows, folded in Python; each customer has a clock."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main
from meter import Line, Meter, Task, is_sale, moment, spend

A_MONDAY = datetime(2007, 1, 1, tzinfo=UTC)
Sums = tuple[int, float, int, str]  # lines, spend, orders, the invoice met last


def add(sums: Sums, line: Line) -> Sums:
    """Add a line to a customer's window."""
    lines, paid, orders, invoice = sums
    return lines + 1, paid + spend(line), orders + (line["InvoiceNo"] != invoice), line["InvoiceNo"]


def merge(one: Sums, other: Sums) -> Sums:
    """Join two windows; sliding windows never do."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], other[3]


def message(item: tuple[str, tuple[int, Sums]]) -> KafkaSinkMessage[bytes, bytes]:
    """Return the output record of a closed window."""
    customer, (window, (lines, paid, orders, _)) = item
    value = {"window": window, "lines": lines, "spend": paid, "orders": orders}
    return KafkaSinkMessage(customer.encode(), json.dumps(value).encode())


def build(task: Task, meter: Meter) -> Dataflow:
    """Return the flow; it ends with the topic, unless delays are measured."""

    def sale(record: KafkaSourceMessage[Any, bytes]) -> tuple[str, Line] | None:
        meter.count()
        line = json.loads(record.value)
        return (str(line["CustomerID"]), line) if is_sale(line) else None

    def add_timed(sums: Sums, line: Line) -> Sums:
        # A line is added to each of its thirteen windows; it is noted with the first of them.
        sent = line.pop("SentAt", None)
        if sent is not None:
            meter.note({"SentAt": sent})
            if len(meter.delays_s) == task.records - 1:
                meter.finish()
        return add(sums, line)

    flow = Dataflow("rolling")
    source = KafkaSource([task.bootstrap_servers], [task.topic], tail=task.timed)
    received = op.input("input", flow, source)
    customers = op.filter_map("sales", received, sale)
    windows = win.fold_window(
        "window",
        customers,
        win.EventClock(moment, wait_for_system_duration=timedelta(days=1)),
        win.SlidingWindower(length=timedelta(days=91), offset=timedelta(days=7), align_to=A_MONDAY),
        lambda: (0, 0.0, 0, ""),
        add_timed if task.timed else add,
        merge,
        ordered=False,
    )
    records = op.map("message", windows.down, message)
    kop.output("output", records, brokers=[task.bootstrap_servers], topic=task.output_topic)
    return flow


def run(task: Task) -> None:
    """Process all records of the task."""
    meter = Meter(task.records, timed=task.timed)
    cli_main(build(task, meter))
    meter.finish()


if __name__ == "__main__":
    run(Task.given())
