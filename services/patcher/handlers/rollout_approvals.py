"""An operator's vote on a rollout that waits for approval, through the same methods as for an attempt.

Rule: the plan names every plugin the rollout reaches and never changes; who made the rollout or published its release
has no vote. The last yes that is needed lets it begin, one no ends it.
"""

from libs.common import names
from libs.common.database import Transaction
from libs.common.errors import Refused, known
from libs.common.names import parse
from libs.common.telemetry import use_traceparent
from prunella.v1 import patcher_pb2
from services.patcher import rollout as heart
from services.patcher import wire
from services.patcher.approvals import Status, Subject, plan_hash
from services.patcher.context import ServiceContext
from services.patcher.operations import approvals as door
from services.patcher.operations.apply_rollout_change import observe
from services.patcher.operations.plan_rollout import current_plan
from services.patcher.rollout import Approved
from services.patcher.store import approvals, rollouts
from services.patcher.store import policy as policies
from services.patcher.store.rollouts import StoredRollout

COLLECTION = "rollouts/"
Request = patcher_pb2.ApproveAttemptRequest | patcher_pb2.RejectAttemptRequest


async def vote(
    tx: Transaction, ctx: ServiceContext, request: Request, actor: str, *, approved: bool
) -> patcher_pb2.Attempt:
    """Hears a person on a rollout; answers with its plan and approval. Raises as for an attempt."""
    rollout = parse("rollouts", request.name)
    stored = known(await rollouts.get(tx, rollout, lock=True), "rollout", rollout)
    with use_traceparent(stored.traceparent):
        stored = await _count(tx, ctx, stored, request, actor, approved)
    return await _shown(tx, stored)


async def _count(
    tx: Transaction, ctx: ServiceContext, stored: StoredRollout, request: Request, actor: str, approved: bool
) -> StoredRollout:
    subject = Subject(request.name)
    approval = await approvals.newest(tx, request.name)
    if approval is None:
        raise Refused(
            f"{request.name} is {stored.rollout.state} and asks nobody", reason="APPROVAL_NOT_ASKED", field="name"
        )
    cast = wire.vote(request, approval[0].quorum, door.operator_id(actor), approved=approved)
    policy = await policies.get(tx)
    change = await door.vote(tx, subject, cast, plan_hash(current_plan(approval[1], policy)))
    if change.approval == approval[0]:
        # The same request again.
        return stored
    if stored.rollout.state is not heart.State.PENDING:
        raise Refused(
            f"{request.name} is {stored.rollout.state}: it is too late to say no, pause or abort it instead",
            reason="ROLLOUT_NOT_WAITING",
            field="name",
            state=stored.rollout.state.value,
        )
    if change.approval.status is Status.APPROVED:
        await door.mark_used(tx, subject)
        return await observe(tx, ctx, stored, Approved())
    if change.approval.status is Status.REJECTED:
        return await observe(tx, ctx, stored, heart.Rejected(actor, f"rejected: {request.reason}"))
    return stored


async def _shown(tx: Transaction, stored: StoredRollout) -> patcher_pb2.Attempt:
    name = names.rollout(stored.rollout.id)
    shown = patcher_pb2.Attempt(
        name=name,
        rollout=name,
        package=stored.rollout.package,
        state=stored.rollout.state.value,
        reason=stored.rollout.reason,
    )
    if stored.config:
        shown.configuration = stored.rollout.target
    else:
        shown.to_release = stored.rollout.target
    if approval := await approvals.newest(tx, name):
        shown.approval.CopyFrom(wire.approval(*approval))
    return shown
