"""NATS with JetStream as a child of ours.

Rule: it is the fast path, and still says "stored" only after a sync. It listens on loopback, asks for a password that
we made up, and its store is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.local import binaries
from deploy.local.child import Child, spawn
from deploy.local.ports import HOST
from deploy.local.postgres import Unready
from deploy.local.state import write_text

USER = "prunella"
START_SECONDS = 20.0
CONFIGURATION = """\
server_name: prunella
listen: "{host}:{port}"
http: "{host}:{monitor}"
max_payload: 1MB
max_connections: 1000
write_deadline: "5s"
authorization {{ user: {user}, password: {password}, timeout: 5 }}
jetstream {{
  store_dir: {store}
  max_memory_store: 64MB
  max_file_store: 2GB
  sync_interval: {sync}
}}
"""


@dataclass
class Nats:
    """One server on one store folder."""

    folder: Path
    port: int
    monitor: int
    password: str
    log: Path
    durable: bool = True
    child: Child | None = None

    @property
    def url(self) -> str:
        """Address with user and password."""
        return f"nats://{USER}:{self.password}@{HOST}:{self.port}"

    @property
    def store(self) -> Path:
        """Where JetStream keeps its files."""
        return self.folder / "nats"

    async def start(self) -> None:
        """Starts the server and waits until JetStream is ready.

        Raises Unready, or NotInstalled when there is no binary.
        """
        program = binaries.nats()
        self.store.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration = self.folder / "nats.conf"
        content = CONFIGURATION.format(
            host=HOST,
            port=self.port,
            monitor=self.monitor,
            user=json.dumps(USER),
            password=json.dumps(self.password),
            store=json.dumps(str(self.store)),
            sync="always" if self.durable else '"2m"',
        )
        write_text(configuration, content)
        self.child = await spawn(
            "nats", [program, "-c", configuration], log=self.log, polite=signal.SIGTERM, on_death=signal.SIGTERM
        )
        deadline = time.monotonic() + START_SECONDS
        while not await self._healthy():
            if not self.child.running or time.monotonic() > deadline:
                tail = self.child.tail()
                await self.stop()
                raise Unready(f"NATS did not start; {self.log} says:\n{tail}")
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Orderly stop: streams are flushed."""
        if self.child:
            await self.child.stop(grace=10.0)

    async def _healthy(self) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(HOST, self.monitor)
            try:
                writer.write(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                async with asyncio.timeout(2):
                    status = await reader.readline()
                return b" 200 " in status
            finally:
                writer.close()
        return False
