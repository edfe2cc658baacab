"""Strategies and proposals: looked at by anybody, decided on by people."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import grpc

from libs.common import access, paging
from libs.common.database import Transaction
from libs.common.errors import Invalid, known
from libs.common.names import new_id, parse
from prunella.v1 import queue_pb2 as pb
from services.queue import proposals as heart
from services.queue.context import ServiceContext
from services.queue.operations.commands import approve_strategy, cancel_task, close_report, retry_task
from services.queue.proposals import Proposal
from services.queue.store import proposals as store
from services.queue.store import reports, strategies, tasks
from services.queue.strategies import STATES, confidence
from services.queue.wire import facts
from services.queue.wire import proposals as wire
from services.queue.wire import strategies as strategy_wire
from services.queue.wire import tasks as task_wire

Context = grpc.aio.ServicerContext[Any, Any]

PROPOSAL_STATES = ("", "open", "approved", "rejected", "expired")


class StrategyHandlers:
    """The part of `QueueService` about strategies and proposals."""

    ctx: ServiceContext

    async def GetStrategy(self, request: pb.GetStrategyRequest, _context: Context) -> pb.GetStrategyResponse:
        """One strategy with its changes. Raises Invalid for a bad name, NotFound for an unknown one."""
        name = parse("strategies", request.name)
        strategy = known(self.ctx.catalogue.strategy_set.named(name), "strategy", name)
        async with self.ctx.database.reading() as tx:
            stored = await strategies.all_statuses(tx)
            changes = await strategies.history(tx, name)
        return pb.GetStrategyResponse(
            strategy=strategy_wire.resource(strategy, stored.get(name)),
            history=[strategy_wire.change(change) for change in changes],
        )

    async def ListStrategies(self, request: pb.ListStrategiesRequest, _context: Context) -> pb.ListStrategiesResponse:
        """Every strategy, best first. Raises Invalid for an unknown state."""
        if request.state and request.state not in STATES:
            raise Invalid(f"state must be one of {', '.join(STATES)}", reason="BAD_STATE", field="state")
        async with self.ctx.database.reading() as tx:
            stored = await strategies.all_statuses(tx)
        strategy_set = self.ctx.catalogue.with_statuses({name: one.status for name, one in stored.items()}).strategy_set
        found = sorted(
            strategy_set.strategies, key=lambda one: (-confidence(one, strategy_set.status(one.name)), one.name)
        )
        return pb.ListStrategiesResponse(
            strategies=[
                strategy_wire.resource(one, stored.get(one.name))
                for one in found
                if request.type in ("", one.type) and request.state in ("", strategy_set.status(one.name).state)
            ]
        )

    async def ApproveStrategy(
        self, request: pb.ApproveStrategyRequest, _context: Context
    ) -> pb.ApproveStrategyResponse:
        """Lets a strategy write."""
        return await self._set_approval(request, pb.ApproveStrategyResponse, approved=True)  # type: ignore[no-any-return]

    async def RevokeStrategy(self, request: pb.RevokeStrategyRequest, _context: Context) -> pb.RevokeStrategyResponse:
        """Takes that back, and with it the tasks it is at work on: whoever claims them next is not allowed to."""
        return await self._set_approval(request, pb.RevokeStrategyResponse, approved=False)  # type: ignore[no-any-return]

    async def CreateProposal(self, request: pb.CreateProposalRequest, _context: Context) -> pb.CreateProposalResponse:
        """Asks a person. Raises Invalid naming the field."""
        now = self.ctx.clock.now()
        proposal = heart.create(new_id(now), request.action, request.target, request.reason, access.caller(), now)

        async def work(tx: Transaction) -> pb.CreateProposalResponse:
            merchant = await self._merchant(tx, proposal)
            await store.insert(tx, replace(proposal, merchant=merchant))
            tx.record(facts.proposal_created(proposal))
            return pb.CreateProposalResponse(proposal=wire.resource(proposal))

        return await self.ctx.requests.once(request, pb.CreateProposalResponse, work)

    async def ListProposals(self, request: pb.ListProposalsRequest, _context: Context) -> pb.ListProposalsResponse:
        """Proposals, newest first. Raises Invalid for bad paging or an unknown state."""
        if request.state not in PROPOSAL_STATES:
            raise Invalid(f"state must be one of {', '.join(PROPOSAL_STATES[1:])}", reason="BAD_STATE", field="state")
        page = paging.page(request, {"list": "proposals", "state": request.state}, UUID)
        async with self.ctx.database.reading() as tx:
            found, token = page.cut(await store.page(tx, request.state, page), lambda one: [one.id])
        return pb.ListProposalsResponse(proposals=[wire.resource(one) for one in found], next_page_token=token)

    async def ApproveProposal(
        self, request: pb.ApproveProposalRequest, _context: Context
    ) -> pb.ApproveProposalResponse:
        """A person agrees, and it is done in the same transaction. Raises what doing it raises; then nothing is."""
        return await self._decide(request, pb.ApproveProposalResponse, approved=True)  # type: ignore[no-any-return]

    async def RejectProposal(self, request: pb.RejectProposalRequest, _context: Context) -> pb.RejectProposalResponse:
        """A person says no."""
        return await self._decide(request, pb.RejectProposalResponse, approved=False)  # type: ignore[no-any-return]

    async def _set_approval(self, request: Any, response: Any, *, approved: bool) -> Any:
        name = parse("strategies", request.name)
        reason = task_wire.reason(request.reason, "a person said so")
        actor = access.caller()

        async def work(tx: Transaction) -> Any:
            stored = await approve_strategy(tx, self.ctx, name, approved=approved, actor=actor, reason=reason)
            strategy = known(self.ctx.catalogue.strategy_set.named(name), "strategy", name)
            return response(strategy=strategy_wire.resource(strategy, stored))

        return await self.ctx.requests.once(request, response, work)

    async def _decide(self, request: Any, response: Any, *, approved: bool) -> Any:
        actor = access.caller()
        id_ = task_wire.id_of("proposals", request.name)
        reason = task_wire.reason(request.reason, "agreed" if approved else "declined")
        state = "approved" if approved else "rejected"

        async def work(tx: Transaction) -> Any:
            proposal = known(await store.lock(tx, id_), "proposal", id_)
            heart.check_decision(proposal, actor, approved, tx.now)
            if approved:
                await self._carry_out(tx, proposal, actor)
            await store.decide(tx, proposal.id, state, actor, reason)
            tx.record(facts.proposal_decided(proposal, approved=approved, actor=actor, reason=reason))
            decided = replace(proposal, state=state, decided_by=actor, decision_reason=reason)
            return response(proposal=wire.resource(decided))

        return await self.ctx.requests.once(request, response, work)

    async def _merchant(self, tx: Transaction, proposal: Proposal) -> str:
        """Whose the target is; nobody's when it is a strategy, or not there."""
        collection = heart.ACTIONS[proposal.action]
        if collection == "strategies":
            return ""
        target = task_wire.id_of(collection, proposal.target, field="target")
        row = await (tasks if collection == "tasks" else reports).get(tx, target)
        return row.merchant if row else ""

    async def _carry_out(self, tx: Transaction, proposal: Proposal, actor: str) -> None:
        reason = f"proposed by {proposal.author}: {proposal.reason}"
        collection = heart.ACTIONS[proposal.action]
        if proposal.action == "approve_strategy":
            name = parse(collection, proposal.target, field="target")
            await approve_strategy(tx, self.ctx, name, approved=True, actor=actor, reason=reason)
            return
        target = task_wire.id_of(collection, proposal.target, field="target")
        if proposal.action == "retry_task":
            await retry_task(tx, self.ctx, target, priority=0, actor=actor, reason=reason)
        elif proposal.action == "cancel_task":
            await cancel_task(tx, target, actor=actor, reason=reason)
        else:
            await close_report(tx, target, actor=actor, reason=reason)
