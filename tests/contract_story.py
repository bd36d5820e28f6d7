"""A made-up shop's stream with everything that can be published; run as a program, it writes the examples.

python tests/contract_story.py
"""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from line_factory import MONDAY, WEEK_S, records_of, settings, shop
from webhook_receiver import SECRET, receiving

from models.registry import Registry
from streams import cloudevents
from streams.backfill import Results, run
from streams.carry import Carry, Serving
from streams.comparisons import COMPARISON, Wanted
from streams.decisions import Decision, Outcome
from streams.inline_comparison import inline_comparisons
from streams.settings import Settings
from streams.webhooks import administration
from streams.webhooks.dead_letters import DeadLetterLook
from streams.webhooks.store import Store, digest_of

PROJECT = Path(__file__).resolve().parent.parent
SCHEMAS = PROJECT / "docs" / "schemas"
EXAMPLES = SCHEMAS / "examples"
PARTITIONS = 2
# Prices that halve, a model that then errs, and every remedy in the twenty weeks that are shown.
CONF = settings(
    harm_gate=True,
    min_matured_windows=1,
    cooldown_days=7,
    confirm_windows=1,
    resolve_windows=1,
    detectors=("baseline",),
    gate_probability=0.6,
    gate_resamples=50,
)

Event = dict[str, Any]


@cache
def records():
    lines = shop(
        6,
        days=20 * 7,
        customers=400,
        orders_a_day=60,
        price_factor=0.5,
        price_from=MONDAY + 12 * WEEK_S,
    )
    return list(records_of(lines, CONF, PARTITIONS))


@cache
def results() -> Results:
    with tempfile.TemporaryDirectory() as directory:
        return run(records(), CONF, Registry(Path(directory)), partitions=PARTITIONS)


def of_the_stream() -> list[Event]:
    """What a run publishes: events, decisions, evaluations, warnings, scores."""
    found = results()
    scores = [cloudevents.decode(value) for value in found.scores.values()]
    return [*found.events, *found.decisions, *found.evaluations, *found.warnings, *scores]


def of_people() -> list[Event]:
    """Decisions that this run does not lead to: made by hand, too late, or with a shadow period."""
    promoted = next(event for event in of_the_stream() if event["type"] == "clv.model.promoted.v1")
    made = Decision.from_event(promoted)
    by_hand = {"reason": "as the shop's owner wants it", "window_end": made.window_end, "nonce": "3f2c"}
    late = {"reason": "no decision within 900 s", "window_end": made.window_end}
    decisions = [
        Decision(outcome=Outcome.ROLLED_BACK, version=made.version, **by_hand),
        Decision(outcome=Outcome.REQUESTED, **by_hand),
        Decision(outcome=Outcome.EXPIRED, request_id=made.request_id, parent=made.version, **late),
        Decision(
            outcome=Outcome.SHADOWED,
            version=made.version,
            request_id=made.request_id,
            reason=made.reason,
            window_end=made.window_end,
            gate=made.gate,
            card=made.card,
        ),
    ]
    return [decision.to_event(CONF.event_source) for decision in decisions]


def of_webhooks(directory: Path) -> list[Event]:
    """What endpoints get beside the topics' events."""
    with receiving() as hook:
        (directory / "secret").write_text(SECRET)
        endpoint = {"url": hook.url, "allow_hosts": ["127.0.0.1"], "secret_file": str(directory / "secret")}
        conf = Settings(webhooks={"ledger": endpoint}, webhooks_dir=directory)
        administration.test(conf, "ledger")
        with Store(directory) as store:
            look = DeadLetterLook(conf, store, queued=lambda: None)
            look.note({0: 4, 1: 0}, now=MONDAY)
            look.note({0: 4, 1: 3}, now=MONDAY + 300)
            letters = cloudevents.decode(store.head("ledger").event)
        return [hook.got[0].json, letters, digest_of(results().events[:2])]


def of_comparisons(*, compare: bool) -> list[Event]:
    """A request for a comparison, and with `compare` what Evidently says: its process takes some seconds."""
    one, other = results().snapshots[-3:-1]
    frames = other.rows.to_pandas(), one.rows.to_pandas()
    serving = (Serving(since=one.window_end, version=results().decisions[0]["data"]["version"]),)
    carry = Carry(window_end=other.window_end, reference_end=one.window_end, serving=serving)
    wanted, source = Wanted.of(carry), CONF.event_source
    told = [wanted.to_event(source)]
    answers = [wanted.answer("no_reference"), wanted.answer("failed", reason="the child ended")]
    if compare:
        with tempfile.TemporaryDirectory() as directory:
            conf = CONF.model_copy(update={"reports_dir": Path(directory)})
            with inline_comparisons(conf) as comparisons:
                answers.insert(0, comparisons.compared(wanted, *frames))
    end = wanted.window_end
    return told + [
        cloudevents.envelope(kind=COMPARISON, source=source, window_end=end, data=data) for data in answers
    ]


def messages(directory: Path, *, compare: bool = False) -> list[Event]:
    """Every message as it is read; `compare` for Evidently's too."""
    told = [*of_the_stream(), *of_people(), *of_comparisons(compare=compare), *of_webhooks(directory)]
    return [cloudevents.decode(cloudevents.encode(event)) for event in told]


def lines() -> dict[str, Event]:
    """A transaction line and a control record, with their headers."""
    found = {}
    for record in records():
        headers = {name: value.decode() for name, value in record.headers}
        kind = "retail.control" if "control" in headers else "retail.transaction"
        found.setdefault(kind, {"headers": headers, "payload": json.loads(record.value)})
    return found


def chosen(told: list[Event]) -> dict[str, Event]:
    """The example of each type: the one that says most, the first of several."""
    found: dict[str, Event] = {}
    for event in told:
        best = found.setdefault(event["type"], event)
        if len(paths(event)) > len(paths(best)):
            found[event["type"]] = event
    return found


def paths(value: Any, at: str = "") -> frozenset[str]:
    """The paths of all that a JSON value holds."""
    if isinstance(value, dict):
        inner = [(f"{at}.{name}", item) for name, item in value.items()]
    elif isinstance(value, list):
        inner = [(f"{at}[]", item) for item in value]
    else:
        return frozenset({at})
    return frozenset({at}).union(*(paths(item, place) for place, item in inner))


def main() -> None:
    EXAMPLES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        found = chosen(messages(Path(directory), compare=True)) | lines()
    for kind, example in found.items():
        text = json.dumps(example, indent=1, ensure_ascii=False)
        (EXAMPLES / f"{kind}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
