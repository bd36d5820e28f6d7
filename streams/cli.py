"""The console script: subcommands come from entry points, mistakes end in one clear message."""

import os
import signal
import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console
from rich.markup import escape

from streams.errors import ExitCode, UserError
from streams.texts import clean

GROUP = "clv_drift.commands"

# Evidently reports home unless told not to; set before anything imports it.
os.environ.setdefault("DO_NOT_TRACK", "1")


def build() -> typer.Typer:
    """Return the command line with every registered subcommand.

    An entry point is either a function (a command) or a `typer.Typer` (a group of commands).
    """
    app = typer.Typer(
        name="clv-drift",
        help="Event-driven drift monitor for customer-lifetime-value models.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    # A single command would become the program itself; the callback keeps the subcommand style.
    app.callback()(lambda: None)
    for entry in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        command = entry.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(name=entry.name)(command)
    return app


def main() -> None:
    """Run the console script."""
    stderr = Console(stderr=True)
    # A script's background job inherits a SIGINT that is ignored; who sends one means it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        build()()
    except UserError as exc:
        from streams import logs  # noqa: PLC0415  (what most commands do not need would slow them down)

        if not logs.tell_end(exc):
            stderr.print(f"[bold red]error[/]: {escape(clean(exc.message))}", highlight=False, soft_wrap=True)
            if exc.hint:
                stderr.print(f"[dim]hint: {escape(clean(exc.hint))}[/]", highlight=False, soft_wrap=True)
        sys.exit(exc.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(ExitCode.OK)


if __name__ == "__main__":
    main()
