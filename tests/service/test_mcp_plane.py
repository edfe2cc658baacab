"""`prunella mcp` against a living plane: what an AI agent can read, ask for, and never do."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from cli.mcp.access import PlaneConnection
from cli.mcp.command import config
from cli.mcp.server import build
from cli.plane_client import PlaneClient
from deploy.local.testing import BackingServices, Plane, Servers
from libs.common.errors import Denied
from libs.common.names import new_id
from prunella.v1 import queue_pb2, queue_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]
READING = {
    "list_plugins", "get_plugin", "list_incidents", "get_incident", "list_decisions", "explain_decision",
    "list_timeline", "list_errors", "get_error", "explain_error", "queue_stats", "list_tasks", "get_task",
    "list_strategies", "list_proposals",
}  # fmt: skip


@pytest.fixture(scope="module")
async def mcp_plane(servers: Servers) -> AsyncIterator[Plane]:
    """A plane with one plugin that has an incident."""
    backing = await BackingServices.make(servers)
    plane = Plane(backing, environ={"INGEST_BEAT_SECONDS": "1"})
    try:
        await plane.start()
        agent = await plane.agent("shop-7", release="1.2.0")
        agent.beat(webhooks=20, failed=0)
        agent.beat(webhooks=20, failed=14)
        await plane.wait_for_fact("incident_opened", 30)
        await plane.wait_for_fact("decision_made", 30)
        yield plane
    finally:
        await plane.stop()
        await backing.discard()


@pytest.fixture
async def connection(mcp_plane: Plane) -> AsyncIterator[PlaneConnection]:
    made = PlaneConnection(PlaneClient(mcp_plane.addresses, mcp_plane.key, "mcp"))
    yield made
    await made.close()


async def ask(client: Client, tool: str, **arguments: Any) -> Any:
    """A tool's structured answer; fails when it is an error."""
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    found = dict(answer.structured_content)
    return found.get("result", found)


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """The sentence a tool refuses with."""
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error, answer.structured_content
    return str(answer.content[0].text)  # type: ignore[union-attr]


async def test_without_leave_there_are_only_tools_that_read(connection: PlaneConnection) -> None:
    async with Client(build(connection, allow_proposals=False)) as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == READING
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
    assert all(tool.output_schema and tool.description for tool in tools)


async def test_with_leave_it_may_propose_and_there_is_no_tool_that_approves(connection: PlaneConnection) -> None:
    async with Client(build(connection, allow_proposals=True)) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
    assert tools == READING | {"propose"}
    assert not [name for name in tools if "approve" in name]


async def test_it_reads_the_loop(connection: PlaneConnection) -> None:
    async with Client(build(connection, allow_proposals=False)) as client:
        (plugin,) = await ask(client, "list_plugins")
        (incident,) = await ask(client, "list_incidents", plugin="shop-7", severity="medium")
        (decision, *_) = await ask(client, "list_decisions", incident=incident["id"][-8:])
        explained = await ask(client, "explain_decision", decision=decision["id"])
        timeline = await ask(client, "list_timeline", incident=incident["id"])
        one = await ask(client, "get_incident", incident=incident["id"])
    assert plugin["label"] == "shop-7"
    assert incident["type"] == one["type"] == "webhook_fail_rate"
    assert incident["evidence"]["untrusted"]
    assert explained["reasoning"]
    assert "incident_opened" in {entry["fact"] for entry in timeline}


async def test_bad_input_is_answered_with_a_sentence_and_changes_nothing(connection: PlaneConnection) -> None:
    async with Client(build(connection, allow_proposals=True)) as client:
        assert "UNKNOWN_ID" in await refusal(client, "get_incident", incident="ffffffff")
        assert "must be one of low, medium, high, critical" in await refusal(
            client, "list_incidents", severity="terrible"
        )
        assert "limit" in await refusal(client, "list_plugins", limit=100_000)
        assert "action" in await refusal(client, "propose", action="restart_plane", target="x", reason="y")


async def test_a_plane_that_is_away_is_a_sentence_and_found_again_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mcp_plane: Plane
) -> None:
    for name in ("INGEST", "DECIDER", "PATCHER", "QUEUE", "OPS"):
        monkeypatch.delenv(f"PRUNELLA_{name}_ADDRESS", raising=False)
    monkeypatch.setenv("PRUNELLA_STATE", str(tmp_path))
    connection = PlaneConnection()
    async with Client(build(connection, allow_proposals=False)) as client:
        assert "no plane is running" in await refusal(client, "list_plugins")
        for name, address in mcp_plane.addresses.items():
            monkeypatch.setenv(f"PRUNELLA_{name.upper()}_ADDRESS", address)
        monkeypatch.setenv("PRUNELLA_KEY", mcp_plane.key)
        assert await ask(client, "list_plugins")
    await connection.close()


def surroundings(plane: Plane, tmp_path: Path) -> dict[str, str]:
    """The environment of a `prunella mcp` of its own."""
    roots = ":".join(str(ROOT / part) for part in (".", "protos/gen", "libs/agent"))
    told = {f"PRUNELLA_{name.upper()}_ADDRESS": address for name, address in plane.addresses.items()}
    return {
        **told, "PRUNELLA_KEY": plane.key, "PYTHONPATH": roots, "PRUNELLA_STATE": str(tmp_path),
        "PATH": os.environ["PATH"],
    }  # fmt: skip


async def test_over_http_it_serves_this_machine_and_only_whoever_shows_the_token(
    mcp_plane: Plane, tmp_path: Path
) -> None:
    environ = surroundings(mcp_plane, tmp_path)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "mcp", "--http", "0"), cwd=ROOT, env=environ,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr
        line = (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
        url = line.split()[1].rstrip(";")
        assert url.startswith("http://127.0.0.1:")
        async with httpx2.AsyncClient() as nobody:
            assert (await nobody.post(url, json={})).status_code == 401
        shown = config(environ, 8123, allow_proposals=False)["mcpServers"]["prunella"]
        assert shown["url"] == "http://127.0.0.1:8123/mcp"
        async with (
            httpx2.AsyncClient(headers=shown["headers"]) as somebody,
            Client(streamable_http_client(url, http_client=somebody)) as client,
        ):
            (plugin,) = await ask(client, "list_plugins")
        assert plugin["label"] == "shop-7"
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)


async def test_it_speaks_over_standard_input_and_output(mcp_plane: Plane, tmp_path: Path) -> None:
    environ = surroundings(mcp_plane, tmp_path)
    command = StdioServerParameters(command=sys.executable, args=["-m", "cli.main", "mcp"], env=environ, cwd=ROOT)
    async with Client(stdio_client(command)) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == READING
        (plugin,) = await ask(client, "list_plugins")
    assert plugin["label"] == "shop-7"


async def test_the_configuration_to_paste_starts_the_same_command_and_holds_no_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    said = {"PRUNELLA_QUEUE_ADDRESS": "127.0.0.1:1", "PRUNELLA_KEY_FILE": str(key), "PRUNELLA_KEY": "00ff"}
    entry = config(said, None, allow_proposals=True)["mcpServers"]["prunella"]
    assert entry["args"][-2:] == ["mcp", "--allow-proposals"]
    assert entry["env"]["PRUNELLA_KEY_FILE"] == str(key)
    assert "PRUNELLA_KEY" not in entry["env"]


async def test_the_plane_itself_refuses_to_let_mcp_approve_or_act(mcp_plane: Plane) -> None:
    stub: Any = queue_pb2_grpc.QueueServiceStub(mcp_plane.channel("queue", "mcp"))
    asked = {"reason": "I may", "request_id": new_id()}
    for call, request in (
        (stub.ApproveProposal, queue_pb2.ApproveProposalRequest(name=f"proposals/{new_id()}", **asked)),
        (stub.ApproveStrategy, queue_pb2.ApproveStrategyRequest(name="strategies/relay-timeout", **asked)),
        (stub.RetryTask, queue_pb2.RetryTaskRequest(name=f"tasks/{new_id()}", **asked)),
        (stub.CloseErrorReport, queue_pb2.CloseErrorReportRequest(name=f"errorReports/{new_id()}", **asked)),
        (stub.ClaimTasks, queue_pb2.ClaimTasksRequest(worker="me", any_tools=True)),
    ):
        with pytest.raises(Denied):
            await call(request, timeout=5)
