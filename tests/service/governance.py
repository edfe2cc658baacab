"""What the tests of policy, approvals and kill switches ask of the patcher."""

from __future__ import annotations

from typing import Any

from deploy.local.testing import until
from libs.common import rpc
from libs.common.names import new_id
from prunella.v1 import events_pb2, patcher_pb2, patcher_pb2_grpc
from tests.service.patcher_alone import PatcherAlone


async def set_policy(alone: PatcherAlone, **values: Any) -> patcher_pb2.Policy:
    """Changes fields of the policy."""
    policy = patcher_pb2.Policy(**values)
    request = patcher_pb2.UpdatePolicyRequest(policy=policy, request_id=new_id(), reason="a test")
    request.update_mask.paths.extend(values)
    return (await alone.stub.UpdatePolicy(request, timeout=5)).policy


async def of(alone: PatcherAlone, plugin: str, *states: str, held_by: str = "", timeout: float = 15) -> Any:
    """Waits until the newest attempt of a plugin stands in one of these states, held by this gate."""
    seen: list[str] = []

    async def look() -> patcher_pb2.Attempt | None:
        page = await alone.stub.ListAttempts(patcher_pb2.ListAttemptsRequest(page_size=1, plugin=plugin), timeout=5)
        found = page.attempts[0] if page.attempts else None
        seen[:] = [f"{found.state} {found.held_by} {found.reason}"] if found else ["none"]
        return found if found and found.state in states and found.held_by == held_by else None

    try:
        found = await until(look, timeout, what=f"an attempt of {plugin} is {states}")
    except AssertionError as error:
        raise AssertionError(f"{error}: it is {seen}") from None
    return await whole(alone, found.name)


async def whole(alone: PatcherAlone, name: str) -> patcher_pb2.Attempt:
    """An attempt with history and approval."""
    return (await alone.stub.GetAttempt(patcher_pb2.GetAttemptRequest(name=name), timeout=5)).attempt


def person(alone: PatcherAlone, name: str) -> patcher_pb2_grpc.PatcherServiceAsyncStub:
    """The patcher as a person calls it."""
    kept = f"patcher as {name}"
    channels = alone.plane._channels
    if kept not in channels:
        address = alone.plane.addresses["patcher"]
        channels[kept] = rpc.channel(address, caller="operator", key=alone.plane.key, operator=name)
    return patcher_pb2_grpc.PatcherServiceStub(channels[kept])


async def approve(alone: PatcherAlone, who: str, attempt: Any, **changes: Any) -> patcher_pb2.Attempt:
    """A person approves the plan they see."""
    request = patcher_pb2.ApproveAttemptRequest(
        name=attempt.name, plan_hash=attempt.approval.plan_hash, reason="looks good", request_id=new_id()
    )
    for name, value in changes.items():
        setattr(request, name, value)
    return (await person(alone, who).ApproveAttempt(request, timeout=5)).attempt


async def reject(alone: PatcherAlone, who: str, attempt: Any, reason: str = "not today") -> patcher_pb2.Attempt:
    """A person says no to the plan they see."""
    request = patcher_pb2.RejectAttemptRequest(
        name=attempt.name, plan_hash=attempt.approval.plan_hash, reason=reason, request_id=new_id()
    )
    return (await person(alone, who).RejectAttempt(request, timeout=5)).attempt


async def storm(alone: PatcherAlone, *, ended: bool = False) -> events_pb2.Event:
    """Ingest tells that a storm began, or ended."""
    names: dict[str, Any] = {"storm": "s1", "package": "checkout", "type": "webhook_fail_rate"}
    told = events_pb2.StormEnded(**names) if ended else events_pb2.StormStarted(**names, plugins=9, fleet=20)
    return await alone.tell(told, source="ingest", plugin="")
