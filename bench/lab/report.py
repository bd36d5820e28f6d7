"""The tables of the lab, between their marks in docs/detection.md, and its plots beside them."""

import platform
import re
from collections.abc import Iterator, Sequence

from .contestants import FAMILIES, OURS, PROJECT
from .drifts import DRIFTS, GROWING, STRENGTHS, SUDDEN
from .goals import goals, percent
from .plots import alarms_against_power, found_by_week
from .score import Score
from .streams import POPULATIONS
from .summary import Row, Summary, Verdict

PAGE = PROJECT / "docs" / "detection.md"
IMAGES = PROJECT / "docs" / "img"
BEGIN, END = "<!-- detection:begin -->", "<!-- detection:end -->"


def write(summary: Summary) -> None:
    """Put the tables into the page, the plots beside it; raises SystemExit where the page lost its marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{PAGE} has lost its marks {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{markdown(summary)}\n{END}{after}")
    main = _main_rows(summary)
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "detection-power.svg").write_text(alarms_against_power(main))
    (IMAGES / "detection-delay.svg").write_text(found_by_week(main))


def markdown(summary: Summary) -> str:
    """Return what stands between the marks."""
    main = _main_rows(summary)
    parts = [
        f"Python {platform.python_version()}, {platform.machine()}. Intervals are at 95%.",
        *_methods_table(main),
        "![False alarms against drifts found](img/detection-power.svg)",
        "![Drifts found by the week](img/detection-delay.svg)",
        *_details(main),
        *_populations(summary.rows),
        *_settings(main),
        *_real_year(summary),
    ]
    return "\n\n".join(parts)


def _main_rows(summary: Summary) -> list[Row]:
    """Return the rows of the real year's streams, or where it was not here those of the plain shop."""
    by_population = [
        [row for row in summary.rows if row.population == population] for population in ("real", "plain")
    ]
    return next((rows for rows in by_population if rows), [])


def _methods_table(rows: Sequence[Row]) -> Iterator[str]:
    head = [
        "method",
        "streams: quiet, with drifts",
        "windows with a false alarm",
        "quiet streams with any alarm",
        *(f"found at {strength} strength" for strength in STRENGTHS),
        "median delay, weeks: sudden, growing",
        "CPU ms a window",
    ]
    yield table(
        head,
        [
            [
                row.name,
                f"{row.score.quiet_streams}, {row.drifted}",
                percent(row.score.false_windows),
                percent(row.score.alarmed_streams),
                *(percent(row.score.found[s]) if s in row.score.found else "" for s in STRENGTHS),
                f"{_delay(row.score, SUDDEN)}, {_delay(row.score, GROWING)}",
                f"{row.score.cpu_ms_a_window:.1f}",
            ]
            for row in rows
        ],
        texts=2,
    )


def _delay(score: Score, pace: str) -> str:
    delay = score.delay_weeks.get(f"full-{pace}")
    return "-" if delay is None else f"{delay:g}"


def _details(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is told of our own detectors alone: goals, each drift, causes."""
    for row in rows:
        if row.family not in OURS or not row.score.found:
            continue
        yield f"### {row.name}, drift by drift"
        yield table(
            [
                "drift, and what it is at full strength",
                *(f"{s}, {p}" for s in STRENGTHS for p in (SUDDEN, GROWING)),
                "named first",
            ],
            [_drift_cells(row.score, drift) for drift in DRIFTS],
        )
        if row.family == OURS[0]:
            yield "Its goals:"
            yield table(
                ["goal", "measured", "met"],
                [[goal.words, goal.measured, "yes" if goal.met else "**no**"] for goal in goals(row.score)],
                texts=3,
            )


def _drift_cells(score: Score, drift: str) -> list[str]:
    found = [score.found_by.get(f"{drift}-{s}-{p}") for s in STRENGTHS for p in (SUDDEN, GROWING)]
    named = ", ".join(f"{feature} {times}" for feature, times in list(score.named_first[drift].items())[:4])
    shares = ["" if rate is None else f"{100 * rate.share:.0f}%" for rate in found]
    return [f"**{drift}**: {DRIFTS[drift].words}", *shares, named]


def _populations(rows: Sequence[Row]) -> Iterator[str]:
    ours = [row for row in rows if row.family in OURS]
    if len({row.population for row in ours}) < 2:
        return
    yield "### Other shops"
    yield table(
        [
            "streams",
            "detector",
            "quiet",
            "windows with a false alarm",
            "quiet streams with any alarm",
            "windows not judged",
            "found at full strength",
            "CPU ms a window",
            "calibration, s",
        ],
        [
            [
                f"**{row.population}**: {POPULATIONS[row.population].words}",
                row.name,
                str(row.score.quiet_streams),
                percent(row.score.false_windows),
                percent(row.score.alarmed_streams),
                percent(row.score.unjudged_windows),
                percent(row.score.found["full"]) if "full" in row.score.found else "",
                f"{row.score.cpu_ms_a_window:.1f}",
                f"{row.score.calibration_s:.1f}",
            ]
            for row in ours
        ],
        texts=2,
    )


def _settings(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what each contestant is and which of its settings are not its defaults."""
    yield "### Who took part, and how"
    families = dict.fromkeys(row.family for row in rows)
    lines = []
    for name in families:
        family = FAMILIES[name]
        versions = ", ".join(
            f"{package} {_version(family.requirements.read_text(), package)}" for package in family.packages
        )
        what = "; ".join(f"*{method}*: {words}" for method, words in family.methods.items())
        lines.append(f"- **{versions or name}**. {what}. Changed settings: {family.settings}.")
    yield "\n".join(lines)


def _version(requirements: str, package: str) -> str:
    found = re.search(rf"^{re.escape(package)}==(\S+)$", requirements, re.MULTILINE)
    assert found, f"{package} is not pinned"
    return found[1]


def _real_year(summary: Summary) -> Iterator[str]:
    if not summary.real_year:
        return
    yield "### The real year as it was"
    alarmed = [verdict for verdict in summary.real_year if verdict.drift]
    yield (
        f"{len(alarmed)} of {len(summary.real_year)} windows are judged to have drifted by the detector"
        f" `{summary.real_year_by}`:"
    )
    yield table(
        ["window end", "verdict", "onset", "leading causes"],
        [_verdict_cells(verdict) for verdict in summary.real_year],
        texts=4,
    )


def _verdict_cells(verdict: Verdict) -> list[str]:
    said = {True: "drift", False: "quiet", None: "cannot tell"}[verdict.drift]
    causes = "; ".join(
        f"{feature} ({weeks} week{'s' * (weeks > 1)}{', ' + segment if segment else ''})"
        for feature, weeks, segment in verdict.causes
    )
    return [verdict.window_end, said, verdict.onset, causes]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """Return a table; all columns but the first `texts` are set to the right."""
    ruler = "| --- " * texts + "| ---: " * (len(head) - texts) + "|"
    first, *rest = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    return "\n".join([first, ruler, *rest])
