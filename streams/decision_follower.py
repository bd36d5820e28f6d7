"""The log of decisions as the owner of the evaluations follows it: waits for some, puts others off."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer

from streams.carry import Carry, Request
from streams.decisions import Decision, DecisionLog, Outcome
from streams.grid import iso
from streams.kafka_io import send_event
from streams.log_follower import LogFollower
from streams.settings import Settings
from streams.topics import catalogue

log = structlog.get_logger(__name__)


class DecisionFollower(LogFollower):
    """Reads the log from `load` to `close`; `observe` is shown every record, and returns the event in it.

    `turn` is held by whoever evaluates a window, from the choice of its decisions until it is committed.
    """

    def __init__(
        self,
        settings: Settings,
        producer: AIOKafkaProducer,
        observe: Callable[[Any], dict[str, Any] | None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        super().__init__(settings, catalogue(settings).models.name, on_failure)
        self.log = DecisionLog()
        self.turn = asyncio.Lock()
        self._producer = producer
        self._observe = observe
        self._carry = Carry()

    async def decided(self, request: Request) -> None:
        """Wait until a decision on `request` stands; write `expired` when that takes too long."""
        if request.request_id in self.log.by_request:
            return
        log.info(
            "waiting for a decision", request_id=request.request_id, window_end=iso(request.requested_at)
        )
        with contextlib.suppress(TimeoutError):
            # Not `asyncio.wait_for`: that may forget that the load it is part of was cancelled.
            async with asyncio.timeout(self.settings.decision_wait_s):
                await self._until_decided(request)
            return
        expired = Decision(
            outcome=Outcome.EXPIRED,
            reason=f"no decision within {self.settings.decision_wait_s:g} s",
            window_end=request.requested_at,
            request_id=request.request_id,
            parent=request.champion,
        )
        await self._send(request.request_id, expired)
        log.warning("request expired", request_id=request.request_id)
        # What stands first in the log counts, be it this or an answer that came at the last moment.
        await self._until_decided(request)

    async def _until_decided(self, request: Request) -> None:
        async with self.grown:
            await self.grown.wait_for(lambda: self.closed or request.request_id in self.log.by_request)
        self.still_held()

    async def committed(self, carry: Carry) -> None:
        """Take note of what the newest evaluation carries; to be called while holding the turn.

        A hand-made decision whose window was evaluated without it is put off: the log gets it again, with the
        next window's end. That is acknowledged before any later window is evaluated, so the log alone tells
        from which window on each decision holds.
        """
        self._carry = carry
        evaluated = carry.window_end
        if evaluated is None:
            return
        while missed := self.log.due_by_hand(evaluated, carry.applied_by_hand):
            for name, made in missed.items():
                effective_from = evaluated + self.settings.hop_s
                decision = replace(made.decision, nonce=name, effective_from=effective_from)
                event = await self._send(decision.key, decision)
                self.log.add(made.position, event)
                log.warning(
                    "decision put off: its window was evaluated before it came",
                    event_id=made.event_id,
                    model_version=decision.version,
                    effective_from=iso(effective_from),
                )

    async def _caught_up(self) -> None:
        if not self.turn.locked():  # else whoever has the turn sees to it at its end
            async with self.turn:
                await self.committed(self._carry)

    def _note(self, record: Any) -> None:
        event = self._observe(record)
        if event is None:
            return
        try:
            self.log.add(record.offset, event)
        except ValueError as exc:
            log.error("decision refused", offset=record.offset, reason=str(exc))

    async def _send(self, key: str, decision: Decision) -> dict[str, Any]:
        """Write a decision, acknowledged; return its event."""
        event = decision.to_event(self.settings.event_source)
        await send_event(self._producer, self.topic, key, event)
        return event
