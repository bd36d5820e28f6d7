"""The tables and the plot of `compare.py`: on the terminal, in docs/performance.md, as SVG."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from contestants import LIMIT, OURS
from measure import Delay
from results import Results, Row

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"
TABLE_RATE = 1000  # lines a second: the delays that every program is measured for
BAR_PX, GAP_PX, LABEL_PX, WIDTH_PX = 22, 10, 230, 760
HEAD = [
    "program",
    "what it does",
    "records",
    "records/s",
    "of bare aiokafka",
    "CPU us a record",
    "peak MB",
    "delay ms, p50 / p99",
]


def _cells(row: Row, delay: Delay | None) -> list[str]:
    return [
        row.contestant.name,
        row.contestant.does,
        f"{row.run.lines:,}",
        f"{row.run.lines_per_s:,.0f}",
        "" if row.ratio is None else f"{row.ratio:.3g}",
        f"{row.run.cpu_us_per_line:.1f}",
        f"{row.run.peak_mb:.0f}",
        _quantiles(delay),
    ]


def _quantiles(delay: Delay | None) -> str:
    return f"{delay.p50_ms:.1f} / {delay.p99_ms:.1f}" if delay else ""


def print_rows(results: Results) -> None:
    """Print the table in columns."""
    found = [_cells(row, results.delays.get((row.contestant.name, TABLE_RATE))) for row in results.rows]
    table = [HEAD, *found]
    keep = [0, 2, 3, 4, 5, 6, 7]
    widths = {column: max(len(cells[column]) for cells in table) for column in keep}
    for cells in table:
        texts = [cells[0].ljust(widths[0]), *(cells[column].rjust(widths[column]) for column in keep[1:])]
        print("  ".join(texts))


def write_docs(results: Results) -> None:
    """Put the tables between their marks in the page, the plot beside it."""
    page = DOCS / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{page} has lost its marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}")
    (DOCS / "img").mkdir(exist_ok=True)
    (DOCS / "img" / "throughput.svg").write_text(svg(results.rows))


def markdown(results: Results) -> str:
    """Return the tables, and what each program left out."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    rows = [_cells(row, results.delays.get((row.contestant.name, TABLE_RATE))) for row in results.rows]
    beside = [LIMIT, OURS]
    by_rate = [
        [
            _rate(rate, results.delays[OURS, rate]),
            *(_quantiles(results.delays[name, rate]) for name in beside),
        ]
        for rate in results.rates(beside)
    ]
    left_out = [
        f"- **{row.contestant.name}**: {row.contestant.left_out}."
        for row in results.rows
        if row.contestant.left_out
    ]
    lines = [
        f"Rates: {results.rates_note}.",
        f"Delays: at {TABLE_RATE:,} lines a second, {results.delays_note}.",
        f"Machine: {machine}.",
        "",
        *_table(HEAD, rows, texts=2),
        "",
        "The delay at other rates, p50 / p99 in ms:",
        "",
        *_table(["lines/s", *beside], by_rate),
        "",
        "Left out of the job:",
        "",
        *left_out,
    ]
    return "\n".join(lines)


def _rate(asked: int, delay: Delay) -> str:
    """Return the rate asked for; and the one that was reached, where the sender did not keep up."""
    kept_up = delay.lines_per_s > 0.98 * asked
    return f"{asked:,}" if kept_up else f"{delay.lines_per_s:,.0f} of {asked:,}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 0) -> list[str]:
    """Return the lines of a table; all columns but the first `texts` hold numbers."""
    ruler = "| --- " * texts + "| ---: " * (len(head) - texts) + "|"
    first, *rest = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    return [first, ruler, *rest]


def svg(rows: Sequence[Row]) -> str:
    """Return a bar a program, as long as its rate."""
    scale = (WIDTH_PX - LABEL_PX - 90) / max(row.run.lines_per_s for row in rows)
    height = GAP_PX + len(rows) * (BAR_PX + GAP_PX)
    shapes = []
    for number, row in enumerate(rows):
        top = GAP_PX + number * (BAR_PX + GAP_PX)
        length = max(1.0, row.run.lines_per_s * scale)
        middle = top + BAR_PX * 0.7
        name = escape(row.contestant.name)
        colour = "#1f6f8b" if row.contestant.roles else "#9aa5ad"
        if row.contestant.name == LIMIT:
            x = LABEL_PX + length
            shapes.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}" stroke="#888" stroke-dasharray="3 3"/>'
            )
        shapes += [
            f'<text x="{LABEL_PX - 8}" y="{middle:.1f}" text-anchor="end">{name}</text>',
            f'<rect x="{LABEL_PX}" y="{top}" width="{length:.1f}" height="{BAR_PX}" fill="{colour}"/>',
            f'<text x="{LABEL_PX + length + 6:.1f}" y="{middle:.1f}">{row.run.lines_per_s:,.0f}/s</text>',
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}" role="img"'
        ' font-family="sans-serif" font-size="13" fill="#222">\n'
        "<title>Records a second on one core</title>\n"
        f'<rect width="{WIDTH_PX}" height="{height}" fill="#fff"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )
