"""The Connect protocol: what a person with curl or a browser sends becomes the same call, and is refused as clearly."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from deploy.local.testing import until
from libs.common import access, rpc
from libs.common.connect import ConnectHandler, methods
from libs.common.errors import Busy, Invalid, NotFound
from libs.common.http import HttpServer, health_routes
from prunella.v1 import ops_pb2, ops_pb2_grpc
from prunella.v1.events_pb2 import Event, Severity

KEY = "5a" * 32
SERVICE = ops_pb2.DESCRIPTOR.services_by_name["OpsService"]
ROOT = "/prunella.v1.OpsService/"
PERSON = {"authorization": access.service_token(KEY, "operator"), "prunella-operator": "ann"}


class Timeline(ops_pb2_grpc.OpsServiceServicer):
    """Answers and refuses as the requests say."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, float | None]] = []
        self.left = asyncio.Event()

    async def ListTimeline(self, request: Any, context: Any) -> ops_pb2.ListTimelineResponse:  # noqa: N802
        self.asked.append((access.caller(), request, context.time_remaining()))
        if request.plugin == "absent":
            raise NotFound("no such plugin", reason="PLUGIN_UNKNOWN", field="plugin", plugin="absent")
        if request.plugin == "busy":
            raise Busy("later", reason="BUSY", retry_after=2.5)
        if request.plugin == "broken":
            raise ZeroDivisionError
        if request.plugin == "slow":
            await asyncio.Event().wait()
        entry = ops_pb2.TimelineEntry(position=2**53 + 1, fact="incident_opened", event=Event(reason="é"))
        entry.event.incident_opened.severity = Severity.SEVERITY_HIGH
        return ops_pb2.ListTimelineResponse(entries=[entry], next_page_token="more")

    async def WatchTimeline(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[ops_pb2.WatchTimelineResponse]:
        try:
            for position in (1, 2):
                yield ops_pb2.WatchTimelineResponse(entry=ops_pb2.TimelineEntry(position=position))
            if request.after_position:
                await asyncio.Event().wait()
            raise Invalid("enough", reason="ENOUGH", field="after_position")
        finally:
            self.left.set()


async def _fine() -> None:
    return None


class Over:
    """The door over real HTTP."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        add = ops_pb2_grpc.add_OpsServiceServicer_to_server
        self.server = rpc.Server(
            "ops", "127.0.0.1:0", [(add, self.timeline, SERVICE.full_name)], key=KEY, deep_check=_fine
        )
        self.handler = ConnectHandler(self.server.in_process(), methods([SERVICE]), largest=10_000)
        self.http = HttpServer(Starlette(routes=[*self.handler.routes(), *health_routes(self.server)]), "127.0.0.1:0")

    async def start(self) -> Over:
        self.url = f"http://127.0.0.1:{await self.http.start()}"
        self.client = httpx2.AsyncClient(trust_env=False, timeout=20)
        return self

    async def post(self, method: str, body: Any, **headers: str) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = PERSON | {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return await self.client.post(f"{self.url}{ROOT}{method}", content=content, headers=given)

    async def refused(self, status: int, code: str, reason: str, method: str, body: Any, **headers: str) -> Any:
        """The error, whose three words must be these."""
        answer = await self.post(method, body, **headers)
        told = answer.json()
        assert (answer.status_code, told["code"]) == (status, code), answer.text
        assert told["details"][0]["type"] == "google.rpc.ErrorInfo"
        assert told["details"][0]["debug"]["reason"] == reason
        return told

    async def stop(self) -> None:
        await self.client.aclose()
        await self.http.stop()


@pytest.fixture
async def over() -> AsyncIterator[Over]:
    made = await Over().start()
    yield made
    await made.stop()


async def test_json_in_and_json_out_as_protobuf_maps_them(over: Over) -> None:
    answer = await over.post("ListTimeline", {"pageSize": 5, "page_token": "t", "facts": ["incident_opened"]})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    (entry,) = answer.json()["entries"]
    assert entry["position"] == str(2**53 + 1) and answer.json()["nextPageToken"] == "more"
    assert entry["event"]["incidentOpened"]["severity"] == "SEVERITY_HIGH" and entry["event"]["reason"] == "é"
    caller, request, remaining = over.timeline.asked[0]
    assert (caller, request.page_size, request.page_token) == ("operators/ann", 5, "t")
    assert remaining is None


async def test_protobuf_in_and_protobuf_out(over: Over) -> None:
    request = ops_pb2.ListTimelineRequest(page_size=5).SerializeToString()
    answer = await over.post("ListTimeline", request, content_type="application/proto")
    assert answer.headers["content-type"] == "application/proto"
    assert ops_pb2.ListTimelineResponse.FromString(answer.content).entries[0].position == 2**53 + 1


async def test_a_problem_keeps_its_code_reason_field_and_patience(over: Over) -> None:
    told = await over.refused(404, "not_found", "PLUGIN_UNKNOWN", "ListTimeline", {"plugin": "absent"})
    assert told["message"] == "no such plugin"
    assert told["details"][0]["debug"]["metadata"] == {"plugin": "absent"}
    assert told["details"][1]["debug"]["fieldViolations"][0]["field"] == "plugin"
    await over.refused(429, "resource_exhausted", "BUSY", "ListTimeline", {"plugin": "busy"})
    assert (await over.post("ListTimeline", {"plugin": "busy"})).headers["retry-after"] == "3"
    broken = await over.post("ListTimeline", {"plugin": "broken"})
    assert (broken.status_code, broken.json()["code"]) == (500, "internal")
    assert "Zero" not in broken.text


async def test_a_callers_patience_is_kept(over: Over) -> None:
    await over.refused(
        503, "unavailable", "DEADLINE_EXCEEDED", "ListTimeline", {"plugin": "slow"}, connect_timeout_ms="200"
    )
    await over.refused(400, "invalid_argument", "TIMEOUT_INVALID", "ListTimeline", {}, connect_timeout_ms="-1")


WRONG: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "no json": (b"{", {}, 400, "BODY_INVALID"),
    "nothing": (b"", {}, 400, "BODY_INVALID"),
    "a list": (b"[]", {}, 400, "BODY_INVALID"),
    "no utf-8": (b'{"plugin": "\xff"}', {}, 400, "BODY_INVALID"),
    "half a surrogate": (b'{"plugin": "\\ud800"}', {}, 400, "BODY_INVALID"),
    "an unknown field": (b'{"colour": "red"}', {}, 400, "BODY_INVALID"),
    "a wrong type": (b'{"pageSize": "many"}', {}, 400, "BODY_INVALID"),
    "a number too large": (b'{"pageSize": 1e400}', {}, 400, "BODY_INVALID"),
    "a field twice": (b'{"plugin": "a", "plugin": "b"}', {}, 400, "BODY_INVALID"),
    "too deep": (b'{"facts": ' + b"[" * 4000 + b"]" * 4000 + b"}", {}, 400, "BODY_INVALID"),
    "too large": (b'{"plugin": "' + b"a" * 20_000 + b'"}', {}, 413, "BODY_TOO_LARGE"),
    "a form": (b"plugin=a", {"content-type": "application/x-www-form-urlencoded"}, 415, "BODY_TYPE"),
    "plain text": (b"{}", {"content-type": "text/plain"}, 415, "BODY_TYPE"),
    "no type": (b"{}", {"content-type": ""}, 415, "BODY_TYPE"),
    "a stream's type": (b"{}", {"content-type": "application/connect+json"}, 415, "BODY_TYPE"),
    "packed": (b"{}", {"content-encoding": "gzip"}, 415, "BODY_ENCODING"),
    "another protocol": (b"{}", {"connect-protocol-version": "2"}, 400, "PROTOCOL"),
    "no protobuf": (b"\x0a\xff", {"content-type": "application/proto"}, 400, "BODY_INVALID"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
async def test_a_wrong_body_is_refused_in_words_and_asks_nothing(over: Over, case: str) -> None:
    body, headers, status, reason = WRONG[case]
    await over.refused(status, "invalid_argument", reason, "ListTimeline", body, **headers)
    assert not over.timeline.asked


async def test_an_unknown_field_is_named(over: Over) -> None:
    told = await over.refused(400, "invalid_argument", "BODY_INVALID", "ListTimeline", {"colour": "red"})
    assert told["details"][1]["debug"]["fieldViolations"][0]["field"] == "colour"


async def test_without_a_credential_not_even_the_body_is_read(over: Over) -> None:
    large = b"{" * 20_000
    await over.refused(401, "unauthenticated", "CREDENTIAL_MISSING", "ListTimeline", large, authorization="")
    await over.refused(
        401, "unauthenticated", "CREDENTIAL_INVALID", "ListTimeline", large, authorization="Service operator:00"
    )
    worker = access.service_token(KEY, "worker")
    await over.refused(403, "permission_denied", "CALLER_NOT_ALLOWED", "RedriveDeadLetter", large, authorization=worker)


async def test_only_known_methods_are_called_and_only_with_post(over: Over) -> None:
    await over.refused(404, "unimplemented", "METHOD_UNKNOWN", "DropTables", {})
    for verb in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = await over.client.request(verb, f"{over.url}{ROOT}ListTimeline", headers=PERSON)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def wrapped(body: bytes) -> bytes:
    return struct.pack(">BI", 0, len(body)) + body


def unwrapped(stream: bytes) -> list[tuple[int, Any]]:
    found = []
    while stream:
        flags, size = struct.unpack_from(">BI", stream)
        found.append((flags, json.loads(stream[5 : 5 + size])))
        stream = stream[5 + size :]
    return found


async def test_a_stream_comes_in_pieces_and_ends_with_its_word(over: Over) -> None:
    answer = await over.post("WatchTimeline", wrapped(b"{}"), content_type="application/connect+json")
    first, second, (flags, end) = unwrapped(answer.content)
    assert (first, second) == ((0, {"entry": {"position": "1"}}), (0, {"entry": {"position": "2"}}))
    assert flags == 2 and end["error"]["code"] == "invalid_argument"
    assert end["error"]["details"][0]["debug"]["reason"] == "ENOUGH"
    await over.refused(
        400, "invalid_argument", "ENVELOPE_INVALID", "WatchTimeline", b"{}", content_type="application/connect+json"
    )


async def test_a_stream_ends_when_the_callers_time_is_over(over: Over) -> None:
    body, kind = wrapped(b'{"afterPosition": "1"}'), "application/connect+json"
    answer = await over.post("WatchTimeline", body, content_type=kind, connect_timeout_ms="300")
    _, _, (flags, end) = unwrapped(answer.content)
    assert (flags, end["error"]["details"][0]["debug"]["reason"]) == (2, "DEADLINE_EXCEEDED")
    assert over.timeline.left.is_set()


async def test_a_listener_that_leaves_ends_the_stream(over: Over) -> None:
    headers = PERSON | {"content-type": "application/connect+json"}
    url, body = f"{over.url}{ROOT}WatchTimeline", wrapped(b'{"afterPosition": "1"}')
    async with over.client.stream("POST", url, content=body, headers=headers) as answer:
        async for piece in answer.aiter_raw():
            assert piece
            break
        assert not over.timeline.left.is_set()
    await asyncio.wait_for(over.timeline.left.wait(), 10)
    await until(lambda: over.handler._open == 0)


async def test_health_says_what_the_service_says(over: Over) -> None:
    answer = await over.client.get(f"{over.url}/healthz")
    assert (answer.status_code, answer.text) == (503, "the deep check has not run yet")
    over.server.serving = True
    assert (await over.client.get(f"{over.url}/healthz")).text == "ok"
    assert "prunella_" in (await over.client.get(f"{over.url}/metrics", follow_redirects=True)).text
