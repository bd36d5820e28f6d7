"""When to retrain: policies side by side on the same streams, and the best that hindsight could have done.

Each policy begins with the model trained at the end of the reference and knows the past alone. The figure is
the mean nMAE of the served model over the windows whose labels the stream goes on to show. `python
bench/retraining.py` prints a table a stream; over all streams and policies it writes them into
docs/retraining.md too.
"""

import argparse
import os
import time
from pathlib import Path

from courses.policies import RECALIBRATED, RETRAINED, ROLLED_BACK, Run, every, hindsight, on_verdict, ours
from courses.streams import Course, Watched, courses

from streams.grid import iso
from streams.settings import Settings

CHANGES_MAX = 3
PAGE = Path(__file__).resolve().parent.parent / "docs" / "retraining.md"
BEGIN, END = "<!-- retraining:begin -->", "<!-- retraining:end -->"


def run(course: Course, settings: Settings, chosen: list[str]) -> tuple[int, dict[str, Run]]:
    """Return how many windows of a course are judged, and the runs of the policies over it.

    Of those with a word of `chosen`, if given.
    """
    watched = Watched(course, settings)
    weeks = settings.reference_weeks
    first = watched.ends[weeks - 1]
    judged = [end for end in watched.labelled if end > first]
    print(
        f"\n{course.name}: {course.what}; {len(judged)} windows judged, from {iso(judged[0])[:10]}",
        flush=True,
    )
    unscheduled = settings.model_copy(update={"retrain_every_days": 0})
    policies = {
        "never": lambda: every(watched, first, judged, None),
        "weekly": lambda: every(watched, first, judged, 1),
        "every four weeks": lambda: every(watched, first, judged, 4),
        "Kolmogorov-Smirnov and chi-square": lambda: on_verdict(watched, first, judged, "baseline", settings),
        "Evidently, dataset": lambda: on_verdict(watched, first, judged, "evidently_dataset", settings),
        "this system": lambda: ours(watched, judged, unscheduled),
        "this system, scheduled": lambda: ours(watched, judged, settings),
        f"hindsight, {CHANGES_MAX} retrains at most": lambda: hindsight(watched, first, judged, CHANGES_MAX),
    }
    found = {}
    for name, policy in policies.items():
        if chosen and not any(word in name for word in chosen):
            continue
        started = time.perf_counter()
        found[name] = policy()
        print(f"  {row(name, found[name])}   ({time.perf_counter() - started:.1f} s)", flush=True)
        for end, kind in found[name].changes if name.startswith("this system") else ():
            print(f"      {iso(end)[:10]} {kind}", flush=True)
    return len(judged), found


def table(done: dict[str, tuple[Course, int, dict[str, Run]]]) -> list[str]:
    """Return the lines of the documentation's table: the error, and how often the model was changed."""
    names = list(next(iter(done.values()))[2])
    lines = [
        "| stream | " + " | ".join(names) + " |",
        "| --- | " + " | ".join("---:" for _ in names) + " |",
    ]
    for course, _, runs in done.values():
        cells = [f"{result.mean:.3f} ({_changes(result)})" for result in runs.values()]
        lines.append(f"| {course.name}: {course.what} | " + " | ".join(cells) + " |")
    return lines


def _changes(result: Run) -> str:
    kinds = {RETRAINED: "", RECALIBRATED: "c", ROLLED_BACK: "b"}
    told = [f"{count}{sign}" for kind, sign in kinds.items() if (count := result.count(kind))]
    return " ".join(told) or "0"


def write_docs(done: dict[str, tuple[Course, int, dict[str, Run]]]) -> None:
    """Write the table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    windows = {name.partition(",")[0]: count for name, (_, count, _) in done.items()}
    judged = ", ".join(f"{name} {count}" for name, count in windows.items())
    body = "\n".join([f"Windows judged: {judged}.", "", *table(done)])
    PAGE.write_text(f"{head}{BEGIN}\n{body}\n{END}{tail}", encoding="utf-8")


def row(name: str, result: Run) -> str:
    """Return a line of the table."""
    counts = " ".join(f"{result.count(kind):>3}" for kind in (RETRAINED, RECALIBRATED, ROLLED_BACK))
    return f"{name:<36} {result.mean:>7.3f} {counts} {result.refused:>3}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weeks", type=int, default=90, help="length of the synthetic streams")
    parser.add_argument("--seed", type=int, default=1, help="seed of the synthetic shop")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="courses with such a word")
    parser.add_argument("--policies", nargs="+", default=[], metavar="WORD", help="policies with such a word")
    options = parser.parse_args()
    named = os.environ.get("ONLINE_RETAIL")
    settings = Settings()
    done = {}
    for course in courses(Path(named) if named else None, options.weeks, options.seed):
        if not options.only or any(word in course.name for word in options.only):
            done[course.name] = (course, *run(course, settings, options.policies))
    if not (options.only or options.policies):
        write_docs(done)


if __name__ == "__main__":
    main()
