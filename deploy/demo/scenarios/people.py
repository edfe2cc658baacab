"""People of the demo, each with a name of their own, and what they say.

Rule: they do what the command line does: look at what waits, and answer with the hash of the plan they saw.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.demo.reach import CALL_SECONDS, Reach
from deploy.demo.scenarios.scene import Mismatch, Scene
from libs.common.errors import Problem
from prunella.v1 import patcher_pb2

AUTHOR, FIRST, SECOND = "anna", "ben", "carla"
ROLE = "approver"


@asynccontextmanager
async def person(scene: Scene, name: str) -> AsyncIterator[Reach]:
    """The plane, as this person reaches it."""
    reach = Reach(scene.reach.addresses, scene.reach.key, name)
    try:
        yield reach
    finally:
        await reach.close()


async def approval(reach: Reach, subject: str) -> patcher_pb2.Approval:
    """What people are asked about an attempt or a rollout."""
    if subject.startswith("rollouts/"):
        request = patcher_pb2.GetRolloutRequest(name=subject)
        return (await reach.patcher.GetRollout(request, timeout=CALL_SECONDS)).rollout.approval
    wanted = patcher_pb2.GetAttemptRequest(name=subject)
    return (await reach.patcher.GetAttempt(wanted, timeout=CALL_SECONDS)).attempt.approval


async def agree(scene: Scene, subject: str, name: str) -> None:
    """A person looks at the plan and agrees to it. Raises Problem when they may not."""
    async with person(scene, name) as reach:
        seen = await approval(reach, subject)
        request = patcher_pb2.ApproveAttemptRequest(
            name=subject, plan_hash=seen.plan_hash, role=ROLE, reason="I looked at it", request_id=str(uuid.uuid4())
        )
        await reach.patcher.ApproveAttempt(request, timeout=CALL_SECONDS)


async def refused(scene: Scene, subject: str, name: str) -> str:
    """A person tries to agree and may not; why. Raises Mismatch when they may."""
    try:
        await agree(scene, subject, name)
    except Problem as problem:
        return f"{name}: {problem.message}"
    raise Mismatch(f"{name} could approve {subject}, and is its author")


async def widen(scene: Scene, budget: int) -> None:
    """Somebody lets more be in flight at once, by the policy's version that they saw."""
    async with person(scene, AUTHOR) as reach:
        policy = (await reach.patcher.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=CALL_SECONDS)).policy
        policy.max_in_flight = budget
        request = patcher_pb2.UpdatePolicyRequest(
            policy=policy, reason="a demo has no patience", request_id=str(uuid.uuid4())
        )
        request.update_mask.paths.append("max_in_flight")
        await reach.patcher.UpdatePolicy(request, timeout=CALL_SECONDS)
