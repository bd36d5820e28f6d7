"""Early warnings: they come within the week, only where something changed, and are a function of the log."""

import json
import math
import random

import pytest
from line_factory import DAY_S, HOUR_S, MONDAY, Entry, entry, state_config
from partition_run import Run, one_pass
from rich.console import Console

from models.lines import Lines
from streams import cloudevents, early_warnings
from streams.early_warnings import WARNING, orders_of
from streams.grid import from_iso, iso
from streams.warning_signals import SIGNALS, Signal, SignalSpec
from streams.watch_model import View
from streams.watch_page import Page

DAYS, CHANGE_DAY = 62, 45
ORDERS_A_DAY = 12
FIRST_DAY = MONDAY // DAY_S


def shop(*, seed=1, days=DAYS, price=1.0, lines=1.0, orders=1.0, silent=range(0), returns=False):
    """A partition's log: orders of one to six lines; from `CHANGE_DAY` on by so many times as much."""
    rng, log, number = random.Random(seed), [], 0
    for day in range(days):
        changed = day >= CHANGE_DAY
        for _ in range(0 if day in silent else round(ORDERS_A_DAY * (orders if changed else 1))):
            number += 1
            time = MONDAY + day * DAY_S + 8 * HOUR_S + rng.randrange(10 * HOUR_S)
            customer, basket = str(rng.randrange(200)), rng.randint(1, 6)
            for _ in range(round(basket * (lines if changed else 1))):
                cost = round(rng.lognormvariate(1, 0.5) * (price if changed else 1), 3)
                log.append((time, customer, number, rng.randint(1, 9), cost))
            if returns:
                log.append((time, customer, -number, -500, 900.0))
    log.sort()
    return [
        entry(time, CustomerID=who, InvoiceNo=f"i{invoice}", Quantity=pieces, UnitPrice=cost)
        for time, who, invoice, pieces, cost in log
    ]


def told(log, config=None):
    """What a partition with this log warns of, by its day of the log."""
    run = one_pass(log, config or state_config())
    return {
        from_iso(data["day"]) // DAY_S - FIRST_DAY: {found["signal"]: found for found in data["findings"]}
        for data in (cloudevents.decode(value)["data"] for value in run.warned.values())
    }


# -- what is told, and when ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_an_even_stream_gives_none(seed):
    assert told(shop(seed=seed)) == {}


@pytest.mark.parametrize(
    ("change", "signal", "by"),
    [
        ({"price": 1.8}, "PiecePrice", 0.8),
        ({"price": 0.5}, "PiecePrice", -0.5),
        ({"lines": 2.0}, "LinesPerOrder", 1.0),
        ({"orders": 2.0}, "Orders", 1.0),
        ({"orders": 0.4}, "Orders", -0.6),
    ],
)
def test_a_change_is_told_within_days(change, signal, by):
    found = {
        name: (day, finding)
        for day, findings in told(shop(**change)).items()
        for name, finding in findings.items()
    }
    day, finding = found[signal]
    assert CHANGE_DAY < day < CHANGE_DAY + 14
    # What was by chance so before the change is counted in: the onset is early then, and the change small.
    assert 0.2 < finding["change"] / by < 1.4
    assert from_iso(finding["onset"]) // DAY_S - FIRST_DAY <= CHANGE_DAY + 4
    assert finding["statistic"] > finding["threshold"]


def test_the_message_of_a_warning():
    run = one_pass(shop(price=1.8), state_config())
    key, value = next(iter(run.warned.items()))
    event = cloudevents.decode(value)
    data = event["data"]
    assert key.decode() == f"{data['day']}/{data['partition']}"
    assert event["type"] == WARNING
    assert from_iso(event["time"]) == from_iso(data["day"]) + DAY_S
    assert from_iso(data["day"]) < from_iso(data["window_end"]) <= from_iso(data["day"]) + 7 * DAY_S
    assert (from_iso(data["window_end"]) - MONDAY) % (7 * DAY_S) == 0


def test_after_a_warning_what_is_usual_is_learnt_anew():
    days = [day for day, found in told(shop(price=3.0, days=90)).items() if "PiecePrice" in found]
    assert len(days) == 1


# -- a function of the log ---------------------------------------------------------------------------------


@pytest.fixture
def nervous(monkeypatch):
    """Signals that warn of next to nothing, so that short logs give many warnings."""
    specs = [spec._replace(warm_values=20, threshold=4.0) for spec in SIGNALS]
    monkeypatch.setattr(early_warnings, "SIGNALS", specs)


@pytest.fixture
def log(nervous):
    return shop(days=40, silent=range(30, 34))


@pytest.mark.parametrize("sizes", [(7, 300, 1), (97,)])
def test_the_batches_do_not_show(log, sizes):
    whole, parted = one_pass(log, state_config()), one_pass(log, state_config(), sizes)
    assert len(whole.warned) > 5
    assert parted.warned == whole.warned
    assert parted.heads() == whole.heads()


@pytest.mark.parametrize("seed", range(2))
def test_crashes_do_not_show(log, seed):
    """What a run wrote that died again and again; `Run` refuses a second value of a warning."""
    dice, run, config = random.Random(seed), Run(state_config()), state_config()
    run.start()
    while run.state.read_offset < len(log) - 1:
        run.apply(log, dice.randrange(1, 200), crash_after=dice.choice([None, None, 0, 1, 3]))
    whole = one_pass(log, config)
    assert run.warned == whole.warned
    assert all(len(values) == 1 for values in run.values().values())


@pytest.mark.parametrize("seed", range(2))
def test_the_order_within_the_lateness_does_not_show(log, seed):
    dice, config = random.Random(seed), state_config()
    times = [cloudevents.from_iso(_time(record)) for record in log]
    shaken = sorted(range(len(log)), key=lambda i: times[i] + dice.uniform(0, config.lateness_s / 2))
    assert one_pass([log[i] for i in shaken], config).warned == one_pass(log, config).warned


def _time(record):
    return json.loads(record.value)["InvoiceDate"] + "Z"


def test_late_lines_and_returns_and_unknown_customers_are_left_out(log):
    expected = one_pass(log, state_config()).warned
    late = [entry(MONDAY + HOUR_S, CustomerID="9", InvoiceNo=f"late{i}", UnitPrice=1e6) for i in range(300)]
    back = [entry(MONDAY + 20 * DAY_S, InvoiceNo="C1", Quantity=-5000)] * 100
    nobody = [entry(MONDAY + 20 * DAY_S, CustomerID=None, UnitPrice=1e6)] * 100
    at = next(i for i, record in enumerate(log) if _time(record) > iso(MONDAY + 20 * DAY_S))
    assert one_pass([*log[:at], *back, *nobody, *late, *log[at:]], state_config()).warned == expected


def test_after_a_long_silence_everything_begins_anew():
    """A year of nothing is no warning of its own, and costs no time."""
    before = shop(days=40)
    after = [
        Entry(record.value.replace(b'"2011-', b'"2014-'), record.headers) for record in shop(seed=2, days=40)
    ]
    config = state_config(jump_max_days=4_000)
    days = told([*before, *after], config)
    assert {day for day in days if day > 40 + early_warnings.SILENCE_DAYS} == set()
    assert any("Orders" in found and found["Orders"]["change"] < 0 for found in days.values())


def test_values_all_alike_are_never_a_scale():
    signal = Signal(SignalSpec("x", 10, 0.1, 5.0, None, None))
    assert [signal.update(1.0, day) for day in range(100)] == [None] * 100
    assert signal.test is None


def test_orders_are_customers_invoices_of_a_day():
    run = Run(state_config())
    run.start()
    morning = MONDAY + 9 * HOUR_S
    log = [
        entry(morning, CustomerID="1", InvoiceNo="a", Quantity=2, UnitPrice=3.0),
        entry(morning, CustomerID="2", InvoiceNo="a", Quantity=1, UnitPrice=8.0),
        entry(morning + 60, CustomerID="1", InvoiceNo="a", Quantity=2, UnitPrice=1.0),
        entry(morning + DAY_S, CustomerID="1", InvoiceNo="a", Quantity=1, UnitPrice=5.0),
        entry(morning + 9 * DAY_S),
    ]
    run.apply(log, len(log))
    found = orders_of(Lines.concat([segment.lines for segment in run.state.windows.segments]))
    assert found[FIRST_DAY + 1] == [(math.log(5_000), math.log(5_000), 0.0)]
    assert found[FIRST_DAY] == [  # of one moment: by their sums
        (math.log(8_000), math.log(8_000), 0.0),
        (math.log(8_000), math.log(8_000) - math.log(4), math.log(2)),
    ]


# -- where it is shown ---------------------------------------------------------------------------------------


def test_the_tally_counts_what_was_told(log):
    run = one_pass(log, state_config())
    found = [
        found for value in run.warned.values() for found in cloudevents.decode(value)["data"]["findings"]
    ]
    tally = run.state.warnings.tally
    assert sum(tally.found.values()) == len(found)
    assert tally.last_day == max(from_iso(key.decode().split("/")[0]) for key in run.warned) // DAY_S


def test_the_terminal_view_shows_those_of_the_open_window():
    run = one_pass(shop(price=1.8), state_config())
    events = [cloudevents.decode(value) for value in run.warned.values()]
    view = View("calibrated")
    for event in [*events, *events]:
        view.note_warning(event)
    assert len(view.open_warnings) == len(events)
    console = Console(width=160, record=True)
    console.print(Page(view, place="x"))
    text = console.export_text()
    assert "early warning of 2011-" in text
    assert "PiecePrice" in text or "OrderValue" in text
