"""A request id stands for a caller, a method and a content, at every door that changes something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass

from deploy.local.testing import BackingServices, ManualClock, Plane, Servers
from libs.common import rpc
from libs.common.database import Database
from libs.common.errors import Invalid, NotFound, Problem, Refused
from libs.common.idempotency import Requests
from libs.common.names import id_of, new_id
from prunella.v1 import (
    agent_pb2,
    ingest_pb2,
    ingest_pb2_grpc,
    notification_pb2,
    ops_pb2,
    ops_pb2_grpc,
    patcher_pb2,
    patcher_pb2_grpc,
    queue_pb2,
    queue_pb2_grpc,
)
from prunella.v1.events_pb2 import ACTION_RESTART
from tests.service.ingest_alone import Alone

# Their own rules: a nonce, and counters.
OWN_RULES = {"AuthorizeApply", "ReportErrors"}
STUBS: dict[str, Any] = {
    "ingest": ingest_pb2_grpc.IngestServiceStub,
    "patcher": patcher_pb2_grpc.PatcherServiceStub,
    "queue": queue_pb2_grpc.QueueServiceStub,
    "ops": ops_pb2_grpc.OpsServiceStub,
}
FILES = {"ingest": ingest_pb2, "patcher": patcher_pb2, "queue": queue_pb2, "ops": ops_pb2}
METHODS = {
    method.name: (service, method)
    for service, file in FILES.items()
    for described in file.DESCRIPTOR.services_by_name.values()
    for method in described.methods
    if "request_id" in method.input_type.fields_by_name and method.name not in OWN_RULES
}
# Whom the access table lets call what people may not.
CALLER = {"IssueCommand": "patcher", "WithdrawCommand": "patcher"}
COLLECTIONS = {
    "RetirePlugin": "plugins", "ReleaseFromQuarantine": "plugins", "CloseIncident": "incidents",
    "EscalateIncident": "incidents", "EndStorm": "storms", "WithdrawCommand": "commands", "CancelAttempt": "attempts",
    "RollBackAttempt": "attempts", "ApproveAttempt": "attempts", "RejectAttempt": "attempts",
    "PauseRollout": "rollouts", "ResumeRollout": "rollouts", "AbortRollout": "rollouts", "PromoteRollout": "rollouts",
    "CloseErrorReport": "errorReports", "SplitErrorReport": "errorReports", "RetryTask": "tasks", "CancelTask": "tasks",
    "ApproveStrategy": "strategies", "RevokeStrategy": "strategies", "ApproveProposal": "proposals",
    "RejectProposal": "proposals", "AssignIncident": "incidents", "CommentOnIncident": "incidents",
    "AcknowledgeNotification": "notifications",
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "CreateEnrollmentToken": {"merchant": "acme", "package": "relay"},
    "IssueCommand": {"plugin": new_id(), "kind": agent_pb2.COMMAND_KIND_RESTART, "attempt": "a"},
    "UpdatePolicy": {
        "policy": patcher_pb2.Policy(min_confidence=0.8), "update_mask": FieldMask(paths=["min_confidence"]),
    },
    "EngageKillSwitch": {"scope": "global"},
    "ReleaseKillSwitch": {"scope": "global", "epoch": 1},
    "PublishRelease": {"envelope": b"{}", "artifact": b"x"},
    "PublishConfiguration": {"envelope": b"{}", "document": b"{}"},
    "CreateAttempt": {"plugin": new_id(), "action": ACTION_RESTART},
    "ApproveAttempt": {"plan_hash": "a" * 64},
    "RejectAttempt": {"plan_hash": "a" * 64},
    "CreateRollout": {"package": "relay", "target": "1.2.3"},
    "RollBackRecent": {"since_time": {"seconds": 1_800_000_000}},
    "MergeErrorReports": {"names": [f"errorReports/{new_id()}"], "into": f"errorReports/{new_id()}"},
    "ResetStuckTasks": {"stuck_duration": {"seconds": 3600}},
    "CleanUpTasks": {"days": 90},
    "CreateProposal": {"action": "retry_task", "target": f"tasks/{new_id()}"},
    "AssignIncident": {"assignee": "ann"},
    "CommentOnIncident": {"text": "hello"},
    "UpdateNotificationSettings": {"settings": notification_pb2.NotificationSettings()},
    "TestChannel": {"channel": "pager"},
    "RedriveDeadLetter": {"consumer": "ops", "event_id": new_id()},
}  # fmt: skip


@pytest.fixture(scope="module")
async def plane(servers: Servers) -> AsyncIterator[Plane]:
    backing = await BackingServices.make(servers)
    made = Plane(backing)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
        await backing.discard()


def request_of(method: str, request_id: str, **values: Any) -> Any:
    _, described = METHODS[method]
    fields = dict(MORE.get(method, {}))
    if method in COLLECTIONS:
        fields["name"] = f"{COLLECTIONS[method]}/{new_id()}"
    if "reason" in described.input_type.fields_by_name:
        fields["reason"] = "a test"
    return GetMessageClass(described.input_type)(**(fields | {"request_id": request_id} | values))


async def call(plane: Plane, method: str, request: Any, caller: str = "") -> Any:
    service, _ = METHODS[method]
    who = caller or CALLER.get(method, "operator")
    return await getattr(STUBS[service](plane.channel(service, who)), method)(request, timeout=10)


async def used(plane: Plane, method: str, request_id: str) -> None:
    """Another method of the same service has this id, from the same caller."""
    service, _ = METHODS[method]
    await plane.sql(
        f"INSERT INTO {service}.requests (caller, request_id, method, digest, create_time) "  # noqa: S608 - a schema
        f"VALUES ('{CALLER.get(method, 'operators/local')}', '{request_id}', 'Other', 'x', now()) RETURNING caller"
    )


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_an_id_that_another_method_used_is_refused_and_nothing_is_done(plane: Plane, method: str) -> None:
    request_id = new_id()
    await used(plane, method, request_id)
    with pytest.raises(Refused) as refused:
        await call(plane, method, request_of(method, request_id))
    assert (refused.value.reason, refused.value.field) == ("REQUEST_ID_REUSED", "request_id"), refused.value
    assert f"this is {method}" in refused.value.message


async def engage(plane: Plane, request_id: str, scope: str, *, reason: str = "a test", operator: str = "") -> Any:
    request = patcher_pb2.EngageKillSwitchRequest(scope=scope, reason=reason, request_id=request_id)
    if not operator:
        return (await call(plane, "EngageKillSwitch", request)).kill_switch
    channel = rpc.channel(plane.addresses["patcher"], caller="operator", key=plane.key, operator=operator)
    try:
        return (await STUBS["patcher"](channel).EngageKillSwitch(request, timeout=10)).kill_switch
    finally:
        await channel.close()


async def told(plane: Plane, scope: str) -> int:
    found = await plane.facts("kill_switch_engaged")
    return sum(event.kill_switch_engaged.scope == scope for event in found)


async def test_a_repeat_gets_the_first_answer_and_changes_nothing(plane: Plane) -> None:
    scope, request = "merchants/m-1", new_id()
    first = await engage(plane, request, scope)
    await engage(plane, new_id(), scope)
    assert await engage(plane, request, scope) == first
    assert await told(plane, scope) == 2


async def test_other_content_under_a_used_id_is_refused(plane: Plane) -> None:
    request = new_id()
    await engage(plane, request, "merchants/m-2")
    for values in ({"scope": "merchants/m-3"}, {"scope": "merchants/m-2", "reason": "another"}):
        with pytest.raises(Refused) as refused:
            await engage(plane, request, **values)
        assert refused.value.reason == "REQUEST_ID_REUSED"
        assert "its content was another" in refused.value.message
    assert await told(plane, "merchants/m-3") == 0


async def test_two_callers_who_chose_the_same_id_are_two(plane: Plane) -> None:
    scope, request = "merchants/m-4", "k-1"
    mine, theirs = await engage(plane, request, scope), await engage(plane, request, scope, operator="bob")
    assert (mine.epoch, theirs.epoch) == (1, 2)
    assert theirs.actor == "operators/bob"


async def test_a_late_repeat_of_a_release_ends_no_later_stop(plane: Plane) -> None:
    scope, late = "merchants/m-5", new_id()
    first = await engage(plane, new_id(), scope)
    release = patcher_pb2.ReleaseKillSwitchRequest(scope=scope, reason="over", request_id=late, epoch=first.epoch)
    freed = (await call(plane, "ReleaseKillSwitch", release)).kill_switch
    again = await engage(plane, new_id(), scope, operator="bob")
    assert (await call(plane, "ReleaseKillSwitch", release)).kill_switch == freed, "the answer it had"
    listed = await STUBS["patcher"](plane.channel("patcher")).ListKillSwitches(patcher_pb2.ListKillSwitchesRequest())
    (stands,) = [one for one in listed.kill_switches if one.scope == scope]
    assert (stands.engaged, stands.epoch) == (True, again.epoch)
    release.request_id = new_id()
    with pytest.raises(Problem) as refused:
        await call(plane, "ReleaseKillSwitch", release)
    assert refused.value.reason == "KILL_SWITCH_ENGAGED_AGAIN"


async def test_a_release_id_used_to_engage_engages_or_is_refused_but_never_says_ok_for_nothing(plane: Plane) -> None:
    scope, request = "merchants/m-6", new_id()
    first = await engage(plane, new_id(), scope)
    release = patcher_pb2.ReleaseKillSwitchRequest(scope=scope, reason="over", request_id=request, epoch=first.epoch)
    await call(plane, "ReleaseKillSwitch", release)
    with pytest.raises(Refused) as refused:
        await engage(plane, request, scope)
    assert "used for ReleaseKillSwitch before, and this is EngageKillSwitch" in refused.value.message


async def test_a_refusal_is_not_kept(plane: Plane) -> None:
    request = request_of("RetirePlugin", new_id())
    with pytest.raises(NotFound):
        await call(plane, "RetirePlugin", request)
    request.name = f"plugins/{new_id()}"
    with pytest.raises(NotFound):
        await call(plane, "RetirePlugin", request)


async def test_what_was_answered_is_answered_again_although_what_it_was_about_is_gone(servers: Servers) -> None:
    async with Alone.on(servers) as alone:
        agent = await alone.agent()
        await agent.beats(1, webhook_attempts=20, webhook_failures=20)
        (incident,) = await alone.incidents(agent)
        close = ingest_pb2.CloseIncidentRequest(name=incident.name, reason="we looked", request_id=new_id())
        first = await alone.ask().CloseIncident(close)
        assert first.incident.state == "closed"
        gone = f"DELETE FROM ingest.incidents WHERE id = '{id_of(incident.name)}' RETURNING id"  # noqa: S608 - an id
        assert len(await alone.plane.sql(gone)) == 1
        assert await alone.ask().CloseIncident(close) == first
        close.request_id = new_id()
        with pytest.raises(NotFound):
            await alone.ask().CloseIncident(close)


async def test_two_at_once_act_once(plane: Plane) -> None:
    scope, request = "merchants/m-7", new_id()
    answers = await asyncio.gather(*(engage(plane, request, scope) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert await told(plane, scope) == 1


@pytest.mark.parametrize("request_id", ["x" * 129, "a\nb"])
async def test_an_id_that_cannot_be_kept_is_refused(plane: Plane, request_id: str) -> None:
    with pytest.raises(Invalid) as refused:
        await engage(plane, request_id, "merchants/m-8")
    assert (refused.value.reason, refused.value.field) == ("BAD_REQUEST_ID", "request_id")
    assert await told(plane, "merchants/m-8") == 0


async def test_ids_are_forgotten_after_their_time_and_not_before(backing: BackingServices) -> None:
    clock = ManualClock()
    database = Database(backing.url("patcher"), clock=clock)
    requests, acted = Requests(database, "patcher", "5e" * 32, 86_400.0), list[int]()
    request = patcher_pb2.EngageKillSwitchRequest(scope="global", reason="a test", request_id="k-1")

    async def work(_tx: object) -> patcher_pb2.EngageKillSwitchResponse:
        acted.append(1)
        return patcher_pb2.EngageKillSwitchResponse()

    try:
        for seconds, times in ((0.0, 1), (86_399.0, 1), (2.0, 2)):
            clock.advance(seconds)
            await requests.prune(clock.now())
            await requests.once(request, patcher_pb2.EngageKillSwitchResponse, work)
            assert len(acted) == times
        (row,) = await rows(database)
        assert "a test" not in row.digest and len(row.digest) == 64
    finally:
        await database.close()


async def rows(database: Database) -> list[Any]:
    async with database.reading() as tx:
        return list(await tx.all("SELECT * FROM patcher.requests"))


async def test_the_same_request_under_another_key_has_another_digest() -> None:
    request = patcher_pb2.EngageKillSwitchRequest(scope="global", reason="a test", request_id="k-1")
    one, other = (Requests(None, "patcher", key * 32, 60.0) for key in ("5e", "5f"))  # type: ignore[arg-type]
    assert one._digest(request) != other._digest(request)
    assert one._digest(request) == one._digest(request)
