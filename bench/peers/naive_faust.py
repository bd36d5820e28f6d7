"""The job in Faust as its guide would have it: an agent, a line at a time, a table update a line.

Faust closes the windows of its tables by the wall clock, so windows of the data's time are kept by hand: a
customer carries thirteen weeks of sums, and its window is sent when its first line of a later week arrives.
"""

import tempfile
from typing import Any

import faust
from meter import Line, Meter, Task, is_sale, moment, spend

WEEKS = 13
WEEK_S = 7 * 86_400
FIRST_MONDAY_S = 4 * 86_400  # 1970-01-05


def update(customer: dict[str, Any], line: Line) -> dict[str, Any] | None:
    """Add a line to a customer's weeks; return the customer's window if the line begins a later week."""
    week = int((moment(line).timestamp() - FIRST_MONDAY_S) // WEEK_S)
    weeks, closed = customer["weeks"], None
    if weeks and week > customer["week"]:
        closed = {"week": customer["week"], **rolling(weeks)}
        # Keys are text, as the table's changelog is JSON.
        weeks = {name: sums for name, sums in weeks.items() if int(name) > week - WEEKS}
    lines, paid, orders = weeks.get(str(week), (0, 0.0, 0))
    orders += line["InvoiceNo"] != customer["invoice"]
    customer["weeks"] = {**weeks, str(week): (lines + 1, paid + spend(line), orders)}
    customer["week"], customer["invoice"] = max(week, customer["week"]), line["InvoiceNo"]
    return closed


def rolling(weeks: dict[str, Any]) -> dict[str, float]:
    """Return the sums over a customer's weeks."""
    lines, paid, orders = (sum(part) for part in zip(*weeks.values(), strict=True))
    return {"lines": lines, "spend": paid, "orders": orders}


def build(task: Task) -> faust.App:
    """Return the app with its one agent."""
    app = faust.App(
        task.group,
        broker=f"kafka://{task.bootstrap_servers}",
        store="memory://",
        datadir=tempfile.mkdtemp(),
        topic_partitions=4,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    lines = app.topic(task.topic, value_serializer="json", key_type=bytes)
    windows = app.topic(task.output_topic, value_serializer="json", key_type=bytes)
    customers = app.Table("customers", default=lambda: {"weeks": {}, "week": 0, "invoice": ""}, partitions=4)
    meter = Meter(task.records, timed=task.timed)

    @app.agent(lines)
    async def ingest(stream: Any) -> None:
        async for line in stream:
            if is_sale(line):
                key = str(line["CustomerID"])
                customer = customers[key]
                closed = update(customer, line)
                customers[key] = customer
                if closed:
                    await windows.send(key=key.encode(), value=closed)
            meter.count()
            meter.note(line)
            if meter.full:
                await app.producer.flush()
                meter.finish()

    return app


if __name__ == "__main__":
    faust.Worker(build(Task.given()), loglevel="warning").execute_from_commandline()
