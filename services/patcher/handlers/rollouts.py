"""Rollouts: what people bring to many plugins, and how they steer it.

Rule: every request is decided by the heart under the rollout's lock and says why; a repeated request changes nothing.
"""

# ruff: noqa: N802 - the proto names the methods

from typing import Any, TypeVar

from libs.common import access, names, paging
from libs.common.database import Transaction
from libs.common.errors import Invalid, known
from libs.common.names import is_id, parse
from prunella.v1 import patcher_pb2, patcher_pb2_grpc
from services.patcher.context import ServiceContext
from services.patcher.handlers.policy import required_reason
from services.patcher.operations.apply_rollout_change import observe
from services.patcher.operations.plan_rollout import check_overlap, create, prepare
from services.patcher.rollout import (
    AbortRequested,
    MemberState,
    PauseRequested,
    PromoteRequested,
    ResumeRequested,
    Scope,
    State,
)
from services.patcher.rollout.model import OperatorRequest
from services.patcher.store import approvals, members, rollouts
from services.patcher.store.rollouts import StoredRollout
from services.patcher.wire.rollouts import member_of, rollout_of

ChangedT = TypeVar(
    "ChangedT",
    patcher_pb2.PauseRolloutResponse,
    patcher_pb2.ResumeRolloutResponse,
    patcher_pb2.PromoteRolloutResponse,
    patcher_pb2.AbortRolloutResponse,
)


class RolloutHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The rollouts' part of PatcherService."""

    ctx: ServiceContext

    async def CreateRollout(
        self, request: patcher_pb2.CreateRolloutRequest, context: Any
    ) -> patcher_pb2.CreateRolloutResponse:
        """Draws the members and begins, or asks people first. Raises Invalid, NotFound or Conflict."""
        author = access.caller(context)
        required_reason(request.reason)
        for field in ("package", "target"):
            if not is_id(getattr(request, field)):
                raise Invalid(f"{field} must be given", reason="FIELD_MISSING", field=field)
        if not request.validate_only:
            earlier = await self.ctx.requests.earlier(request, patcher_pb2.CreateRolloutResponse)
            if earlier is not None:
                return earlier
        planned = await prepare(self.ctx, request, author)
        if request.validate_only:
            async with self.ctx.database.reading() as tx:
                await check_overlap(tx, planned)
            shown = rollout_of(planned.stored)
            shown.name = ""
            return patcher_pb2.CreateRolloutResponse(rollout=shown)

        async def work(tx: Transaction) -> patcher_pb2.CreateRolloutResponse:
            stored = await create(tx, self.ctx, planned)
            return patcher_pb2.CreateRolloutResponse(rollout=await _shown(tx, stored))

        return await self.ctx.requests.once(request, patcher_pb2.CreateRolloutResponse, work)

    async def GetRollout(self, request: patcher_pb2.GetRolloutRequest, _context: Any) -> patcher_pb2.GetRolloutResponse:
        """One rollout with its history, and those of its members that are asked for. Raises NotFound."""
        rollout = parse("rollouts", request.name)
        states = _states(list(request.member_states))
        query = {"list": "rollout members", "rollout": rollout, "states": sorted(states or [])}
        page = paging.page(request, query, int, int)
        async with self.ctx.database.reading() as tx:
            stored = known(await rollouts.get(tx, rollout), "rollout", rollout)
            rows = [] if states is None else await members.page(tx, rollout, states, page.after, page.limit)
            shown = await _shown(tx, stored)
        found, next_token = page.cut(rows, lambda row: (row.member.wave, row.start_order))
        return patcher_pb2.GetRolloutResponse(
            rollout=shown, members=[member_of(row) for row in found], next_page_token=next_token
        )

    async def ListRollouts(
        self, request: patcher_pb2.ListRolloutsRequest, _context: Any
    ) -> patcher_pb2.ListRolloutsResponse:
        """Rollouts, newest first. Raises Invalid for bad paging or an unknown state."""
        if request.state and request.state not in set(State):
            raise Invalid(f"state must be one of {', '.join(State)}", reason="STATE_UNKNOWN", field="state")
        filters = {"package": request.package, "state": request.state}
        page = paging.page(request, {"list": "rollouts", **filters}, str)
        async with self.ctx.database.reading() as tx:
            rows = await rollouts.page(tx, **filters, after=page.after, limit=page.limit)
            found, next_token = page.cut(rows, lambda row: (row.rollout.id,))
            approval = await approvals.newest_of(tx, [names.rollout(stored.rollout.id) for stored in found])
        shown = [rollout_of(stored, approval=approval.get(names.rollout(stored.rollout.id))) for stored in found]
        return patcher_pb2.ListRolloutsResponse(rollouts=shown, next_page_token=next_token)

    async def PauseRollout(
        self, request: patcher_pb2.PauseRolloutRequest, context: Any
    ) -> patcher_pb2.PauseRolloutResponse:
        """Starts nothing new. Raises Refused when nothing is under way."""
        wanted = PauseRequested(access.caller(context), required_reason(request.reason))
        return await self._apply_to_rollout(request, patcher_pb2.PauseRolloutResponse, wanted)

    async def ResumeRollout(
        self, request: patcher_pb2.ResumeRolloutRequest, context: Any
    ) -> patcher_pb2.ResumeRolloutResponse:
        """Goes on. Raises Refused for one that is not paused."""
        wanted = ResumeRequested(access.caller(context), required_reason(request.reason))
        return await self._apply_to_rollout(request, patcher_pb2.ResumeRolloutResponse, wanted)

    async def PromoteRollout(
        self, request: patcher_pb2.PromoteRolloutRequest, context: Any
    ) -> patcher_pb2.PromoteRolloutResponse:
        """A person vouches for the wave. Raises Refused while plugins are in flight."""
        wanted = PromoteRequested(access.caller(context), required_reason(request.reason))
        return await self._apply_to_rollout(request, patcher_pb2.PromoteRolloutResponse, wanted)

    async def AbortRollout(
        self, request: patcher_pb2.AbortRolloutRequest, context: Any
    ) -> patcher_pb2.AbortRolloutResponse:
        """Ends it. Raises Invalid for an unknown extent, Refused for one that succeeded."""
        if request.rollback_scope and request.rollback_scope not in set(Scope):
            raise Invalid(
                f"rollback_scope must be one of {', '.join(Scope)}, or empty for wave",
                reason="ROLLBACK_SCOPE_UNKNOWN",
                field="rollback_scope",
            )
        wanted = AbortRequested(
            access.caller(context), required_reason(request.reason), Scope(request.rollback_scope or Scope.WAVE)
        )
        return await self._apply_to_rollout(request, patcher_pb2.AbortRolloutResponse, wanted)

    async def _apply_to_rollout(self, request: Any, response: type[ChangedT], wanted: OperatorRequest) -> ChangedT:
        rollout = parse("rollouts", request.name)

        async def work(tx: Transaction) -> ChangedT:
            stored = known(await rollouts.get(tx, rollout, lock=True), "rollout", rollout)
            after = await observe(tx, self.ctx, stored, wanted)
            return response(rollout=await _shown(tx, after))

        return await self.ctx.requests.once(request, response, work)


async def _shown(tx: Transaction, stored: StoredRollout) -> patcher_pb2.Rollout:
    history = await rollouts.history(tx, stored.rollout.id)
    approval = await approvals.newest(tx, names.rollout(stored.rollout.id))
    return rollout_of(stored, history, approval)


def _states(approval: list[str]) -> list[str] | None:
    """Which members are listed: None for none, empty for all. Raises Invalid."""
    unknown = [name for name in approval if name != "all" and name not in set(MemberState)]
    if unknown:
        raise Invalid(
            f"member_states must be all, or some of {', '.join(MemberState)}; {unknown[0][:40]!r} is none of them",
            reason="STATE_UNKNOWN",
            field="member_states",
        )
    if not approval:
        return None
    return [] if "all" in approval else approval
