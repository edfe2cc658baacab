"""Executes commands: accepts each once, prepares it, asks for the permit, and has the slots switched.

Rule: a command is done once, however often it comes; a repeat gets the same receipt. Fences only rise: a command with
an old one is refused. A newer command ends the preparation of an older one, never a switch that has its permit. Nothing
is unpacked or written before every pinned key has signed it, and nothing is switched before the plane permits it. While
the host hinders the agent a change is refused with that reason; a commit waits for the disk, a way back does not.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import grpc

from prunella.v1 import agent_pb2 as pb
from prunella_agent import configurations, failpoints, releases
from prunella_agent.archive import ReleaseError
from prunella_agent.clock import Clock
from prunella_agent.conditions import Conditions
from prunella_agent.credential import write_file
from prunella_agent.journal import Journal
from prunella_agent.receipts import Receipts, decode_command, decode_result, encode
from prunella_agent.session import PermitResponse
from prunella_agent.slot_switch import SlotSwitch
from prunella_agent.slots import Slots
from prunella_agent.spans import Spans
from prunella_agent.state import Install, recover

log = logging.getLogger("prunella_agent.command_executor")

MAX_COMMANDS = 16
ASK_AGAIN_SECONDS = 0.5
SHORTEST, LONGEST = 60.0, 900.0
CHANGES = (pb.COMMAND_KIND_UPDATE, pb.COMMAND_KIND_RESTART, pb.COMMAND_KIND_CONFIG_UPDATE)


class PlaneLink(Protocol):
    """What the executor needs of the session."""

    async def begin_apply(self, command: pb.Command) -> PermitResponse: ...

    async def fetch_artifact(self, digest: str, size: int) -> bytes: ...

    def report(self, result: pb.CommandResult) -> None: ...


class CommandExecutor:
    """Executes the commands of one plugin."""

    def __init__(
        self,
        *,
        journal: Journal,
        slots: Slots,
        switch: SlotSwitch,
        receipts: Receipts,
        plane: PlaneLink,
        probe: Callable[[], Awaitable[bool]],
        keys: Sequence[bytes],
        package: str,
        plugin: str,
        configs: Path,
        environment: Mapping[str, str],
        clock: Clock,
        conditions: Conditions,
    ) -> None:
        self._journal, self._slots, self._switch, self._receipts = journal, slots, switch, receipts
        self._conditions = conditions
        self._plane, self._probe, self._clock = plane, probe, clock
        self._keys, self._package, self._plugin, self._configs = keys, package, plugin, configs
        self._environment = environment
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._preparing = ""
        # The highest fence that was heard of, also when it could not be written down.
        self._fence = 0
        self._superseded: set[str] = set()
        self._unpack_lock = asyncio.Lock()

    def resend_receipts(self) -> None:
        """After a start, before anything else is sent: sends unacknowledged receipts, oldest first."""
        for result in recover(self._journal.state).resend_receipts:
            self._plane.report(decode_result(result))

    def resume(self) -> None:
        """After a start, once the right release runs: begins anew what has no receipt."""
        for message in recover(self._journal.state).restart_commands:
            self._start(decode_command(message))

    async def accept(self, command: pb.Command) -> None:
        """Takes a command over; when this returns it is written down, or has its receipt, or its disk does not work.

        What could not be written down comes again with the next stream.
        """
        state = self._journal.state
        receipt = self._receipts.known(command.id)
        if receipt is not None:
            self._plane.report(receipt)
        elif command.id not in state.received and command.id not in self._tasks:
            if command.fence <= max(state.fence, self._fence):
                self._receipts.answer(command, pb.COMMAND_OUTCOME_REFUSED, "FENCE")
                return
            self._fence = command.fence
            try:
                self._journal.write("RECEIVED", command=command.id, fence=command.fence, message=encode(command))
            except OSError as error:
                self._conditions.note("the journal", error, self._journal.folder, self._journal.check)
                if command.kind in CHANGES:
                    self._receipts.answer(command, pb.COMMAND_OUTCOME_REFUSED, self._conditions.refusal())
                    return
            failpoints.hit("RECEIVED")
            self._start(command)

    async def stop(self) -> None:
        """Stops what is being prepared; it is started again after the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, command: pb.Command) -> None:
        if command.kind in CHANGES or command.kind == pb.COMMAND_KIND_ROLLBACK:
            self._supersede()
        if len(self._tasks) >= MAX_COMMANDS:
            self._receipts.answer(command, pb.COMMAND_OUTCOME_FAILED, "TOO_MANY_COMMANDS")
            return
        if command.kind in CHANGES:
            self._preparing = command.id
        task = asyncio.create_task(self._execute(command), name=f"command {command.id}")
        self._tasks[command.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(command.id, None))

    def _supersede(self) -> None:
        if self._preparing in self._tasks:
            self._superseded.add(self._preparing)
            self._tasks[self._preparing].cancel()
        self._preparing = ""

    async def _execute(self, command: pb.Command) -> None:
        spans = Spans(self._clock, command.traceparent)
        with spans.step("receive"):
            kind = pb.CommandKind.Name(command.kind) if command.kind in pb.CommandKind.values() else "UNKNOWN"
            log.info("command %s: %s generation %d", command.id, kind, command.generation)
        try:
            await self._dispatch(command, spans)
        except asyncio.CancelledError:
            if command.id not in self._superseded:
                raise
            self._receipts.answer(command, pb.COMMAND_OUTCOME_FAILED, "SUPERSEDED", spans)
        except ReleaseError as error:
            self._answer_unfit(command, error, spans)
        except grpc.RpcError as error:
            self._receipts.answer(command, pb.COMMAND_OUTCOME_FAILED, f"FETCH_FAILED: {error}", spans)
        except TimeoutError:
            self._receipts.answer(command, pb.COMMAND_OUTCOME_FAILED, "DEADLINE", spans)
        except (OSError, MemoryError) as error:
            fault = error if isinstance(error, OSError) else OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            self._conditions.note("a command", fault, self._slots.folder, self._slots.check)
            self._receipts.answer(command, pb.COMMAND_OUTCOME_REFUSED, self._conditions.refusal(), spans)
        except Exception as error:
            log.exception("command %s failed", command.id)
            self._receipts.answer(command, pb.COMMAND_OUTCOME_FAILED, f"INTERNAL: {type(error).__name__}", spans)
        finally:
            self._superseded.discard(command.id)

    def _answer_unfit(self, command: pb.Command, error: ReleaseError, spans: Spans) -> None:
        fields = {}
        if error.reason == releases.REQUIREMENT_UNMET:
            manifest = releases.verify(command.envelope, self._keys)
            fields = {"release": manifest.version, "requires": dict(manifest.requires)}
        detail = f"{error.reason}: {error.message}"
        self._receipts.answer(command, pb.COMMAND_OUTCOME_FAILED, detail, spans, **fields)

    async def _dispatch(self, command: pb.Command, spans: Spans) -> None:
        if command.kind in CHANGES:
            await self._change(command, spans)
        elif command.kind == pb.COMMAND_KIND_COMMIT:
            await self._commit(command, spans)
        elif command.kind == pb.COMMAND_KIND_ROLLBACK:
            await self._switch.roll_back(command, spans)
        elif command.kind == pb.COMMAND_KIND_HEALTH_CHECK:
            with spans.step("health_check"):
                healthy = await self._probe()
            outcome = pb.COMMAND_OUTCOME_DONE if healthy else pb.COMMAND_OUTCOME_FAILED
            self._receipts.answer(command, outcome, "healthy" if healthy else "unhealthy", spans)
        else:
            self._receipts.answer(command, pb.COMMAND_OUTCOME_FAILED, "UNKNOWN_KIND", spans)

    async def _commit(self, command: pb.Command, spans: Spans) -> None:
        while True:
            try:
                await self._switch.commit(command, spans)
                return
            except OSError as error:
                # What is not on the disk is not kept; if it stays so the dead man goes back, and that is the answer.
                self._conditions.note("the journal", error, self._journal.folder, self._journal.check)
            await self._clock.sleep(ASK_AGAIN_SECONDS)

    async def _change(self, command: pb.Command, spans: Spans) -> None:
        self._conditions.recheck()
        if hindered := self._conditions.refusal():
            self._receipts.answer(command, pb.COMMAND_OUTCOME_REFUSED, hindered, spans)
            return
        running = self._journal.state.running
        if running is None or self._switch.in_probation:
            self._receipts.answer(
                command, pb.COMMAND_OUTCOME_FAILED, "PROBATION" if running else "NOTHING_INSTALLED", spans
            )
            return
        async with asyncio.timeout(time_limit(command, self._clock)):
            target = await self._target(command, running, spans)
            answer = await self._permit(command, spans)
        self._preparing = ""  # from here on nothing newer ends it
        if not answer.granted:
            self._receipts.answer(command, pb.COMMAND_OUTCOME_REFUSED, answer.gate, spans)
            return
        failpoints.hit("PERMITTED")
        await self._switch.switch(command, target, answer, spans)

    async def _target(self, command: pb.Command, running: Install, spans: Spans) -> Install:
        if command.kind == pb.COMMAND_KIND_RESTART:
            return replace(running, generation=command.generation)
        if command.kind == pb.COMMAND_KIND_CONFIG_UPDATE:
            config = self._configuration(command, spans)
            failpoints.hit("STAGED")
            return replace(running, generation=command.generation, config=config)
        with spans.step("verify"):
            manifest = releases.verify(command.envelope, self._keys)
            named = (manifest.package, manifest.version, manifest.digest)
            if named != (self._package, command.release, command.digest):
                raise ReleaseError(f"the envelope is of {' '.join(named)}", "RELEASE_MISMATCH")
            releases.check_requirements(manifest, self._environment)
        with spans.step("fetch"):
            artifact = await self._plane.fetch_artifact(manifest.digest, manifest.size)
            releases.check_artifact(manifest, artifact)
        failpoints.hit("FETCHED")
        slot = self._slots.other(running.slot)
        with spans.step("unpack"):
            await self._stage(slot, artifact)
        failpoints.hit("STAGED")
        return Install(
            slot=slot,
            release=manifest.version,
            digest=manifest.digest,
            generation=command.generation,
            entrypoint=manifest.entrypoint,
            probe=manifest.probe,
            config=running.config,
            requires=dict(manifest.requires),
        )

    async def _stage(self, slot: str, artifact: bytes) -> None:
        # A thread cannot be cancelled: the next one may not begin before it has ended.
        async with self._unpack_lock:
            unpacking = asyncio.create_task(asyncio.to_thread(self._slots.stage, slot, artifact))
            try:
                await asyncio.shield(unpacking)
            except asyncio.CancelledError:
                await asyncio.wait({unpacking})
                raise
            except OSError as error:
                # A release may be too large for a disk on which everything else works.
                self._conditions.note("unpacking", error, self._slots.folder, self._slots.room(artifact))
                raise
        self._conditions.clear("unpacking")

    async def _permit(self, command: pb.Command, spans: Spans) -> PermitResponse:
        with spans.step("begin_apply"):
            while True:
                answer = await self._plane.begin_apply(command)
                if answer.granted or answer.gate != "NO_ANSWER":
                    return answer
                # The plane itself may say NO_ANSWER, and at once, while the one who decides is away.
                await self._clock.sleep(ASK_AGAIN_SECONDS)

    def _configuration(self, command: pb.Command, spans: Spans) -> str:
        """Writes a verified configuration beside the one that is used; its name."""
        with spans.step("verify"):
            signed, document = configurations.verify(command.envelope, command.config, self._keys)
            if signed.package != self._package or signed.plugin not in {"", self._plugin}:
                meant = f"package {signed.package}" + (f", plugin {signed.plugin}" if signed.plugin else "")
                raise ReleaseError(f"the configuration is meant for {meant}", "CONFIG_MISMATCH")
            if signed.digest != command.digest:
                raise ReleaseError("the configuration is not the one the command names", "CONFIG_MISMATCH")
        state = self._journal.state
        in_use = {install.config for install in (state.running, state.previous) if install}
        for old in self._configs.iterdir():
            if old.name not in in_use:
                old.unlink()
        # A name of its own: what is used now may have been edited in place, and has to be there for the way back.
        name = f"{command.generation}-{signed.digest[:16]}.json"
        write_file(self._configs / name, document)
        return name


def time_limit(command: pb.Command, clock: Clock) -> float:
    """Seconds to get ready for a switch, and to be permitted it."""
    # The deadline is the plane's wall time, and a clock that is years off must neither hurry nor hang.
    if command.HasField("remaining_duration"):
        left: float = command.remaining_duration.ToTimedelta().total_seconds()
    else:
        left = command.deadline_time.seconds - clock.now().timestamp()
    return min(max(left, SHORTEST), LONGEST)
