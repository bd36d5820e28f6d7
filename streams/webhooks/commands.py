"""The subcommands `clv-drift webhooks ...`: thin, each imports what it runs when it runs."""

import sys
from typing import Annotated

import typer

webhooks = typer.Typer(invoke_without_command=True)

NameArgument = Annotated[str, typer.Argument(help="An endpoint: NAME of a table webhooks.NAME.")]


@webhooks.callback()
def run(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(help="Port of the web pages; 0 turns them off.")] = None,
) -> None:
    """Deliver drift events and decisions to the endpoints of the settings, until it is interrupted."""
    if context.invoked_subcommand is not None:
        return
    from contextlib import closing

    from streams import logs
    from streams.settings import load_settings
    from streams.start_checks import check_topics, check_written
    from streams.topics import catalogue
    from streams.web.health import Pulse
    from streams.web.site import Site
    from streams.webhooks import process
    from streams.webhooks.administration import check_any
    from streams.webhooks.metrics import WebhookMetrics

    settings = load_settings(webhooks_port=port)
    logs.configure(settings, process="webhooks", stream=sys.stdout)
    check_any(settings)
    check_written(settings, "webhooks_dir")
    topics = catalogue(settings)
    check_topics(settings, topics.events, topics.models, topics.dead_letters)
    metrics = WebhookMetrics(tuple(settings.webhooks))
    pulse = Pulse()
    site = Site(settings, "webhooks", pulse, metrics.registry, pulse.unbegun)
    with closing(site):
        site.serve(settings.webhooks_port, setting="webhooks_port")
        process.run(settings, metrics, pulse.beat)


@webhooks.command()
def dead(as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False) -> None:
    """List the deliveries that were given up, oldest first, with the reason."""
    import msgspec
    from rich.console import Console

    from streams.settings import load_settings
    from streams.webhooks import administration

    found = administration.dead(load_settings())
    if as_json:
        typer.echo(msgspec.json.encode(found))
    elif found:
        Console().print(administration.dead_table(found))
    else:
        typer.echo("no dead delivery")


@webhooks.command()
def redeliver(
    name: NameArgument,
    event_id: Annotated[
        str | None, typer.Option("--id", help="Only the delivery of this event or digest.")
    ] = None,
) -> None:
    """Put dead deliveries back into the queue of an endpoint, in their old order."""
    from streams.settings import load_settings
    from streams.webhooks import administration

    count = administration.redeliver(load_settings(), name, event_id)
    typer.echo(f"{count} put back; the running `clv-drift webhooks`, or the next one, delivers them")


@webhooks.command()
def test(name: NameArgument) -> None:
    """Send a test message to an endpoint at once, past its filter and its queue, and tell the result."""
    from streams.settings import load_settings
    from streams.webhooks import administration

    typer.echo(administration.test(load_settings(), name))
