"""Requests and answers as the pages see them: no socket, no server."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

# A page takes nothing from elsewhere, runs no script and no style but our files, and stands in no frame.
OWN_FILES_ONLY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Request:
    """What a page may know of a request; `path` as it came, without the query."""

    path: str
    headers: Mapping[str, str]  # by names in lower case


@dataclass(frozen=True)
class Answer:
    """A whole answer; `policy` is its Content-Security-Policy."""

    body: bytes
    content_type: str = TEXT
    status: HTTPStatus = HTTPStatus.OK
    policy: str = OWN_FILES_ONLY
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """An answer without an end: `chunks` waits for what is new; it is closed when its reader is gone."""

    chunks: Generator[bytes, None, None]
    content_type: str = "text/event-stream"


Page = Callable[[Request], Answer | Stream]
# By path; a path that ends in a slash, "/" apart, stands for all that begin with it.
Pages = Mapping[str, Page]


def page_for(pages: Pages, path: str) -> Page | None:
    """Return the page that answers `path`, None where there is none."""
    if path in pages:
        return pages[path]
    return next(
        (page for own, page in pages.items() if len(own) > 1 and own[-1] == "/" and path.startswith(own)),
        None,
    )


def as_json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """Return JSON values as an answer."""
    return Answer(msgspec.json.encode(value) + b"\n", JSON, status)


def problem(status: HTTPStatus, text: str, **headers: str) -> Answer:
    """Return what went wrong, in one line; an underscore in the name of a header stands for its hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(f"{text}\n".encode(), status=status, headers=named)
