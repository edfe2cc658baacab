"""The demo's workers: real processes that claim tasks of the resolution queue and run the relay's tools.

Rule: a worker is a client like any other. Its environment names the queue's address and key, a file its tools; the
tools run as its own children and end with it. Only workers that were started here are ever killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.demo.operator_client import CALL_SECONDS, OperatorClient
from deploy.demo.releases import PACKAGE
from deploy.local.child import Child, spawn
from prunella.v1 import queue_pb2

WORKERS = 2
STOP_SECONDS = 8.0
# The shortest lease a worker trusts long enough to restart a plugin under it.
LEASE_SECONDS = 10
CONFIGURATION = """\
[worker]
name = {name}
concurrency = 2
lease_seconds = {lease}

[[server]]
name = "relay"
transport = "stdio"
command = {python}
args = ["-P", "-m", "deploy.demo.tools", "--fleet", {fleet}]

[server.tools]
status = "read"
read_log = "read"
read_config = "read"
test_delivery = "read"
set_config = "write"
restart = "write"
"""
Say = Callable[[str], None]


def traces_endpoint(http: Mapping[str, str]) -> str:
    """Where spans go on a plane with these HTTP addresses; empty when ops has none."""
    return f"http://{http['ops']}/v1/traces" if http.get("ops") else ""


class QueueWorkers:
    """Some workers over one fleet's folder; `otlp` is where their spans go."""

    def __init__(self, client: OperatorClient, fleet: Path, say: Say, *, otlp: str = "") -> None:
        self.running: dict[str, Child] = {}
        self._otlp = otlp
        self._client, self._fleet, self._say = client, fleet, say
        self._folder = fleet.with_name("workers")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._number = 0

    async def start(self, count: int = WORKERS) -> None:
        """Starts so many more."""
        await asyncio.gather(*(self.add() for _ in range(count)))

    async def add(self) -> str:
        """Starts one more; its name."""
        self._number += 1
        name = f"worker-{self._number}"
        file = self._folder / f"{name}.toml"
        # A JSON string is a TOML string.
        file.write_text(
            CONFIGURATION.format(
                name=json.dumps(name),
                lease=LEASE_SECONDS,
                python=json.dumps(sys.executable),
                fleet=json.dumps(str(self._fleet)),
            )
        )
        variables = {
            "PRUNELLA_QUEUE_ADDRESS": self._client.addresses["queue"],
            "PRUNELLA_KEY": self._client.key,
            "PRUNELLA_OTLP": self._otlp,
        }
        arguments = [sys.executable, "-P", "-m", "services.queue.worker", "--config", str(file)]
        log = self._folder / f"{name}.log"
        self.running[name] = await spawn(name, arguments, log=log, environment=os.environ | variables)
        return name

    async def kill(self, name: str) -> None:
        """Kills a worker at once, as a machine that loses power does. Raises KeyError."""
        child = self.running.pop(name)
        child.signal(signal.SIGKILL)
        await child.wait()

    async def stop(self) -> None:
        """Asks every worker to end."""
        running, self.running = list(self.running.values()), {}
        await asyncio.gather(*(child.stop(STOP_SECONDS) for child in running if child.running), return_exceptions=True)

    async def approve(self) -> list[str]:
        """Lets the relay's strategies use their write tools, as a person would; the names of those that may now."""
        answer = await self._client.queue.ListStrategies(queue_pb2.ListStrategiesRequest(), timeout=CALL_SECONDS)
        waiting = [
            strategy
            for strategy in answer.strategies
            if strategy.package == PACKAGE and not strategy.approved and any(step.write for step in strategy.steps)
        ]
        for strategy in waiting:
            request = queue_pb2.ApproveStrategyRequest(
                name=strategy.name,
                reason="these tools change only the relay they are for",
                request_id=str(uuid.uuid4()),
            )
            await self._client.queue.ApproveStrategy(request, timeout=CALL_SECONDS)
        names = [strategy.name.rpartition("/")[2] for strategy in waiting]
        if names:
            self._say(f"a person lets these strategies use their write tools: {', '.join(names)}")
        return names
