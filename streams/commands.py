"""The subcommands that belong to `streams`: thin, each imports what it runs when it runs."""

import sys
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
    logs.configure(settings, process="worker", stream=sys.stdout)
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
    logs.configure(settings, process="retrain", stream=sys.stdout)
    check_retrain(settings)
    metrics = RetrainMetrics()
    pulse = Pulse()
    site = Site(settings, "retrain", pulse, metrics.registry, pulse.unbegun)
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
    logs.configure(settings, process="scores", stream=sys.stdout)
    check_read(settings, "registry_dir")
    topics = catalogue(settings)
    check_topics(settings, topics.rows, topics.evaluations, topics.scores)
    metrics = ScoreMetrics()
    pulse = Pulse()
    site = Site(settings, "scores", pulse, metrics.registry, pulse.unbegun)
    with closing(site):
        site.serve(settings.scores_port, setting="scores_port")
        process.run(settings, metrics, pulse.beat)


def erase(
    customer: Annotated[str, typer.Argument(help="The customer's id, as the shop has it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    everywhere: Annotated[
        bool,
        typer.Option(
            "--everywhere",
            help="In checkpoints, snapshots and rows too, where another name takes the customer's place;"
            " workers and scores processes must be stopped.",
        ),
    ] = False,
) -> None:
    """Erase a customer's score for good, and say where else they stand and until when."""
    from rich.console import Console

    from streams import erase as erasing
    from streams import logs
    from streams.broker_errors import quiet_clients
    from streams.erase_report import report
    from streams.rename import rename
    from streams.settings import load_settings

    settings = load_settings()
    logs.configure(settings, process="erase")
    with quiet_clients():
        found = erasing.look(settings, customer)
        for part in report(settings, found, everywhere=everywhere):
            Console(soft_wrap=True).print(part, highlight=False)
        if not yes:
            typer.confirm("Erase this, for good?" if everywhere else "Erase the score, for good?", abort=True)
        # First what may be refused.
        count = rename(settings, found.name) if everywhere else 0
        erasing.erase(settings, found)
    typer.echo("erased: the score; the customer is not scored again")
    if everywhere:
        typer.echo(f"{count:,} records written anew under a name that leads to nobody")


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
