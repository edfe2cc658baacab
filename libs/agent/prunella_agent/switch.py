"""Moves the plugin from one install to another, and back.

Rule: every step is written down before it has an effect. A switch happens only under a permit that is still fresh
when SWITCHING is on the disk. From then on there is a way back, and it is taken: when the plane says so, when no commit
comes in time, when the new release does not start, when the supervisor dies before the commit. Only COMMITTED ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Protocol

from prunella.v1 import agent_pb2 as pb
from prunella_agent import crash
from prunella_agent.clock import Clock
from prunella_agent.journal import Journal
from prunella_agent.process import Health
from prunella_agent.receipts import Words, decode_result, encode
from prunella_agent.session import Answer
from prunella_agent.slots import Slots
from prunella_agent.spans import Spans
from prunella_agent.state import Install, State, Trial, recover

log = logging.getLogger("prunella_agent.switch")

SETTLE_SECONDS = 5.0
DEAD_MAN_SECONDS = 100.0
REVERT_AGAIN_SECONDS = 0.5


class Runner(Protocol):
    """What runs the plugin."""

    async def start(self, install: Install) -> None: ...

    async def stop(self) -> None: ...

    async def settled(self, seconds: float) -> Health: ...


class Switch:
    """The one place that changes what runs. One change at a time."""

    def __init__(
        self, *, journal: Journal, slots: Slots, runner: Runner, words: Words, clock: Clock, beat: Callable[[], None]
    ) -> None:
        self.shown: Install | None = None
        self._journal = journal
        self._slots = slots
        self._runner = runner
        self._words = words
        self._clock = clock
        self._beat = beat
        self._lock = asyncio.Lock()
        self._dead_man: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        """What is written down."""
        return self._journal.state

    @property
    def on_trial(self) -> bool:
        """Whether a switch waits for its commit."""
        return self.state.trial is not None

    async def begin(self) -> None:
        """After a start: takes back what was not committed, then runs what is left."""
        async with self._lock:
            recovery = recover(self.state)
            if recovery.finish:
                finish = recovery.finish
                await self._exchange(finish.target)
                self._words.say("REVERTED", decode_result(finish.result), generation=finish.generation)
            elif recovery.take_back:
                await self._revert(recovery.take_back, recovery.take_back.before, "RESTARTED", unsolicited=True)
            elif recovery.run:
                await self._exchange(recovery.run)

    async def go(self, command: pb.Command, target: Install, answer: Answer, spans: Spans) -> None:
        """Switches under a permit; says APPLIED, or REVERTED when it could not be done."""
        async with self._lock:
            before = self.state.running
            why = self._not_now(answer)
            if before is None or why:
                word = self._words.result(command, pb.COMMAND_OUTCOME_REVERTED, detail=why, spans=spans)
                self._words.say("REVERTED", word, generation=command.generation)
                return
            trial = Trial(command.id, command.attempt, command.fence, command.traceparent, before, target)
            self._journal.write("SWITCHING", trial=asdict(trial))
            crash.at("SWITCHING")
            began = self._clock.monotonic()
            if began > answer.expires:
                await self._revert(trial, before, "PERMIT_STALE", moved=False, spans=spans)
                return
            try:
                await self._move(trial, spans)
            except OSError as error:
                log.exception("the switch to %s failed", target.release)
                await self._revert(trial, before, f"SWITCH_FAILED: {error}", unsolicited=True, spans=spans)
                return
            if await self._settled(trial, spans):
                self._arm(trial, began + dead_man_seconds(command) - self._clock.monotonic())

    async def commit(self, command: pb.Command, spans: Spans) -> None:
        """Makes a generation stay, unless a final word on it was said before: the first one stands."""
        async with self._lock:
            state, generation = self.state, command.generation
            stays = state.trial and state.trial.switched and not state.revert
            if stays and state.trial and state.trial.after.generation == generation:
                with spans.step("commit"):
                    word = self._words.result(command, pb.COMMAND_OUTCOME_COMMITTED)
                word.spans.extend(spans.taken)
                self._words.say("COMMITTED", word, generation=generation)
                # Not before: what cannot be written down is not committed, and the way back must stay open.
                self._disarm()
                crash.at("COMMITTED")
                self._beat()
            elif state.finals.get(generation) == "REVERTED":
                self._words.say("WORD", self._words.result(command, pb.COMMAND_OUTCOME_REVERTED, detail="REVERTED"))
            elif state.running and state.running.generation == generation and not state.trial:
                self._words.say("WORD", self._words.result(command, pb.COMMAND_OUTCOME_COMMITTED))
            else:
                detail = "GENERATION_NOT_RUNNING"
                self._words.say("WORD", self._words.result(command, pb.COMMAND_OUTCOME_FAILED, detail=detail))

    async def roll_back(self, command: pb.Command, spans: Spans) -> None:
        """Takes a generation back, committed or not; one that never ran here is not going to."""
        async with self._lock:
            state, generation = self.state, command.generation
            running = state.running
            if state.trial and state.trial.after.generation == generation:
                await self._revert(state.trial, state.trial.before, "", command=command, spans=spans)
            elif running and running.generation == generation and generation and state.previous:
                await self._revert(None, state.previous, "", command=command, spans=spans)
            elif state.finals.get(generation) == "REVERTED":
                self._words.say("WORD", self._words.result(command, pb.COMMAND_OUTCOME_REVERTED, detail="REVERTED"))
            elif running and generation > running.generation:
                word = self._words.result(command, pb.COMMAND_OUTCOME_REVERTED, detail="NOT_APPLIED")
                self._words.say("REVERTED", word, generation=generation)
            else:
                word = self._words.result(command, pb.COMMAND_OUTCOME_FAILED, detail="NOTHING_TO_GO_BACK_TO")
                self._words.say("WORD", word)

    async def end(self) -> None:
        """Stops the plugin; a switch under way is finished first, one on trial is taken back at the next start."""
        self._disarm()
        async with self._lock:
            await self._runner.stop()

    def _not_now(self, answer: Answer) -> str:
        if self.state.trial:
            return "PROBATION"
        return "PERMIT_STALE" if self._clock.monotonic() > answer.expires else ""

    async def _move(self, trial: Trial, spans: Spans) -> None:
        with spans.step("switch"):
            await self._runner.stop()
            crash.at("STOPPED")
            self._beat()
            self._slots.fill(trial.after.slot)
            self._slots.point(trial.after.slot)
            crash.at("POINTED")
        with spans.step("start"):
            self.shown = trial.after
            await self._runner.start(trial.after)
            crash.at("STARTED")

    async def _settled(self, trial: Trial, spans: Spans) -> bool:
        with spans.step("settle"):
            health = await self._runner.settled(SETTLE_SECONDS)
        if health is Health.DOWN:
            await self._revert(trial, trial.before, "DID_NOT_START", unsolicited=True, spans=spans)
            return False
        self._words.say("SWITCHED", self._words.result(trial, pb.COMMAND_OUTCOME_APPLIED, spans=spans))
        crash.at("SWITCHED")
        self._beat()
        return True

    async def _revert(
        self,
        trial: Trial | None,
        target: Install,
        detail: str,
        *,
        unsolicited: bool = False,
        command: pb.Command | None = None,
        moved: bool = True,
        spans: Spans | None = None,
    ) -> None:
        """Goes back to an install; the word is about the command that asked, or about the switch itself."""
        self._disarm()
        about = command or trial
        assert about is not None
        spans = spans or Spans(self._clock, trial.traceparent if trial else "")
        generation = command.generation if command else about.after.generation  # type: ignore[union-attr]
        word = self._words.result(about, pb.COMMAND_OUTCOME_REVERTED, detail=detail, unsolicited=unsolicited)
        word.release, word.digest = target.release, target.digest
        self._journal.write("REVERTING", target=asdict(target), generation=generation, result=encode(word))
        crash.at("REVERTING")
        with spans.step("revert"):
            if moved:
                await self._exchange(target)
        word.spans.extend(spans.taken)
        word.time.FromDatetime(self._clock.now())
        crash.at("REVERT_STARTED")
        self._words.say("REVERTED", word, generation=generation)
        crash.at("REVERTED")
        self._beat()

    async def _exchange(self, target: Install) -> None:
        await self._runner.stop()
        self._beat()
        self._slots.point(target.slot)
        if self.state.revert:
            crash.at("REVERT_POINTED")
        self.shown = target
        await self._runner.start(target)
        self._beat()

    def _arm(self, trial: Trial, seconds: float) -> None:
        self._dead_man = asyncio.create_task(self._expire(trial, max(seconds, 0.0)), name="dead man")

    def _disarm(self) -> None:
        if self._dead_man is not None and self._dead_man is not asyncio.current_task():
            self._dead_man.cancel()
        self._dead_man = None

    async def _expire(self, trial: Trial, seconds: float) -> None:
        await self._clock.sleep(seconds)
        while True:
            async with self._lock:
                now = self.state.trial
                if now is None or now != replace(trial, switched=now.switched):
                    return
                log.warning("no commit of generation %d came in time; going back", trial.after.generation)
                try:
                    await self._revert(now, now.before, "DEAD_MAN", unsolicited=True)
                except OSError:
                    log.exception("the way back failed; trying again")
            await self._clock.sleep(REVERT_AGAIN_SECONDS)


def dead_man_seconds(command: pb.Command) -> float:
    """How long the switch waits for its commit; a minute when the command does not say."""
    seconds: float = command.dead_man_duration.ToTimedelta().total_seconds()
    return seconds if seconds > 0 else DEAD_MAN_SECONDS
