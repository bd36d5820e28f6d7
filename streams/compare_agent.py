"""The agent `compare`: Evidently on each window against its reference, in a child process."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaProducer
from faust.types import TP

from models.features import DAY_S
from models.fitted import predict
from models.lines import Floats
from models.registry import RegistryError
from streams import cloudevents
from streams.carry import carry_in
from streams.comparisons import COMPARISON, REQUESTED, ComparisonKey, Wanted
from streams.consumption import Batch
from streams.detectors.evidently import waits_for_comparison
from streams.evidently_child import CHILD_LOG, EvidentlyChild
from streams.evidently_comparison import compared
from streams.grid import iso
from streams.history import History
from streams.joining import Joiner
from streams.kafka_io import read_to_end, tail
from streams.performance import ModelLoader
from streams.settings import Settings
from streams.snapshots import decode_chunk
from streams.topics import catalogue
from streams.web.reports import prune_reports, report_path

log = structlog.get_logger(__name__)


class ComparisonObserver(Protocol):
    """Whoever shows how far the comparisons are."""

    def reset_comparisons(self) -> None: ...  # noqa: D102
    def observe_comparison(self, event: dict[str, Any]) -> None: ...  # noqa: D102
    def observe_comparisons_behind(self, windows: int) -> None: ...  # noqa: D102


class CompareOwner:
    """Compares the windows of the evaluations' topic in their order; built anew by `load`.

    Where evaluations wait for comparisons, the windows are those that `evaluate` asks for in the topic of
    comparisons; what it did not ask for is compared after its evaluation all the same.
    """

    def __init__(
        self,
        settings: Settings,
        producer: AIOKafkaProducer,
        load_model: ModelLoader,
        observer: ComparisonObserver,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.settings = settings
        self.producer = producer
        self.load_model = load_model
        self.observer = observer
        self.on_failure = on_failure  # told when what runs beside the agent ends
        self.topics = catalogue(settings)
        self.source = settings.event_source
        self.read_offset = -1
        self._child: EvidentlyChild | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._fresh()

    def _fresh(self) -> None:
        self.history = History()
        self.joiner = Joiner(self.settings.partitions, self.settings.sample_customers_max)
        self.grown = asyncio.Condition()
        self.compared: set[ComparisonKey] = set()
        self.waiting: asyncio.Queue[Wanted] = asyncio.Queue()

    async def load(self) -> int:
        """Read what was compared; return the offset of the evaluations to go on from (the first)."""
        await self.close()
        self._fresh()
        self.observer.reset_comparisons()
        records, end = await read_to_end(self.settings, self.topics.comparisons.name)
        for wanted in self._requests(records):
            self.waiting.put_nowait(wanted)
        logs = self.settings.reports_dir
        logs.mkdir(parents=True, exist_ok=True)
        self._child = EvidentlyChild(log_path=logs / CHILD_LOG, timeout_s=self.settings.comparison_timeout_s)
        self._tasks = [asyncio.create_task(self._follow_snapshots()), asyncio.create_task(self._work())]
        if waits_for_comparison(self.settings):
            self._tasks.append(asyncio.create_task(self._follow_requests(end)))
        for task in self._tasks:
            task.add_done_callback(self._ended)
        self.read_offset = -1
        return 0

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.on_failure(exc)

    async def close(self) -> None:
        """End the child and what was under way; it is taken up by whoever owns the partition next."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        self._tasks = []
        if self._child is not None:
            await self._child.stop()
            self._child = None

    async def take(self, batch: Batch) -> None:
        """Queue the evaluations of a batch: comparing takes longer than reading and must not hold it up."""
        for value in batch.values:
            if value is None:
                continue
            try:
                wanted = Wanted.of(carry_in(cloudevents.decode(value), self.source))
            except ValueError as exc:
                log.error("evaluation refused", reason=str(exc))
                continue
            if wanted.key not in self.compared:
                self.waiting.put_nowait(wanted)
        self.read_offset = batch.offsets[-1]
        self.observer.observe_comparisons_behind(self.waiting.qsize())

    async def _follow_snapshots(self) -> None:
        async for records in tail(self.settings, self.topics.snapshots.name):
            for record in records:
                if record.value is not None:
                    with contextlib.suppress(ValueError):  # refused, counted and logged by evaluate
                        self.joiner.add(decode_chunk(record.value))
            async with self.grown:
                for snapshot in self.joiner.pop():
                    self.history.add(snapshot)
                self.grown.notify_all()

    async def _follow_requests(self, start: int) -> None:
        async for records in tail(self.settings, self.topics.comparisons.name, start=start):
            for wanted in self._requests(records):
                self.waiting.put_nowait(wanted)

    def _requests(self, records: Iterable[Any]) -> list[Wanted]:
        """Take note of the comparisons among records; return what is asked for and was not compared yet."""
        requests = []
        for record in records:
            try:
                event = cloudevents.decode(record.value or b"")
                if event["type"] == REQUESTED:
                    requests.append(Wanted.from_event(event, self.source))
                else:
                    self._note(event)
            except (ValueError, KeyError, TypeError) as exc:
                log.error("comparison refused", offset=record.offset, reason=repr(exc))
        return [wanted for wanted in requests if wanted.key not in self.compared]

    def _note(self, event: dict[str, Any]) -> None:
        self.observer.observe_comparison(event)
        self.compared.add(ComparisonKey.told(event["data"]))

    async def _work(self) -> None:
        while True:
            wanted = await self.waiting.get()
            if wanted.key in self.compared:  # asked for twice, or evaluated since
                continue
            data = await self._compare(wanted)
            event = cloudevents.envelope(
                kind=COMPARISON, source=self.source, window_end=wanted.window_end, data=data
            )
            await self.producer.send_and_wait(
                self.topics.comparisons.name,
                key=data["window_end"].encode(),
                value=cloudevents.encode(event),
                partition=0,
                headers=cloudevents.HEADERS,
            )
            self._note(event)
            self.observer.observe_comparisons_behind(self.waiting.qsize())
            log.info("window compared", window_end=data["window_end"], status=data["status"])

    async def _compare(self, wanted: Wanted) -> dict[str, Any]:
        """Return the comparison of a window: Evidently's verdict, or why there is none."""
        end, reference_end = wanted.window_end, wanted.reference_end
        if reference_end is None or reference_end == end:
            return wanted.answer("no_reference")
        async with self.grown:
            await self.grown.wait_for(lambda: end in self.history.windows)
        if reference_end not in self.history.windows:
            return self._failed(wanted.answer("failed", reason=f"no window ends at {iso(reference_end)}"))
        assert self._child is not None
        data = await compared(
            self._child,
            wanted,
            self.history.windows[end].rows,
            self.history.windows[reference_end].rows,
            self.settings,
            regression=await asyncio.to_thread(self._regression, wanted, end),
            html=self._report_path(end),
            workspace=self.settings.evidently_workspace,
        )
        if data["status"] == "failed":
            return self._failed(data)
        self._prune_reports()
        self._forget(end, keep=reference_end)
        return data

    def _failed(self, data: dict[str, Any]) -> dict[str, Any]:
        """Say in the log that a comparison failed, and where the child said what."""
        child_log = str(self.settings.reports_dir / CHILD_LOG)
        log.error(
            "comparison failed", window_end=data["window_end"], reason=data["reason"], child_log=child_log
        )
        return data

    def _prune_reports(self) -> None:
        try:
            removed = prune_reports(self.settings.reports_dir, self.settings.reports_kept)
        except OSError as exc:  # it is asked for again after the next window
            log.warning("old reports not removed", reason=str(exc))
        else:
            if removed:
                log.info("old reports removed", windows=removed)

    def _report_path(self, end: int) -> Path | None:
        """Return where the window's HTML goes; None for windows that `report_every` leaves out."""
        number = end // (self.settings.window_hop_days * DAY_S)
        if number % self.settings.report_every:
            return None
        return report_path(self.settings.reports_dir.resolve(), end)

    def _regression(self, wanted: Wanted, at: int) -> list[Floats] | None:
        """Return labels and predictions now and at the champion's first matured window; None before."""
        if wanted.champion is None:
            return None
        days = self.settings.monitor_horizon_days
        ends = [
            end
            for end in self.history.matured(horizon_s=days * DAY_S, at=at)
            if wanted.served_at(end) == wanted.champion
        ]
        if len(ends) < 2:
            return None
        try:
            model, card = self.load_model(wanted.champion)
        except RegistryError as exc:
            log.error("model refused", model_version=wanted.champion, reason=str(exc))
            return None
        pairs: list[Floats] = []
        for end in (ends[-1], ends[0]):
            rows = self.history.labelled(end, horizon_s=days * DAY_S, at=at)
            pairs += [rows["label"].to_numpy(), predict(model, rows) * (card.horizon_scale or 1.0)]
        return pairs

    def _forget(self, end: int, keep: int) -> None:
        before = end - (self.settings.monitor_horizon_days + self.settings.window_days * 4) * DAY_S
        self.history.forget(before, keep={keep})


def compare_tp(settings: Settings) -> TP:
    """Return the partition whose assignment makes a worker the one that compares."""
    return TP(catalogue(settings).evaluations.name, 0)
