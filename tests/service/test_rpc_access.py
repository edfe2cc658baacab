"""Who may call what, on the wire; and in which trace it is remembered."""

from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from libs.common.errors import (
    Denied,
    Refused,
    Unauthenticated,
)
from libs.common.telemetry import Telemetry, current_trace_id, trace_id
from prunella.v1 import agent_pb2, agent_pb2_grpc, ingest_pb2, ingest_pb2_grpc
from tests.service.rpc_plane import OTHER_KEY, Plane, raises, running


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running() as started:
        yield started


async def test_only_patcher_issues_commands(plane: Plane) -> None:
    request = ingest_pb2.IssueCommandRequest()
    await plane.ask("patcher").IssueCommand(request)
    assert plane.ingest.callers == ["patcher"]
    for other in ("ingest", "decider", "queue", "ops", "operator"):
        with pytest.raises(Denied) as caught:
            await plane.ask(other).IssueCommand(request)
        assert caught.value.reason == "CALLER_NOT_ALLOWED"
    assert plane.ingest.callers == ["patcher"]


async def test_a_caller_without_or_with_a_wrong_credential_is_turned_away(plane: Plane) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await plane.ask("patcher", OTHER_KEY).GetPlugin(ingest_pb2.GetPluginRequest())
    assert caught.value.reason == "CREDENTIAL_INVALID"
    stub = ingest_pb2_grpc.IngestServiceStub(plane.bare())
    with pytest.raises(grpc.aio.AioRpcError) as bare:
        await stub.GetPlugin(ingest_pb2.GetPluginRequest(), timeout=5)
    assert bare.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert plane.ingest.callers == []


async def test_a_person_is_known_by_name(plane: Plane) -> None:
    request = ingest_pb2.CloseIncidentRequest()
    await plane.ask("operator").CloseIncident(request)
    await plane.ask("operator", operator="ada").CloseIncident(request)
    await plane.ask("ops", operator="grace").CloseIncident(request)
    assert plane.ingest.callers == ["operators/local", "operators/ada", "operators/grace"]


async def test_an_agents_stream_runs_under_its_credential_and_tells_problems(plane: Plane) -> None:
    stub = agent_pb2_grpc.AgentGatewayStub(plane.bare())
    call = stub.Connect(metadata=(("authorization", "Plugin p1:secret"),))
    await call.write(agent_pb2.ConnectRequest(beat=agent_pb2.Beat(sequence=7)))
    answer = await call.read()
    assert (answer.ack.boot_id, answer.ack.sequence) == ("p1", 7)
    await call.write(agent_pb2.ConnectRequest(beat=agent_pb2.Beat(sequence=-1)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_agent_without_a_credential_gets_no_stream(plane: Plane) -> None:
    call = agent_pb2_grpc.AgentGatewayStub(plane.bare()).Connect()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_agent_may_not_ask_services(plane: Plane) -> None:
    stub = ingest_pb2_grpc.IngestServiceStub(plane.bare())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetPlugin(
            ingest_pb2.GetPluginRequest(), timeout=5, metadata=(("authorization", "Plugin p1:secret"),)
        )
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_one_trace_goes_through_a_call(plane: Plane) -> None:
    mine = InMemorySpanExporter()
    patcher = Telemetry("patcher", exporter=mine)
    stub = plane.ask("patcher", telemetry=patcher)
    with patcher.use(), patcher.span("attempt"):
        here = current_trace_id()
        await stub.IssueCommand(ingest_pb2.IssueCommandRequest())
        await stub.GetPlugin(ingest_pb2.GetPluginRequest())
    assert plane.ingest.traces == [here, here]
    assert plane.ingest.services == ["ingest", "ingest"]
    patcher.close()
    plane.telemetry.close()
    served = {span.name: span for span in plane.spans.get_finished_spans()}
    called = {span.name: span for span in mine.get_finished_spans()}
    name = "prunella.v1.IngestService/IssueCommand"
    assert served[name].parent.span_id == called[name].context.span_id
    assert served[name].resource.attributes["service.name"] == "ingest"


async def test_reads_outside_a_trace_leave_no_span_but_changes_do(plane: Plane) -> None:
    await plane.ask().GetPlugin(ingest_pb2.GetPluginRequest())
    plane.ingest.answer = raises(Refused("closed already", reason="INCIDENT_CLOSED"))
    with pytest.raises(Refused):
        await plane.ask().CloseIncident(ingest_pb2.CloseIncidentRequest())
    assert plane.ingest.traces[0] == ""
    plane.telemetry.close()
    (span,) = plane.spans.get_finished_spans()
    assert span.name == "prunella.v1.IngestService/CloseIncident"
    assert span.attributes["error.type"] == "INCIDENT_CLOSED"
    assert span.attributes["caller"] == "operators/local"
    assert trace_id(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01") == plane.ingest.traces[1]
