"""Patcher processes under siege: killed at any moment, while the test speaks for ingest and for the agents behind it.

Rule: agents ask for permits as real ones do (one nonce, no yes later than 5 s after asking), and every question and
every kill switch is written down with the moments at which it was asked and answered, for the checker that looks from
outside.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from deploy.local.health import until_serving
from deploy.local.processes import Starter, starter, usable_starter
from deploy.local.watch import ServiceWatch
from libs.common import rpc
from libs.common.errors import Problem
from libs.common.names import new_id
from prunella.v1 import agent_pb2, events_pb2, patcher_pb2, patcher_pb2_grpc
from tests.service.patcher_alone import KINDS, PatcherAlone

T = TypeVar("T")

SERVING_SECONDS = 30.0
STEADY_SECONDS = 60.0
PERMIT_SECONDS, TRY_SECONDS = 5.0, 1.5
LONGEST_DOWNLOAD = 1.5


@dataclass(frozen=True)
class PermitAnswer:
    """One question for a permit, from its first try to the answer."""

    plugin: str
    begun: float
    answered: float
    granted: bool
    gate: str


@dataclass
class Stop:
    """One kill switch: confirmed engaged, and when its release was asked for."""

    scope: str
    confirmed: float
    epoch: int = 0
    released: float = float("inf")

    def covers(self, plugin: str) -> bool:
        """Whether it stops a patch of this plugin of merchant m1."""
        return self.scope in {"global", "merchants/m1", f"plugins/{plugin}", "actions/patch"}


def contradictions(permit_answers: Sequence[PermitAnswer], stops: Sequence[Stop]) -> list[str]:
    """3, from outside: yeses to questions asked after an engage was confirmed and answered before its release."""
    return [
        f"{one.plugin} was permitted {one.begun - stop.confirmed:.3f} s after {stop.scope} was engaged"
        for one in permit_answers
        for stop in stops
        if one.granted and stop.covers(one.plugin) and stop.confirmed < one.begun and one.answered < stop.released
    ]


async def steadily(call: Callable[[], Awaitable[T]], seconds: float = STEADY_SECONDS) -> T:
    """Calls until it works; raises the last Problem after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except Problem:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


@dataclass
class Siege(PatcherAlone):
    """Two patchers, each a process of its own."""

    names: Sequence[str] = ()
    chance: random.Random = field(default_factory=random.Random)
    watches: list[ServiceWatch] = field(default_factory=list)
    permit_answers: list[PermitAnswer] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    kills: int = 0
    _starter: Starter | None = None

    async def start(self, *, agent: bool = False) -> Siege:
        """Starts both and waits until they serve."""
        await super().start(agent=agent)
        self._starter = await usable_starter(await starter(self.backing.folder / "forkserver.log"))
        # The decider is not there, so its address is free for the second patcher.
        for name in ("patcher", "decider"):
            environ = {**os.environ, **self.plane.settings("patcher"), "PRUNELLA_LISTEN": self.plane.addresses[name]}
            environ["PRUNELLA_HTTP_LISTEN"] = "127.0.0.1:0"
            log = self.backing.folder / f"patcher-{name}.log"
            watch = ServiceWatch(name, "services.patcher", environ, log, self._starts, lambda _line: None)
            watch.begin()
            self.watches.append(watch)
        places = [self.plane.addresses[watch.name] for watch in self.watches]
        await asyncio.wait_for(asyncio.gather(*map(until_serving, places)), SERVING_SECONDS)
        return self

    async def _starts(self) -> Starter:
        assert self._starter
        return self._starter

    async def stop(self) -> None:
        """Ends both, and what stands around them."""
        await asyncio.gather(*(watch.stop() for watch in self.watches))
        if self._starter:
            await self._starter.stop()
        await super().stop()

    async def kill(self) -> None:
        """Kills one of them, whichever; it is started again at once."""
        watch = self.chance.choice(self.watches)
        await watch.hold()
        watch.release()
        self.kills += 1

    def patcher(self, caller: str) -> patcher_pb2_grpc.PatcherServiceAsyncStub:
        """One of them, as `caller` reaches it."""
        name = self.chance.choice(self.watches).name if self.watches else "patcher"
        kept, channels = f"{name} as {caller}", self.plane._channels
        if kept not in channels:
            channels[kept] = rpc.channel(self.plane.addresses[name], caller=caller, key=self.plane.key)
        return patcher_pb2_grpc.PatcherServiceStub(channels[kept])

    # ---- agents

    async def ask(self, command: agent_pb2.Command, plugin: str = "p1") -> patcher_pb2.AuthorizeApplyResponse:
        """BeginApply: one question, asked again under its nonce for as long as its answer would count."""
        request = patcher_pb2.AuthorizeApplyRequest(
            plugin=plugin, command=command.id, attempt=command.attempt, generation=command.generation,
            fence=command.fence, request_id=new_id(),
        )  # fmt: skip
        begun = time.monotonic()
        answer = patcher_pb2.AuthorizeApplyResponse(gate="NO_ANSWER")
        while time.monotonic() - begun < PERMIT_SECONDS:
            try:
                answer = await self.patcher("ingest").AuthorizeApply(request, timeout=TRY_SECONDS)
                break
            except Problem:
                await asyncio.sleep(0.05)
        self.permit_answers.append(PermitAnswer(plugin, begun, time.monotonic(), answer.granted, answer.gate))
        return answer

    async def finish(
        self, command: agent_pb2.Command, outcome: str, plugin: str = "p1", **more: Any
    ) -> events_pb2.Event:
        """The agent's word, kept until it is told."""
        tell = super().finish
        return await steadily(lambda: tell(command, outcome, plugin, **more))

    async def fare(self, command: agent_pb2.Command, plugin: str) -> None:
        """A good agent with a download of some length."""
        if KINDS[command.kind] == "update":
            await asyncio.sleep(self.chance.uniform(0, LONGEST_DOWNLOAD))
        await self.obey(command, plugin)

    # ---- people

    async def engage(self, scope: str) -> Stop:
        """Engages a kill switch and writes down when that was confirmed."""
        request = patcher_pb2.EngageKillSwitchRequest(scope=scope, reason="a siege", request_id=new_id())
        answer = await steadily(lambda: self.patcher("operator").EngageKillSwitch(request, timeout=10))
        self.stops.append(Stop(scope, time.monotonic(), answer.kill_switch.epoch))
        return self.stops[-1]

    async def release(self, stop: Stop) -> None:
        """Releases it; from the first try on it may be released."""
        request = patcher_pb2.ReleaseKillSwitchRequest(
            scope=stop.scope, reason="enough", request_id=new_id(), epoch=stop.epoch
        )
        stop.released = time.monotonic()
        await steadily(lambda: self.patcher("operator").ReleaseKillSwitch(request, timeout=10))
