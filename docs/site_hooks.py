"""What the site does besides MkDocs: links to files that lie outside of docs/ become their names."""

import re
from pathlib import PurePosixPath
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page whose links out of docs/ are names of files: the site is read without the repository."""
    return _LINK.sub(lambda found: _inside(found, PurePosixPath(page.file.src_uri).parent), markdown)


def _inside(found: re.Match[str], directory: PurePosixPath) -> str:
    words, target = found[1], found[2]
    if "://" in target:
        return found[0]
    depth = len(directory.parts)
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return f"{words} (`{target.lstrip('./')}`)"
    if (directory / target).suffix in {".md", ".svg", ".png"}:
        return found[0]
    return f"{words} (`docs/{directory / target}`)"
