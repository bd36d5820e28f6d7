"""The documentation is tested: the reference pages say what the code says, and every name has its place."""

import re
import subprocess
import sys
import tomllib

from conftest import PROJECT

from streams.errors import ExitCode
from streams.settings import DEFAULT_FILE, Settings


def test_reference_pages_are_current():
    checked = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_exit_codes_are_listed():
    listed = set(re.findall(r"^\| (\d+) \|", (PROJECT / "docs/operations.md").read_text(), re.MULTILINE))
    assert listed == {str(code.value) for code in ExitCode} | {"130"}


def test_links_lead_somewhere():
    pages = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_modules_named_in_the_architecture_exist():
    text = (PROJECT / "docs/architecture.md").read_text()
    for name in re.findall(r"`((?:streams|producers|models)/[a-z_]+\.py)`", text):
        assert (PROJECT / name).is_file(), name


def test_example_settings_exist():
    text = (PROJECT / DEFAULT_FILE).read_text()
    assert tomllib.loads(text) == {}, "the example sets something"
    examples = tomllib.loads("\n".join(re.findall(r"^# (\[\[\w+\]\]|\w+ = .*)$", text, re.MULTILINE)))
    assert len(examples) > 5
    Settings(**examples)
