"""The state of a partition is a function of its log: whatever the batches, whatever dies, to the byte."""

import json
import random
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from line_factory import DAY_S, HOUR_S, WEEK_S, Entry, entry, mark, state_config
from partition_run import START, Run, one_pass

from models.features import MONEY_SCALE
from streams.closing import WindowPart
from streams.course import LONG_AGO
from streams.grid import floor_end
from streams.partition import PartitionState
from streams.snapshots import decode_chunk, encode_part
from streams.transactions import Control, header_map
from streams.watermarks import JumpGuard

DAMAGED = (b"", b"{", b'{"InvoiceNo":"1"}', None)

# How far time moves from record to record, and what a record is.
STEPS_S = (0, 600, HOUR_S, 5 * HOUR_S, DAY_S, DAY_S, -HOUR_S, -DAY_S, -3 * DAY_S, -9 * DAY_S, -40 * DAY_S)
KINDS = ("line",) * 14 + ("again", "plain", "bad", "mark", "mark", "jump", "season", "end", "bad control")


def drawn(seed, length):
    """Records as (kind, step, customer, number); a shorter log of a seed is a prefix of a longer one."""
    rng = random.Random(seed)
    return [
        (rng.choice(KINDS), rng.choice(STEPS_S), rng.randrange(7), rng.randrange(1_000))
        for _ in range(length)
    ]


def log_of(seed, length):
    """Return a partition's log of records drawn: two replayed sources, each with rising rows."""
    log, now, seqs, sent = [], START, Counter(), []
    for kind, step_s, who, number in drawn(seed, length):
        time = now + step_s
        source = "ab"[number % 2]
        figures = {
            "CustomerID": str(100 + who) if who else None,
            "InvoiceNo": f"i{number % 17}",
            "StockCode": f"p{number % 5}",
            "Quantity": (number % 7) - 1,
            "UnitPrice": (number % 4) * 1.125,
            "Country": ("France", "Spain")[number % 3 == 0],
        }
        if kind in {"line", "jump", "season"}:
            time += {"line": 0, "jump": 300 * DAY_S, "season": 15 * DAY_S}[kind]
            seqs[source] += 1 + number % 3
            log.append(entry(time, source=source, seq=seqs[source], **figures))
            sent.append(log[-1])
            if kind == "line":
                now = max(now, time)
        elif kind == "again" and sent:
            log.append(sent[number % len(sent)])
        elif kind == "bad":
            seqs[source] += 1
            headers = entry(source=source, seq=seqs[source]).headers
            log.append(Entry(DAMAGED[number % len(DAMAGED)], headers))
        elif kind == "mark":
            now = max(now, time)
            log.append(mark(now))
        elif kind == "end":
            log.append(mark(now, Control.END_OF_INPUT))
        elif kind == "bad control":
            log.append(Entry(b"{}", mark(now).headers))
        else:
            log.append(entry(time, **figures))
    return log


@pytest.fixture(autouse=True, scope="module")
def _frequent_full_copies():
    """Full copies of the lifetime figures come every 13 closes; here there are not so many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartitionState, "FULL_EVERY_CUTS", 2)
        yield


LOGS = st.builds(log_of, st.integers(0, 2**32), st.integers(20, 160))
CONFIGS = st.sampled_from(
    [
        state_config(),
        state_config(segment_lines_max=3, lateness_s=0),
        state_config(sample_customers_max=3, lateness_s=3 * DAY_S),
    ]
)
MODEST = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@given(LOGS, CONFIGS, st.lists(st.integers(1, 25), min_size=1, max_size=6))
@MODEST
def test_the_batches_do_not_show(log, config, sizes):
    whole, split = one_pass(log, config), one_pass(log, config, sizes)
    assert split.parts == whole.parts
    assert split.written == whole.written
    assert split.state.counters == whole.state.counters
    assert split.refused == whole.refused


@given(
    LOGS, CONFIGS, st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9), st.integers(0, 99)), max_size=8)
)
@MODEST
def test_crashes_and_zombies_do_not_show(log, config, crashes):
    whole, run = one_pass(log, config), Run(config)
    run.start()
    for size, crash_after, zombie in crashes:
        run.apply(log, size, crash_after=crash_after)
        # A worker that lost the partition and does not know writes again what it wrote before.
        first = zombie % (len(run.written) + 1)
        for record in run.written[first : first + zombie % 7]:
            run.write(record)
        if zombie % 2:
            run.start()
    run.finish(log, [size for size, _, _ in crashes] or [7])
    assert run.parts == whole.parts
    assert run.heads() == whole.heads()
    assert run.state.counters == whole.state.counters
    assert run.refused == whole.refused
    twice = [key for key, values in run.values().items() if len(values) > 1]
    assert twice == [], "state keys written with two values"
    assert run.values() == whole.values()


@given(LOGS, CONFIGS)
@MODEST
def test_every_record_is_accounted_for(log, config):
    run = one_pass(log, config)
    counters = run.state.counters
    assert counters.read == len(log)
    fates = naive_fates(log, run.refused)
    assert counters.dead == len(run.refused) == fates["dead"]
    assert counters.duplicate == fates["duplicate"]
    assert counters.control == fates["control"]
    assert counters.on_time + counters.late == fates["accepted"]
    assert counters.read == sum(asdict(counters).values()) - counters.read


@given(LOGS, CONFIGS)
@MODEST
def test_windows_close_when_the_time_has_passed_them(log, config):
    run = one_pass(log, config)
    largest = naive_times(log, config, run.refused)
    for end, (part, offset) in run.closed.items():
        assert floor_end(end, WEEK_S) == end
        now, before = largest[offset] - config.lateness_s, largest[offset - 1] - config.lateness_s
        if header_map(log[offset].headers).get("control") == Control.END_OF_INPUT.value.encode():
            assert part.partial == (end > largest[offset])
            assert end <= floor_end(largest[offset], WEEK_S) + WEEK_S
        else:
            # The first anchored record may close windows before it; later ones pass exactly one moment.
            assert not part.partial
            assert end <= now
            assert before < end


@given(LOGS, st.sampled_from([0, DAY_S, 3 * DAY_S]))
@MODEST
def test_windows_hold_what_the_log_says(log, lateness_s):
    """The simplest oracle: every part, from all accepted lines up to the record that closed it."""
    config = state_config(lateness_s=lateness_s)
    run = one_pass(log, config)
    accepted = naive_lines(log, run.refused)
    for end, (part, offset) in run.closed.items():
        seen = [item for item in accepted if item["offset"] <= offset]
        assert facts_of(part, config.window_days) == naive_facts(seen, end, config.window_days), end


@given(LOGS, CONFIGS.filter(lambda config: config.sample_customers_max > 3))
@MODEST
def test_each_line_stands_in_exactly_one_part(log, config):
    run = one_pass(log, config)
    if not run.closed:
        return
    last_end, (_, last_offset) = max(run.closed.items())
    due = Counter(
        (item["time"], item["customer"], item["invoice"], item["product"], item["quantity"], item["amount"])
        for item in naive_lines(log, run.refused)
        if item["customer"] and item["offset"] <= last_offset and item["time"] < last_end
    )
    assert Counter(line for part, _ in run.closed.values() for line in lines_of(part)) == due


@given(LOGS, CONFIGS)
@settings(MODEST, max_examples=30)
def test_a_part_survives_its_bytes(log, config):
    for part, _ in one_pass(log, config).closed.values():
        chunks = [decode_chunk(value) for _, value in encode_part(part, 1)]
        assert [chunk.number for chunk in chunks] == list(range(chunks[0].count))
        assert {chunk.window_end for chunk in chunks} == {part.window_end}
        assert chunks[0].meta["totals"] == part.totals
        rows = [row for chunk in chunks if chunk.kind == "rows" for row in chunk.table.to_pylist()]
        assert [row["CustomerID"] for row in rows] == part.columns["CustomerID"]
        assert [row["Monetary"] for row in rows] == list(part.columns["Monetary"])
        assert sum(chunk.table.num_rows for chunk in chunks if chunk.kind == "lines") == len(part.lines)


# -- the oracles: a record at a time, nothing vectorised ---------------------


def identity(record):
    headers = header_map(record.headers)
    if "control" in headers or "source" not in headers:
        return None
    return headers["source"], int(headers["seq"])


def naive_fates(log, refused):
    fates, last = Counter(), {}
    for offset, record in enumerate(log):
        row = identity(record)
        if row and row[1] <= last.get(row[0], 0):
            fates["duplicate"] += 1
            assert offset not in refused
            continue
        if row:
            last[row[0]] = row[1]
        if offset in refused:
            fates["dead"] += 1
        elif "control" in header_map(record.headers):
            fates["control"] += 1
        else:
            fates["accepted"] += 1
    return fates


def naive_lines(log, refused):
    """The accepted lines with their offsets."""
    lines, last = [], {}
    for offset, record in enumerate(log):
        row = identity(record)
        if row and row[1] <= last.get(row[0], 0):
            continue
        if row:
            last[row[0]] = row[1]
        if offset in refused or "control" in header_map(record.headers):
            continue
        said = json.loads(record.value)
        time = datetime.fromisoformat(said["InvoiceDate"]).replace(tzinfo=UTC).timestamp()
        lines.append(
            {
                "offset": offset,
                "time": int(time),
                "customer": said["CustomerID"],
                "invoice": said["InvoiceNo"],
                "product": said["StockCode"],
                "country": said["Country"],
                "quantity": said["Quantity"],
                "amount": round(said["Quantity"] * said["UnitPrice"] * MONEY_SCALE),
                "sale": said["Quantity"] > 0 and said["UnitPrice"] > 0,
            }
        )
    return lines


def naive_times(log, config, refused):
    """The trusted time after each record, by the guard alone."""
    guard = JumpGuard(jump_max_s=config.jump_max_days * DAY_S, jump_confirm_lines=config.jump_confirm_lines)
    damaged = {o for o, reason in refused.items() if "days ahead" not in reason}
    lines = {item["offset"]: item for item in naive_lines(log, damaged)}
    found = {-1: LONG_AGO}
    for offset, record in enumerate(log):
        kind = header_map(record.headers).get("control")
        if offset in lines:
            item = lines[offset]
            admitted = guard.admits(item["time"], item["customer"] or item["invoice"])
            assert admitted == (offset not in refused)
        elif kind and offset not in damaged:
            guard.advance(int(record.value.decode().partition(":")[2][:-1]))
        found[offset] = guard.largest if guard.anchored else LONG_AGO
    return found


def naive_facts(lines, end, window_days):
    inside = [item for item in lines if end - window_days * DAY_S <= item["time"] < end]
    sales = [item for item in inside if item["sale"] and item["customer"]]
    rows = {}
    for who in sorted({item["customer"] for item in sales}):
        own = [item for item in sales if item["customer"] == who]
        ever = [item for item in lines if item["customer"] == who and item["time"] < end]
        latest = max(own, key=lambda item: (item["time"], item["invoice"], item["product"], item["country"]))
        rows[who] = (
            len(own),
            sum(item["amount"] for item in own) / MONEY_SCALE,
            len({item["invoice"] for item in own}),
            (end - max(item["time"] for item in own)) // DAY_S,
            sum(item["amount"] for item in ever) / MONEY_SCALE,
            (end - min(item["time"] for item in ever if item["sale"])) // DAY_S,
            latest["country"],
        )
    week = [item for item in inside if item["time"] >= end - WEEK_S]
    return rows, len(inside), len(week), min((item["time"] for item in lines), default=None)


def facts_of(part: WindowPart, window_days):
    names = ("Frequency", "Monetary", "NumOrders", "Recency", "LifeSpend", "Tenure", "Country")
    columns = [list(part.columns[name]) for name in names]
    rows = dict(zip(part.columns["CustomerID"], zip(*columns, strict=True), strict=True))
    return rows, part.totals["lines"], part.totals["lines_week"], part.earliest


def lines_of(part: WindowPart):
    lines, texts = part.lines, part.line_ids
    for i in range(len(lines)):
        yield (
            int(lines.time[i]),
            texts.customers[lines.customer[i]],
            texts.invoices[lines.invoice[i]],
            texts.products[lines.product[i]],
            int(lines.quantity[i]),
            int(lines.amount[i]),
        )
