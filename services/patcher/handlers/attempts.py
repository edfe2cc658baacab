"""Attempts and permits: what is tried, what people take back, and the one yes that lets an agent switch.

Rule: AuthorizeApply runs in a transaction of its own whose first statement is the permit function; the permit, the
attempt's mark and the fact commit together or not at all.
"""

# ruff: noqa: N802 - the proto names the methods

from typing import Any, TypeVar

from google.protobuf.message import Message

from libs.common import access, names, paging
from libs.common.bus import fact
from libs.common.database import Transaction
from libs.common.errors import Invalid, Refused, known
from libs.common.names import id_of, parse
from libs.common.telemetry import counter
from prunella.v1 import events_pb2, patcher_pb2, patcher_pb2_grpc
from services.patcher import wire
from services.patcher.attempt import FINAL, Attempt, CancelRequested, Observation, Permitted, RollbackRequested, State
from services.patcher.context import SCHEMA, ServiceContext
from services.patcher.handlers.policy import required_reason
from services.patcher.operations.apply_change import evaluate_gates, observe
from services.patcher.operations.ingest_queries import get_plugin
from services.patcher.policy import Allow
from services.patcher.store import approvals, attempt_history, attempts, permits, watches
from services.patcher.store.permits import Permit, PermitRequest

EndedT = TypeVar("EndedT", patcher_pb2.CancelAttemptResponse, patcher_pb2.RollBackAttemptResponse)
PERMITS = counter("permit_answers_total", "Answers to the question for a permit", ("gate",))


class AttemptHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The attempts' part of PatcherService."""

    ctx: ServiceContext

    async def GetAttempt(self, request: patcher_pb2.GetAttemptRequest, _context: Any) -> patcher_pb2.GetAttemptResponse:
        """One attempt with its history. Raises NotFound."""
        name = parse("attempts", request.name)
        async with self.ctx.database.reading() as tx:
            found = await attempts.get(tx, name)
            history = await attempt_history.read(tx, name)
            approval = await approvals.newest(tx, names.attempt(name))
            watch = (await watches.of_attempts(tx, [name])).get(name)
        shown = wire.attempt_of(known(found, "attempt", name), history, approval, watch)
        return patcher_pb2.GetAttemptResponse(attempt=shown)

    async def ListAttempts(
        self, request: patcher_pb2.ListAttemptsRequest, _context: Any
    ) -> patcher_pb2.ListAttemptsResponse:
        """Attempts, newest first. Raises Invalid for bad paging or an unknown state."""
        if request.state and request.state not in set(State):
            raise Invalid(f"state must be one of {', '.join(State)}", reason="STATE_UNKNOWN", field="state")
        filters = {"incident": id_of(request.incident), "plugin": id_of(request.plugin), "state": request.state}
        page = paging.page(request, {"list": "attempts", **filters}, str)
        async with self.ctx.database.reading() as tx:
            rows = await attempts.page(tx, **filters, after=page.after, limit=page.limit)
            found, next_token = page.cut(rows, lambda row: (row.id,))
            approval = await approvals.newest_of(tx, [names.attempt(each.id) for each in found if each.plan_hash])
            watch = await watches.of_attempts(tx, [each.id for each in found if each.low_evidence])
        shown = [
            wire.attempt_of(each, approval=approval.get(names.attempt(each.id)), watch=watch.get(each.id))
            for each in found
        ]
        return patcher_pb2.ListAttemptsResponse(attempts=shown, next_page_token=next_token)

    async def CancelAttempt(
        self, request: patcher_pb2.CancelAttemptRequest, context: Any
    ) -> patcher_pb2.CancelAttemptResponse:
        """Stops an attempt that has no permit. Raises Refused for one that has, or is over."""
        actor, reason = access.caller(context), required_reason(request.reason)
        wanted = CancelRequested(actor, reason)
        response = patcher_pb2.CancelAttemptResponse
        return await self._apply_to_attempt(request, response, wanted, {State.CANCELLED}, "ATTEMPT_NOT_CANCELLABLE")

    async def RollBackAttempt(
        self, request: patcher_pb2.RollBackAttemptRequest, context: Any
    ) -> patcher_pb2.RollBackAttemptResponse:
        """Takes an applied attempt back. Raises Refused when there is nothing of it to take back."""
        actor, reason = access.caller(context), required_reason(request.reason)
        earlier = await self.ctx.requests.earlier(request, patcher_pb2.RollBackAttemptResponse)
        if earlier is not None:
            return earlier
        await self._still_runs(parse("attempts", request.name))
        wanted = RollbackRequested(actor, reason)
        ends = {State.ROLLING_BACK, State.ROLLED_BACK, State.CANCELLED}
        response = patcher_pb2.RollBackAttemptResponse
        return await self._apply_to_attempt(request, response, wanted, ends, "ATTEMPT_NOT_APPLIED")

    async def _still_runs(self, name: str) -> None:
        async with self.ctx.database.reading() as tx:
            found = known(await attempts.get(tx, name), "attempt", name)
            other = await attempts.occupying(tx, found.plugin, found.id, lock=False)
        if found.state is not State.SUCCESS:
            return
        plugin = await get_plugin(self.ctx, found.plugin)
        if other is not None or plugin is None or plugin.generation != found.generation:
            raise Refused(
                "the plugin has moved on since this attempt; only what it runs now can be taken back",
                reason="ATTEMPT_OUTDATED",
                attempt=name,
            )

    async def _apply_to_attempt(
        self, request: Any, response: type[EndedT], wanted: Observation, ends: set[State], reason: str
    ) -> EndedT:
        attempt = parse("attempts", request.name)

        async def work(tx: Transaction) -> EndedT:
            before = known(await attempts.get(tx, attempt, lock=True), "attempt", attempt)
            after = before if before.state in ends & FINAL else await observe(tx, self.ctx, attempt, wanted)
            if after is None or after.state not in ends:
                raise Refused(
                    f"attempt {attempt} is {before.state}; that cannot be done any more",
                    reason=reason,
                    attempt=attempt,
                    state=before.state.value,
                )
            return response(attempt=wire.attempt_of(after))

        return await self.ctx.requests.once(request, response, work)

    async def AuthorizeApply(
        self, request: patcher_pb2.AuthorizeApplyRequest, _context: Any
    ) -> patcher_pb2.AuthorizeApplyResponse:
        """Permits one switch, now, or names the gate that denies it.

        A repeat gets the same permit while nothing stops automation; otherwise the gate, and the permit it had.
        """
        permit_request = wire.permit_request(request)
        objection = await self._objection(permit_request)
        permit = await self.ctx.database.transaction(lambda tx: self._authorize(tx, permit_request, objection))
        PERMITS.labels(permit.gate or "granted").inc()
        return patcher_pb2.AuthorizeApplyResponse(granted=permit.granted, permit=permit.permit, gate=permit.gate)

    async def _objection(self, permit_request: PermitRequest) -> str:
        """The gate that has something against the switch by now, besides those the permit function reads itself."""
        async with self.ctx.database.reading() as tx:
            found = await attempts.get(tx, permit_request.attempt)
            if found is None or found.state is not State.APPLYING:
                return ""
            gates = await evaluate_gates(tx, found, lock=False)
        return "" if isinstance(gates.reply, Allow) else gates.reply.gate

    async def _authorize(self, tx: Transaction, permit_request: PermitRequest, objection: str) -> Permit:
        permit = await permits.authorize(tx, permit_request, objection)
        if not permit.fresh:
            return permit
        found = await attempts.get(tx, permit_request.attempt)
        assert found is not None
        if permit.granted:
            granted = events_pb2.ApplyAuthorized(
                attempt=found.id,
                permit=permit.permit,
                command=permit_request.command,
                generation=permit_request.generation,
            )
            tx.record(_about(found, granted, "every gate is open"))
            observation = Permitted(permit_request.command, permit_request.generation, permit_request.fence)
            await observe(tx, self.ctx, found.id, observation)
        else:
            denied = events_pb2.ApplyDenied(attempt=found.id, command=permit_request.command, gate=permit.gate)
            tx.record(_about(found, denied, f"denied by {permit.gate}"))
        return permit


def _about(attempt: Attempt, message: Message, reason: str) -> events_pb2.Event:
    return fact(
        SCHEMA, message, reason=reason, plugin=attempt.plugin, merchant=attempt.merchant, incident=attempt.incident
    )
