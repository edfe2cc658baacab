"""The HTTP doors of a whole plane: fuzzed by their own document, used as the seeds' dashboard and people with curl do.

The curl examples of README and docs are run as they stand there.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deploy.local.testing import BackingServices, FakeAgent, Plane, Servers, until
from libs.common import access

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
async def plane(servers: Servers) -> AsyncIterator[Plane]:
    backing = await BackingServices.make(servers)
    made = Plane(backing, environ={"INGEST_BEAT_SECONDS": "1"})
    try:
        yield await made.start()
    finally:
        await made.stop()
        await backing.discard()


def url(plane: Plane, service: str) -> str:
    return f"http://{plane.settings(service)['PRUNELLA_HTTP_LISTEN']}"


@pytest.fixture
async def person(plane: Plane) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"authorization": access.service_token(plane.key, "operator"), "prunella-operator": "ann"}
    async with httpx2.AsyncClient(base_url=url(plane, "ops"), headers=headers, trust_env=False, timeout=20) as client:
        yield client


async def broken(plane: Plane, label: str) -> FakeAgent:
    agent = await plane.agent(label)
    agent.obeys = False
    for _ in range(3):
        agent.beat(failed=12)
    await agent.acknowledged()
    return agent


async def test_the_seeds_dashboard_sees_and_moves_incidents(plane: Plane, person: httpx2.AsyncClient) -> None:
    agent = await broken(plane, "shop-1")

    async def decided() -> dict[str, Any] | None:
        answer = await person.get("/api/ops/plugin-incidents", params={"limit": 10})
        assert answer.status_code == 200, answer.text
        found = [one for one in answer.json()["incidents"] if one["merchant_plugin_id"] == agent.plugin]
        return found[0] if found and found[0]["sira_decision"] else None

    row = await until(decided, 15, what="the incident is listed with its decision")
    assert (row["incident_type"], row["merchant_id"]) == ("webhook_fail_rate", "merchant-shop-1")
    assert row["telemetry_snapshot"]["summary"] and row["detected_at"].endswith("Z")
    one = f"/api/ops/plugin-incidents/{row['id']}"
    refused = await person.post(f"{one}/approve", json={})
    assert (refused.status_code, refused.json()["reason"]) == (409, "NOTHING_TO_APPROVE")
    absent = await person.post("/api/ops/plugin-incidents/01980000-0000-7000-8000-000000000000/approve", json={})
    assert absent.status_code == 404
    closed = await person.post(f"{one}/manual-action", json={"reason": "we looked"})
    assert (closed.status_code, closed.json()["incident"]["status"]) == (200, "closed")
    told = await plane.wait_for_fact("incident_closed", plugin=agent.plugin)
    assert (told.actor, told.reason) == ("operators/ann", "we looked")
    listed = await person.get("/api/ops/autopatch-attempts")
    assert listed.status_code == 200 and isinstance(listed.json()["attempts"], list)


async def test_a_remedy_by_hand_over_http_is_an_attempt(plane: Plane, person: httpx2.AsyncClient) -> None:
    agent = await plane.agent("shop-2")
    agent.beat()
    await agent.acknowledged()
    body = {"plugin": agent.plugin, "action": "ACTION_RESTART", "reason": "it hangs", "requestId": "r-1"}
    answer = await person.post("/prunella.v1.PatcherService/CreateAttempt", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["attempt"]["author"] == "operators/ann"
    again = await person.post("/prunella.v1.PatcherService/CreateAttempt", json=body)
    assert again.json()["attempt"]["name"] == answer.json()["attempt"]["name"]


async def test_every_service_answers_health_and_metrics(plane: Plane) -> None:
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        for service in ("ingest", "ops"):
            assert (await client.get(f"{url(plane, service)}/healthz")).text == "ok"
            assert "prunella_rpc_seconds" in (await client.get(f"{url(plane, service)}/metrics/")).text


NASTY = {
    "NUL": "a\0b",
    "SQL": "' OR 1=1 --",
    "percent": "%_\\\\",
    "long": "x" * 5000,
    "emoji": "🌿" * 50,
    "path": "../../x",
}


@pytest.mark.parametrize("kind", sorted(NASTY))
async def test_no_text_in_any_field_of_any_method_is_our_mistake(
    plane: Plane, person: httpx2.AsyncClient, kind: str
) -> None:
    document = (await person.get("/openapi.json")).json()
    few = asyncio.Semaphore(6)

    async def say(path: str, texts: dict[str, str]) -> str:
        async with few:
            answer = await person.post(path, json=texts)
        return f"{path} {texts}: {answer.text}" if answer.status_code == 500 else ""

    asked = []
    for path, operations in document["paths"].items():
        body = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
        if not path.startswith("/prunella.v1.") or body is None:
            continue
        schema = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
        texts = {name: NASTY[kind] for name, one in schema["properties"].items() if one == {"type": "string"}}
        asked.append(say(path, texts))
    assert len(asked) > 60
    ours = list(filter(None, await asyncio.gather(*asked)))
    assert not ours, "\n".join(ours)


def examples() -> list[str]:
    """Every curl line of README and docs that a reader would type, without the answer below it."""
    texts = [path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))]
    blocks = [block for text in texts for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    return [block.partition("\n{")[0] for block in blocks if "curl " in block]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_examples_of_the_documentation_run_as_they_stand(plane: Plane) -> None:
    agent = await broken(plane, "shop-3")
    incident = (await plane.wait_for_fact("incident_opened", plugin=agent.plugin)).incident
    # One that has no stream: two agents with one identity would be shut out.
    plain = await plane.agent("shop-4")
    await plain.session.abort()
    surroundings = {
        "PATH": os.environ["PATH"],
        "OPS": url(plane, "ops"),
        "INGEST": url(plane, "ingest"),
        "AUTH": f"authorization: {access.service_token(plane.key, 'operator')}",
        "INCIDENT": incident,
        "PLUGIN": plain.plugin,
        "SECRET": plain.credential.secret,
    }
    assert len(examples()) > 11
    for line in examples():
        typed = await asyncio.create_subprocess_exec(
            *("sh", "-c", line), env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await asyncio.wait_for(typed.communicate(), 20)
        assert typed.returncode == 0, f"{line}\n{out.decode()}\n{err.decode()}"
        assert json.loads(out) is not None, line


CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "unsupported_method,ignored_auth"
)
# The phase that walks a schema's edges trips over one of its own on ingest's document.
PHASES = {"ops": "coverage,fuzzing", "ingest": "fuzzing"}
# A machine that is busy looks at fewer of the many methods of ops; the few of ingest are all looked at.
BOUNDS = {"ops": ["--max-time", "30"], "ingest": []}


@pytest.mark.parametrize("service", ["ops", "ingest"])
async def test_the_document_promises_nothing_the_door_does_not_keep(plane: Plane, tmp_path: Path, service: str) -> None:
    agent = await plane.agent(f"fuzzed-{service}")
    secret = agent.credential.secret
    own = {"ops": access.service_token(plane.key, "operator"), "ingest": f"Plugin {agent.plugin}:{secret}"}
    told = ["--header", f"Authorization: {own[service]}", "--checks", CHECKS, "--phases", PHASES[service]]
    bounds = [*BOUNDS[service], "--max-examples", "3", "--generation-deterministic", "--no-shrink"]
    # One worker: `ast.parse`, with which strategies are described, counts its depth for all threads together
    # (CPython 3.11: "AST constructor recursion depth mismatch").
    quiet = ["--warnings", "off", "--no-color", "--request-timeout", "10", "--workers", "1"]
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{url(plane, service)}/openapi.json",
        *(*told, *bounds, *quiet),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 100)
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, said.decode()[-8000:]
    tested = re.search(r"Tested: (\d+)", said.decode())
    assert tested is not None and (service == "ops" or int(tested[1]) == 10), said.decode()[-2000:]
