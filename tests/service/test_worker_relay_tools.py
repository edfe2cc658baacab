"""The relay's tools on a real relay under its real environment: read, change one value, start again, deliver."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from deploy.demo import releases
from deploy.demo.tools.relay_settings import lock_path
from deploy.demo.webhook_sink import WebhookSink
from deploy.local.ports import free_ports
from deploy.local.testing import until
from prunella_agent import launch
from prunella_agent import releases as agent_releases
from prunella_agent.supervisor import socket_path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Shop:
    """A relay as its supervisor would run it, and the tools of its fleet."""

    fleet: Path
    config: Path
    process: asyncio.subprocess.Process
    client: Client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.client.call_tool(tool, {"plugin": "shop-1"} | arguments)
        assert not answer.is_error, answer
        assert answer.structured_content is not None
        return answer.structured_content

    async def refusal(self, tool: str, **arguments: Any) -> str:
        answer = await self.client.call_tool(tool, {"plugin": "shop-1"} | arguments)
        assert answer.is_error
        return str(answer.content[0].text)  # type: ignore[union-attr]


@contextlib.asynccontextmanager
async def a_shop(tmp_path: Path) -> AsyncIterator[Shop]:
    agent = tmp_path / "shop-1" / "agent"
    agent_releases.unpack(releases.build("1.2.3"), agent / "slots" / "a")
    (agent / "configs").mkdir()
    sink = WebhookSink()
    await sink.start()
    config = agent / "configs" / "one.json"
    config.write_text(json.dumps({"sink": sink.merchant("shop-1", b"s3cret"), "secret": "s3cret"}))
    (port,) = free_ports(1)
    environment = launch.environment(port=port, socket=socket_path(agent), config=config, data=agent)
    with (agent / "plugin.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *launch.command(releases.ENTRYPOINT), cwd=agent / "slots" / "a", env=environment, stdout=log, stderr=log
        )
    state = {"plugin": "0199", "port": port, "pid": process.pid, "health": "healthy", "connected": True}
    (agent / "state").write_text(json.dumps(state))
    words = ["-m", "deploy.demo.tools", "--fleet", str(tmp_path)]
    paths = os.pathsep.join(str(ROOT / path) for path in (".", "protos/gen", "libs/agent"))
    server = StdioServerParameters(command=sys.executable, args=words, env={"PYTHONPATH": paths}, cwd=ROOT)
    try:
        async with Client(server) as client:
            made = Shop(tmp_path, config, process, client)

            async def answers() -> bool:
                return bool((await made.call("status"))["answers"])

            await until(answers, 20)
            yield made
    finally:
        process.kill()
        await process.wait()
        await sink.stop()


async def test_a_wrong_value_makes_deliveries_fail_and_the_right_one_heals_them(tmp_path: Path) -> None:
    async with a_shop(tmp_path) as shop:
        assert (await shop.call("test_delivery"))["delivered"]
        fields = json.loads(shop.config.read_text())
        shop.config.write_text(json.dumps(fields | {"timeout_seconds": 0.001}))
        await shop.call("restart")
        assert (await shop.call("test_delivery")) == {"label": "shop-1", "delivered": False, "status": 502}
        assert "TimeoutError" in (await shop.call("read_log"))["lines"][-1]
        assert (await shop.call("status"))["failed"] == 1

        change = await shop.call("set_config", key="timeout_seconds", value=5)
        assert (change["before"], change["after"]) == (0.001, 5)
        await shop.call("restart")
        assert (await shop.call("test_delivery"))["delivered"]
        status = await shop.call("status", plugin="0199")
        assert (status["settings"], status["failed"], status["webhooks"]) == ({"timeout_seconds": 5.0}, 0, 1)
        assert status["process"] == shop.process.pid
        assert json.loads(shop.config.read_text()) == fields | {"timeout_seconds": 5.0}


async def test_secrets_are_masked(tmp_path: Path) -> None:
    async with a_shop(tmp_path) as shop:
        assert (await shop.call("read_config"))["values"]["secret"] == "***"


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("set_config", {"key": "sink", "value": 1}, "key: 'sink' cannot be set here"),
        ("set_config", {"key": "timeout_seconds", "value": 0}, "from 0.05 to 60 s"),
        ("set_config", {"key": "timeout_seconds", "value": "fast"}, "valid number"),
        ("read_log", {"lines": 100000}, "lines: must be from 1 to 200"),
        ("status", {"plugin": "../../etc"}, "neither label nor id"),
        ("restart", {"plugin": ""}, "there are: shop-1"),
    ],
    ids=["key", "bound", "type", "lines", "path", "nobody"],
)
async def test_bad_arguments_are_refused_in_words(
    tmp_path: Path, tool: str, arguments: dict[str, Any], said: str
) -> None:
    async with a_shop(tmp_path) as shop:
        before = shop.config.read_text()
        assert said in await shop.refusal(tool, **arguments)
        assert shop.config.read_text() == before


async def test_a_configuration_that_somebody_holds_is_left_alone(tmp_path: Path) -> None:
    async with a_shop(tmp_path) as shop:
        with lock_path(shop.config).open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            assert "locked by somebody else" in await shop.refusal("set_config", key="timeout_seconds", value=5)
        await shop.call("set_config", key="timeout_seconds", value=5)


async def test_a_process_that_is_not_the_plugin_is_never_signalled(tmp_path: Path) -> None:
    async with a_shop(tmp_path) as shop:
        state = shop.fleet / "shop-1" / "agent" / "state"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"pid": os.getpid()}))
        assert "has no process" in await shop.refusal("restart")
