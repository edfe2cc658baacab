"""POST /api/errors: what becomes of each error, and a clear answer to whatever is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from deploy.local.testing import Servers
from prunella.v1 import queue_pb2
from tests.service.error_queue import ToldQueue
from tests.service.ingest_alone import Agent, Alone


class Door:
    """The HTTP door of an ingest, with one plugin's credential."""

    def __init__(self, alone: Alone, queue: ToldQueue, agent: Agent) -> None:
        self.alone, self.queue, self.agent = alone, queue, agent
        self.url = f"http://{alone.plane.settings('ingest')['PRUNELLA_HTTP_LISTEN']}"
        self.client = httpx2.AsyncClient(trust_env=False, timeout=20)

    async def post(self, body: Any, **headers: str) -> httpx2.Response:
        """Posts JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"authorization": self.agent.metadata[0][1], "content-type": "application/json"} | headers
        return await self.client.post(f"{self.url}/api/errors", content=content, headers=given)

    async def told(self, body: Any, status: int, **headers: str) -> dict[str, Any]:
        """The answer, which must have this status."""
        answer = await self.post(body, **headers)
        assert answer.status_code == status, answer.text
        return dict(answer.json())


@pytest.fixture
async def door(servers: Servers) -> AsyncIterator[Door]:
    async with Alone.on(servers) as alone:
        queue = await ToldQueue().start(alone.plane)
        made = Door(alone, queue, await alone.enrolled("shop-7"))
        yield made
        await made.client.aclose()
        await queue.stop()


ERROR = {"type": "TypeError", "message": "no cart", "stack": "at total (cart.js:1:2)"}


async def test_errors_are_told_with_the_credentials_identity_and_answered_one_by_one(door: Door) -> None:
    door.queue.answers = lambda told: (
        queue_pb2.ReportOutcome(refusal="BAD", field="message", message="no") if told.error.message == "bad" else None
    )
    context = {"order": 17, "paid": True, "who": "é"}
    answer = await door.told({"errors": [ERROR | {"context": context}, ERROR | {"message": "bad"}]}, 200)
    first, second = answer["outcomes"]
    assert first["created"] is True and first["report"].startswith("errorReports/")
    assert second == {"refusal": "BAD", "field": "message", "message": "no"}
    told = door.queue.errors[0]
    assert (told.plugin, told.merchant, told.package, told.label) == (door.agent.plugin, "acme", "relay", "shop-7")
    assert (told.release, door.queue.asked[0].source) == ("1.2.0", "http")
    assert dict(told.error.context) == {"order": "17", "paid": "true", "who": "é"}


async def test_each_request_tells_new_errors_unless_it_repeats_its_key(door: Door) -> None:
    for key in ("", "", "k-1", "k-1"):
        await door.told({"errors": [ERROR, ERROR]}, 200, **{"idempotency-key": key})
    assert len(door.queue.counted) == 6
    third, fourth = door.queue.asked[2:]
    assert third.request_id == fourth.request_id and third == fourth
    await door.told({"errors": [ERROR | {"id": "mine", "occurrences": 9}]}, 200)
    assert door.queue.counted[door.agent.plugin, "mine"] == 9


WRONG: dict[str, tuple[Any, int, str, str]] = {
    "no json": (b'{"errors": [', 400, "BODY_NOT_JSON", "body"),
    "no utf-8": (b'{"errors": [{"message": "\xff\xfe"}]}', 400, "BODY_NOT_UTF8", "body"),
    "deep": (b"[" * 200_000, 400, "ERROR_INVALID", "body"),
    "an array": ([], 400, "ERROR_INVALID", "body"),
    "no errors": ({}, 400, "ERROR_INVALID", "body"),
    "none": ({"errors": []}, 400, "ERROR_INVALID", "errors"),
    "too many": ({"errors": [ERROR] * 101}, 400, "ERROR_INVALID", "errors"),
    "unknown field": ({"errors": [ERROR | {"mesage": "x"}]}, 400, "ERROR_INVALID", "errors[0]"),
    "no message": ({"errors": [{"type": "T"}]}, 400, "ERROR_INVALID", "errors[0]"),
    "negative": ({"errors": [ERROR | {"occurrences": -1}]}, 400, "ERROR_INVALID", "errors[0].occurrences"),
    "nested context": ({"errors": [ERROR | {"context": {"a": {}}}]}, 400, "ERROR_INVALID", "errors[0].context[...]"),
    "bad time": ({"errors": [ERROR | {"time": "noon"}]}, 400, "ERROR_INVALID", "errors[0].time"),
    "too large": (b'{"errors": "' + b"x" * 1_100_000, 413, "BODY_TOO_LARGE", "body"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_is_named_and_nothing_is_told(door: Door, case: str) -> None:
    body, status, reason, field = WRONG[case]
    answer = await door.told(body, status)
    assert (answer["reason"], answer["field"]) == (reason, field)
    assert answer["message"] and answer["remedy"] and not door.queue.asked


@pytest.mark.parametrize(
    ("bad", "refusal", "field"),
    [
        ({"message": 7}, "ERROR_INVALID", "message"),
        ({"mesage": "x"}, "ERROR_INVALID", ""),
        (ERROR | {"occurrences": -1}, "ERROR_INVALID", "occurrences"),
        (ERROR | {"time": "noon"}, "ERROR_INVALID", "time"),
        (ERROR | {"time": "9999-12-31T23:59:59-01:00"}, "TIME_INVALID", "time"),
        (7, "ERROR_INVALID", ""),
    ],
)
async def test_one_bad_error_never_fails_the_others(door: Door, bad: Any, refusal: str, field: str) -> None:
    answer = await door.told({"errors": [ERROR, bad, ERROR | {"message": "no stock"}]}, 200)
    first, refused, last = answer["outcomes"]
    assert first["report"] and last["report"]
    assert (refused["refusal"], refused["field"]) == (refusal, field), refused
    assert refused["message"] and "body" not in refused["message"]
    assert [told.error.message for told in door.queue.errors] == ["no cart", "no stock"]


async def test_what_cannot_be_stored_is_cleaned_and_told_all_the_same(door: Door) -> None:
    await door.told(b'{"errors": [{"message": "half \\ud800 and \\u0000"}]}', 200)
    (told,) = door.queue.errors
    assert told.error.message == "half \ufffd and \ufffd"


async def test_the_headers_are_checked(door: Door) -> None:
    plugin, secret = door.agent.plugin, door.agent.secret
    for authorization in ("", "Bearer x", f"Plugin {plugin}", f"Plugin {plugin}:wrong", f"Plugin x:{secret}"):
        answer = await door.told({"errors": [ERROR]}, 401, authorization=authorization)
        assert answer["reason"].startswith("CREDENTIAL_") and "Plugin" in answer["remedy"]
    assert (await door.told({"errors": [ERROR]}, 415, **{"content-type": "text/plain"}))["field"] == "content-type"
    assert (await door.told({"errors": [ERROR]}, 400, **{"idempotency-key": "k" * 200}))["reason"] == "KEY_INVALID"
    assert not door.queue.asked


async def test_a_queue_that_is_away_is_503_with_a_time_to_come_back(door: Door) -> None:
    await door.queue.stop()
    answer = await door.post({"errors": [ERROR]})
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    assert answer.json()["remedy"].startswith("keep the errors")


async def test_one_plugin_cannot_take_all_the_room(door: Door) -> None:
    door.queue.hangs = True
    asked = {asyncio.create_task(door.post({"errors": [ERROR]})) for _ in range(6)}
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=9)
    assert {(task.result().status_code, task.result().headers["retry-after"]) for task in done} == {(429, "1")}
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_metrics_and_health_are_on_the_same_port(door: Door) -> None:
    await door.told({"errors": [ERROR]}, 200)
    metrics = (await door.client.get(f"{door.url}/metrics/")).text
    assert 'error_reports_total{outcome="accepted",source="http"}' in metrics
    assert (await door.client.get(f"{door.url}/healthz")).text == "ok"
