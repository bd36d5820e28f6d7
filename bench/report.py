"""The table and the plot of `compare.py`: on the terminal, in docs/performance.md, as SVG."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from contestants import LIMIT, Contestant
from measure import Delay, Run

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"
BAR_PX, GAP_PX, LABEL_PX, WIDTH_PX = 22, 10, 230, 760


@dataclass(frozen=True)
class Row:
    """A program beside the limit; `ratio` is its rate over bare aiokafka's."""

    contestant: Contestant
    run: Run
    ratio: float | None
    delay: Delay | None

    def cells(self) -> list[str]:
        """Return the row's texts."""
        delay = f"{self.delay.p50_ms:.1f} / {self.delay.p99_ms:.1f}" if self.delay else ""
        return [
            self.contestant.name,
            self.contestant.does,
            f"{self.run.lines:,}",
            f"{self.run.lines_per_s:,.0f}",
            "" if self.ratio is None else f"{self.ratio:.3g}",
            f"{self.run.cpu_us_per_line:.1f}",
            f"{self.run.peak_mb:.0f}",
            delay,
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return {
            "name": self.contestant.name,
            "lines": self.run.lines,
            "lines_per_s": self.run.lines_per_s,
            "ratio": self.ratio,
            "cpu_us_per_line": self.run.cpu_us_per_line,
            "peak_mb": self.run.peak_mb,
            "delay_ms": [self.delay.p50_ms, self.delay.p99_ms] if self.delay else None,
        }


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


def print_rows(rows: Sequence[Row]) -> None:
    """Print the table in columns."""
    table = [HEAD, *(row.cells() for row in rows)]
    keep = [0, 2, 3, 4, 5, 6, 7]
    widths = {column: max(len(cells[column]) for cells in table) for column in keep}
    for cells in table:
        texts = [cells[0].ljust(widths[0]), *(cells[column].rjust(widths[column]) for column in keep[1:])]
        print("  ".join(texts))


def write_docs(rows: Sequence[Row], *, title: str, rate: int) -> None:
    """Put the table between its marks in the page, the plot beside it."""
    page = DOCS / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{page} has lost its marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{markdown(rows, title=title, rate=rate)}\n{END}{after}")
    (DOCS / "img").mkdir(exist_ok=True)
    (DOCS / "img" / "throughput.svg").write_text(svg(rows))


def markdown(rows: Sequence[Row], *, title: str, rate: int) -> str:
    """Return the table, and what each program left out."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"{title}; delays at {rate:,} lines a second; {machine}.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "| --- | --- " + "| ---: " * (len(HEAD) - 2) + "|",
        *("| " + " | ".join(row.cells()) + " |" for row in rows),
        "",
        "Left out of the job:",
        "",
        *(
            f"- **{row.contestant.name}**: {row.contestant.left_out}."
            for row in rows
            if row.contestant.left_out
        ),
    ]
    return "\n".join(lines)


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
