"""The documentation as a site: it builds, every link leads somewhere, and reading it calls nobody."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
LOADED = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=["']?(https?:)?//[^"' >]+""")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make site` builds it; `--strict` refuses a link or an anchor that leads nowhere."""
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)]
    built = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return directory


def test_every_page_is_there(site):
    pages = {path.relative_to(PROJECT / "docs").with_suffix(".html") for path in PROJECT.glob("docs/**/*.md")}
    built = {path.relative_to(site) for path in site.rglob("*.html")}
    assert pages <= built


def test_reading_it_asks_nobody_else(site):
    for path in site.rglob("*.html"):
        found = LOADED.search(path.read_text())
        assert not found or 'rel="canonical"' in found[0], f"{path.name}: {found[0]}"


def test_the_readme_s_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#\s]+)", (PROJECT / "README.md").read_text()):
        assert "://" in target or (PROJECT / target).exists(), target
