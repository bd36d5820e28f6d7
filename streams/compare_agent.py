"""The agent `compare`: Evidently on each window against its reference, in a child process."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaProducer
from faust.types import TP

from models.features import DAY_S
from models.lines import Floats
from models.registry import RegistryError
from models.training import predict
from streams import cloudevents
from streams.carry import Carry, carry_in
from streams.consumption import Batch
from streams.evidently_child import ComparisonFailed, EvidentlyChild
from streams.evidently_protocol import make_request
from streams.grid import from_iso
from streams.history import History
from streams.joining import Joiner
from streams.kafka_io import read_to_end, tail
from streams.performance import ModelLoader
from streams.settings import Settings
from streams.snapshots import decode_chunk
from streams.topics import catalogue

log = structlog.get_logger(__name__)

COMPARISON = "clv.comparison.v1"


class ComparisonObserver(Protocol):
    """Whoever shows how far the comparisons are."""

    def reset_comparisons(self) -> None: ...  # noqa: D102
    def observe_comparison(self, event: dict[str, Any]) -> None: ...  # noqa: D102
    def observe_comparisons_behind(self, windows: int) -> None: ...  # noqa: D102


class CompareOwner:
    """Compares the windows of the evaluations' topic in their order; built anew by `load`."""

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
        self.compared: set[str] = set()
        self.waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def load(self) -> int:
        """Read what was compared; return the offset of the evaluations to go on from (the first)."""
        await self.close()
        self._fresh()
        self.observer.reset_comparisons()
        done, _ = await read_to_end(self.settings, self.topics.comparisons.name)
        for record in done:
            try:
                event = cloudevents.decode(record.value or b"")
                self.observer.observe_comparison(event)
                self.compared.add(event["data"]["window_end"])
            except (ValueError, KeyError, TypeError) as exc:
                log.error("comparison refused", offset=record.offset, reason=repr(exc))
        logs = self.settings.reports_dir
        logs.mkdir(parents=True, exist_ok=True)
        self._child = EvidentlyChild(
            log_path=logs / "evidently.log", timeout_s=self.settings.comparison_timeout_s
        )
        self._tasks = [asyncio.create_task(self._follow_snapshots()), asyncio.create_task(self._work())]
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
                event = _evaluation_in(value, self.source)
            except (ValueError, KeyError, TypeError) as exc:
                log.error("evaluation refused", reason=repr(exc))
                continue
            if event["data"]["window_end"] not in self.compared:
                self.waiting.put_nowait(event)
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

    async def _work(self) -> None:
        while True:
            evaluation = await self.waiting.get()
            data = await self._compare(evaluation)
            end = from_iso(data["window_end"])
            event = cloudevents.envelope(kind=COMPARISON, source=self.source, window_end=end, data=data)
            await self.producer.send_and_wait(
                self.topics.comparisons.name,
                key=data["window_end"].encode(),
                value=cloudevents.encode(event),
                partition=0,
                headers=cloudevents.HEADERS,
            )
            self.compared.add(data["window_end"])
            self.observer.observe_comparison(event)
            self.observer.observe_comparisons_behind(self.waiting.qsize())
            log.info("window compared", window_end=data["window_end"], status=data["status"])

    async def _compare(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """Return the comparison of a window: Evidently's verdict, or why there is none."""
        told = evaluation["data"]
        data: dict[str, Any] = {
            "window_end": told["window_end"],
            "reference_end": told["reference_end"],
            "model_version": told["model_version"],
            "status": "no_reference",
            "report": None,
        }
        if told["reference_end"] is None or told["reference_end"] == told["window_end"]:
            return data
        end, reference_end = from_iso(told["window_end"]), from_iso(told["reference_end"])
        async with self.grown:
            await self.grown.wait_for(lambda: end in self.history.windows)
        html = self._report_path(told)
        assert self._child is not None
        try:
            request = make_request(
                self.history.windows[end].rows,
                self.history.windows[reference_end].rows,
                drift_share=self.settings.drift_share,
                rows_max=self.settings.sample_customers_max,
                regression=await asyncio.to_thread(self._regression, Carry.from_dict(told["carry"]), end),
                html=html,
            )
            result = await self._child.compare(request)
        except (ComparisonFailed, ValueError, KeyError) as exc:
            log.error("comparison failed", window_end=told["window_end"], reason=str(exc))
            return data | {"status": "failed", "reason": str(exc)}
        self._forget(end, keep=reference_end)
        report = None if html is None else str(html.relative_to(self.settings.reports_dir.resolve()))
        return data | {"status": "compared", "report": report, **result}

    def _report_path(self, told: dict[str, Any]) -> Path | None:
        """Return where the window's HTML goes; None for windows that `report_every` leaves out."""
        end = from_iso(told["window_end"])
        number = end // (self.settings.window_hop_days * DAY_S)
        if number % self.settings.report_every:
            return None
        return self.settings.reports_dir.resolve() / f"{told['window_end'][:10]}.html"

    def _regression(self, carry: Carry, at: int) -> list[Floats] | None:
        """Return labels and predictions now and at the champion's first matured window; None before."""
        if carry.champion is None:
            return None
        days = self.settings.monitor_horizon_days
        ends = [
            end
            for end in self.history.matured(horizon_s=days * DAY_S, at=at)
            if carry.served_at(end) == carry.champion
        ]
        if len(ends) < 2:
            return None
        try:
            model, card = self.load_model(carry.champion)
        except RegistryError as exc:
            log.error("model refused", model_version=carry.champion, reason=str(exc))
            return None
        pairs: list[Floats] = []
        for end in (ends[-1], ends[0]):
            rows = self.history.labelled(end, horizon_s=days * DAY_S, at=at)
            pairs += [rows["label"].to_numpy(), predict(model, rows) * (card.horizon_scale or 1.0)]
        return pairs

    def _forget(self, end: int, keep: int) -> None:
        before = end - (self.settings.monitor_horizon_days + self.settings.window_days * 4) * DAY_S
        self.history.forget(before, keep={keep})


def _evaluation_in(value: bytes, source: str) -> dict[str, Any]:
    """Return the evaluation in a message; raises ValueError, KeyError or TypeError where it is not whole."""
    event = cloudevents.decode(value)
    data = event["data"]
    carry_in(event, source)
    from_iso(data["reference_end"] or data["window_end"])
    data["model_version"]
    return event


def compare_tp(settings: Settings) -> TP:
    """Return the partition whose assignment makes a worker the one that compares."""
    return TP(catalogue(settings).evaluations.name, 0)
