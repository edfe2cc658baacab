"""Spans come in over OTLP/HTTP, are kept once, bounded, and told as one story."""

from __future__ import annotations

import gzip
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common.errors import Invalid, NotFound
from libs.common.http import HttpServer
from libs.common.names import new_id
from libs.common.telemetry import FinishedSpan, Telemetry, trace_id
from prunella.v1 import ops_pb2
from prunella.v1.ops_pb2_grpc import OpsServiceStub
from services.ops.receiver import otlp
from services.ops.receiver.app import LARGEST
from services.ops.receiver.span_buffer import SpanBuffer
from services.ops.sweeps import RETENTION, delete_old_spans
from services.ops.traces import Span

NOW = datetime(2026, 5, 1, tzinfo=UTC)
HEADERS = {"content-type": "application/x-protobuf"}


@pytest.fixture
async def alone(backing: BackingServices) -> AsyncIterator[Plane]:
    plane = Plane(backing, names=["ops"])
    try:
        yield await plane.start()
    finally:
        await plane.stop()


@pytest.fixture(scope="module")
async def shared(servers: Servers) -> AsyncIterator[Plane]:
    """For tests that leave nothing behind."""
    backing = await BackingServices.make(servers)
    plane = Plane(backing, names=["ops"])
    try:
        yield await plane.start()
    finally:
        await plane.stop()
        await backing.discard()


def place(plane: Plane) -> str:
    return plane.settings("ops")["PRUNELLA_OTLP"]


async def post(plane: Plane, body: bytes, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=10) as client:
        return await client.post(place(plane), content=body, headers={**HEADERS, **headers})


def body(count: int = 1, *, trace: bytes = b"t" * 16, **changes: Any) -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "ingest"
    scope = group.scope_spans.add()
    for number in range(count):
        span = scope.spans.add(
            trace_id=trace,
            span_id=(number + 1).to_bytes(8, "big"),
            name="beat",
            start_time_unix_nano=int(NOW.timestamp()) * 10**9 + number,
            end_time_unix_nano=int(NOW.timestamp()) * 10**9 + 5_000_000,
        )
        for name, value in changes.items():
            setattr(span, name, value)
    return request.SerializeToString()


async def trace_of(plane: Plane, name: str) -> ops_pb2.GetTraceResponse:
    stub: Any = OpsServiceStub(plane.channel("ops"))
    answer: ops_pb2.GetTraceResponse = await stub.GetTrace(ops_pb2.GetTraceRequest(name=name), timeout=5)
    return answer


async def until_spans(plane: Plane, name: str, count: int) -> ops_pb2.GetTraceResponse:
    async def look() -> ops_pb2.GetTraceResponse | None:
        try:
            answer = await trace_of(plane, name)
        except NotFound:
            return None
        return answer if len(answer.spans) >= count else None

    found: ops_pb2.GetTraceResponse = await until(look, 15, what=f"{count} spans")
    return found


async def test_a_healing_told_by_the_real_exporters_is_one_complete_trace(alone: Plane) -> None:
    telemetries = {name: Telemetry(name, place(alone)) for name in ("ingest", "decider", "patcher")}
    second = timedelta(seconds=1)
    parent = ""
    for number, telemetry in enumerate(telemetries.values()):
        parent = telemetry.span_at("work", NOW + number * second, NOW + (number + 1) * second, parent=parent)
    step = FinishedSpan("switch", NOW + 3 * second, NOW + 4 * second, parent, error="no room")
    telemetries["ingest"].export_foreign("agent", [step])
    for telemetry in telemetries.values():
        telemetry.close()
    answer = await until_spans(alone, trace_id(parent), 4)
    assert [span.service for span in answer.spans] == ["ingest", "decider", "patcher", "agent"]
    assert answer.complete
    assert not answer.missing
    assert answer.spans[3].error == "no room"
    assert answer.spans[1].parent_span_id == answer.spans[0].span_id


async def test_a_linked_trace_belongs_to_the_story(alone: Plane) -> None:
    telemetry = Telemetry("patcher", place(alone))
    first = telemetry.span_at("attempt", NOW, NOW, parent="")
    later = telemetry.span_at("probation", NOW + RETENTION, NOW + RETENTION, parent="", links=[first])
    telemetry.close()
    answer = await until_spans(alone, trace_id(first), 2)
    assert [span.name for span in answer.spans] == ["attempt", "probation"]
    assert list(answer.spans[1].linked_trace_ids) == [trace_id(first)]
    assert answer.trace_id == trace_id(first) != trace_id(later)


async def test_the_same_spans_sent_twice_are_kept_once(alone: Plane) -> None:
    await post(alone, body(3))
    await until_spans(alone, "74" * 16, 3)
    # The repeat carries one more, which must not go down with the others.
    await post(alone, body(4))
    answer = await until_spans(alone, "74" * 16, 4)
    assert len(answer.spans) == 4


async def test_packed_bodies_are_taken(alone: Plane) -> None:
    answer = await post(alone, gzip.compress(body()), **{"content-encoding": "gzip"})
    assert answer.status_code == 200
    assert not ExportTraceServiceResponse.FromString(answer.content).HasField("partial_success")
    await until_spans(alone, "74" * 16, 1)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"not a protobuf at all", {}, 400),
        (b"{}", {"content-type": "application/json"}, 415),
        (b"x", {"content-encoding": "br"}, 415),
        (b"not gzip", {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"cut short", mtime=0)[:-9], {"content-encoding": "gzip"}, 400),
        (b"x" * (LARGEST + 1), {}, 413),
        # A bomb: a few kilobytes that unpack to more than we take.
        (gzip.compress(bytes(LARGEST + 1), mtime=0), {"content-encoding": "gzip"}, 413),
    ],
)
async def test_what_is_no_span_request_is_refused_in_words(
    shared: Plane, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await post(shared, content, **headers)
    assert answer.status_code == status
    assert answer.text


@pytest.mark.parametrize(
    "changes",
    [
        {"trace_id": b"short"},
        {"trace_id": bytes(16)},
        {"span_id": b""},
        {"start_time_unix_nano": 0},
        {"end_time_unix_nano": 2**64 - 1},
    ],
)
async def test_spans_without_valid_ids_or_times_are_answered_as_partial_success(
    shared: Plane, changes: dict[str, Any]
) -> None:
    answer = await post(shared, body(2, **changes))
    assert answer.status_code == 200
    assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == 2


def test_hostile_texts_and_numbers_are_cut_to_what_a_row_takes() -> None:
    request = ExportTraceServiceRequest.FromString(body())
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.name = "n\0" * 5000
    for number in range(200):
        span.attributes.add(key=f"k{number}").value.double_value = float("nan")
    spans, rejected = otlp.spans(request.SerializeToString())
    assert rejected == 0
    assert len(spans[0].name) == 200
    assert "\0" not in spans[0].name
    assert len(spans[0].attributes) == 48
    assert spans[0].attributes["k0"] == "nan"


async def test_a_full_queue_drops_and_says_how_many(shared: Plane) -> None:
    intake = SpanBuffer(shared.services["ops"].ctx.database, most=5)
    span = Span("t" * 32, "s" * 16, "", "ingest", "beat", NOW, NOW)
    assert intake.offer([span] * 8) == 5
    assert intake.offer([span]) == 0


async def test_spans_older_than_72_hours_go(alone: Plane) -> None:
    await post(alone, body(3))
    await until_spans(alone, "74" * 16, 3)
    ctx = alone.services["ops"].ctx
    assert await delete_old_spans(ctx, ctx.clock.now() + RETENTION - timedelta(minutes=5)) == 0
    assert await delete_old_spans(ctx, ctx.clock.now() + RETENTION + timedelta(minutes=5)) == 3
    with pytest.raises(NotFound):
        await trace_of(alone, "74" * 16)


@pytest.mark.parametrize("name", ["", "xyz", "incidents/", "plugins/p", "7" * 31])
async def test_a_trace_is_asked_for_by_trace_id_or_incident(shared: Plane, name: str) -> None:
    with pytest.raises(Invalid):
        await trace_of(shared, name)


async def test_an_incident_without_a_trace_is_not_found(shared: Plane) -> None:
    with pytest.raises(NotFound):
        await trace_of(shared, f"incidents/{new_id()}")


async def test_health_and_metrics_are_beside_the_spans(shared: Plane) -> None:
    root = place(shared).removesuffix("/v1/traces")
    async with httpx2.AsyncClient(timeout=10, follow_redirects=True) as client:
        assert (await client.get(f"{root}/healthz")).text == "ok"
        assert "prunella_ops_spans_received" in (await client.get(f"{root}/metrics")).text


async def test_spans_are_passed_on_to_another_collector(backing: BackingServices) -> None:
    got: list[bytes] = []

    async def collector(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] == "/v1/traces"
        got.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    other = HttpServer(collector, "127.0.0.1:0")
    port = await other.start()
    plane = Plane(backing, names=["ops"], environ={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"})
    try:
        await plane.start()
        sent = body(2)
        await post(plane, sent)
        await until(lambda: got, 10)
        assert got == [sent]
    finally:
        await plane.stop()
        await other.stop()


async def test_a_collector_that_is_away_holds_nobody_up(backing: BackingServices) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        plane = Plane(backing, names=["ops"], environ={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
        try:
            await plane.start()
            for _ in range(3):
                assert (await post(plane, body(2))).status_code == 200
            await until_spans(plane, "74" * 16, 2)
        finally:
            await plane.stop()
