"""Enrolment, sessions and the end of a plugin's life."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from deploy.local.testing import ManualClock, Servers, until
from libs.common.errors import Conflict, Invalid, NotFound
from libs.common.names import new_id
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import ingest_pb2
from tests.service.ingest_alone import Agent, Alone


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
async def alone(servers: Servers, clock: ManualClock) -> AsyncIterator[Alone]:
    async with Alone.on(servers, clock) as made:
        yield made


async def refused(alone: Alone, **values: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await alone.gateway.Enroll(pb.EnrollRequest(**({"enrollment_key": new_id()} | values)))
    return caught.value.code().name


async def test_a_token_is_good_for_one_agent_which_may_ask_again(alone: Alone) -> None:
    token, key = await alone.token(label="shop-9"), new_id()
    first = await alone.gateway.Enroll(pb.EnrollRequest(token=token, enrollment_key=key, release="1.2.0"))
    again = await alone.gateway.Enroll(pb.EnrollRequest(token=token, enrollment_key=key, release="1.2.0"))
    assert first == again
    assert [len(found) for found in first.release_keys] == [32, 32]
    assert await refused(alone, token=token) == "UNAUTHENTICATED"
    plugin = (await alone.ask().GetPlugin(ingest_pb2.GetPluginRequest(name="plugins/shop-9"))).plugin
    assert (plugin.name, plugin.merchant, plugin.package) == (f"plugins/{first.plugin}", "acme", "relay")
    (told,) = await alone.plane.facts("plugin_enrolled", plugin=first.plugin)
    assert told.plugin_enrolled.label == "shop-9"


async def test_no_secret_is_stored(alone: Alone) -> None:
    token = await alone.token()
    answer = await alone.gateway.Enroll(pb.EnrollRequest(token=token, enrollment_key=new_id(), release="1.2.0"))
    rows = await alone.plane.sql(
        "SELECT CAST(p AS text) || CAST(t AS text) AS row FROM ingest.plugins p, ingest.enrollment_tokens t"
    )
    assert not [row for row in rows if answer.secret in row.row or token in row.row]


async def test_a_token_that_is_unknown_expired_or_for_another_package_is_refused(
    alone: Alone, clock: ManualClock
) -> None:
    assert await refused(alone, token="nonsense") == "UNAUTHENTICATED"
    assert await refused(alone, token=await alone.token(), package="checkout") == "INVALID_ARGUMENT"
    token = await alone.token(lifetime=timedelta(minutes=5))
    clock.advance(301)
    assert await refused(alone, token=token) == "UNAUTHENTICATED"


async def test_a_label_belongs_to_one_plugin(alone: Alone) -> None:
    first, second = await alone.token(label="shop-x"), await alone.token(label="shop-x")
    await alone.gateway.Enroll(pb.EnrollRequest(token=first, enrollment_key=new_id()))
    assert await refused(alone, token=second) == "ALREADY_EXISTS"
    with pytest.raises(Conflict):
        await alone.token(label="shop-x")
    with pytest.raises(Invalid):
        await alone.token(label="no/slash")


async def test_the_same_request_gets_the_same_token(alone: Alone) -> None:
    assert await alone.token(request_id="r-1") == await alone.token(request_id="r-1")


async def test_a_newer_session_ends_the_older_one(alone: Alone) -> None:
    agent = await alone.agent()
    second = Agent(alone.gateway, agent.plugin, agent.secret, boot=agent.boot)
    alone.agents.append(second)
    await second.connect()
    assert (await second.receives("settings")).session_epoch == 2
    await agent.receives("disconnect")


async def test_beats_of_an_older_epoch_lose(alone: Alone) -> None:
    agent = await alone.agent()
    await alone.plane.sql("SELECT 1")
    await alone.ctx.database.transaction(
        lambda tx: tx.run(
            "UPDATE ingest.plugin_state SET session_epoch = session_epoch + 1, version = version + 1"
            " WHERE id = CAST(:id AS uuid)",
            id=agent.plugin,
        )
    )
    await agent.send(agent.beat(errors=9))
    await agent.receives("disconnect")
    assert (await alone.plugin(agent)).beats == 0


async def test_a_retired_plugin_takes_its_incidents_and_commands_with_it(alone: Alone) -> None:
    agent = await alone.agent()
    await agent.beats(1, webhook_attempts=20, webhook_failures=20)
    issued = await alone.issue(agent)
    request = ingest_pb2.RetirePluginRequest(name=f"plugins/{agent.plugin}", reason="shop closed")
    for _ in range(2):
        assert (await alone.ask().RetirePlugin(request)).plugin.state == "retired"
    await agent.receives("disconnect")
    (incident,) = await alone.incidents(agent)
    assert (incident.state, incident.resolution) == ("closed", "the plugin is retired")
    command = (await alone.ask().GetCommand(ingest_pb2.GetCommandRequest(name=f"commands/{issued.id}"))).command
    assert command.state == "withdrawn"
    (told,) = await alone.plane.facts("plugin_retired", plugin=agent.plugin)
    assert (told.actor, told.reason) == ("operators/local", "shop closed")


async def test_a_poller_beats_and_gets_its_commands(alone: Alone) -> None:
    agent = await alone.enrolled()
    issued = await alone.issue(agent)
    answer = await agent.stub.Heartbeat(pb.HeartbeatRequest(beat=agent.beat()), metadata=agent.metadata)
    assert (answer.ack.sequence, [one.id for one in answer.commands]) == (1, [issued.id])
    assert answer.beat_interval.ToTimedelta() == timedelta(seconds=120)
    word = pb.CommandResult(command=issued.id, generation=1, outcome=pb.COMMAND_OUTCOME_APPLIED)
    await agent.stub.AckCommand(pb.AckCommandRequest(result=word), metadata=agent.metadata)
    other = await alone.issue(agent)
    await agent.stub.FailCommand(
        pb.FailCommandRequest(result=pb.CommandResult(command=other.id, detail="no")), metadata=agent.metadata
    )
    told = [one.command_finished.outcome for one in await alone.plane.facts("command_finished", plugin=agent.plugin)]
    assert told == ["applied", "failed"]


async def test_a_goodbye_ends_the_session_and_for_good_the_plugin(alone: Alone) -> None:
    agent, leaving = await alone.agent(), await alone.agent()
    await agent.send(pb.Goodbye(reason="shutdown"))
    await until(lambda: agent.ended is not None and agent.ended.done())
    assert (await alone.plugin(agent)).state == "active"
    await leaving.send(pb.Goodbye(reason="uninstalled"))
    await until(lambda: leaving.ended is not None and leaving.ended.done())
    assert (await alone.plugin(leaving)).state == "retired"


async def test_what_is_unknown_is_not_found(alone: Alone) -> None:
    for name in ("plugins/nobody", f"plugins/{new_id()}"):
        with pytest.raises(NotFound):
            await alone.ask().GetPlugin(ingest_pb2.GetPluginRequest(name=name))
    with pytest.raises(Invalid):
        await alone.ask().GetPlugin(ingest_pb2.GetPluginRequest(name="nobody"))
    with pytest.raises(NotFound):
        await alone.ask().GetIncident(ingest_pb2.GetIncidentRequest(name=f"incidents/{new_id()}"))


async def test_lists_come_in_pages(alone: Alone) -> None:
    for _ in range(5):
        await alone.enrolled(package="paged")
    seen: list[str] = []
    token = ""
    while True:
        request = ingest_pb2.ListPluginsRequest(package="paged", page_size=2, page_token=token)
        page = await alone.ask().ListPlugins(request)
        seen += [plugin.name for plugin in page.plugins]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == 5
    assert seen == sorted(seen, reverse=True)
