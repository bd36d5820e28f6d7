"""The subcommands of `clv-drift model`: thin, each imports what it runs when it runs."""

from pathlib import Path
from typing import Annotated

import typer

model = typer.Typer(no_args_is_help=True, help="Model versions: look at them, promote one, go back.")

RegistryOption = Annotated[
    Path | None,
    typer.Option("--registry", help="Directory of the models. Default: the setting registry_dir."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


@model.command("list")
def model_list(registry_dir: RegistryOption = None, as_json: JsonOption = False) -> None:
    """List the versions in the registry, oldest training first; damaged ones with the reason."""
    import msgspec
    from rich.console import Console

    from models.registry import Registry
    from streams.batch import registry_errors
    from streams.batch_report import cards_table
    from streams.settings import load_settings

    registry = Registry(load_settings(registry_dir=registry_dir).registry_dir)
    with registry_errors():
        cards, damaged = registry.cards(), registry.damaged()
    if as_json:
        typer.echo(msgspec.json.encode({"versions": cards, "damaged": damaged}))
    elif cards or damaged:
        Console().print(cards_table(cards, damaged))
    else:
        typer.echo(f"no model in {registry.directory}")


@model.command("show")
def model_show(
    version: Annotated[str, typer.Argument(help="A version, as `list` shows it.")],
    registry_dir: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the card of a version: what it learned from, how it did, why it was promoted or kept."""
    import msgspec
    from rich.console import Console

    from models.registry import Registry
    from streams.batch import registry_errors
    from streams.batch_report import card_report
    from streams.settings import load_settings

    with registry_errors():
        card = Registry(load_settings(registry_dir=registry_dir).registry_dir).card(version)
    if as_json:
        typer.echo(msgspec.json.encode(card))
        return
    for part in card_report(card):
        Console(soft_wrap=True).print(part, highlight=False)


@model.command("explain")
def model_explain(
    customer: Annotated[str, typer.Argument(help="A customer's id, as in the snapshots.")],
    version: Annotated[str | None, typer.Option(help="Default: the version that serves.")] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Directory of a backfill's results, to be read instead of the topics."),
    ] = None,
    registry_dir: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell in money what raises or lowers a customer's value against the average, at the newest snapshot."""
    import msgspec
    from rich.console import Console

    from streams import explaining, logs
    from streams.batch_report import explanation_report
    from streams.broker_errors import quiet_clients
    from streams.settings import load_settings

    settings = load_settings(registry_dir=registry_dir)
    logs.configure(settings, process="model")
    with quiet_clients():
        seen = explaining.newest_in_results(results) if results else explaining.newest_in_topics(settings)
    told = explaining.tell(seen, settings.known_as(customer), version)
    if as_json:
        typer.echo(msgspec.json.encode(told.to_dict()))
        return
    for part in explanation_report(told):
        Console(soft_wrap=True).print(part, highlight=False)


@model.command("promote")
def model_promote(
    version: Annotated[str, typer.Argument(help="The version that is to serve.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the log of decisions.")],
    registry_dir: RegistryOption = None,
) -> None:
    """Put a version into service, past the gate, from the next window not yet evaluated on."""
    from streams import logs, manual_decisions
    from streams.broker_errors import quiet_clients
    from streams.settings import load_settings

    settings = load_settings(registry_dir=registry_dir)
    logs.configure(settings, process="model")
    with quiet_clients():
        decision = manual_decisions.promote(settings, version, reason=reason)
    typer.echo(manual_decisions.in_words(decision))


@model.command("request")
def model_request(
    reason: Annotated[str, typer.Option(help="Why; it stands in the log of decisions.")],
) -> None:
    """Ask for a retrain at the next window not yet evaluated; the gate decides on it as on any other."""
    from streams import logs, manual_decisions
    from streams.broker_errors import quiet_clients
    from streams.settings import load_settings

    settings = load_settings()
    logs.configure(settings, process="model")
    with quiet_clients():
        decision = manual_decisions.request(settings, reason=reason)
    typer.echo(manual_decisions.in_words(decision))


@model.command("diff")
def model_diff(
    version: Annotated[str, typer.Argument(help="A version, as `list` shows it.")],
    other: Annotated[str, typer.Argument(help="The version to hold against it.")],
    registry_dir: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show in what two versions differ: what they learned from, how, and how they did."""
    import msgspec
    from rich.console import Console

    from models.registry import Registry
    from streams.batch import registry_errors
    from streams.batch_report import card_differences, differences_table
    from streams.settings import load_settings

    registry = Registry(load_settings(registry_dir=registry_dir).registry_dir)
    with registry_errors():
        found = card_differences(registry.card(version), registry.card(other))
    if as_json:
        typer.echo(msgspec.json.encode(found))
    elif found:
        Console(soft_wrap=True).print(differences_table(version, other, found), highlight=False)
    else:
        typer.echo(f"{version} and {other} do not differ")


@model.command("rollback")
def model_rollback(
    reason: Annotated[str, typer.Option(help="Why; it stands in the log of decisions.")],
    registry_dir: RegistryOption = None,
) -> None:
    """Go back to the version that served before the champion, from the next window not yet evaluated on."""
    from streams import logs, manual_decisions
    from streams.broker_errors import quiet_clients
    from streams.settings import load_settings

    settings = load_settings(registry_dir=registry_dir)
    logs.configure(settings, process="model")
    with quiet_clients():
        decision = manual_decisions.rollback(settings, reason=reason)
    typer.echo(manual_decisions.in_words(decision))


@model.command("mirror")
def model_mirror(
    registry_dir: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what MLflow lacks of the registry: runs, metrics, registered versions, who serves."""
    import msgspec

    from streams import logs, manual_decisions, mlflow_mirror
    from streams.batch import registry_errors
    from streams.broker_errors import quiet_clients
    from streams.errors import ExitCode, UserError
    from streams.settings import load_settings

    settings = load_settings(registry_dir=registry_dir)
    logs.configure(settings, process="model")
    served = None
    try:
        with quiet_clients():
            served = manual_decisions.service(settings).champion
    except UserError as exc:
        if exc.code not in {ExitCode.BROKER, ExitCode.STATE}:
            raise
        typer.echo(f"who serves is not known: {exc.message}", err=True)
    with registry_errors():
        done = mlflow_mirror.mirror(settings, served)
    if as_json:
        typer.echo(msgspec.json.encode(vars(done)))
        return
    typer.echo(
        f"runs written: {', '.join(done.runs) or 'none'}; versions: {', '.join(done.versions) or 'none'}"
    )
    if done.champion:
        typer.echo(f"{done.champion} is the champion there too")
