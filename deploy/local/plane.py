"""A plane on this machine: PostgreSQL, NATS, five services, and how they find each other.

Rule: started in the order in which they need each other, stopped in the reverse; what fails half-way is stopped again.
One plane per state folder: whoever comes second attaches to what runs. With DATABASE_URL or NATS_URL set (the owner's
address) that server is used instead of one of ours. The data stays when the plane stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from deploy.local import health, keys, migrate, roles, sandbox
from deploy.local.child import truncate_log
from deploy.local.installation import START
from deploy.local.nats import Nats
from deploy.local.ports import HOST, assign
from deploy.local.postgres import Postgres, Unready
from deploy.local.processes import Starter, starter, usable_starter
from deploy.local.servers import servers_for
from deploy.local.state import State, locate
from deploy.local.watch import ServerWatch, ServiceWatch, describe_status
from libs.common import database_address
from libs.common.redaction import redacted_environment

SERVICES = roles.SERVICES
SERVERS = ("postgresql", "nats", "nats-monitor")
SERVING_SECONDS = 60.0
ATTACH_SECONDS = 90.0
MIGRATE_SECONDS = 120.0
HOPELESS_FAILURES = 4
CUT_SECONDS = 60.0
Say = Callable[[str], None]


class Occupied(Exception):  # noqa: N818 - says what it means
    """What was asked needs the plane that runs here to be stopped first."""


def silent(_line: str) -> None:
    """Says nothing."""


@dataclass
class Plane:
    """A running plane. `attached` when another process runs it: then nothing here starts, holds or stops anything."""

    state: State
    say: Say = silent
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    attached: bool = False
    addresses: dict[str, str] = field(default_factory=dict)
    http: dict[str, str] = field(default_factory=dict)
    key: str = field(default="", repr=False)
    database_url: str = field(default="", repr=False)
    nats_url: str = field(default="", repr=False)
    supervisor: int = 0
    watches: dict[str, ServiceWatch] = field(default_factory=dict)
    _servers: list[ServerWatch] = field(default_factory=list)
    _starter: Starter | None = None
    _began: float = field(default_factory=time.monotonic)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _ready: bool = False
    _relaunch: asyncio.Lock = field(default_factory=asyncio.Lock)

    # ---- start

    @classmethod
    async def start(
        cls,
        *,
        state: State | None = None,
        say: Say = silent,
        fresh: bool = False,
        environment: Mapping[str, str] | None = None,
        services: Sequence[str] = SERVICES,
    ) -> Plane:
        """Starts the plane of a state folder (this checkout's by default), or attaches to it when it runs.

        `fresh` forgets all data first; `environment` goes on top of the process's own, to every service. Raises
        Unready when a part does not come up, NotInstalled when a program is missing, Occupied when `fresh` is asked of
        a running plane.
        """
        environ = {**os.environ, **(environment or {})}
        state = state or locate(environ, say=say)
        if not state.acquire():
            return await cls.attach(state, fresh=fresh, say=say)
        plane = cls(state, say, environ, supervisor=os.getpid())
        try:
            await plane._begin(fresh, services)
        except BaseException:
            await plane.stop()
            raise
        return plane

    @classmethod
    async def attach(cls, state: State, *, fresh: bool = False, say: Say = silent) -> Plane:
        """The plane that another process runs on this folder, once it is ready.

        Raises Occupied for `fresh`, Unready when none is running or it does not become ready.
        """
        deadline = time.monotonic() + ATTACH_SECONDS
        while not (content := state.plane()).get("ready"):
            if not state.is_running() or time.monotonic() > deadline:
                raise Unready(f"no plane is ready on {state.folder}; start one with: {START}")
            await asyncio.sleep(0.1)
        if fresh:
            raise Occupied(f"a plane runs on {state.folder} (process {content['supervisor']}); stop it first")
        say(f"attached to the plane of process {content['supervisor']}, on {state.folder}")
        return cls(
            state,
            say,
            attached=True,
            addresses=content["addresses"],
            http=content["http"],
            key=content["key"],
            database_url=content["database_url"],
            nats_url=content["nats_url"],
            supervisor=content["supervisor"],
        )

    async def _begin(self, fresh: bool, services: Sequence[str]) -> None:
        if url := self.environ.get("DATABASE_URL", ""):
            try:
                database_address.parse(url)
            except ValueError as wrong:
                raise Unready(f"DATABASE_URL {wrong}") from wrong
        self.say(f"state      {self.state.folder}")
        if fresh:
            self._forget()
        remembered = self.state.saved().get("ports", {})
        names = [*SERVERS, *SERVICES, *(f"{service}-http" for service in SERVICES)]
        ports = assign(names, remembered, self.say)
        self.state.save(ports=ports)
        self.addresses = {service: f"{HOST}:{ports[service]}" for service in SERVICES}
        self.http = {service: f"{HOST}:{ports[f'{service}-http']}" for service in SERVICES}
        self.key = self.state.secret("key", 32)
        self._write()
        self.state.logs.mkdir(mode=0o700, exist_ok=True)
        self._starter = await starter(self.state.logs / "forkserver.log", self.environ)
        await self._start_servers(ports)
        self._starter = await usable_starter(self._starter)
        await self._migrate()
        await self._start_services(services)
        if "patcher" in services:
            own = not self.environ.get("DATABASE_URL")
            await sandbox.fit(self.addresses["patcher"], self.key, self.say, may_lower=own)
        self._tasks.append(asyncio.create_task(self._cut_logs()))
        self._ready = True
        self._write()
        self.say(f"ready      in {time.monotonic() - self._began:.1f} s")

    def _forget(self) -> None:
        Postgres(self.state.folder, 0, "", self.state.logs / "postgresql.log").remove()
        self.state.wipe()
        self.say("fresh      all data of this plane forgotten")

    async def _start_servers(self, ports: Mapping[str, int]) -> None:
        ours = servers_for(self.state, ports)
        self.database_url = self.environ.get("DATABASE_URL", "") or ours.postgres_url()
        self.nats_url = self.environ.get("NATS_URL", "") or ours.nats_url
        wanted: list[tuple[str, Postgres | Nats]] = []
        if not self.environ.get("DATABASE_URL"):
            wanted.append(("postgresql", ours.postgres))
        if not self.environ.get("NATS_URL"):
            wanted.append(("nats", ours.nats))
        self._servers = [ServerWatch(name, server, self.say, self._write) for name, server in wanted]
        results = await asyncio.gather(*(server.start() for _, server in wanted), return_exceptions=True)
        for problem in results:
            if isinstance(problem, BaseException):
                raise problem
        for watch in self._servers:
            watch.begin()
            self.say(f"{watch.name:<10} {HOST}:{watch.server.port}")

    async def _migrate(self) -> None:
        """Only when a migration changed, or the data is not what the last one left."""
        assert self._starter
        store = self.state.folder / "nats" / "jetstream" / "$G" / "streams" / "HEAL"
        mark = f"{migrate.fingerprint()} {self.database_url} {self.nats_url}"
        if self.state.saved().get("migrated") == mark and (self.environ.get("NATS_URL") or store.exists()):
            return
        began = time.monotonic()
        log = self.state.logs / "migrate.log"
        environ = {
            **self.environ,
            "DATABASE_URL": self.database_url,
            "NATS_URL": self.nats_url,
            "PRUNELLA_ROLE_SECRET": self.state.secret("roles"),
        }
        job = await self._starter.start("migrate", "deploy.local.migrate", environ, log)
        async with asyncio.timeout(MIGRATE_SECONDS):
            status = await job.wait()
        if status == migrate.OTHER_BUILD:
            raise Unready(log.read_text(errors="replace").splitlines()[-1].removeprefix("migrate: "))
        if status != 0:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
            raise Unready(f"the migration failed ({describe_status(status)}); {log} says:\n{end}")
        self.state.save(migrated=mark)
        self.say(f"migrated   in {time.monotonic() - began:.1f} s")

    async def _start_services(self, services: Sequence[str]) -> None:
        for service in services:
            log = self.state.logs / f"{service}.log"
            watch = ServiceWatch(
                service, f"services.{service}", self.settings(service), log, self._starts, self.say, self._write
            )
            self.watches[service] = watch
            watch.begin()
        waits = [asyncio.create_task(self._await_serving(watch)) for watch in self.watches.values()]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    async def _await_serving(self, watch: ServiceWatch) -> None:
        deadline = time.monotonic() + SERVING_SECONDS
        while not await health.serving(self.addresses[watch.name]):
            if watch.failures >= HOPELESS_FAILURES or time.monotonic() > deadline:
                end = "\n".join(watch.log.read_text(errors="replace").splitlines()[-12:]) if watch.log.exists() else ""
                raise Unready(f"{watch.name} does not become ready; {watch.log} says:\n{end}")
            await asyncio.sleep(health.LOOK_SECONDS)
        self.say(f"{watch.name:<10} {self.addresses[watch.name]}")

    async def _starts(self) -> Starter:
        """The starter; a new one when the fork server died."""
        assert self._starter
        async with self._relaunch:
            if not self._starter.alive:
                await self._starter.stop()
                self._starter = await usable_starter(await starter(self.state.logs / "forkserver.log", self.environ))
            return self._starter

    def settings(self, service: str) -> dict[str, str]:
        """The environment of a service."""
        folder = self.state.folder / "services" / service
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = self.state.secret("roles")
        ours = {
            "DATABASE_URL": roles.url(self.database_url, service, secret),
            "NATS_URL": self.nats_url,
            "PRUNELLA_KEY": self.key,
            "PRUNELLA_LISTEN": self.addresses[service],
            "PRUNELLA_HTTP_LISTEN": self.http[service],
            "PRUNELLA_OTLP": f"http://{self.http['ops']}/v1/traces",
            "PRUNELLA_STATE": str(folder),
        }
        ours |= {f"PRUNELLA_{name.upper()}_ADDRESS": address for name, address in self.addresses.items()}
        defaults = {"PRUNELLA_LOG": "json"}
        public = self.environ.get("PATCHER_RELEASE_KEYS") or keys.public_hex(self.state)
        defaults |= {"PATCHER_RELEASE_KEYS": public, "INGEST_RELEASE_KEYS": public}
        return {**defaults, **self.environ, **ours}

    # ---- while it runs

    @property
    def folder(self) -> Path:
        """Its state folder."""
        return self.state.folder

    def service_database_url(self, service: str) -> str:
        """Address of the database for a service's role."""
        return roles.url(self.database_url, service, self.state.secret("roles"))

    def pid(self, service: str) -> int:
        """Process id of a service, 0 while it is down."""
        if self.attached:
            return int(self.state.plane().get("processes", {}).get(service, 0))
        return self.watches[service].pid

    async def hold(self, service: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Takes a service down, hard by default, and keeps it down until `release`."""
        await self.watches[service].hold(number)

    async def release(self, service: str) -> None:
        """Lets a held service run again and waits until it serves."""
        self.watches[service].release()
        async with asyncio.timeout(SERVING_SECONDS):
            await health.until_serving(self.addresses[service])

    async def kill(self, service: str) -> None:
        """Kills a service, which is then started again as after any crash."""
        await self.watches[service].kill()

    async def ended(self) -> None:
        """Returns when the process that runs the plane has gone; for those who attached."""
        while self.state.is_running():  # noqa: ASYNC110 - the lock of another process cannot call us
            await asyncio.sleep(0.5)

    async def stop(self) -> None:
        """Stops everything in reverse order. An attached plane is left alone."""
        if self.attached:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(watch.stop() for watch in self.watches.values()))
        if self._starter:
            await self._starter.stop()
        for server in reversed(self._servers):
            await server.stop()
        with contextlib.suppress(FileNotFoundError):
            self.state.plane_file.unlink()
        self.state.release()

    def describe(self) -> dict[str, Any]:
        """What others need to reach it: the content of plane.json."""
        return {
            "ready": self._ready,
            "supervisor": self.supervisor,
            "addresses": self.addresses,
            "http": self.http,
            "key": self.key,
            "database_url": self.database_url,
            "nats_url": self.nats_url,
            "processes": {name: watch.pid for name, watch in self.watches.items()}
            | {watch.name: watch.server.child.pid for watch in self._servers if watch.server.child},
            "settings": {name: redacted_environment(watch.environ) for name, watch in self.watches.items()},
            "written_at": datetime.now(UTC).isoformat(),
        }

    def _write(self) -> None:
        self.state.write_plane(self.describe())

    async def _cut_logs(self) -> None:
        while True:
            await asyncio.sleep(CUT_SECONDS)
            for log in self.state.logs.glob("*.log"):
                await asyncio.to_thread(partial(truncate_log, log))
