"""Evidently's reports as files: their names, which are kept, and how one is shown."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from streams.web.pages import Answer, Page, Request, problem

PATH = "/reports/"
NAME = re.compile(r"\d{4}-\d\d-\d\d\.html", re.ASCII)
# A report brings scripts of its own, and a policy of its own that names them. In the sandbox it is of no
# origin, so it has no cookie and reads no other page; it opens no window, and may not speak to anybody. No
# header keeps a script that runs from leading its own tab elsewhere: its policy says what runs.
SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)


def report_path(directory: Path, window_end: int) -> Path:
    """Return where the report on a window goes (end in epoch seconds)."""
    return directory / f"{datetime.fromtimestamp(window_end, UTC):%Y-%m-%d}.html"


def report_days(directory: Path) -> list[str]:
    """Return the days of the windows that have a report here, oldest first."""
    with suppress(OSError):  # no directory: no report was made on this machine
        return sorted(path.stem for path in directory.iterdir() if NAME.fullmatch(path.name))
    return []


def prune_reports(directory: Path, kept: int) -> list[str]:
    """Remove all reports but those of the `kept` newest windows; return the days of those removed.

    Other files are left alone. Raises OSError where a report cannot be removed.
    """
    old = report_days(directory)[:-kept]
    for day in old:
        (directory / f"{day}.html").unlink(missing_ok=True)
    return old


def reports_page(directory: Path) -> Page:
    """Return the page of the reports; only names that a report can have are looked up."""

    def page(request: Request) -> Answer:
        name = request.path.removeprefix(PATH)
        if not NAME.fullmatch(name):
            return problem(HTTPStatus.NOT_FOUND, "reports are named by a window's end, as in 2011-06-06.html")
        try:
            body = (directory / name).read_bytes()
        except OSError:
            gone = (
                "this report is not on this machine: an old one that was removed, or another worker made it"
            )
            return problem(HTTPStatus.NOT_FOUND, gone)
        return Answer(body, "text/html; charset=utf-8", policy=SANDBOX)

    return page
