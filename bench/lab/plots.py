"""The plots of the page as SVG: false alarms against what is found, and how soon it is found."""

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from .streams import AFTER_ONSET, ONSET_WEEK
from .summary import Row

WIDTH, HEIGHT = 780, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 230, 20, 50
DOT, RING = 5, 3  # radius of a point, and by how much it shows beneath another
OURS_COLOUR = "#1f6f8b"
COLOURS = (
    "#c44536",
    "#e09f3e",
    "#6a4c93",
    "#3a7d44",
    "#8a8f94",
    "#8d5524",
    "#d36ba6",
    "#b5bd00",
    "#f4845f",
    "#9d8df1",
    "#7ae582",
    "#3d3d3d",
)
DASHES = {"full": "", "half": "7 4", "quarter": "2 4"}


class Axes(NamedTuple):
    """Percent upwards, from `x_min` to `x_max` to the right."""

    x_min: float
    x_max: float

    def x(self, value: float) -> float:
        """Return where a value lies across."""
        return LEFT + (value - self.x_min) / (self.x_max - self.x_min) * (WIDTH - LEFT - RIGHT)

    @staticmethod
    def y(share: float) -> float:
        """Return where a share lies upwards."""
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def frame(self, x_title: str, y_title: str, x_ticks: Sequence[float]) -> list[str]:
        """Return the grid with its numbers and titles."""
        below, middle = HEIGHT - BOTTOM + 18, (LEFT + WIDTH - RIGHT) // 2
        shapes = [
            _text(middle, HEIGHT - 8, x_title, 'text-anchor="middle"'),
            _text(16, HEIGHT // 2, y_title, f'text-anchor="middle" transform="rotate(-90 16 {HEIGHT // 2})"'),
            *(_text(self.x(tick), below, f"{tick:g}", 'text-anchor="middle"') for tick in x_ticks),
        ]
        for percent in range(0, 101, 20):
            y = self.y(percent / 100)
            shapes += [
                _line((LEFT, y), (WIDTH - RIGHT, y), "#ddd"),
                _text(LEFT - 8, y + 4, str(percent), 'text-anchor="end"'),
            ]
        return shapes


def alarms_against_power(rows: Sequence[Row]) -> str:
    """Return a point a method: quiet streams with an alarm to the right, drifts found upwards.

    Of points that coincide each one shows as a ring around the next.
    """
    axes = Axes(0.0, 100.0)
    shapes = axes.frame(
        "quiet streams with any alarm, %", "found within 13 weeks at full strength, %", range(0, 101, 20)
    )
    shown = [row for row in rows if "full" in row.score.found]
    places = [(row.score.alarmed_streams.share, row.score.found["full"].share) for row in shown]
    above = [places[number + 1 :].count(place) for number, place in enumerate(places)]
    for row, over, colour, y_key in zip(shown, above, _colours(shown), _key_lines(shown), strict=True):
        quiet, found = row.score.alarmed_streams, row.score.found["full"]
        x, y = axes.x(100 * quiet.share), axes.y(found.share)
        shapes += [
            _line(
                (axes.x(100 * quiet.low), y), (axes.x(100 * quiet.high), y), colour, 'stroke-opacity="0.5"'
            ),
            _line((x, axes.y(found.low)), (x, axes.y(found.high)), colour, 'stroke-opacity="0.5"'),
            _dot(x, y, colour, DOT + RING * over),
            _dot(WIDTH - RIGHT + 22, y_key - 4, colour),
            _text(WIDTH - RIGHT + 34, y_key, row.name),
        ]
    return _svg("False alarms against drifts found", shapes)


def found_by_week(rows: Sequence[Row]) -> str:
    """Return a line a method (and strength, where several were watched): the share found by each week."""
    weeks = [week - ONSET_WEEK for week in AFTER_ONSET]
    axes = Axes(1.0, float(weeks[-1]))
    shapes = axes.frame("weeks since the onset", "drifts found, %", weeks)
    shown = [row for row in rows if row.score.found_by_week]
    for row, colour, y_key in zip(shown, _colours(shown), _key_lines(shown), strict=True):
        for strength, shares in row.score.found_by_week.items():
            points = [(axes.x(week), axes.y(share)) for week, share in zip(weeks, shares, strict=True)]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            shapes.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"'
                f' stroke-dasharray="{DASHES[strength]}"/>'
            )
        key = ((WIDTH - RIGHT + 14, y_key - 4), (WIDTH - RIGHT + 30, y_key - 4))
        shapes += [_line(*key, colour, 'stroke-width="2"'), _text(WIDTH - RIGHT + 34, y_key, row.name)]
    return _svg("Drifts found by the week; dashed at half, dotted at quarter strength", shapes)


def _line(begin: tuple[float, float], end: tuple[float, float], colour: str, more: str = "") -> str:
    (x1, y1), (x2, y2) = begin, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def _dot(x: float, y: float, colour: str, radius: int = DOT) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(words)}</text>'


def _colours(rows: Sequence[Row]) -> list[str]:
    """Return our colour for the first row, for the others a colour each as long as they last."""
    return [OURS_COLOUR, *(COLOURS[number % len(COLOURS)] for number in range(len(rows) - 1))][: len(rows)]


def _key_lines(rows: Sequence[Row]) -> list[int]:
    return [TOP + 14 + 20 * number for number in range(len(rows))]


def _svg(title: str, shapes: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' font-family="sans-serif" font-size="13" fill="#222">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )
