"""The end of a session is noted whatever becomes of its call, or a plugin would look connected for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.local.testing import Servers, until
from libs.common.errors import Unavailable
from services.ingest.store.plugins import AgentHello
from tests.service.ingest_alone import Agent, Alone

STATE = "SELECT connected, session_epoch FROM ingest.plugin_state WHERE id = CAST(:id AS uuid)"


@pytest.fixture(scope="module")
async def alone(servers: Servers) -> AsyncIterator[Alone]:
    async with Alone.on(servers) as made:
        yield made


async def ended(alone: Alone, agent: Agent, epoch: int) -> None:
    async def look() -> bool:
        (row,) = await alone.plane.sql(STATE, id=agent.plugin)
        return row.session_epoch == epoch and not row.connected

    await until(look, what="the end is noted")


async def test_of_a_call_that_is_cancelled_while_its_session_begins(alone: Alone) -> None:
    agent = await alone.enrolled()
    begins = asyncio.create_task(alone.ctx.sessions.begin(AgentHello(agent.plugin, (), "test")))
    await asyncio.sleep(0)
    begins.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await begins
    assert begins.cancelled()
    await ended(alone, agent, 1)


async def test_although_the_database_is_away_for_a_moment(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = await alone.agent()
    sessions = alone.ctx.sessions
    refusals = iter([Unavailable("it cannot be used right now", reason="DATABASE_UNAVAILABLE")] * 2)

    class Away:
        async def transaction(self, work: Any) -> Any:
            for refusal in refusals:
                raise refusal
            return await there.transaction(work)

    there = sessions._database
    monkeypatch.setattr(sessions, "_database", Away())
    await agent.leave()
    await ended(alone, agent, 1)
