"""This worker beside plain consumers and other stream processors: one broker, one topic, in turns (Linux).

Each program runs alone, pinned to one core; broker and watcher keep to the others. Time runs from the first
record to the last output acknowledged, so start-up is left out; the worker's runs from the moment its
first partition is loaded, before it asks for records. Slow programs get the first lines only. Then, with
one program at a time, lines are sent at a steady rate, and the time from the sending of each to its being
applied is taken.
`python bench/compare.py` keeps what it measured and writes its tables and its plot into `docs/`. `--turns 0`
measures the delays alone, `--delay-s 0` the rates alone: the other half stays as it was kept. With `--only`
nothing is kept or written.
"""

import argparse
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from contestants import CONTESTANTS, LIMIT, OURS, Contestant
from measure import Bench, Delay, Run
from programs import KAFKA_CACHE, pinned
from report import TABLE_RATE, print_rows, write_docs
from results import Results, Row

from producers.inputs import find_input
from streams.embedded_kafka import EmbeddedKafka

PEERS_PYTHON = Path(__file__).resolve().parent.parent / ".venv-bench" / "bin" / "python"


def median_run(runs: Sequence[Run]) -> Run:
    """Return the run of the median rate; of two, the slower."""
    return sorted(runs, key=lambda run: run.lines_per_s)[(len(runs) - 1) // 2]


def compare(bench: Bench, chosen: Sequence[Contestant], turns: int) -> list[Row]:
    """Run everything in turns; return medians, of the ratios to bare aiokafka within a turn too."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for turn in range(turns):
        for contestant in chosen:
            run = bench.throughput(contestant, turn)
            runs[contestant.name].append(run)
            print(f"turn {turn + 1}  {contestant.name:<30} {run}", flush=True)
    rows = []
    for contestant in chosen:
        mine, limits = runs[contestant.name], runs.get(LIMIT, [])
        ratios = [run.lines_per_s / limit.lines_per_s for run, limit in zip(mine, limits, strict=False)]
        rows.append(Row(contestant, median_run(mine), statistics.median(ratios) if ratios else None))
    return rows


def delays(
    bench: Bench, chosen: Sequence[Contestant], rates: Sequence[int], seconds: int
) -> dict[tuple[str, int], Delay]:
    """Measure delays: of every program at one rate, of bare aiokafka and the worker at all."""
    found = {}
    for rate in dict.fromkeys(rates):
        for contestant in chosen:
            if contestant.delay and (rate == TABLE_RATE or contestant.name in {LIMIT, OURS}):
                delay = bench.delay(contestant, rate=rate, seconds=seconds)
                found[contestant.name, rate] = delay
                print(f"delay   {contestant.name:<30} {delay}", flush=True)
    return found


def measure(bench: Bench, chosen: Sequence[Contestant], options: argparse.Namespace, load: str) -> Results:
    """Return what was kept, with each half that `options` ask for measured anew."""
    results = Results() if options.only else Results.stored()
    if options.turns:
        lines = bench.fill(options.slow_lines)
        title = Path(bench.source.title).name
        results.rates_note = f"{title}, {lines:,} records; turns: {options.turns}; {load}"
        results.rows = compare(bench, chosen, options.turns)
    if options.delay_s:
        results.delays_note = f"for {options.delay_s} s; {load}"
        results.delays = delays(bench, chosen, options.rates, options.delay_s)
    return results


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=3, help="runs of each program; 0 for delays alone")
    parser.add_argument("--slow-lines", type=int, default=60_000, help="lines given to the slow programs")
    parser.add_argument("--delay-s", type=int, default=30, help="seconds of steady sending; 0 for no delays")
    parser.add_argument(
        "--rates",
        type=int,
        nargs="+",
        default=[200, TABLE_RATE, 5000],
        help=f"lines a second while delays are measured; others than the two at {TABLE_RATE} only",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="programs with such a word")
    parser.add_argument("--python", type=Path, default=PEERS_PYTHON, help="interpreter that has the peers")
    parser.add_argument("--keep", type=Path, help="directory for logs and data, kept; else a temporary one")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    if not options.python.exists():
        raise SystemExit(f"{options.python} is missing: `make bench` sets it up")
    chosen = [c for c in CONTESTANTS if not options.only or any(word in c.name for word in options.only)]
    named = os.environ.get("ONLINE_RETAIL")
    source, note = find_input(Path(named) if named else None, None)
    print(note or source.title)
    load = f"load of the machine before: {os.getloadavg()[0]:.1f}"
    cores = sorted(os.sched_getaffinity(0))
    core, others = cores[-1], set(cores[:-1]) or set(cores)
    with tempfile.TemporaryDirectory() as temporary, pinned(others):
        home = (options.keep or Path(temporary)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        with EmbeddedKafka(home / "kafka", KAFKA_CACHE) as kafka:
            bench = Bench(source, kafka.bootstrap_servers, options.python.absolute(), core, home)
            results = measure(bench, chosen, options, load)
    print_rows(results)
    if options.only:
        return
    results.store()
    if results.rows and results.delays:
        write_docs(results)
    else:
        print("the page is left as it is: it needs both the rates and the delays")


if __name__ == "__main__":
    main()
