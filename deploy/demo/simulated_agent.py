"""Simulated agents: many plugins in one process, each with the real session and a slot that is only a name.

Rule: what a simulated agent sends to the plane, and how it answers commands, is what the supervisor would send and
answer; only the process it would run is missing. How its webhooks fare is modelled (`webhook_model.py`), and the plane
learns of it from its beats alone, as from everybody's.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import grpc.aio

from prunella.v1 import agent_pb2 as pb
from prunella_agent import configurations, releases
from prunella_agent.credential import Credential
from prunella_agent.session import Session

log = logging.getLogger("deploy.demo.simulated_agent")

CAPABILITIES = ("update", "rollback", "restart", "health_check", "commit", "config_update")
CHANGES = (pb.COMMAND_KIND_UPDATE, pb.COMMAND_KIND_RESTART, pb.COMMAND_KIND_CONFIG_UPDATE)
WEBHOOKS_PER_SECOND = 12
PROBATION_BEAT_SECONDS = 1.0
LOOK_SECONDS = 0.25
READY_SECONDS = 30.0
DEAD_MAN_SECONDS = 100.0
MAX_RECEIPTS = 64


@dataclass(frozen=True, slots=True)
class Slot:
    """What runs, or would."""

    release: str
    digest: str
    generation: int = 0
    config: str = ""
    config_digest: str = ""


@dataclass(slots=True)
class Identity:
    """What a simulated agent stores between runs."""

    label: str
    plugin: str
    secret: str = field(repr=False)
    release_keys: list[str]
    running: Slot
    fence: int = 0

    def encode(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def decode(cls, fields: dict[str, Any]) -> Identity:
        """From JSON."""
        return cls(**{**fields, "running": Slot(**fields["running"])})


def no_failures(_slot: Slot) -> float:
    """No webhook fails."""
    return 0.0


class SimulatedAgent:
    """One simulated agent; `start`, then `stop`. `failure_rate` gives the share of webhooks that fail in a slot."""

    def __init__(
        self,
        plane: str,
        identity: Identity,
        channel: grpc.aio.Channel,
        *,
        package: str,
        failure_rate: Callable[[Slot], float] = no_failures,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.identity = identity
        self.session = Session(
            plane,
            Credential(identity.plugin, identity.secret, tuple(bytes.fromhex(key) for key in identity.release_keys)),
            hello=self._hello,
            on_command=self._on_command,
            channel=channel,
            boot_id=str(uuid.uuid4()),
        )
        self.package, self._failure_rate = package, failure_rate
        self._environment = {"cms": "simulated", "runtime": "none"} | (environment or {})
        self._before: Slot | None = None
        self._probation: asyncio.TimerHandle | None = None
        self._finals: dict[int, pb.CommandOutcome.ValueType] = {}
        self._receipts: dict[str, pb.CommandResult] = {}
        self._running: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts = self._failures = 0.0
        self._counted = 0.0
        self._beat_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connects and begins to beat."""
        self.session.start()
        self._beat_task = asyncio.create_task(self._beat_loop())

    async def wait_acknowledged(self) -> None:
        """Waits until the plane has acknowledged a beat. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_SECONDS
        while not self.session.beats_acknowledged:
            if loop.time() > deadline:
                raise TimeoutError(f"{self.identity.label} had no beat acknowledged within {READY_SECONDS:g} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def stop(self) -> None:
        """Says goodbye and ends."""
        if self._probation:
            self._probation.cancel()
        for task in (*self._tasks, *([self._beat_task] if self._beat_task else [])):
            task.cancel()
        await self.session.stop("shutdown")

    async def _beat_loop(self) -> None:
        loop = asyncio.get_running_loop()
        last = self._counted = loop.time() - self.session.beat_interval
        while True:
            interval = (
                min(self.session.beat_interval, PROBATION_BEAT_SECONDS)
                if self._probation
                else self.session.beat_interval
            )
            passed = loop.time() - last
            if passed >= interval:
                last += passed
                self._beat()
            else:
                # The interval may shrink while we wait.
                await asyncio.sleep(min(interval - passed, LOOK_SECONDS))

    def _count(self) -> None:
        """Counts what came since the last look, as it fared in the slot that runs."""
        now = asyncio.get_running_loop().time()
        handled = WEBHOOKS_PER_SECOND * (now - self._counted)
        self._counted = now
        self._attempts += handled
        self._failures += handled * self._failure_rate(self.identity.running)

    def _beat(self) -> None:
        self._count()
        slot = self.identity.running
        beat = pb.Beat(
            webhook_attempts=int(self._attempts),
            webhook_failures=int(self._failures),
            release=slot.release,
            generation=slot.generation,
            digest=slot.digest,
            config_digest=slot.config_digest,
            environment=self._environment,
            health=pb.HEALTH_HEALTHY,
        )
        beat.time.GetCurrentTime()
        self.session.beat(beat)

    def _hello(self) -> pb.Hello:
        slot = self.identity.running
        return pb.Hello(
            agent_version="simulated",
            capabilities=CAPABILITIES,
            package=self.package,
            release=slot.release,
            generation=slot.generation,
            fence=self.identity.fence,
        )

    async def _on_command(self, command: pb.Command) -> None:
        if command.id in self._receipts:
            self.session.report(self._receipts[command.id])
        elif command.id in self._running:
            pass  # it came again while it is being carried out
        elif command.fence <= self.identity.fence:
            self._record(command, pb.COMMAND_OUTCOME_REFUSED, "FENCE")
        else:
            self.identity.fence = command.fence
            self._running.add(command.id)
            task = asyncio.create_task(self._execute(command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _execute(self, command: pb.Command) -> None:
        try:
            if command.kind in CHANGES:
                await self._change(command)
            elif command.kind == pb.COMMAND_KIND_COMMIT:
                self._commit(command)
            elif command.kind == pb.COMMAND_KIND_ROLLBACK:
                self._roll_back(command)
            elif command.kind == pb.COMMAND_KIND_HEALTH_CHECK:
                self._record(command, pb.COMMAND_OUTCOME_DONE, "healthy")
            else:
                self._record(command, pb.COMMAND_OUTCOME_FAILED, "UNKNOWN_KIND")
        except releases.ReleaseError as error:
            self._record(command, pb.COMMAND_OUTCOME_FAILED, f"{error.reason}: {error.message}")
        except grpc.RpcError as error:
            self._record(command, pb.COMMAND_OUTCOME_FAILED, f"FETCH_FAILED: {error}")
        finally:
            self._running.discard(command.id)

    async def _change(self, command: pb.Command) -> None:
        target = await self._target(command)
        answer = await self.session.begin_apply(command)
        if not answer.granted:
            self._record(command, pb.COMMAND_OUTCOME_REFUSED, answer.gate)
            return
        self._count()
        self._before, self.identity.running = self.identity.running, target
        seconds = command.dead_man_duration.ToTimedelta().total_seconds() or DEAD_MAN_SECONDS
        self._probation = asyncio.get_running_loop().call_later(seconds, self._dead_man, command)
        self._record(command, pb.COMMAND_OUTCOME_APPLIED)
        self._beat()

    async def _target(self, command: pb.Command) -> Slot:
        """What would run after a command, verified. Raises ReleaseError for what is not what was signed."""
        running, keys = self.identity.running, [bytes.fromhex(key) for key in self.identity.release_keys]
        if command.kind == pb.COMMAND_KIND_UPDATE:
            manifest = releases.verify(command.envelope, keys)
            artifact = await self.session.fetch_artifact(manifest.digest, manifest.size)
            releases.check_artifact(manifest, artifact)
            running = replace(running, release=manifest.version, digest=manifest.digest)
        elif command.kind == pb.COMMAND_KIND_CONFIG_UPDATE:
            signed, document = configurations.verify(command.envelope, command.config, keys)
            if signed.package != self.package or signed.plugin not in ("", self.identity.plugin):
                raise releases.ReleaseError("the configuration is meant for another plugin", "CONFIG_FOREIGN")
            running = replace(running, config=document.decode(), config_digest=signed.digest)
        return replace(running, generation=command.generation)

    def _commit(self, command: pb.Command) -> None:
        generation = command.generation
        if self._probation and self.identity.running.generation == generation:
            self._probation.cancel()
            self._probation = None
            self._finals[generation] = pb.COMMAND_OUTCOME_COMMITTED
        outcome = self._finals.get(generation, pb.COMMAND_OUTCOME_FAILED)
        self._record(command, outcome)

    def _roll_back(self, command: pb.Command) -> None:
        generation = command.generation
        if self.identity.running.generation == generation and self._before:
            self._revert(generation)
        else:
            self._finals.setdefault(generation, pb.COMMAND_OUTCOME_REVERTED)
        self._record(command, self._finals[generation])
        self._beat()

    def _dead_man(self, command: pb.Command) -> None:
        self._revert(command.generation)
        self._record(command, pb.COMMAND_OUTCOME_REVERTED, "DEAD_MAN", unsolicited=True)
        self._beat()

    def _revert(self, generation: int) -> None:
        assert self._before is not None
        if self._probation:
            self._probation.cancel()
        self._count()
        self._probation, self.identity.running, self._before = None, self._before, None
        self._finals[generation] = pb.COMMAND_OUTCOME_REVERTED

    def _record(
        self, command: pb.Command, outcome: pb.CommandOutcome.ValueType, detail: str = "", *, unsolicited: bool = False
    ) -> None:
        slot = self.identity.running
        receipt = pb.CommandResult(
            command=command.id,
            attempt=command.attempt,
            generation=command.generation,
            fence=command.fence,
            outcome=outcome,
            detail=detail,
            release=slot.release,
            digest=slot.digest,
            unsolicited=unsolicited,
        )
        receipt.time.GetCurrentTime()
        self._receipts[command.id] = receipt
        while len(self._receipts) > MAX_RECEIPTS:
            self._receipts.pop(next(iter(self._receipts)))
        self.session.report(receipt)
