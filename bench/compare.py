"""This worker beside plain consumers and other stream processors: one broker, one topic, in turns (Linux).

Each program runs alone, pinned to one core; broker and watcher keep to the others. Time runs from the first
record to the last output acknowledged, so start-up is left out; the worker's runs from the moment its
first partition is loaded, before it asks for records. Slow programs get the first lines only. Then, with
one program at a time, lines are sent at a steady rate, and the time from the sending of each to its being
applied is taken.
`python bench/compare.py` writes its table and its plot into `docs/` unless only some programs were asked for.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from contestants import CONTESTANTS, LIMIT, Contestant
from measure import Bench, Delay, Run
from report import Row, print_rows, write_docs
from worker import KAFKA_CACHE, pinned

from producers.inputs import find_input
from streams.embedded_kafka import EmbeddedKafka

HOME = Path(__file__).resolve().parent
PEERS_PYTHON = HOME.parent / ".venv-bench" / "bin" / "python"


def median_run(runs: Sequence[Run]) -> Run:
    """Return the run of the median rate; of two, the slower."""
    return sorted(runs, key=lambda run: run.lines_per_s)[(len(runs) - 1) // 2]


def rows(runs: dict[str, list[Run]], delays: dict[str, Delay]) -> list[Row]:
    """Return the table's rows: medians, and ratios to bare aiokafka within each turn."""
    found = []
    for contestant in CONTESTANTS:
        mine = runs.get(contestant.name)
        if not mine:
            continue
        limits = runs.get(LIMIT, [])
        ratios = [run.lines_per_s / limit.lines_per_s for run, limit in zip(mine, limits, strict=False)]
        found.append(
            Row(
                contestant,
                median_run(mine),
                statistics.median(ratios) if ratios else None,
                delays.get(contestant.name),
            )
        )
    return found


def compare(bench: Bench, chosen: Sequence[Contestant], options: argparse.Namespace) -> list[Row]:
    """Run everything in turns, then the delays; return the rows."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for turn in range(options.turns):
        for contestant in chosen:
            run = bench.throughput(contestant, turn)
            runs[contestant.name].append(run)
            print(f"turn {turn + 1}  {contestant.name:<30} {run}", flush=True)
    delays = {}
    for contestant in chosen:
        if options.delay_s and contestant.delay:
            delay = bench.delay(contestant, rate=options.rate, seconds=options.delay_s)
            delays[contestant.name] = delay
            print(f"delay   {contestant.name:<30} {delay}", flush=True)
    return rows(runs, delays)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--slow-lines", type=int, default=60_000, help="lines given to the slow programs")
    parser.add_argument("--delay-s", type=int, default=30, help="seconds of steady sending; 0 for no delays")
    parser.add_argument("--rate", type=int, default=1000, help="lines a second while delays are measured")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="programs with such a word")
    parser.add_argument("--python", type=Path, default=PEERS_PYTHON, help="interpreter that has the peers")
    parser.add_argument("--keep", type=Path, help="directory for logs and data, kept; else a temporary one")
    options = parser.parse_args()
    if not options.python.exists():
        raise SystemExit(f"{options.python} is missing: `make bench` sets it up")
    chosen = [c for c in CONTESTANTS if not options.only or any(word in c.name for word in options.only)]
    named = os.environ.get("ONLINE_RETAIL")
    source, note = find_input(Path(named) if named else None, None)
    load = os.getloadavg()[0]
    print(note or source.title)
    cores = sorted(os.sched_getaffinity(0))
    core, others = cores[-1], set(cores[:-1]) or set(cores)
    with tempfile.TemporaryDirectory() as temporary, pinned(others):
        home = (options.keep or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        with EmbeddedKafka(home / "kafka", KAFKA_CACHE) as kafka:
            bench = Bench(source, kafka.bootstrap_servers, options.python.absolute(), core, home)
            bench.fill(Path(named) if named else None, options.slow_lines)
            table = compare(bench, chosen, options)
            title = (
                f"{Path(source.title).name}: {bench.lines:,} records; turns: {options.turns};"
                f" load of the machine before: {load:.1f}"
            )
    print_rows(table)
    results = HOME / "results"
    results.mkdir(exist_ok=True)
    (results / "compare.json").write_text(json.dumps([row.as_dict() for row in table], indent=1) + "\n")
    if not options.only:
        write_docs(table, title=title, rate=options.rate)


if __name__ == "__main__":
    main()
