"""Carries out commands: takes them over once, prepares them, asks for the permit, and hands the switch over.

Rule: a command is done once, however often it comes; a repeat gets the word that was said. Fences only rise: what comes
with an old one is refused. A newer command ends the preparation of an older one, never a switch that has its permit.
Nothing is unpacked or written before every pinned key has signed it, and nothing is switched before the plane said yes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import grpc

from prunella.v1 import agent_pb2 as pb
from prunella_agent import configurations, crash, releases
from prunella_agent.archive import ReleaseError
from prunella_agent.clock import Clock
from prunella_agent.credential import write_file
from prunella_agent.journal import Journal
from prunella_agent.receipts import Words, decode_command, decode_result, encode
from prunella_agent.session import Answer
from prunella_agent.slots import Slots
from prunella_agent.spans import Spans
from prunella_agent.state import Install, recover
from prunella_agent.switch import Switch

log = logging.getLogger("prunella_agent.apply")

MAX_COMMANDS = 16
ASK_AGAIN_SECONDS = 0.5
SHORTEST, LONGEST = 60.0, 900.0
CHANGES = (pb.COMMAND_KIND_UPDATE, pb.COMMAND_KIND_RESTART, pb.COMMAND_KIND_CONFIG_UPDATE)


class Link(Protocol):
    """What is needed of the session."""

    async def begin_apply(self, command: pb.Command) -> Answer: ...

    async def fetch_artifact(self, digest: str, size: int) -> bytes: ...

    def report(self, result: pb.CommandResult) -> None: ...


class Applier:
    """Carries out the commands of one plugin."""

    def __init__(
        self,
        *,
        journal: Journal,
        slots: Slots,
        switch: Switch,
        words: Words,
        link: Link,
        probe: Callable[[], Awaitable[bool]],
        keys: Sequence[bytes],
        package: str,
        plugin: str,
        configs: Path,
        clock: Clock,
    ) -> None:
        self._journal, self._slots, self._switch, self._words = journal, slots, switch, words
        self._link, self._probe, self._clock = link, probe, clock
        self._keys, self._package, self._plugin, self._configs = keys, package, plugin, configs
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._preparing = ""
        self._superseded: set[str] = set()
        self._staging = asyncio.Lock()

    def say_again(self) -> None:
        """After a start, before anything else is said: says what is owed, in the order in which it was written."""
        for result in recover(self._journal.state).say_again:
            self._link.report(decode_result(result))

    def begin(self) -> None:
        """After a start, once the right release runs: begins anew what has no word."""
        for message in recover(self._journal.state).begin_anew:
            self._start(decode_command(message))

    async def take(self, command: pb.Command) -> None:
        """Takes a command over; when this returns it is written down or has its word."""
        state = self._journal.state
        if command.id in state.words:
            self._link.report(decode_result(state.words[command.id]))
        elif command.id not in state.received:
            if command.fence <= state.fence:
                self._word(command, pb.COMMAND_OUTCOME_REFUSED, "FENCE")
                return
            self._journal.write("RECEIVED", command=command.id, fence=command.fence, message=encode(command))
            crash.at("RECEIVED")
            self._start(command)

    async def end(self) -> None:
        """Stops what is being prepared; it is begun anew after the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, command: pb.Command) -> None:
        if command.kind in CHANGES or command.kind == pb.COMMAND_KIND_ROLLBACK:
            self._supersede()
        if len(self._tasks) >= MAX_COMMANDS:
            self._word(command, pb.COMMAND_OUTCOME_FAILED, "TOO_MANY_COMMANDS")
            return
        if command.kind in CHANGES:
            self._preparing = command.id
        task = asyncio.create_task(self._carry_out(command), name=f"command {command.id}")
        self._tasks[command.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(command.id, None))

    def _supersede(self) -> None:
        if self._preparing in self._tasks:
            self._superseded.add(self._preparing)
            self._tasks[self._preparing].cancel()
        self._preparing = ""

    async def _carry_out(self, command: pb.Command) -> None:
        spans = Spans(self._clock, command.traceparent)
        with spans.step("receive"):
            kind = pb.CommandKind.Name(command.kind) if command.kind in pb.CommandKind.values() else "UNKNOWN"
            log.info("command %s: %s generation %d", command.id, kind, command.generation)
        try:
            await self._by_kind(command, spans)
        except asyncio.CancelledError:
            if command.id not in self._superseded:
                raise
            self._word(command, pb.COMMAND_OUTCOME_FAILED, "SUPERSEDED", spans)
        except ReleaseError as error:
            self._word(command, pb.COMMAND_OUTCOME_FAILED, f"{error.reason}: {error.message}", spans)
        except grpc.RpcError as error:
            self._word(command, pb.COMMAND_OUTCOME_FAILED, f"FETCH_FAILED: {error}", spans)
        except TimeoutError:
            self._word(command, pb.COMMAND_OUTCOME_FAILED, "DEADLINE", spans)
        except Exception as error:
            log.exception("command %s failed", command.id)
            self._word(command, pb.COMMAND_OUTCOME_FAILED, f"INTERNAL: {type(error).__name__}", spans)
        finally:
            self._superseded.discard(command.id)

    async def _by_kind(self, command: pb.Command, spans: Spans) -> None:
        if command.kind in CHANGES:
            await self._change(command, spans)
        elif command.kind == pb.COMMAND_KIND_COMMIT:
            await self._switch.commit(command, spans)
        elif command.kind == pb.COMMAND_KIND_ROLLBACK:
            await self._switch.roll_back(command, spans)
        elif command.kind == pb.COMMAND_KIND_HEALTH_CHECK:
            with spans.step("health_check"):
                healthy = await self._probe()
            outcome = pb.COMMAND_OUTCOME_DONE if healthy else pb.COMMAND_OUTCOME_FAILED
            self._word(command, outcome, "healthy" if healthy else "unhealthy", spans)
        else:
            self._word(command, pb.COMMAND_OUTCOME_FAILED, "UNKNOWN_KIND", spans)

    async def _change(self, command: pb.Command, spans: Spans) -> None:
        running = self._journal.state.running
        if running is None or self._switch.on_trial:
            self._word(command, pb.COMMAND_OUTCOME_FAILED, "PROBATION" if running else "NOTHING_INSTALLED", spans)
            return
        async with asyncio.timeout(self._patience(command)):
            target = await self._target(command, running, spans)
            answer = await self._permit(command, spans)
        self._preparing = ""  # from here on nothing newer ends it
        if not answer.granted:
            self._word(command, pb.COMMAND_OUTCOME_REFUSED, answer.gate, spans)
            return
        crash.at("PERMITTED")
        await self._switch.go(command, target, answer, spans)

    async def _target(self, command: pb.Command, running: Install, spans: Spans) -> Install:
        if command.kind == pb.COMMAND_KIND_RESTART:
            return replace(running, generation=command.generation)
        if command.kind == pb.COMMAND_KIND_CONFIG_UPDATE:
            config = self._configuration(command, spans)
            crash.at("STAGED")
            return replace(running, generation=command.generation, config=config)
        with spans.step("verify"):
            manifest = releases.verify(command.envelope, self._keys)
            named = (manifest.package, manifest.version, manifest.digest)
            if named != (self._package, command.release, command.digest):
                raise ReleaseError(f"the envelope is of {' '.join(named)}", "RELEASE_MISMATCH")
        with spans.step("fetch"):
            artifact = await self._link.fetch_artifact(manifest.digest, manifest.size)
            releases.check_artifact(manifest, artifact)
        crash.at("FETCHED")
        slot = self._slots.spare(running.slot)
        with spans.step("unpack"):
            await self._stage(slot, artifact)
        crash.at("STAGED")
        return Install(
            slot=slot,
            release=manifest.version,
            digest=manifest.digest,
            generation=command.generation,
            entrypoint=manifest.entrypoint,
            probe=manifest.probe,
            config=running.config,
        )

    async def _stage(self, slot: str, artifact: bytes) -> None:
        # A thread cannot be cancelled: the next one may not begin before it has ended.
        async with self._staging:
            unpacking = asyncio.create_task(asyncio.to_thread(self._slots.stage, slot, artifact))
            try:
                await asyncio.shield(unpacking)
            except asyncio.CancelledError:
                await asyncio.wait({unpacking})
                raise

    async def _permit(self, command: pb.Command, spans: Spans) -> Answer:
        with spans.step("begin_apply"):
            while True:
                answer = await self._link.begin_apply(command)
                if answer.granted or answer.gate != "NO_ANSWER":
                    return answer
                # The plane itself may say NO_ANSWER, and at once, while the one who decides is away.
                await self._clock.sleep(ASK_AGAIN_SECONDS)

    def _patience(self, command: pb.Command) -> float:
        # The deadline is the plane's wall time; a clock that is years off must neither hurry nor hang.
        left: float = command.deadline_time.seconds - self._clock.now().timestamp()
        return min(max(left, SHORTEST), LONGEST)

    def _configuration(self, command: pb.Command, spans: Spans) -> str:
        """Writes a verified configuration beside the one that is used; its name."""
        with spans.step("verify"):
            given, document = configurations.verify(command.envelope, command.config, self._keys)
            if given.package != self._package or given.plugin not in {"", self._plugin}:
                meant = f"package {given.package}" + (f", plugin {given.plugin}" if given.plugin else "")
                raise ReleaseError(f"the configuration is meant for {meant}", "CONFIG_MISMATCH")
            if given.digest != command.digest:
                raise ReleaseError("the configuration is not the one the command names", "CONFIG_MISMATCH")
        state = self._journal.state
        kept = {install.config for install in (state.running, state.previous) if install}
        for old in self._configs.iterdir():
            if old.name not in kept:
                old.unlink()
        # A name of its own: what is used now may have been edited in place, and has to be there for the way back.
        name = f"{command.generation}-{given.digest[:16]}.json"
        write_file(self._configs / name, document)
        return name

    def _word(
        self, command: pb.Command, outcome: pb.CommandOutcome.ValueType, detail: str, spans: Spans | None = None
    ) -> None:
        self._words.say("WORD", self._words.result(command, outcome, detail=detail, spans=spans))
