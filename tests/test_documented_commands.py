"""Every `clv-drift` command that a page shows is one that the program takes, with these options.

`test_typed_commands.py` types them, and the other lines that the pages show for a shell.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from conftest import PROJECT
from rich.markup import render

from streams.cli import build

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^ *```(?:sh|bash|shell|console)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(clv-drift [^`]+)`")
ENDS = re.compile(r"\s(?:\||>|&&|;|#|--\s*$)")


def commands() -> Iterator[tuple[str, str]]:
    """Yield (page, command); what follows a pipe or a comment is left out."""
    for page in PAGES:
        text = page.read_text()
        lines = re.sub(r"\\\n\s*", " ", "\n".join(FENCED.findall(text))).splitlines()
        shown = [found[0] for line in lines if (found := re.search(r"clv-drift .*", line))]
        shown += INLINE.findall(FENCED.sub("", text))
        for command in (ENDS.split(line)[0].strip() for line in shown):
            first, *others = command.split(", ")  # several at once, as in `clv-drift model list, show`
            yield page.name, first
            yield from ((page.name, f"{first.rpartition(' ')[0]} {other}") for other in others)


def lines_of_shells() -> Iterator[str]:
    """Yield each line that a page shows for a shell, without prompt and comment."""
    for page in PAGES:
        for text in SHELL.findall(page.read_text()):
            for line in re.sub(r"\\\n\s*", " ", text).splitlines():
                if typed := re.sub(r"\s+#.*", "", line).strip().removeprefix("$ "):
                    yield typed


SHOWN = sorted(set(commands()))
PROGRAM = typer.main.get_command(build())


class RefusedError(Exception):
    """A command that the program does not take."""


def parse(command: Any, words: list[str]) -> None:
    """Let the program's own parser read the words, and run nothing; raises RefusedError."""
    context = command.context_class(command, info_name=command.name)
    try:
        _, rest, _ = command.make_parser(context).parse_args(list(words))
        inner, inner_words = None, rest
        if rest and hasattr(command, "resolve_command"):
            _, inner, inner_words = command.resolve_command(context, rest)
    except Exception as exc:  # typer brings a click of its own, whose errors have no public name
        raise RefusedError(str(exc)) from exc
    if inner is not None:
        parse(inner, inner_words)
    elif rest:
        raise RefusedError(f"nobody takes {rest}")


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=lambda words: words[:50])
def test_a_command_that_is_shown_is_taken(page, command):
    words = shlex.split(command)[1:]
    if not words or not re.fullmatch(r"[a-z]+", words[0]):
        return  # the program itself
    parse(PROGRAM, words)


def test_there_are_commands_to_look_at():
    assert len(SHOWN) > 40
    assert len(list(lines_of_shells())) > 15


def texts_of(command: Any) -> Iterator[str]:
    """Yield the help of a command and all below it."""
    yield from filter(None, [command.help, *(getattr(it, "help", None) for it in command.params)])
    for inner in getattr(command, "commands", {}).values():
        yield from texts_of(inner)


def test_no_help_text_has_what_the_terminal_takes_for_markup():
    assert [text for text in texts_of(PROGRAM) if render(text).plain != text] == []


def test_an_option_that_is_not_there_is_noticed():
    for words in (["replay", "--no-such-option"], ["no-such-command"], ["topics", "what", "is", "this"]):
        with pytest.raises(RefusedError):
            parse(PROGRAM, words)
