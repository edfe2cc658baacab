"""One real plugin of the demo: a supervisor process with the relay under it, and the shop that sends it webhooks.

Rule: only the supervisor that was started here is ever signalled by its process id; its plugin dies with it. A release
is put into place by the supervisor itself, keys and all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.demo.releases import PACKAGE, Release
from deploy.demo.traffic import Traffic
from deploy.local.child import Child, spawn

STOP_SECONDS = 8.0
READY_SECONDS = 60.0
LOOK_SECONDS = 0.1
PROBE_SECONDS = 1.0
# What the demo stops it stops on purpose.
PLANNED_SECONDS = 3600.0


@dataclass(slots=True)
class Shop:
    """One shop with its plugin. `install` gives a signed release by version, `token` an enrolment token."""

    label: str
    merchant: str
    folder: Path
    plane: str
    install: Callable[[str], Release]
    environment: dict[str, str] = field(default_factory=dict)
    # Whether the merchant's secret lies in the plugin's data instead of its configuration.
    separate_secret: bool = False
    # Seconds within which it says it will be back when it is stopped; 0: it names no time.
    back_within: float = PLANNED_SECONDS
    child: Child | None = None
    traffic: Traffic = field(init=False)

    def __post_init__(self) -> None:
        self.traffic = Traffic(lambda: int(self.state().get("port", 0)))

    @property
    def enrolled(self) -> bool:
        """Whether the plugin has its identity."""
        return (self.folder / "agent" / "credential.json").exists()

    @property
    def plugin(self) -> str:
        """The plugin's id."""
        return str(self.state().get("plugin", ""))

    def state(self) -> dict[str, Any]:
        """What the supervisor last said of itself."""
        try:
            fields: dict[str, Any] = json.loads((self.folder / "agent" / "state").read_text())
        except (OSError, ValueError):
            return {}
        return fields

    async def start(self, version: str, *, config: dict[str, str], token: str = "", reinstall: bool = False) -> None:
        """Starts the supervisor; the version counts at the first start and for `reinstall` only."""
        agent = self.folder / "agent"
        agent.mkdir(mode=0o700, parents=True, exist_ok=True)
        release = self.install(version)
        archive = self.folder / f"{PACKAGE}-{version}.tar.gz"
        archive.write_bytes(release.artifact)
        archive.with_name(archive.name + ".dsse").write_bytes(release.envelope)
        settings = self.folder / "relay.json"
        settings.write_text(json.dumps(config))
        settings.chmod(0o600)
        arguments = [sys.executable, "-P", "-m", "prunella_agent", "--plane", self.plane, "--folder", str(agent)]
        arguments += ["--package", PACKAGE, "--merchant", self.merchant, "--release-archive", str(archive)]
        arguments += ["--config", str(settings), "--probe-seconds", str(PROBE_SECONDS)]
        arguments += ["--back-within", str(self.back_within)]
        arguments += [part for name, value in self.environment.items() for part in ("--environment", f"{name}={value}")]
        arguments += ["--reinstall"] if reinstall else []
        (agent / "state").unlink(missing_ok=True)
        environ = os.environ | ({"PRUNELLA_TOKEN": token} if token else {})
        self.child = await spawn(self.label, arguments, log=self.folder / "agent.log", environment=environ)

    def write_secret(self, secret: str) -> None:
        """Puts the merchant's secret where only the plugin reads it."""
        data = self.folder / "agent" / "data"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = data / "secret"
        kept.touch(mode=0o600)
        kept.write_text(secret)

    async def ready(self, health: str = "healthy") -> dict[str, Any]:
        """Waits until the plugin is connected and as healthy as said. Raises TimeoutError with the end of its log."""
        return await self.until(lambda s: bool(s.get("connected")) and s.get("health") == health, f"become {health}")

    async def until(self, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Waits until the supervisor says so of itself. Raises TimeoutError with the end of its log."""
        deadline = time.monotonic() + READY_SECONDS
        while not condition(state := self.state()):
            ended = self.child is not None and not self.child.running
            if ended or time.monotonic() > deadline:
                log = f"{self.folder / 'agent.log'} says:\n{self.child.tail() if self.child else ''}"
                raise TimeoutError(f"{self.label} did not {what}; {log}")
            await asyncio.sleep(LOOK_SECONDS)
        return state

    async def stop(self) -> None:
        """Ends the traffic and, with a goodbye, the supervisor."""
        await self.traffic.stop()
        if self.child and self.child.running:
            await self.child.stop(STOP_SECONDS)

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Nothing more goes to the disk of the supervisor, whoever it runs as; its plugin has a disk of its own."""
        assert self.child is not None
        before, most = resource.prlimit(self.child.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.child.pid, resource.RLIMIT_FSIZE, (0, most))
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self.child.pid, resource.RLIMIT_FSIZE, (before, most))

    def kill_plugin(self) -> None:
        """Kills the relay under its living supervisor."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self.state()["pid"]), signal.SIGKILL)

    async def kill_supervisor(self) -> None:
        """Kills the supervisor; the kernel ends its plugin."""
        await self.traffic.stop()
        if self.child and self.child.running:
            self.child.signal(signal.SIGKILL)
            await self.child.wait()
