"""Switches the plugin from one slot to the other, and back.

Rule: every step is written down before it has an effect. A switch happens only under a permit that is still fresh
when SWITCHING is on the disk. From then on there is a way back, and it is taken: when the plane says so, when no commit
comes in time, when the new release does not start, when the supervisor dies before the commit. Only COMMITTED ends it.
The way back needs no disk: the old release runs at once; REVERTED is written as soon as it can be, and said after that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from prunella.v1 import agent_pb2 as pb
from prunella_agent import failpoints
from prunella_agent.clock import Clock
from prunella_agent.conditions import Conditions
from prunella_agent.journal import Journal
from prunella_agent.plugin_process import Health
from prunella_agent.receipts import Receipts, decode_result, encode
from prunella_agent.session import PermitResponse
from prunella_agent.slots import Slots
from prunella_agent.spans import Spans
from prunella_agent.state import Install, Probation, State, recover

log = logging.getLogger("prunella_agent.slot_switch")

SETTLE_SECONDS = 5.0
DEAD_MAN_SECONDS = 100.0
WRITE_AGAIN_SECONDS = 0.5
DEAD_MAN_STEP_SECONDS = 1.0
SWITCH_FAILED = "SWITCH_FAILED"


class Runner(Protocol):
    """What runs the plugin."""

    async def start(self, install: Install) -> None: ...

    async def stop(self) -> None: ...

    async def wait_started(self, seconds: float) -> Health: ...

    @property
    def held_up(self) -> bool: ...


@dataclass(kw_only=True, eq=False)
class SlotSwitch:
    """The one place that changes what runs. One change at a time."""

    journal: Journal
    slots: Slots
    runner: Runner
    receipts: Receipts
    clock: Clock
    beat: Callable[[], None]
    conditions: Conditions
    reported: Install | None = None
    _lock: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _dead_man: asyncio.Task[None] | None = field(init=False, default=None)
    # Gone back, and not written down yet: its generation, its receipt and what runs; and who writes it.
    _unwritten: tuple[int, pb.CommandResult, Install | None] | None = field(init=False, default=None)
    _writer: asyncio.Task[None] | None = field(init=False, default=None)

    @property
    def state(self) -> State:
        """The state that the journal says."""
        return self.journal.state

    @property
    def in_probation(self) -> bool:
        """Whether a switch waits for its commit."""
        return self.state.probation is not None

    async def recover(self) -> None:
        """After a start: reverts what was not committed, then runs what is left."""
        async with self._lock:
            recovery = recover(self.state)
            if recovery.finish_revert:
                revert = recovery.finish_revert
                await self._run(revert.target)
                self._reverted(revert.generation, decode_result(revert.result), revert.target)
            elif recovery.revert_probation:
                probation = recovery.revert_probation
                await self._revert(probation, probation.before, "RESTARTED", unsolicited=True)
            elif recovery.run:
                await self._run(recovery.run)

    async def switch(self, command: pb.Command, target: Install, permit: PermitResponse, spans: Spans) -> None:
        """Switches under a permit; the receipt says APPLIED, or REVERTED when it could not be done."""
        async with self._settled():
            before = self.state.running
            why = self._refusal(permit)
            if before is None or why:
                receipt = self.receipts.create(command, pb.COMMAND_OUTCOME_REVERTED, detail=why, spans=spans)
                self.receipts.record("REVERTED", receipt, generation=command.generation)
                return
            probation = Probation(command.id, command.attempt, command.fence, command.traceparent, before, target)
            self.journal.write("SWITCHING", probation=asdict(probation))
            failpoints.hit("SWITCHING")
            began = self.clock.monotonic()
            if began > permit.expires:
                await self._revert(probation, before, "PERMIT_STALE", moved=False, spans=spans)
                return
            try:
                await self._switch_slots(probation, spans)
            except OSError as error:
                log.exception("the switch to %s failed", target.release)
                self.conditions.note("the switch", error, self.slots.folder, self.slots.check)
                await self._revert(probation, before, f"{SWITCH_FAILED}: {error}", unsolicited=True, spans=spans)
                return
            if await self._confirm_start(probation, spans):
                self._arm(probation, began + dead_man_seconds(command))

    async def commit(self, command: pb.Command, spans: Spans) -> None:
        """Makes a generation stay, unless it has a final receipt already: the first one stands."""
        async with self._settled():
            state, generation = self.state, command.generation
            stays = state.probation and state.probation.switched and not state.revert
            if stays and state.probation and state.probation.after.generation == generation:
                with spans.step("commit"):
                    receipt = self.receipts.create(command, pb.COMMAND_OUTCOME_COMMITTED)
                receipt.spans.extend(spans.taken)
                self.receipts.record("COMMITTED", receipt, generation=generation)
                # Not before: what cannot be written down is not committed, and the way back must stay open.
                self._disarm()
                failpoints.hit("COMMITTED")
                self.beat()
            elif state.finals.get(generation) == "REVERTED":
                self.receipts.answer(command, pb.COMMAND_OUTCOME_REVERTED, "REVERTED")
            elif state.running and state.running.generation == generation and not state.probation:
                self.receipts.answer(command, pb.COMMAND_OUTCOME_COMMITTED)
            else:
                self.receipts.answer(command, pb.COMMAND_OUTCOME_FAILED, "GENERATION_NOT_RUNNING")

    async def roll_back(self, command: pb.Command, spans: Spans) -> None:
        """Reverts a generation, committed or not; one that never ran here never will."""
        async with self._settled():
            state, generation = self.state, command.generation
            running = state.running
            if state.probation and state.probation.after.generation == generation:
                await self._revert(state.probation, state.probation.before, "", command=command, spans=spans)
            elif running and running.generation == generation and generation and state.previous:
                await self._revert(None, state.previous, "", command=command, spans=spans)
            elif state.finals.get(generation) == "REVERTED":
                self.receipts.answer(command, pb.COMMAND_OUTCOME_REVERTED, "REVERTED")
            elif running and generation > running.generation:
                receipt = self.receipts.create(command, pb.COMMAND_OUTCOME_REVERTED, detail="NOT_APPLIED")
                self._reverted(generation, receipt)
            else:
                self.receipts.answer(command, pb.COMMAND_OUTCOME_FAILED, "NOTHING_TO_GO_BACK_TO")

    async def stop(self) -> None:
        """Stops the plugin; a switch under way is finished first, one in probation is reverted at the next start."""
        self._disarm()
        if self._writer is not None:
            self._writer.cancel()
        async with self._lock:
            await self.runner.stop()

    async def start_again(self) -> None:
        """Runs what should run, once the host lets it; nothing happens when it runs."""
        async with self._lock:
            if self.reported is not None and self.runner.held_up:
                await self.runner.start(self.reported)

    def _refusal(self, permit: PermitResponse) -> str:
        if self.state.probation:
            return "PROBATION"
        return "PERMIT_STALE" if self.clock.monotonic() > permit.expires else ""

    async def _switch_slots(self, probation: Probation, spans: Spans) -> None:
        with spans.step("switch"):
            await self.runner.stop()
            failpoints.hit("STOPPED")
            self.beat()
            self.slots.fill(probation.after.slot)
            self.slots.point(probation.after.slot)
            failpoints.hit("POINTED")
        with spans.step("start"):
            self.reported = probation.after
            await self.runner.start(probation.after)
            failpoints.hit("STARTED")

    async def _confirm_start(self, probation: Probation, spans: Spans) -> bool:
        with spans.step("settle"):
            health = await self.runner.wait_started(SETTLE_SECONDS)
        try:
            if health is not Health.DOWN:
                receipt = self.receipts.create(probation, pb.COMMAND_OUTCOME_APPLIED, spans=spans)
                self.receipts.record("SWITCHED", receipt)
            # That the host does not let it start says nothing about the release.
            why = "" if health is not Health.DOWN else SWITCH_FAILED if self.runner.held_up else "DID_NOT_START"
        except OSError as error:
            self.conditions.note("the journal", error, self.journal.folder, self.journal.check)
            why = f"{SWITCH_FAILED}: {error}"
        if why:
            await self._revert(probation, probation.before, why, unsolicited=True, spans=spans)
            return False
        failpoints.hit("SWITCHED")
        self.beat()
        return True

    async def _revert(
        self,
        probation: Probation | None,
        target: Install,
        detail: str,
        *,
        unsolicited: bool = False,
        command: pb.Command | None = None,
        moved: bool = True,
        spans: Spans | None = None,
    ) -> None:
        """Goes back to an install; the receipt is about the command that asks for it, or about the switch itself."""
        self._disarm()
        about = command or probation
        assert about is not None
        spans = spans or Spans(self.clock, probation.traceparent if probation else "")
        generation = command.generation if command else about.after.generation  # type: ignore[union-attr]
        receipt = self.receipts.create(about, pb.COMMAND_OUTCOME_REVERTED, detail=detail, unsolicited=unsolicited)
        receipt.release, receipt.digest = target.release, target.digest
        # Without it a death now leaves the switch as it was, and that is reverted, or the command comes again.
        with self.conditions.watching("the journal", self.journal.folder, self.journal.check):
            self.journal.write("REVERTING", target=asdict(target), generation=generation, result=encode(receipt))
        failpoints.hit("REVERTING")
        with spans.step("revert"):
            if moved:
                await self._run(target)
        receipt.spans.extend(spans.taken)
        receipt.time.FromDatetime(self.clock.now())
        failpoints.hit("REVERT_STARTED")
        self._reverted(generation, receipt, target)
        self.beat()

    @asynccontextmanager
    async def _settled(self) -> AsyncIterator[None]:
        """The lock, once nothing waits to be written: a generation that was left is neither kept nor left again."""
        while True:
            async with self._lock:
                if self._unwritten is None:
                    yield
                    return
            await self.clock.sleep(WRITE_AGAIN_SECONDS)

    def _reverted(self, generation: int, receipt: pb.CommandResult, target: Install | None = None) -> None:
        """Writes the last word on a generation down, now or as soon as the disk takes it; `target` runs after it."""
        self._unwritten = (generation, receipt, target)
        try:
            self._write_reverted()
        except OSError as error:
            self.conditions.note("the journal", error, self.journal.folder, self.journal.check)
            self._writer = asyncio.create_task(self._write_later(), name="the last word")

    def _write_reverted(self) -> None:
        if self._unwritten is None:
            return
        generation, receipt, target = self._unwritten
        if target is not None and self.state.revert is None:
            self.journal.write("REVERTING", target=asdict(target), generation=generation, result=encode(receipt))
        self.receipts.record("REVERTED", receipt, generation=generation)
        self._unwritten = None
        failpoints.hit("REVERTED")

    async def _write_later(self) -> None:
        while self._unwritten is not None:
            await self.clock.sleep(WRITE_AGAIN_SECONDS)
            async with self._lock:
                try:
                    self._write_reverted()
                except OSError:
                    continue
        self.beat()

    async def _run(self, target: Install) -> None:
        await self.runner.stop()
        self.beat()
        # The link is for people; what runs is started from its slot.
        with self.conditions.watching("the link to the slot", self.slots.folder, lambda: self.slots.point(target.slot)):
            self.slots.point(target.slot)
        if self.state.revert:
            failpoints.hit("REVERT_POINTED")
        self.reported = target
        await self.runner.start(target)
        self.beat()

    def _arm(self, probation: Probation, deadline: float) -> None:
        self._dead_man = asyncio.create_task(self._expire(probation, deadline), name="dead man")

    def _disarm(self) -> None:
        if self._dead_man is not None and self._dead_man is not asyncio.current_task():
            self._dead_man.cancel()
        self._dead_man = None

    async def _expire(self, probation: Probation, deadline: float) -> None:
        while (left := deadline - self.clock.monotonic()) > 0:
            # In steps, because a sleep does not count the time in which the host is suspended.
            await self.clock.sleep(min(left, DEAD_MAN_STEP_SECONDS))
        async with self._lock:
            now = self.state.probation
            if self._unwritten or now is None or now != replace(probation, switched=now.switched):
                return
            log.warning("no commit of generation %d came in time; going back", probation.after.generation)
            await self._revert(now, now.before, "DEAD_MAN", unsolicited=True)


def dead_man_seconds(command: pb.Command) -> float:
    """How long the switch waits for its commit; a minute when the command does not say."""
    seconds: float = command.dead_man_duration.ToTimedelta().total_seconds()
    return seconds if seconds > 0 else DEAD_MAN_SECONDS
