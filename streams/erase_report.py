"""What is found of a customer who is to be erased, for a terminal."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from streams.erase import Findings
from streams.settings import Settings


def report(settings: Settings, found: Findings, *, everywhere: bool) -> Iterator[Table | Text]:
    """Yield what can be erased, what cannot, and when that will be gone."""
    scored = ", ".join(map(str, found.scored_in))
    yield Text(
        f"to be erased: the score, in partition {scored} of {settings.topic('clv.scores')}"
        if scored
        else "no score stands; the customer will not be scored"
    )
    renamed = [held for held in found.held if everywhere and held.renamed]
    if renamed:
        yield Text(
            "to stand under a name that leads to nobody: "
            + ", ".join(f"{held.place} ({held.count:,})" for held in renamed)
        )
    rest = [held for held in found.held if held not in renamed]
    if not rest:
        yield Text("nothing else holds the customer")
        return
    table = Table("not erased", "records", "gone with", box=None, pad_edge=False)
    for held in rest:
        table.add_row(Text(held.place), f"{held.count:,}", Text(held.until))
    yield table
    yield Text(
        "what stands there has the customer under a name that only the key leads to: destroy the key, and no"
        " name leads to anybody"
        if settings.pseudonyms is not None
        else "what stands there has the customer's own id; a customer_id_key keeps ids out from the start"
    )
    yield Text(
        "not looked into: backfills' files, logs, backups, what subscribers have read (docs/privacy.md)"
    )
