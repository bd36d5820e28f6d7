"""The subcommands that belong to `streams`: thin, each imports what it runs when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from streams.roles import Role


def broker(
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port; 0 takes a free one. Default: the settings' first broker's."
        ),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the records and the log are kept.")] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only fetch Kafka and record its start-up cache.")
    ] = False,
) -> None:
    """Run a real Apache Kafka of one node, without Docker, until it is interrupted."""
    import signal

    from rich.console import Console

    from streams import embedded_kafka
    from streams.settings import load_settings
    from streams.start_checks import check_written

    settings = load_settings(kafka_dir=data_dir)
    check_written(settings, "kafka_cache_dir")
    out = Console(soft_wrap=True, highlight=False, markup=False)
    err = Console(soft_wrap=True, highlight=False, markup=False, stderr=True)
    if prepare:
        embedded_kafka.prepare(settings.kafka_cache_dir, say=err.print)
        return
    check_written(settings, "kafka_dir")
    if port is None:
        port = settings.first_port
    # A polite request to end is an interrupt, also while the broker starts.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    kafka = embedded_kafka.EmbeddedKafka(settings.kafka_dir, settings.kafka_cache_dir, port)
    try:
        kafka.start(say=err.print)
        out.print(f"broker ready at {kafka.bootstrap_servers}, pid {kafka.pid}, log {kafka.log_file}")
        kafka.wait()
    except KeyboardInterrupt:
        kafka.stop()
        err.print("broker stopped")


def topics(
    check: Annotated[bool, typer.Option("--check", help="Compare only; create nothing.")] = False,
) -> None:
    """Create the topics that are missing and say how the others differ; nothing is altered."""
    from rich.console import Console
    from rich.table import Column, Table

    from streams.errors import ExitCode
    from streams.settings import load_settings
    from streams.topic_admin import review_topics

    table = Table(Column("topic", no_wrap=True), "partitions", "purpose", "state")
    reviews = review_topics(load_settings(), create=not check)
    for review in reviews:
        differences = "\n".join(map(str, review.differences))
        state = differences or ("created" if review.created else "ok")
        table.add_row(review.spec.name, str(review.spec.partitions), review.spec.purpose, state)
    Console().print(table)
    if any(review.differences for review in reviews):
        raise typer.Exit(ExitCode.STATE)


def worker(
    role: Annotated[
        Role, typer.Option(help="Which agents to run; each role but `all` has a consumer group of its own.")
    ] = Role.ALL,
    port: Annotated[int | None, typer.Option(help="Port of the web pages; 0 turns them off.")] = None,
) -> None:
    """Run the streaming app: windows, verdicts, Evidently; start as many as there are partitions."""
    from streams import logs
    from streams import worker as process
    from streams.settings import load_settings
    from streams.start_checks import check_worker

    settings = load_settings(worker_port=port)
    logs.configure(settings, process="worker")
    check_worker(settings, role)
    process.run(settings, role)


def retrain(
    port: Annotated[int | None, typer.Option(help="Port of the web pages; 0 turns them off.")] = None,
) -> None:
    """Answer requests for a model: train, hold against the champion, publish the decision."""
    from contextlib import closing

    from streams import logs
    from streams import retrain as process
    from streams.metrics import RetrainMetrics
    from streams.settings import load_settings
    from streams.start_checks import check_retrain
    from streams.web.health import Pulse
    from streams.web.site import Site

    settings = load_settings(retrain_port=port)
    logs.configure(settings, process="retrain")
    check_retrain(settings)
    metrics = RetrainMetrics()
    pulse = Pulse()
    site = Site(settings, "retrain", pulse, metrics.pages(), pulse.unbegun)
    with closing(site):
        site.serve(settings.retrain_port, setting="retrain_port")
        process.run(settings, metrics, pulse.beat)


def scores(
    port: Annotated[int | None, typer.Option(help="Port of the web pages; 0 turns them off.")] = None,
) -> None:
    """Keep each customer's predicted value in a compacted topic; start as many as there are partitions."""
    from contextlib import closing

    from streams import logs
    from streams import scoring as process
    from streams.score_metrics import ScoreMetrics
    from streams.settings import load_settings
    from streams.start_checks import check_read, check_topics
    from streams.topics import catalogue
    from streams.web.health import Pulse
    from streams.web.site import Site

    settings = load_settings(scores_port=port)
    logs.configure(settings, process="scores")
    check_read(settings, "registry_dir")
    topics = catalogue(settings)
    check_topics(settings, topics.rows, topics.evaluations, topics.scores)
    metrics = ScoreMetrics()
    pulse = Pulse()
    site = Site(settings, "scores", pulse, metrics.pages(), pulse.unbegun)
    with closing(site):
        site.serve(settings.scores_port, setting="scores_port")
        process.run(settings, metrics, pulse.beat)


def rights(
    process: Annotated[str, typer.Argument(help="Process whose rights are listed. Default: all.")] = "",
    principal: Annotated[
        str, typer.Option(help="Principal in Kafka's form; {process} stands for the process's name.")
    ] = "User:{process}",
) -> None:
    """Print the least rights of each process, as calls of Kafka's own tool for ACLs."""
    from streams.errors import ExitCode, UserError
    from streams.rights import PROCESSES, commands_of
    from streams.settings import load_settings

    if process and process not in PROCESSES:
        raise UserError(
            f"there is no process {process!r}", hint=f"one of {', '.join(PROCESSES)}", code=ExitCode.USAGE
        )
    settings = load_settings()
    for name in [process] if process else PROCESSES:
        for line in commands_of(name, principal.replace("{process}", name), settings):
            typer.echo(line)


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON, one object a line.")
    ] = False,
) -> None:
    """Check settings, directories, disk, models, broker, topics and clocks, and say what to do.

    Exits with 0 where nothing failed, else with the code of the first check that did.
    """
    import msgspec
    from rich.console import Console
    from rich.text import Text

    from streams import doctor as checks

    styles = {"ok": "green", "warning": "yellow", "failed": "red", "unknown": "dim"}
    out = Console(soft_wrap=True, highlight=False)
    findings = []
    for finding in checks.examine():
        findings.append(finding)
        if as_json:
            typer.echo(msgspec.json.encode(finding))
            continue
        out.print(
            Text(f"{finding.status:8}", styles[finding.status]), Text(f"{finding.check}: {finding.found}")
        )
        if finding.hint:
            out.print(Text(f"{'':8} {finding.hint}"))
    raise typer.Exit(checks.exit_code(findings))


def watch(
    once: Annotated[
        bool, typer.Option("--once", help="Print one plain snapshot and end; so it is without a terminal.")
    ] = False,
) -> None:
    """Show the feed, the windows, the model and what it waits for, live; Ctrl-C ends it."""
    import contextlib
    import signal

    from rich.console import Console

    from streams import watch as viewer
    from streams.settings import load_settings

    # A polite request to end must leave the terminal as it was.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        viewer.watch(load_settings(), Console(highlight=False), once=once)


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
    told = explaining.tell(seen, customer, version)
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
