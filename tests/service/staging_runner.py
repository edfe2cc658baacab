"""A sandbox on this machine that is told what it gives and how its next runs end; everything else is the real one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from services.patcher.attempt import Staged
from services.patcher.policy import Isolation
from services.patcher.staging import Request, SandboxHost, local_environment


@dataclass
class StagingRunner:
    """`ends` says of the next runs whether they pass; afterwards all do. `gives` is the isolation it has."""

    gives: Isolation = Isolation.NAMESPACES
    ends: list[bool] = field(default_factory=list)
    runs: int = 0
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    @property
    def environment(self) -> str:
        return local_environment()

    async def host(self) -> SandboxHost:
        missing = () if self.gives is Isolation.NAMESPACES else ("a file view of its own",)
        return SandboxHost(self.gives, "the sandbox of this test", missing=missing, remedy="give it more,")

    def turn(self) -> asyncio.Semaphore:
        return self.free

    async def run(self, request: Request) -> Staged:
        self.runs += 1
        passed = self.ends.pop(0) if self.ends else True
        made = Staged(passed, 2, 2 if passed else 1, 0.1, failures=() if passed else (f"smoke: run {self.runs}",))
        return replace(made, isolation=self.gives.word)
