"""A real error of a real relay, through the real queue, healed by a real worker with the relay's own tools."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.local.testing import BackingServices, Plane, until
from libs.common.names import new_id
from prunella.v1 import queue_pb2
from prunella.v1.queue_pb2_grpc import QueueServiceStub
from tests.service.test_worker_relay_tools import a_shop

ROOT = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join(str(ROOT / path) for path in (".", "protos/gen", "libs/agent"))
CONFIG = """
[worker]
name = "w-1"
lease_seconds = 10
wait_seconds = 2
[[server]]
name = "relay"
transport = "stdio"
command = "python"
args = ["-m", "deploy.demo.tools", "--fleet", "{fleet}"]
env = {{ PYTHONPATH = "{paths}" }}
deadline_seconds = 20
[server.tools]
status = "read"
read_log = "read"
read_config = "read"
test_delivery = "read"
set_config = "write"
restart = "write"
"""


def an_error(plugin: str) -> queue_pb2.ReportErrorsRequest:
    request = queue_pb2.ReportErrorsRequest(request_id=new_id(), source="service")
    one = request.errors.add(plugin=plugin, merchant="acme", package="relay", release="1.2.3", label="shop-1")
    one.error.id, one.error.type = new_id(), "TimeoutError"
    one.error.message = "a webhook was not delivered: timed out"
    return request


@pytest.mark.slow
async def test_a_timeout_set_wrong_is_healed_by_tools_once_a_person_allowed_it(
    backing: BackingServices, tmp_path: Path
) -> None:
    plane = Plane(backing, names=["queue"], environ={"QUEUE_WATCH_SECONDS": "1"})
    try:
        await plane.start()
        queue: Any = QueueServiceStub(plane.channel("queue"))
        await queue.ApproveStrategy(
            queue_pb2.ApproveStrategyRequest(
                name="strategies/relay_timeout", reason="the relay's own values", request_id=new_id()
            )
        )
        async with a_shop(tmp_path / "fleet") as shop:
            shop.config.write_text(json.dumps(json.loads(shop.config.read_text()) | {"timeout_seconds": 0.001}))
            await shop.call("restart")
            assert not (await shop.call("test_delivery"))["delivered"]
            answer = await queue.ReportErrors(an_error("0199"))
            report = queue_pb2.GetErrorReportRequest(name=answer.outcomes[0].report)
            process = await work(plane, tmp_path)

            async def resolved() -> Any:
                told = await queue.GetErrorReport(report)
                return told if told.report.state == queue_pb2.REPORT_STATE_RESOLVED else None

            try:
                told = await until(resolved, 60)
            finally:
                process.terminate()
                assert await asyncio.wait_for(process.wait(), 30) == 0
            assert (await shop.call("test_delivery"))["delivered"]
            assert json.loads(shop.config.read_text())["timeout_seconds"] == 5
        entry = told.history[0]
        assert (entry.success, entry.worker, entry.strategy) == (True, "w-1", "strategies/relay_timeout")
        assert list(entry.tools_used) == [
            f"relay.{n}" for n in ("read_config", "set_config", "restart", "test_delivery")
        ]
        assert json.loads(entry.details)["check"]["passed"]
    finally:
        await plane.stop()


async def work(plane: Plane, folder: Path) -> asyncio.subprocess.Process:
    config = folder / "worker.toml"
    config.write_text(CONFIG.format(fleet=folder / "fleet", paths=PATHS))
    own = {"PRUNELLA_QUEUE_ADDRESS": plane.addresses["queue"], "PRUNELLA_KEY": plane.key, "PYTHONPATH": PATHS}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.queue.worker", "--config", str(config), env=os.environ | own, cwd=ROOT
    )
