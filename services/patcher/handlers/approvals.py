"""Approvals: an operator's vote on exactly the plan an attempt waits with.

Rule: operators are told apart by their identity, so nobody counts twice. The role is the one they name, and
must be one the policy asks for. The last yes that is needed asks every gate again and starts the
attempt; nothing else does.
"""

# ruff: noqa: N802 - the proto names the methods

from typing import Any, TypeVar

from libs.common import access, names
from libs.common.database import Transaction
from libs.common.errors import Refused, known
from libs.common.names import parse
from libs.common.telemetry import use_traceparent
from prunella.v1 import patcher_pb2, patcher_pb2_grpc
from services.patcher import wire
from services.patcher.approvals import Status, plan_hash
from services.patcher.attempt import FINAL, Attempt, CancelRequested, PlanApproved, PlanRejected, State
from services.patcher.context import ServiceContext
from services.patcher.handlers import rollout_approvals
from services.patcher.handlers.policy import required_reason
from services.patcher.operations import approvals as door
from services.patcher.operations.apply_change import after_gates, evaluate_gates, observe
from services.patcher.operations.ingest_queries import cancel_reason
from services.patcher.store import approvals, attempts
from services.patcher.store import policy as policies

VotedT = TypeVar("VotedT", patcher_pb2.ApproveAttemptResponse, patcher_pb2.RejectAttemptResponse)


class ApprovalHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The approvals' part of PatcherService."""

    ctx: ServiceContext

    async def ApproveAttempt(
        self, request: patcher_pb2.ApproveAttemptRequest, context: Any
    ) -> patcher_pb2.ApproveAttemptResponse:
        """A person agrees. Raises Denied for who has no vote, Stale for another plan, Refused when it is too late."""
        return await self._vote(request, patcher_pb2.ApproveAttemptResponse, access.caller(context), approved=True)

    async def RejectAttempt(
        self, request: patcher_pb2.RejectAttemptRequest, context: Any
    ) -> patcher_pb2.RejectAttemptResponse:
        """A person says no; one is enough. Raises Invalid without a reason, Refused once it is applied."""
        required_reason(request.reason)
        return await self._vote(request, patcher_pb2.RejectAttemptResponse, access.caller(context), approved=False)

    async def _vote(
        self,
        request: patcher_pb2.ApproveAttemptRequest | patcher_pb2.RejectAttemptRequest,
        response: type[VotedT],
        actor: str,
        *,
        approved: bool,
    ) -> VotedT:
        earlier = await self.ctx.requests.earlier(request, response)
        if earlier is not None:
            return earlier
        if request.name.startswith(rollout_approvals.COLLECTION):

            async def on_rollout(tx: Transaction) -> VotedT:
                return response(attempt=await rollout_approvals.vote(tx, self.ctx, request, actor, approved=approved))

            return await self.ctx.requests.once(request, response, on_rollout)
        name = parse("attempts", request.name)
        if approved:
            await self._still_wanted(name)

        async def work(tx: Transaction) -> VotedT:
            attempt = known(await attempts.get(tx, name, lock=True), "attempt", name)
            with use_traceparent(attempt.traceparent):
                after = await self._count(tx, attempt, request, actor, approved)
            approval = await approvals.newest(tx, names.attempt(name))
            return response(attempt=wire.attempt_of(after, approval=approval))

        return await self.ctx.requests.once(request, response, work)

    async def _still_wanted(self, name: str) -> None:
        """Ends an attempt that has nothing to go on for any more, and says so to who would have it begin."""
        async with self.ctx.database.reading() as tx:
            found = await attempts.get(tx, name)
        if found is None or found.state is not State.AWAITING_APPROVAL:
            return
        why = await cancel_reason(self.ctx, found)
        if not why:
            return
        wanted = CancelRequested("patcher", why)
        with use_traceparent(found.traceparent):
            await self.ctx.database.transaction(lambda tx: observe(tx, self.ctx, name, wanted))
        raise Refused(
            f"attempt {name} has nothing to go on for any more: {why}", reason="ATTEMPT_OUTDATED", attempt=name
        )

    async def _count(self, tx: Transaction, attempt: Attempt, request: Any, actor: str, approved: bool) -> Attempt:
        policy = await policies.get(tx)
        approval = await approvals.newest(tx, names.attempt(attempt.id))
        if approval is None:
            raise Refused(
                f"attempt {attempt.id} is {attempt.state} and asks nobody", reason="APPROVAL_NOT_ASKED", field="name"
            )
        vote = wire.vote(request, approval[0].quorum, door.operator_id(actor), approved=approved)
        plan = plan_hash(door.plan_of(attempt, policy))
        change = await door.vote(tx, door.subject_of(attempt), vote, plan)
        if change.approval == approval[0]:
            # The same request again.
            return attempt
        if change.approval.status is Status.REJECTED:
            return await self._rejected(tx, attempt, actor, request.reason)
        if change.approval.status is Status.APPROVED:
            gates = await evaluate_gates(tx, attempt)
            after = await observe(tx, self.ctx, attempt.id, PlanApproved(gates.reply, gates.plan_hash))
            await after_gates(tx, gates, after, None)
            return after or attempt
        return attempt

    async def _rejected(self, tx: Transaction, attempt: Attempt, actor: str, reason: str) -> Attempt:
        if attempt.permitted or attempt.state in FINAL:
            raise Refused(
                f"attempt {attempt.id} is {attempt.state}: it is too late to say no, roll it back instead",
                reason="ATTEMPT_NOT_WAITING",
                attempt=attempt.id,
                state=attempt.state.value,
            )
        after = await observe(tx, self.ctx, attempt.id, PlanRejected(actor, reason))
        assert after is not None
        assert after.state is State.REFUSED
        return after
