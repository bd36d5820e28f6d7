"""The subcommands that belong to `producers`: thin, each imports what it runs when it runs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from streams.model_commands import RegistryOption

FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT", help="Online Retail as .csv, .csv.gz, .xlsx or .parquet; any shop's by a mapping."
    ),
]
InputArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[INPUT]",
        help="Online Retail as .csv, .csv.gz, .xlsx or .parquet; any shop's by a mapping."
        " Default: the one in data/, else synthetic data.",
    ),
]
SyntheticOption = Annotated[
    str | None,
    typer.Option(help="A synthetic shop instead of INPUT: customers=4000,days=373,seed=1,start=2010-12-01."),
]
InjectOption = Annotated[
    list[str] | None,
    typer.Option(help="Drift scenario, such as price:+20%@2011-06-06~8w; may be given several times."),
]
MappingOption = Annotated[
    Path | None,
    typer.Option(
        help="How another shop's file is read: see config/mapping.example.toml. Default: the setting."
    ),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only so many rows of the input.")]


def replay(
    source: InputArgument = None,
    speed: Annotated[
        str | None,
        typer.Option(help="Seconds of event time a second (604800 is a week a second), or `max`."),
    ] = None,
    inject: InjectOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Send only what is not in the topic yet.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="An endless synthetic feed with today's dates.")
    ] = False,
    lines_per_s: Annotated[float, typer.Option(min=0.01, max=100_000, help="Rate of --live.")] = 20.0,
    synthetic: SyntheticOption = None,
    limit: LimitOption = None,
    mapping: MappingOption = None,
    follow: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Follow a growing CSV file, or `-` for what is piped in."),
    ] = None,
    no_end: Annotated[
        bool, typer.Option("--no-end", help="Write no end_of_input: more is to follow.")
    ] = False,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Brokers, as host:port[,host:port].")] = None,
) -> None:
    """Send transactions to Kafka: in order, at a pace, resumable, with drift scenarios."""
    from rich.console import Console

    from producers.session import Request, run
    from streams.errors import ExitCode, UserError
    from streams.settings import load_settings

    event_s_per_s = None
    if speed not in {None, "max"}:
        try:
            event_s_per_s = float(str(speed))
        except ValueError:
            event_s_per_s = 0.0
        if not 0 < event_s_per_s < float("inf"):
            raise UserError(f"refused speed {speed!r}", hint="a number above 0, or max", code=ExitCode.USAGE)
    request = Request(
        path=source,
        synthetic=synthetic,
        inject=tuple(inject or ()),
        speed=event_s_per_s,
        resume=resume,
        live=live,
        lines_per_s=lines_per_s,
        limit=limit,
        end=not no_end,
    )
    console = Console(soft_wrap=True, highlight=False)
    settings = load_settings(bootstrap_servers=bootstrap_servers, mapping=mapping)
    if follow is not None:
        from producers.follow_session import run_follow

        raise typer.Exit(run_follow(settings, follow, request, console))
    raise typer.Exit(run(settings, request, console))


def check(
    source: FileArgument,
    mapping: MappingOption = None,
    json: Annotated[bool, typer.Option("--json", help="The profile as JSON, for a program.")] = False,
) -> None:
    """Say what a file would be to the stream, without Kafka: columns, figures, dead letters and why."""
    import msgspec
    from rich.console import Console

    from producers.check import examine
    from producers.check_report import check_report
    from streams.settings import load_settings

    profile = examine(source, load_settings(mapping=mapping))
    if json:
        typer.echo(msgspec.json.format(msgspec.json.encode(profile)).decode())
    else:
        console = Console(soft_wrap=True, highlight=False)
        for part in check_report(profile):
            console.print(part)
    raise typer.Exit(profile.exit_code)


def backfill(
    out: Annotated[Path, typer.Option(help="Directory of the results; it appears whole or not at all.")],
    source: InputArgument = None,
    partitions: Annotated[
        int,
        typer.Option(min=1, max=1_000, help="Partitions as in the topic; the results do not depend on it."),
    ] = 1,
    inject: InjectOption = None,
    synthetic: SyntheticOption = None,
    decisions: Annotated[
        Path | None,
        typer.Option(
            help="Follow the decisions of a run on Kafka: a file of the messages in clv.models, one a line."
        ),
    ] = None,
    limit: LimitOption = None,
    mapping: MappingOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the results of an earlier backfill.")
    ] = False,
) -> None:
    """Run the whole stream over a file, without Kafka: snapshots, evaluations, events, decisions, models."""
    from rich.console import Console

    from producers import scenarios
    from producers.batch_input import batch_records, shown
    from producers.inputs import find_input
    from streams import batch, batch_report
    from streams.settings import load_settings
    from streams.start_checks import check_names

    settings = load_settings(mapping=mapping)
    check_names(settings)
    progress = Console(stderr=True)
    changes = [scenarios.parse(text) for text in inject or ()]
    found, note = find_input(source, synthetic, changes, settings.field_mapping)
    if note:
        progress.print(f"note: {note}", markup=False)
    with shown(progress, found, limit) as bar:
        records = batch_records(settings, found, partitions=partitions, limit=limit)
        summary = batch.backfill(
            bar.passing(records),
            settings,
            out,
            partitions=partitions,
            followed=decisions,
            force=force,
            watch=bar.note,
        )
    console = Console(soft_wrap=True, highlight=False)
    for part in batch_report.summary_report(summary):
        console.print(part)
    console.print(f"results in {out}", markup=False)


def train(
    source: FileArgument,
    registry_dir: RegistryOption = None,
    mapping: MappingOption = None,
) -> None:
    """Train a model on a file and store it; it serves only once `clv-drift model promote` says so."""
    from rich.console import Console

    from producers.batch_input import batch_records, shown
    from producers.inputs import file_input
    from streams import batch_metrics, batch_models, batch_report
    from streams.settings import load_settings

    settings = load_settings(registry_dir=registry_dir, mapping=mapping)
    found = file_input(source, mapping=settings.field_mapping)
    with shown(Console(stderr=True), found) as bar:
        records = bar.passing(batch_records(settings, found))
        trained = batch_models.train_on(records, settings, watch=bar.stage)
    console = Console(soft_wrap=True, highlight=False)
    for part in batch_report.card_report(trained.card):
        console.print(part)
    stood = "stood already" if trained.known else "stored"
    console.print(f"model {trained.card.version} {stood} in {settings.registry_dir}", markup=False)
    for place in batch_metrics.publish("train", batch_metrics.training_samples(trained.card), settings):
        console.print(f"metrics to {place}", markup=False)


def detect(
    source: FileArgument,
    reference: Annotated[
        str, typer.Option(help="Model version whose reference rows the window is compared with.")
    ],
    window_end: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="A Monday, the end of the window. Default: the newest whole one."
        ),
    ] = None,
    drift_share: Annotated[
        float | None, typer.Option(help="With --evidently: share of drifted columns that makes it say drift.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the verdicts to this file, as JSON.")] = None,
    evidently: Annotated[
        Path | None,
        typer.Option(help="Run Evidently too, write its HTML report here; its verdict is shown only."),
    ] = None,
    registry_dir: RegistryOption = None,
    mapping: MappingOption = None,
) -> None:
    """Compare a file's newest whole window with a model's reference; exit code 10 where it drifted."""
    from rich.console import Console

    from producers.batch_input import batch_records, shown
    from producers.inputs import file_input
    from streams import batch_metrics, batch_models, batch_report
    from streams.errors import ExitCode, UserError
    from streams.settings import load_settings

    if drift_share is not None and evidently is None:
        raise UserError(
            "--drift-share is Evidently's", hint="give --evidently FILE.html too", code=ExitCode.USAGE
        )
    settings = load_settings(registry_dir=registry_dir, drift_share=drift_share, mapping=mapping)
    end = None if window_end is None else int(window_end.replace(tzinfo=UTC).timestamp())
    found = file_input(source, mapping=settings.field_mapping)
    with shown(Console(stderr=True), found) as bar:
        records = bar.passing(batch_records(settings, found))
        detection = batch_models.detect_in(records, settings, version=reference, window_end=end)
    result = detection.to_dict()
    if evidently is not None:
        result["evidently"] = batch_models.evidently_summary(detection, settings, evidently)
    console = Console(soft_wrap=True, highlight=False)
    for part in batch_report.detection_report(result):
        console.print(part)
    if out is not None:
        batch_models.write_json(out, result)
    for place in batch_metrics.publish("detect", batch_metrics.detection_samples(detection), settings):
        console.print(f"metrics to {place}", markup=False)
    if detection.drift:
        raise typer.Exit(ExitCode.DRIFT)


def demo(
    source: InputArgument = None,
    synthetic: SyntheticOption = None,
    speed: Annotated[str, typer.Option(help="Seconds of event time a second, or `max`.")] = "250000",
    inject: Annotated[
        list[str] | None,
        typer.Option(help="Drift scenarios. Default: price:+20%@2011-08-01; `none` for none."),
    ] = None,
    home: Annotated[Path, typer.Option(help="Where all that the demo makes is kept.")] = Path("var/demo"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew: remove what an earlier demo left.")
    ] = False,
) -> None:
    """Run everything on this machine: Kafka, worker, retraining, a replayed year, a live view, a summary."""
    import signal

    from rich.console import Console

    from producers.demo import DemoOptions, run

    # A polite request to end takes the way of Ctrl-C: every process is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = tuple(inject or ("price:+20%@2011-08-01",))
    options = DemoOptions(home, source, synthetic, speed, () if chosen == ("none",) else chosen, fresh)
    raise typer.Exit(run(options, Console(soft_wrap=True)))
