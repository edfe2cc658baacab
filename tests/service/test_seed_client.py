"""The seeds' plugin client over plain HTTP: it beats, picks up a command, does it or fails, and says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from deploy.local.testing import Servers
from libs.common.errors import Unavailable
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import patcher_pb2
from tests.service.ingest_alone import Agent, Alone

HEARTBEAT = "/api/plugins/heartbeat"


class SeedClient:
    """What plugin-client/heartbeat.js does: it knows its credential, its version and these routes."""

    def __init__(self, alone: Alone, agent: Agent, scheme: str = "Bearer") -> None:
        self.alone, self.agent = alone, agent
        self.version = "1.2.0"
        self.rate, self.errors = 0.0, 0
        url = f"http://{alone.plane.settings('ingest')['PRUNELLA_HTTP_LISTEN']}"
        headers = {"authorization": f"{scheme} {agent.plugin}:{agent.secret}"}
        self.http = httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=20)

    def body(self, **values: Any) -> dict[str, Any]:
        return {
            "merchant_id": "m-1",
            "plugin_id": self.agent.plugin,
            "plugin_version": self.version,
            "env": {"node_version": "v20.11.0", "platform": "linux", "arch": "x64"},
            "uptime": 12.5,
            "errors_last_24h": self.errors,
            "webhook_fail_rate": self.rate,
            "timestamp": self.alone.plane.clock.now().isoformat(),
        } | values

    async def beat(self, **values: Any) -> list[dict[str, Any]]:
        answer = await self.http.post(HEARTBEAT, json=self.body(**values))
        assert answer.status_code == 200, answer.text
        assert answer.json()["ok"] and answer.json()["next_heartbeat_seconds"] > 0
        return list(answer.json()["commands"])

    async def say(self, word: str, command: str, **body: Any) -> httpx2.Response:
        return await self.http.post(f"/api/plugins/commands/{command}/{word}", json=body)


@pytest.fixture(scope="module")
async def alone(servers: Servers) -> AsyncIterator[Alone]:
    async with Alone.on(servers) as made:
        yield made


@pytest.fixture
async def client(alone: Alone) -> AsyncIterator[SeedClient]:
    alone.patcher.answer = patcher_pb2.AuthorizeApplyResponse(granted=True, permit="p-1")
    alone.patcher.asked.clear()
    made = SeedClient(alone, await alone.enrolled())
    yield made
    await made.http.aclose()


async def test_a_failing_plugin_is_noticed_gets_its_update_and_says_that_it_is_done(
    alone: Alone, client: SeedClient
) -> None:
    assert await client.beat() == []
    client.rate = 0.6
    for _ in range(2):
        await client.beat()
        assert await alone.incidents(client.agent) == [], "one bare figure is no evidence"
    await client.beat()
    (incident,) = await alone.incidents(client.agent)
    assert (incident.type, incident.severity) == ("webhook_fail_rate", 2)
    known = await alone.plugin(client.agent)
    assert (known.release, known.environment["platform"]) == ("1.2.0", "linux")

    issued = await alone.issue(client.agent, attempt="a-7")
    (command,) = await client.beat()
    assert (command["id"], command["command_type"]) == (issued.id, "update")
    assert (command["command_payload"]["cmd"], command["command_payload"]["version"]) == ("update", "1.2.3")
    (asked,) = alone.patcher.asked
    assert (asked.command, asked.attempt, asked.fence) == (issued.id, "a-7", issued.fence)
    # Fetched again, because the first answer was lost: permitted under the same question, asked again.
    assert [one["id"] for one in await client.beat()] == [issued.id]
    assert [one.request_id for one in alone.patcher.asked] == [asked.request_id] * 2

    answer = await client.say("ack", issued.id, response={"applied": True})
    assert answer.json() == {"ok": True}
    finished = await alone.plane.wait_for_fact("command_finished", plugin=client.agent.plugin)
    assert finished.command_finished.outcome == "applied" and "applied" in finished.command_finished.detail
    client.version, client.rate = "1.2.3", 0.0
    assert await client.beat() == []
    known = await alone.plugin(client.agent)
    assert (known.release, known.generation, known.digest) == ("1.2.3", issued.generation, "d" * 64)

    await alone.issue(client.agent, pb.COMMAND_KIND_COMMIT, generation=issued.generation)
    assert await client.beat() == [], "a plain client has nothing to commit; it is answered for it"
    finished = await alone.plane.wait_for_fact("command_finished", times=2, plugin=client.agent.plugin)
    assert finished.command_finished.outcome == "committed"


async def test_a_command_that_failed_is_told_with_its_error(alone: Alone, client: SeedClient) -> None:
    await client.beat()
    issued = await alone.issue(client.agent)
    await client.beat()
    assert (await client.say("fail", issued.id, error="no space left")).status_code == 200
    finished = await alone.plane.wait_for_fact("command_finished", plugin=client.agent.plugin)
    assert (finished.command_finished.outcome, finished.command_finished.detail) == ("failed", "no space left")
    assert await client.beat() == []


async def test_what_is_not_permitted_is_not_handed_out(alone: Alone, client: SeedClient) -> None:
    await client.beat()
    alone.patcher.answer = Unavailable("away", reason="AWAY")
    issued = await alone.issue(client.agent)
    assert await client.beat() == [], "no answer, no apply"
    early = await client.say("ack", issued.id)
    assert (early.status_code, early.json()["reason"]) == (503, "NO_ANSWER")
    alone.patcher.answer = patcher_pb2.AuthorizeApplyResponse(granted=False, gate="KILL_SWITCH")
    early = await client.say("ack", issued.id)
    assert (early.status_code, early.json()["reason"]) == (409, "NOT_PERMITTED")
    assert await client.beat() == []
    finished = (await alone.plane.wait_for_fact("command_finished", plugin=client.agent.plugin)).command_finished
    assert (finished.command, finished.outcome, finished.detail) == (issued.id, "refused", "KILL_SWITCH")
    health = await alone.issue(client.agent, pb.COMMAND_KIND_HEALTH_CHECK)
    assert [one["id"] for one in await client.beat()] == [health.id], "looking needs no permit"


async def test_what_was_handed_out_before_a_kill_is_not_handed_out_after_it(alone: Alone, client: SeedClient) -> None:
    await client.beat()
    issued = await alone.issue(client.agent)
    assert [one["id"] for one in await client.beat()] == [issued.id], "and the answer is lost"
    # The permit it had is named: whoever got the answer may have switched under it.
    alone.patcher.answer = patcher_pb2.AuthorizeApplyResponse(granted=False, gate="KILL_SWITCH", permit="earlier")
    assert await client.beat() == []
    assert not await alone.plane.facts("command_finished", plugin=client.agent.plugin), "it may have been applied"
    alone.patcher.answer = patcher_pb2.AuthorizeApplyResponse(granted=True, permit="earlier")
    assert [one["id"] for one in await client.beat()] == [issued.id]


WRONG: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no version": ({"plugin_version": ""}, 400, "BODY_INVALID", "plugin_version"),
    "another plugin": ({"plugin_id": "other"}, 403, "PLUGIN_DIFFERS", "plugin_id"),
    "a rate above one": ({"webhook_fail_rate": 60}, 400, "BODY_INVALID", "webhook_fail_rate"),
    "errors below none": ({"errors_last_24h": -1}, 400, "BODY_INVALID", "errors_last_24h"),
    "a time that is none": ({"timestamp": "yesterday"}, 400, "TIME_INVALID", "timestamp"),
    "a time nobody can hold": ({"timestamp": "9999-12-31T23:59:59-01:00"}, 400, "TIME_INVALID", "timestamp"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
async def test_a_wrong_heartbeat_is_refused_by_its_field(client: SeedClient, case: str) -> None:
    values, status, reason, field = WRONG[case]
    answer = await client.http.post(HEARTBEAT, json=client.body(**values))
    told = answer.json()
    assert (answer.status_code, told["reason"], told["field"]) == (status, reason, field), told
    assert told["error"] == reason.lower() and told["message"] and told["remedy"]


async def test_nobody_speaks_for_another_plugin(alone: Alone, client: SeedClient) -> None:
    other = await alone.enrolled()
    issued = await alone.issue(other)
    answer = await client.say("ack", issued.id)
    assert (answer.status_code, answer.json()["reason"]) == (404, "COMMAND_UNKNOWN")
    for authorization in ("", f"Bearer {other.plugin}:wrong", "Bearer anything"):
        headers = {"authorization": authorization}
        answer = await client.http.post(HEARTBEAT, json=client.body(), headers=headers)
        assert answer.status_code == 401, answer.text
    form = await client.http.post(HEARTBEAT, data={"plugin_version": "1"})
    assert (form.status_code, form.json()["reason"]) == (415, "BODY_TYPE")


async def test_the_gateways_own_methods_answer_in_json_too(alone: Alone, client: SeedClient) -> None:
    plugin = {"authorization": f"Plugin {client.agent.plugin}:{client.agent.secret}"}
    root = "/prunella.v1.AgentGateway/"
    beat = {"beat": {"bootId": "b-1", "sequence": "1", "release": "1.2.0", "health": "HEALTH_HEALTHY"}}
    answer = await client.http.post(f"{root}Heartbeat", json=beat, headers=plugin)
    assert answer.json()["ack"] == {"bootId": "b-1", "sequence": "1"}, answer.text
    answer = await client.http.post(f"{root}Enroll", json={"token": "x"}, headers={"authorization": ""})
    assert answer.json()["details"][0]["debug"]["reason"], answer.text
    answer = await client.http.post(f"{root}Connect", json={}, headers=plugin)
    assert answer.status_code == 404, "the stream is for gRPC"
