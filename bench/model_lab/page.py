"""The tables of the estimators, printed, and between their marks in docs/models.md."""

from pathlib import Path

import pandas as pd

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- estimators:begin -->", "<!-- estimators:end -->"

COLUMNS = {
    "nmae": ("nMAE", "{:.3f}"),
    "nmae_levelled": ("nMAE, level known", "{:.3f}"),
    "gini": ("Gini", "{:.3f}"),
    "bias": ("bias", "{:+.1%}"),
    "decile_error": ("error of deciles", "{:.1%}"),
    "top_decile_capture": ("top tenth brings", "{:.1%}"),
    "spearman": ("Spearman", "{:.3f}"),
    "mae": ("MAE", "{:.0f}"),
    "coverage": ("inside 90% interval", "{:.1%}"),
    "width": ("width, mean labels", "{:.1f}"),
    "fit_s": ("CPU s a training", "{:.2f}"),
}
# Scores that others report for 90 days on this data set, on customers and dates of their own.
PUBLISHED = {"mae": "585 to 716", "spearman": ".47 to .53"}


def walk_table(found: pd.DataFrame) -> str:
    """Return the figures of the walk, a row a forecaster, as Markdown."""
    rows = [[name, *(_cell(figures, key) for key in COLUMNS)] for name, figures in found.iterrows()]
    rows.append(["published notebooks", *(PUBLISHED.get(key, "") for key in COLUMNS)])
    return markdown(["", *(words for words, _ in COLUMNS.values())], rows)


def still_table(found: pd.DataFrame) -> str:
    """Return the levels on years without change as Markdown."""
    rows = [[str(name), *(f"{value - 1:+.0%}" for value in levels)] for name, levels in found.iterrows()]
    return markdown(["trained at week 13", *(f"week {week}" for week in found.columns)], rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Return a table whose columns line up in plain text too."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [head, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(tables: list[str]) -> None:
    """Put the tables into the page; raises SystemExit where the page lost its marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{PAGE} has lost its marks {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n\n".join(tables) + f"\n{END}{after}")


def _cell(figures: pd.Series, key: str) -> str:
    value = figures.get(key)
    if value is None or pd.isna(value) or (key == "fit_s" and value == 0):
        return ""
    return COLUMNS[key][1].format(value)
