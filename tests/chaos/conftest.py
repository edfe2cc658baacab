"""A world of real processes to break: servers, five services, supervisors with plugins, webhooks that keep coming."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from deploy.demo.fleet import Fleet
from deploy.demo.operator_client import OperatorClient
from deploy.demo.shop import Shop
from deploy.local.plane import Plane
from deploy.local.state import State, private_folder
from deploy.local.testing import until
from libs.common.facts import fact_name
from prunella.v1.events_pb2 import Event
from services.decider.reactions import REACTIONS as DECIDER
from services.ingest.reactions import REACTIONS as INGEST
from services.ops.reactions import REACTIONS as OPS
from services.patcher.reactions import REACTIONS as PATCHER
from tests.chaos import invariants

ROOT = Path(__file__).resolve().parents[2]
CONSUMERS: Mapping[str, Sequence[str]] = {
    "ingest": list(INGEST), "decider": list(DECIDER), "patcher": list(PATCHER), "ops": list(OPS),
}  # fmt: skip
ENVIRONMENT = {
    "INGEST_BEAT_SECONDS": "1",
    # Every agent here falls ill on purpose; that is no storm.
    "INGEST_STORM_LEAST": "1000000",
    "PATCHER_DEAD_MAN_SECONDS": "25",
    "DECIDER_PLAYBOOK": str(ROOT / "deploy/demo/playbook.toml"),
}


@dataclass
class World:
    """A plane, its fleet, and eyes on the database."""

    plane: Plane
    fleet: Fleet
    connection: asyncpg.Connection
    shops: dict[str, Shop] = field(default_factory=dict)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def shop(self, label: str, version: str) -> Shop:
        """A plugin on a release, with webhooks coming in."""
        self.shops[label] = await self.fleet.add(label, version)
        return self.shops[label]

    async def facts(self, plugin: str, *names: str) -> list[Event]:
        """What was told of a plugin, oldest first."""
        statement = "SELECT payload FROM bus.facts WHERE plugin = $1 ORDER BY time, id"
        async with self._one_at_a_time:
            rows = await self.connection.fetch(statement, plugin)
        events = [Event.FromString(row["payload"]) for row in rows]
        return [event for event in events if not names or fact_name(event) in names]

    async def told(self, shop: Shop, name: str, timeout: float = 40.0, *, times: int = 1) -> Event:
        """Waits for a fact of a plugin; the last of `times`."""

        async def look() -> list[Event] | None:
            found = await self.facts(shop.plugin, name)
            return found if len(found) >= times else None

        try:
            events: list[Event] = await until(look, timeout, what=f"{name} of {shop.label}")
        except AssertionError as error:
            story = [f"{fact_name(event)}: {event.reason}" for event in await self.facts(shop.plugin)]
            raise AssertionError("\n".join([str(error), *story])) from None
        return events[times - 1]

    async def comes_to_rest(self, timeout: float = 60.0) -> None:
        """Waits until nothing is under way, then has every invariant checked."""
        await until(lambda: invariants.at_rest(self.connection, CONSUMERS), timeout, what="the plane comes to rest")
        found = await invariants.complaints(self.plane.database_url, CONSUMERS)
        assert not found, "\n".join(found)


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    """One world for a module; each test breaks it and must leave it whole."""
    folder = Path(tempfile.mkdtemp(prefix="prunella-chaos-"))
    state = State(private_folder(folder / "state"))
    plane = await Plane.start(state=state, fresh=True, environment=ENVIRONMENT)
    try:
        async with OperatorClient(plane.addresses, plane.key) as reach:
            fleet = Fleet(reach, plane.state, lambda _line: None)
            await fleet.start()
            connection = await asyncpg.connect(plane.database_url)
            try:
                yield World(plane, fleet, connection)
            finally:
                await asyncio.gather(connection.close(), fleet.stop(), return_exceptions=True)
    finally:
        await plane.stop()
        shutil.rmtree(folder, ignore_errors=True)
