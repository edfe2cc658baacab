"""Instant agents for measurements: the real session, real permits, and no process to restart in between."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import grpc.aio

from prunella.v1 import agent_pb2 as pb
from prunella_agent.credential import Credential
from prunella_agent.session import Session
from tests.bench.ground import secret

PROOF_BEATS = 6
PROOF_SECONDS = 0.1
WEBHOOKS = 20


@dataclass
class InstantAgent:
    """A plugin that can break and that heals as soon as it may switch."""

    plugin: str
    address: str
    channel: grpc.aio.Channel
    release: str = "1.2.0"
    generation: int = 0
    digest: str = ""
    attempts: int = 0
    failures: int = 0
    session: Session = field(init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.session = Session(
            self.address, Credential(self.plugin, secret(self.plugin), ()), hello=self._hello, on_command=self._take,
            channel=self.channel,
        )  # fmt: skip

    def _hello(self) -> pb.Hello:
        capabilities = ("update", "rollback", "restart", "health_check", "commit")
        return pb.Hello(agent_version="bench", capabilities=capabilities, package="relay", release=self.release)

    def beat(self, failures: int = 0) -> None:
        """One beat with 20 more webhooks, `failures` of them failed."""
        self.attempts += WEBHOOKS
        self.failures += failures
        made = pb.Beat(
            webhook_attempts=self.attempts, webhook_failures=self.failures, release=self.release,
            generation=self.generation, digest=self.digest, health=pb.HEALTH_HEALTHY,
        )  # fmt: skip
        made.time.GetCurrentTime()
        self.session.beat(made)

    async def _take(self, command: pb.Command) -> None:
        task = asyncio.create_task(self._do(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, command: pb.Command) -> None:
        if command.kind == pb.COMMAND_KIND_COMMIT:
            self._say(command, pb.COMMAND_OUTCOME_COMMITTED)
            return
        if command.kind not in (pb.COMMAND_KIND_UPDATE, pb.COMMAND_KIND_RESTART):
            self._say(command, pb.COMMAND_OUTCOME_FAILED)
            return
        answer = await self.session.begin_apply(command)
        if not answer.granted:
            self._say(command, pb.COMMAND_OUTCOME_REFUSED, answer.gate)
            return
        self.release, self.generation, self.digest = command.release or self.release, command.generation, command.digest
        self._say(command, pb.COMMAND_OUTCOME_APPLIED)
        for _ in range(PROOF_BEATS):
            self.beat()
            await asyncio.sleep(PROOF_SECONDS)

    def _say(self, command: pb.Command, outcome: pb.CommandOutcome.ValueType, detail: str = "") -> None:
        result = pb.CommandResult(
            command=command.id, attempt=command.attempt, generation=command.generation, fence=command.fence,
            outcome=outcome, detail=detail, release=self.release, digest=self.digest,
        )  # fmt: skip
        result.time.GetCurrentTime()
        self.session.report(result)
