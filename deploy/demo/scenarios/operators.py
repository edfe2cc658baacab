"""Operators of the demo, each with a name, and what they decide.

Rule: they do what the command line does: look at what waits, and answer with the hash of the plan they saw.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.demo.operator_client import CALL_SECONDS, OperatorClient
from deploy.demo.scenarios.scenario import Context, Mismatch
from libs.common.errors import Problem
from prunella.v1 import patcher_pb2

AUTHOR, FIRST, SECOND = "anna", "ben", "carla"
ROLE = "approver"


@asynccontextmanager
async def as_operator(ctx: Context, name: str) -> AsyncIterator[OperatorClient]:
    """A client of the plane in the name of this operator."""
    client = OperatorClient(ctx.client.addresses, ctx.client.key, name)
    try:
        yield client
    finally:
        await client.close()


async def approval(client: OperatorClient, subject: str) -> patcher_pb2.Approval:
    """What people are asked about an attempt or a rollout."""
    if subject.startswith("rollouts/"):
        request = patcher_pb2.GetRolloutRequest(name=subject)
        return (await client.patcher.GetRollout(request, timeout=CALL_SECONDS)).rollout.approval
    wanted = patcher_pb2.GetAttemptRequest(name=subject)
    return (await client.patcher.GetAttempt(wanted, timeout=CALL_SECONDS)).attempt.approval


async def approve(ctx: Context, subject: str, name: str) -> None:
    """An operator looks at the plan and approves it. Raises Problem when they may not."""
    async with as_operator(ctx, name) as client:
        seen = await approval(client, subject)
        request = patcher_pb2.ApproveAttemptRequest(
            name=subject, plan_hash=seen.plan_hash, role=ROLE, reason="I looked at it", request_id=str(uuid.uuid4())
        )
        await client.patcher.ApproveAttempt(request, timeout=CALL_SECONDS)


async def check_refused(ctx: Context, subject: str, name: str) -> str:
    """An operator tries to approve and may not; the refusal. Raises Mismatch when they may."""
    try:
        await approve(ctx, subject, name)
    except Problem as problem:
        return f"{name}: {problem.message}"
    raise Mismatch(f"{name} could approve {subject}, and is its author")


async def raise_budget(ctx: Context, budget: int) -> None:
    """Somebody lets more be in flight at once, by the policy's version that they saw."""
    async with as_operator(ctx, AUTHOR) as client:
        policy = (await client.patcher.GetPolicy(patcher_pb2.GetPolicyRequest(), timeout=CALL_SECONDS)).policy
        policy.max_in_flight = budget
        request = patcher_pb2.UpdatePolicyRequest(
            policy=policy, reason="a demo has no patience", request_id=str(uuid.uuid4())
        )
        request.update_mask.paths.append("max_in_flight")
        await client.patcher.UpdatePolicy(request, timeout=CALL_SECONDS)
