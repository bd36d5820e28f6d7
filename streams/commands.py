"""The subcommands that belong to `streams`: thin, each imports what it runs when it runs."""

from pathlib import Path
from typing import Annotated

import typer


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

    settings = load_settings(kafka_dir=data_dir)
    out = Console(soft_wrap=True, highlight=False, markup=False)
    err = Console(soft_wrap=True, highlight=False, markup=False, stderr=True)
    if prepare:
        embedded_kafka.prepare(settings.kafka_cache_dir, say=err.print)
        return
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
