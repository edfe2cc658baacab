"""People note who takes care of an incident and what they think of it; over gRPC and over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from deploy.local.testing import BackingServices, Plane, Servers, until
from libs.common import access, rpc
from libs.common.bus import Bus, fact
from libs.common.clock import SystemClock
from libs.common.database import Database
from libs.common.errors import Invalid, NotFound, Problem, Refused
from libs.common.names import new_id
from prunella.v1 import annotations_pb2, ops_pb2
from prunella.v1 import events_pb2 as facts
from prunella.v1.ops_pb2_grpc import OpsServiceStub


@pytest.fixture(scope="module")
async def plane(servers: Servers) -> AsyncIterator[Plane]:
    backing = await BackingServices.make(servers)
    made = Plane(backing, names=["ops"])
    try:
        yield await made.start()
    finally:
        await made.stop()
        await backing.discard()


@pytest.fixture(scope="module")
async def teller(plane: Plane) -> AsyncIterator[Any]:
    clock = SystemClock()
    database = Database(plane.backing.url("ingest"), clock=clock, pool_size=2)
    bus = Bus(plane.backing.nats_url, database, "ingest", clock)
    await bus.start()

    async def opened() -> str:
        incident = new_id()
        told = facts.IncidentOpened(type="error_spike", severity=facts.SEVERITY_HIGH, package="relay")
        event = fact("ingest", told, reason="errors", plugin="p-1", merchant="m-1", incident=incident)

        async def work(tx: Any) -> None:
            tx.record(event)

        await database.transaction(work)

        async def placed() -> bool:
            request = ops_pb2.ListTimelineRequest(incident=incident)
            return bool((await ops(plane).ListTimeline(request, timeout=5)).entries)

        await until(placed)
        return incident

    yield opened
    await bus.stop()
    await database.close()


def ops(plane: Plane, person: str = "") -> Any:
    if not person:
        return OpsServiceStub(plane.channel("ops"))
    kept = plane._channels.setdefault(
        f"ops as {person}", rpc.channel(plane.addresses["ops"], caller="operator", key=plane.key, operator=person)
    )
    return OpsServiceStub(kept)


async def assign(plane: Plane, incident: str, assignee: str, person: str = "ann", **more: str) -> Any:
    request = annotations_pb2.AssignIncidentRequest(
        name=f"incidents/{incident}", assignee=assignee, **{"reason": "on call", "request_id": new_id()} | more
    )
    return (await ops(plane, person).AssignIncident(request, timeout=10)).annotations


async def comment(plane: Plane, incident: str, text: str, person: str = "ann", request_id: str = "") -> Any:
    request = annotations_pb2.CommentOnIncidentRequest(name=f"incidents/{incident}", text=text, request_id=request_id)
    return (await ops(plane, person).CommentOnIncident(request, timeout=10)).annotations


async def test_an_incident_is_given_from_hand_to_hand_and_each_time_told(plane: Plane, teller: Any) -> None:
    incident = await teller()
    first = await assign(plane, incident, "ben")
    assert (first.assignee, first.assigner) == ("operators/ben", "operators/ann")
    again = await assign(plane, incident, "operators/ben", "cid")
    assert again.assigner == "operators/ann", "who has it already is given nothing"
    nobody = await assign(plane, incident, "", "ben", reason="solved")
    assert nobody.assignee == ""
    told = await plane.facts("incident_assigned", incident=incident)
    assert [(one.incident_assigned.before, one.incident_assigned.assignee) for one in told] == [
        ("", "operators/ben"), ("operators/ben", ""),
    ]  # fmt: skip
    assert (told[0].actor, told[0].reason) == ("operators/ann", "on call")
    assert (told[0].plugin, told[0].merchant) == ("p-1", "m-1")


async def test_comments_stay_in_their_order_and_a_repeat_is_the_same_comment(plane: Plane, teller: Any) -> None:
    incident, request = await teller(), new_id()
    await comment(plane, incident, "  first\n", request_id=request)
    await comment(plane, incident, "  first\n", request_id=request)
    found = await comment(plane, incident, "second", "ben")
    assert [(one.author, one.text) for one in found.comments] == [
        ("operators/ann", "first"), ("operators/ben", "second"),
    ]  # fmt: skip
    with pytest.raises(Refused) as reused:
        await comment(plane, incident, "third", request_id=request)
    assert reused.value.reason == "REQUEST_ID_REUSED"
    assert len(await plane.facts("incident_commented", incident=incident)) == 2
    shown = annotations_pb2.GetIncidentAnnotationsRequest(name=f"incidents/{incident}")
    assert (await ops(plane).GetIncidentAnnotations(shown, timeout=5)).annotations == found


async def test_a_repeated_assignment_changes_nothing(plane: Plane, teller: Any) -> None:
    incident, request = await teller(), new_id()
    await assign(plane, incident, "ben", request_id=request)
    await assign(plane, incident, "cid")
    repeated = await assign(plane, incident, "ben", request_id=request)
    assert repeated.assignee == "operators/ben", "a repeat gets the first answer"
    shown = annotations_pb2.GetIncidentAnnotationsRequest(name=f"incidents/{incident}")
    assert (await ops(plane).GetIncidentAnnotations(shown, timeout=5)).annotations.assignee == "operators/cid"
    with pytest.raises(Refused):
        await assign(plane, incident, "dee", request_id=request)


@pytest.mark.parametrize(
    ("values", "kind", "field"),
    [
        ({"assignee": "a person"}, Invalid, "assignee"),
        ({"reason": " "}, Invalid, "reason"),
        ({"request_id": "x" * 200}, Invalid, "request_id"),
        ({"name": "plugins/p"}, Invalid, "name"),
        ({"name": "incidents/unknown"}, NotFound, "name"),
    ],
)
async def test_what_cannot_be_noted_is_refused_by_its_field(
    plane: Plane, teller: Any, values: dict[str, str], kind: type[Problem], field: str
) -> None:
    given = {"name": "incidents/unknown", "assignee": "ben", "reason": "why", "request_id": new_id()} | values
    with pytest.raises(kind) as refused:
        await ops(plane).AssignIncident(annotations_pb2.AssignIncidentRequest(**given), timeout=10)
    assert refused.value.field == field
    for text in ("", " \n", "x" * 4001):
        with pytest.raises(Invalid):
            await comment(plane, "unknown", text)


async def test_curl_can_note_it_too_and_a_sibling_that_is_away_is_named(plane: Plane, teller: Any) -> None:
    incident = await teller()
    url = f"http://{plane.settings('ops')['PRUNELLA_HTTP_LISTEN']}"
    headers = {"authorization": access.service_token(plane.key, "operator"), "prunella-operator": "ann"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=20) as client:
        body = {"name": f"incidents/{incident}", "text": "seen by curl"}
        answer = await client.post("/prunella.v1.OpsService/CommentOnIncident", json=body)
        assert answer.json()["annotations"]["comments"][0]["author"] == "operators/ann", answer.text
        answer = await client.post("/prunella.v1.QueueService/ListTasks", json={})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "QueueService" in answer.json()["message"]
        assert answer.json()["details"][0]["debug"]["reason"] == "UNREACHABLE"
        answer = await client.get("/api/ops/autopatch-attempts")
        assert (answer.status_code, answer.json()["reason"]) == (503, "UNREACHABLE")
        answer = await client.get("/api/ops/plugin-incidents", params={"status": "burning"})
        assert (answer.status_code, answer.json()["field"]) == (400, "status")
        answer = await client.post("/prunella.v1.IngestService/IssueCommand", json={})
        assert answer.status_code == 404, "what services tell each other has no door here"
        for path in ("/healthz", "/metrics/", "/openapi.json"):
            assert (await client.get(path, headers={"authorization": ""})).status_code == 200
