"""Drift detectors on streams whose truth is known: false alarms, what is found, how soon, at what cost.

`python bench/detection.py` watches the streams with our detectors, `--peers all` with the other programs
too, which `make detection` installs into environments of their own. What was said is kept a seed, so a run
that was stopped goes on where it ended, and only what a change of code touches is measured anew. At the end
the page `docs/detection.md` is written. `--tenth` is the quick form for continuous integration: a tenth of
the streams with our detectors, nothing written, an error where a goal is missed beyond chance.
"""

import argparse
import os
from collections.abc import Iterator
from functools import partial

from lab import report
from lab.contestants import FAMILIES, OURS
from lab.goals import Goal, goals, percent, promise
from lab.ours import watch
from lab.runs import Plan, available, run
from lab.streams import POPULATIONS, has_real_year, real_year
from lab.summary import Row, Summary, scored, verdicts

PEERS = [name for name in FAMILIES if name not in OURS]
OF_REAL_SIZE = {"real", "plain"}
REPORT_SEEDS_FROM = 1000  # seeds below are for tuning


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    main = "real" if has_real_year() else "plain"
    add(
        "--population",
        nargs="+",
        choices=[*POPULATIONS, "all"],
        default=[main],
        help=f"kinds of streams (default: {main}); the first is the one that other programs watch too",
    )
    add("--ours", nargs="*", choices=OURS, help="our detectors; none after the option leaves them out")
    add("--quiet", type=int, default=200, help="quiet streams for ours; half of them for most kinds")
    add("--drifts", type=int, default=60, help="of them with every drift at every strength, half sudden")
    add("--peers", nargs="+", default=[], choices=[*PEERS, "all"], help="other programs")
    add("--peers-quiet", type=int, default=40, help="quiet streams for peers")
    add("--peers-drifts", type=int, default=20, help="of them with every drift at full strength")
    add(
        "--seeds-from",
        type=int,
        default=REPORT_SEEDS_FROM,
        help="first seed; other than the default writes no page",
    )
    add("--jobs", type=int, default=os.cpu_count() or 1, help="streams watched at a time")
    add("--tenth", action="store_true", help="a tenth of ours, goals checked, nothing written")
    add("--report", action="store_true", help="watch nothing; score what is kept and write the page")
    return parser.parse_args()


def plans(options: argparse.Namespace) -> Iterator[Plan]:
    """Yield what is to be watched by whom; raises SystemExit where a program that is asked for is missing."""
    populations = options.population
    if "all" in populations:
        populations = [name for name in POPULATIONS if name != "real" or has_real_year()]
    for name in PEERS if "all" in options.peers else options.peers:
        if not available(FAMILIES[name]):
            raise SystemExit(f"{FAMILIES[name].python} is missing: `make detection` sets it up")
        quiet, drifts = options.peers_quiet, options.peers_drifts
        yield Plan(name, populations[0], quiet, drifts, options.seeds_from, ("full",))
    for population in populations:
        share = POPULATIONS[population].share / (10 if options.tenth else 1)
        for name in OURS if options.ours is None else options.ours:
            if available(FAMILIES[name]):
                quiet, drifts = round(options.quiet * share), round(options.drifts * share)
                yield Plan(name, population, quiet, drifts, options.seeds_from)


def wanted(row: Row) -> Iterator[Goal]:
    """Return the goals that hold on a kind of streams."""
    return goals(row.score) if row.population in OF_REAL_SIZE else promise(row.score)


def show(rows: list[Row]) -> None:
    for row in rows:
        score = row.score
        found = ", ".join(f"{strength} {percent(rate)}" for strength, rate in score.found.items())
        delays = ", ".join(f"{name} {delay}" for name, delay in score.delay_weeks.items())
        print(
            f"\n{row.population}, {row.name}: {score.quiet_streams} quiet streams, {row.drifted} with drifts"
        )
        print(
            f"  false-alarm windows {percent(score.false_windows)}, streams {percent(score.alarmed_streams)}"
        )
        print(f"  found: {found or '-'}\n  median delay, weeks: {delays or '-'}")
        print(
            f"  first cause right {percent(score.first_cause_right)}, onset near {percent(score.onset_near)}"
        )
        print(f"  CPU ms a window {score.cpu_ms_a_window:.1f}, calibration {score.calibration_s:.1f} s")
        if row.family == OURS[0]:
            for goal in wanted(row):
                print(f"  {'met   ' if goal.met else 'MISSED'} {goal.words}: {goal.measured}")


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Watch what is to be watched; yield the scores. Those on the seeds of the report are kept."""
    for plan in plans(options):
        if not options.report:
            run(plan, options.jobs, say=partial(print, flush=True))
        if written(options):
            summary = Summary.stored()  # read anew: another run may have added to it
            rows = summary.put(plan)
            summary.store()
        else:
            rows = scored(plan)
        show(rows)
        yield from rows


def written(options: argparse.Namespace) -> bool:
    """Whether the page is written: from the seeds of the report, and from all of them."""
    return options.seeds_from == REPORT_SEEDS_FROM and not options.tenth


def write_page() -> None:
    """Write the page from what is kept, the verdicts on the real year made anew."""
    summary = Summary.stored()
    if has_real_year():
        acting = next(name for name in OURS if available(FAMILIES[name]))
        summary.real_year = verdicts(watch(real_year().as_it_was(), acting))
        summary.real_year_by = acting
        summary.store()
    report.write(summary)


def main() -> None:
    options = parsed()
    rows = [row for row in measure(options) if row.family == OURS[0]]
    missed = [goal for row in rows for goal in wanted(row) if goal.missed_surely]
    if options.tenth:
        raise SystemExit("; ".join(f"missed: {goal.words}: {goal.measured}" for goal in missed) or 0)
    if written(options):
        write_page()


if __name__ == "__main__":
    main()
