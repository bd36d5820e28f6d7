"""What `clv-drift check` shows a person: the columns, the figures, the dead letters, what follows."""

from collections.abc import Iterator

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from producers.check import Profile
from streams.texts import clean
from streams.transactions import FIELDS

NAMES_SHOWN = 8


def check_report(profile: Profile) -> Iterator[RenderableType]:
    """Yield the report of a file, tables and sentences; of the file's texts what is visible."""
    yield _columns_table(profile)
    if profile.columns.missing:
        yield Text(
            f"{len(profile.columns.missing)} columns are missing: a mapping file names the columns of another"
            " export (config/mapping.example.toml); the rows were not looked at"
        )
        return
    yield _figures_table(profile)
    if profile.dead_letters:
        yield _dead_table(profile)
        yield Text(
            f"{profile.dead:,} of {profile.rows:,} rows would be dead letters; row 1 is the first under the"
            " header, as in the `seq` of its record"
        )
    else:
        yield Text("no row would be a dead letter")
    yield Text(_weeks_words(profile))


def _columns_table(profile: Profile) -> Table:
    table = Table("field", "column", box=SIMPLE, title=Text(clean(profile.file)), title_justify="left")
    columns = profile.columns
    for name in FIELDS:
        if name in columns.mapped:
            missing = columns.mapped[name] in columns.missing
            words = f"{columns.mapped[name]}{' is missing' if missing else ''}"
            table.add_row(name, Text(clean(words + columns.missing.get(columns.mapped[name], ""))))
        elif name in columns.missing:
            table.add_row(name, Text(clean(f"missing{columns.missing[name]}")))
        else:
            table.add_row(name, Text("none"))
    for name in columns.missing:
        if name not in FIELDS and name not in columns.mapped.values():
            table.add_row("", Text(clean(f"{name} is missing{columns.missing[name]}")))
    unused = [name for name in columns.found if name not in columns.mapped.values()]
    if unused:
        table.add_row("not used", Text(clean(_some(unused))))
    return table


def _figures_table(profile: Profile) -> Table:
    table = Table(Column("figure"), Column("value"), box=SIMPLE, show_header=False)

    def share(count: int) -> str:
        return f"{count:,} ({count / profile.rows:.1%})" if profile.rows else "0"

    def distinct(count: int) -> str:
        return f"{count:,}" if count < profile.counted_to else f"{count:,} or more"

    rows = [
        ("rows", f"{profile.rows:,}"),
        ("period, UTC", f"{profile.first_time or 'no readable date'} to {profile.last_time or '-'}"),
        ("customers", distinct(profile.customers)),
        ("orders", distinct(profile.orders)),
        ("rows without a customer", share(profile.without_customer)),
        ("returns", share(profile.returns)),
        ("prices of 0 or less", share(profile.prices_not_positive)),
        ("rows that repeat another", share(profile.duplicates)),
        ("late rows", share(profile.late)),
        ("countries", _counted(profile.countries)),
    ]
    if profile.currencies:
        rows.append(("currencies", _counted(profile.currencies)))
    gaps = [f"{gap.weeks} from {gap.start}" for gap in profile.gaps]
    rows.append(("weeks without a row", _some(gaps) if gaps else "none"))
    for name, words in rows:
        table.add_row(name, Text(clean(words)))
    return table


def _dead_table(profile: Profile) -> Table:
    table = Table(Column("rows", justify="right"), "why they would be dead letters", "the first", box=SIMPLE)
    for letter in profile.dead_letters:
        examples = "\n".join(map(clean, letter.examples))
        table.add_row(f"{letter.count:,}", Text(clean(letter.reason)), Text(examples))
    return table


def _weeks_words(profile: Profile) -> str:
    has, needed = profile.weeks, profile.weeks_needed
    if has <= needed:
        return (
            f"{has} whole weeks; verdicts begin after {needed}, the warm-up and the first reference: too few"
        )
    return (
        f"{has} whole weeks: {needed} for the warm-up and the first reference, {has - needed} with verdicts"
    )


def _counted(names: dict[str, int]) -> str:
    return _some([f"{name} {count:,}" for name, count in names.items()])


def _some(words: list[str]) -> str:
    more = len(words) - NAMES_SHOWN
    return ", ".join(words[:NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
