"""PostgreSQL and NATS together, on one folder: what a plane stands on, and all that most tests need.

Rule: `start_servers` returns when both answer, and `stop` leaves no process, port or socket. The same call serves a
plane that keeps its data and a test that throws it away.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from deploy.local import migrate, roles
from deploy.local.nats import Nats
from deploy.local.ports import free_ports
from deploy.local.postgres import DATABASE, Postgres
from deploy.local.state import State, private_folder

TEMPLATE = "prunella_template"


@dataclass
class Servers:
    """The two running servers. Addresses contain passwords: keep them out of logs."""

    postgres: Postgres
    nats: Nats
    _template: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def nats_url(self) -> str:
        """Address of NATS."""
        return self.nats.url

    def postgres_url(self, service: str = "owner", database: str = DATABASE) -> str:
        """Address of PostgreSQL for a service's role, or for the owner."""
        owner = self.postgres.url(database=database)
        return owner if service == "owner" else roles.url(owner, service)

    async def migrate(self) -> None:
        """Roles, schemas, tables and streams, as the services expect them."""
        await migrate.migrate_all(self.postgres_url(), self.nats_url)

    async def new_database(self, name: str) -> None:
        """A database with every table and no row, quickly: a copy of one that was migrated once."""
        async with self._template:
            if not await self._exists(TEMPLATE):
                await self._execute(f'CREATE DATABASE "{TEMPLATE}_new"')
                owner = self.postgres_url(database=f"{TEMPLATE}_new")
                await roles.create(owner)
                await migrate.tables(owner)
                await self._execute(f'ALTER DATABASE "{TEMPLATE}_new" RENAME TO "{TEMPLATE}"')
            await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')

    async def drop_database(self, name: str) -> None:
        """Removes a database, whoever is connected to it."""
        await self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def start(self) -> None:
        """Starts both at the same time; neither is left running when the other fails."""
        results = await asyncio.gather(self.postgres.start(), self.nats.start(), return_exceptions=True)
        problems = [result for result in results if isinstance(result, BaseException)]
        if problems:
            await self.stop()
            raise problems[0]

    async def stop(self) -> None:
        """Stops both, NATS first."""
        await self.nats.stop()
        await self.postgres.stop()

    async def discard(self) -> None:
        """Stops both and deletes what they stored."""
        await self.stop()
        self.postgres.remove()
        shutil.rmtree(self.nats.store, ignore_errors=True)

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.postgres_url(database="postgres"), timeout=10, command_timeout=30)
        try:
            await connection.execute(statement)
        finally:
            await connection.close(timeout=5)

    async def _exists(self, database: str) -> bool:
        connection = await asyncpg.connect(self.postgres_url(database="postgres"), timeout=10, command_timeout=30)
        try:
            return bool(await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database))
        finally:
            await connection.close(timeout=5)


def servers_for(state: State, ports: Mapping[str, int], *, durable: bool = True) -> Servers:
    """Both servers of a state folder on given ports (`postgresql`, `nats`, `nats-monitor`), not started."""
    postgres = Postgres(
        state.folder, ports["postgresql"], state.secret("postgresql"), state.logs / "postgresql.log", durable
    )
    nats = Nats(
        state.folder, ports["nats"], ports["nats-monitor"], state.secret("nats"), state.logs / "nats.log", durable
    )
    return Servers(postgres, nats)


async def start_servers(folder: Path, *, durable: bool = True) -> Servers:
    """Starts both on a folder of the caller's, on ports from the kernel. `durable=False` skips syncs: for tests only.

    The database has roles and no tables; `Servers.migrate` makes those.
    """
    ports = dict(zip(("postgresql", "nats", "nats-monitor"), free_ports(3), strict=True))
    servers = servers_for(State(private_folder(folder)), ports, durable=durable)
    await servers.start()
    try:
        await roles.create(servers.postgres_url())
    except BaseException:
        await servers.stop()
        raise
    return servers
