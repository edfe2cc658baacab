"""Light agents: many plugins in one process, each with the real session and a slot that is only a name.

Rule: what a light agent says to the plane, and how it answers commands, is what the supervisor would say and answer;
only the process it would run is missing. How its webhooks fare is modelled (`webhooks.py`), and the plane learns of it
from its beats alone, as from everybody's.
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

log = logging.getLogger("deploy.demo.light")

CAPABILITIES = ("update", "rollback", "restart", "health_check", "commit", "config_update")
CHANGES = (pb.COMMAND_KIND_UPDATE, pb.COMMAND_KIND_RESTART, pb.COMMAND_KIND_CONFIG_UPDATE)
WEBHOOKS_PER_SECOND = 12
TRIAL_SECONDS = 1.0
LOOK_SECONDS = 0.25
READY_SECONDS = 30.0
DEAD_MAN_SECONDS = 100.0
KEPT_WORDS = 64


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
    """What a light agent keeps between runs."""

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


def well(_slot: Slot) -> float:
    """No webhook fails."""
    return 0.0


class LightAgent:
    """One light agent; `start`, then `stop`. `fails` gives the share of webhooks that fail in a slot."""

    def __init__(
        self,
        plane: str,
        identity: Identity,
        channel: grpc.aio.Channel,
        *,
        package: str,
        fails: Callable[[Slot], float] = well,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.identity = identity
        self.session = Session(
            plane,
            Credential(identity.plugin, identity.secret, tuple(bytes.fromhex(key) for key in identity.release_keys)),
            hello=self._hello,
            on_command=self._take,
            channel=channel,
            boot_id=str(uuid.uuid4()),
        )
        self.package, self._fails = package, fails
        self._environment = {"cms": "light", "runtime": "none"} | (environment or {})
        self._before: Slot | None = None
        self._trial: asyncio.TimerHandle | None = None
        self._finals: dict[int, pb.CommandOutcome.ValueType] = {}
        self._words: dict[str, pb.CommandResult] = {}
        self._taken: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts = self._failures = 0.0
        self._counted = 0.0
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connects and begins to beat."""
        self.session.start()
        self._beating = asyncio.create_task(self._beat_on())

    async def heard(self) -> None:
        """Waits until the plane has acknowledged a beat. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_SECONDS
        while not self.session.beats_acknowledged:
            if loop.time() > deadline:
                raise TimeoutError(f"{self.identity.label} was not heard within {READY_SECONDS:g} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def stop(self) -> None:
        """Says goodbye and ends."""
        if self._trial:
            self._trial.cancel()
        for task in (*self._tasks, *([self._beating] if self._beating else [])):
            task.cancel()
        await self.session.stop("shutdown")

    def edit(self, document: str) -> None:
        """Somebody writes another configuration by hand, and the plugin takes it up."""
        self._count()
        digest = configurations.digest(document.encode())
        self.identity.running = replace(self.identity.running, config=document, config_digest=digest)

    async def _beat_on(self) -> None:
        loop = asyncio.get_running_loop()
        last = self._counted = loop.time() - self.session.beat_interval
        while True:
            interval = min(self.session.beat_interval, TRIAL_SECONDS) if self._trial else self.session.beat_interval
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
        self._failures += handled * self._fails(self.identity.running)

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
            agent_version="light",
            capabilities=CAPABILITIES,
            package=self.package,
            release=slot.release,
            generation=slot.generation,
            fence=self.identity.fence,
        )

    async def _take(self, command: pb.Command) -> None:
        if command.id in self._words:
            self.session.report(self._words[command.id])
        elif command.id in self._taken:
            pass  # it came again while it is being carried out
        elif command.fence <= self.identity.fence:
            self._say(command, pb.COMMAND_OUTCOME_REFUSED, "FENCE")
        else:
            self.identity.fence = command.fence
            self._taken.add(command.id)
            task = asyncio.create_task(self._carry_out(command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, command: pb.Command) -> None:
        try:
            if command.kind in CHANGES:
                await self._change(command)
            elif command.kind == pb.COMMAND_KIND_COMMIT:
                self._commit(command)
            elif command.kind == pb.COMMAND_KIND_ROLLBACK:
                self._roll_back(command)
            elif command.kind == pb.COMMAND_KIND_HEALTH_CHECK:
                self._say(command, pb.COMMAND_OUTCOME_DONE, "healthy")
            else:
                self._say(command, pb.COMMAND_OUTCOME_FAILED, "UNKNOWN_KIND")
        except releases.ReleaseError as error:
            self._say(command, pb.COMMAND_OUTCOME_FAILED, f"{error.reason}: {error.message}")
        except grpc.RpcError as error:
            self._say(command, pb.COMMAND_OUTCOME_FAILED, f"FETCH_FAILED: {error}")
        finally:
            self._taken.discard(command.id)

    async def _change(self, command: pb.Command) -> None:
        target = await self._target(command)
        answer = await self.session.begin_apply(command)
        if not answer.granted:
            self._say(command, pb.COMMAND_OUTCOME_REFUSED, answer.gate)
            return
        self._count()
        self._before, self.identity.running = self.identity.running, target
        seconds = command.dead_man_duration.ToTimedelta().total_seconds() or DEAD_MAN_SECONDS
        self._trial = asyncio.get_running_loop().call_later(seconds, self._dead_man, command)
        self._say(command, pb.COMMAND_OUTCOME_APPLIED)
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
        if self._trial and self.identity.running.generation == generation:
            self._trial.cancel()
            self._trial = None
            self._finals[generation] = pb.COMMAND_OUTCOME_COMMITTED
        outcome = self._finals.get(generation, pb.COMMAND_OUTCOME_FAILED)
        self._say(command, outcome)

    def _roll_back(self, command: pb.Command) -> None:
        generation = command.generation
        if self.identity.running.generation == generation and self._before:
            self._go_back(generation)
        else:
            self._finals.setdefault(generation, pb.COMMAND_OUTCOME_REVERTED)
        self._say(command, self._finals[generation])
        self._beat()

    def _dead_man(self, command: pb.Command) -> None:
        self._go_back(command.generation)
        self._say(command, pb.COMMAND_OUTCOME_REVERTED, "DEAD_MAN", unsolicited=True)
        self._beat()

    def _go_back(self, generation: int) -> None:
        assert self._before is not None
        if self._trial:
            self._trial.cancel()
        self._count()
        self._trial, self.identity.running, self._before = None, self._before, None
        self._finals[generation] = pb.COMMAND_OUTCOME_REVERTED

    def _say(
        self, command: pb.Command, outcome: pb.CommandOutcome.ValueType, detail: str = "", *, unsolicited: bool = False
    ) -> None:
        slot = self.identity.running
        word = pb.CommandResult(
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
        word.time.GetCurrentTime()
        self._words[command.id] = word
        while len(self._words) > KEPT_WORDS:
            self._words.pop(next(iter(self._words)))
        self.session.report(word)
