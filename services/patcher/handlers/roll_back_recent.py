"""Taking back everything that was applied since a moment.

Rule: each attempt is taken back by a command of its own, as RollBackAttempt would, and followed to its end; a plugin
goes back one attempt at a time, the last one first. What cannot be taken back is named with its reason.
"""

# ruff: noqa: N802 - the proto names the methods

import asyncio
from datetime import datetime, timedelta
from typing import Any

from libs.common import access
from libs.common.database import Transaction
from libs.common.errors import Invalid, Problem, Refused
from libs.common.telemetry import use_traceparent
from libs.common.timestamps import moment
from prunella.v1 import patcher_pb2, patcher_pb2_grpc
from services.patcher import wire
from services.patcher.attempt import Attempt, RollbackRequested, State
from services.patcher.context import ServiceContext
from services.patcher.handlers.policy import required_reason
from services.patcher.operations.apply_change import observe
from services.patcher.operations.ingest_queries import get_plugin
from services.patcher.policy import Action
from services.patcher.store import attempts

LONGEST_AGO = timedelta(days=7)
MOST, AT_ONCE = 1000, 16
ROLLED_BACK_STATES = frozenset({State.ROLLING_BACK, State.ROLLED_BACK})


class RollBackRecentHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """RollBackRecent."""

    ctx: ServiceContext

    async def RollBackRecent(
        self, request: patcher_pb2.RollBackRecentRequest, context: Any
    ) -> patcher_pb2.RollBackRecentResponse:
        """Takes back what was applied since then. Raises Invalid for a moment out of bounds, Refused for too much."""
        actor, reason = access.caller(context), required_reason(request.reason)
        earlier = await self.ctx.requests.earlier(request, patcher_pb2.RollBackRecentResponse)
        if earlier is not None:
            return earlier
        since = self._since(request)
        async with self.ctx.database.reading() as tx:
            found = await attempts.recent(tx, since, request.package, MOST + 1)
        if len(found) > MOST:
            raise Refused(
                f"more than {MOST} attempts were applied since then; name a package or a later moment",
                reason="TOO_MANY_ATTEMPTS",
                field="since_time",
            )
        free = asyncio.Semaphore(AT_ONCE)
        newest: dict[str, str] = {}
        for attempt in filter(_brought, found):
            newest.setdefault(attempt.plugin, attempt.id)

        async def one(attempt: Attempt) -> Attempt | patcher_pb2.RollbackRefusal:
            async with free:
                return await self._roll_back(attempt, newest.get(attempt.plugin, ""), actor, reason)

        answers = await asyncio.gather(*(one(attempt) for attempt in found))
        answer = patcher_pb2.RollBackRecentResponse(
            attempts=[wire.attempt_of(each) for each in answers if isinstance(each, Attempt)],
            refusals=[each for each in answers if not isinstance(each, Attempt)],
        )

        async def work(_tx: Transaction) -> patcher_pb2.RollBackRecentResponse:
            return answer

        return await self.ctx.requests.once(request, patcher_pb2.RollBackRecentResponse, work)

    def _since(self, request: patcher_pb2.RollBackRecentRequest) -> datetime:
        now = self.ctx.clock.now()
        since = moment(request.since_time, "since_time")
        if not request.HasField("since_time") or not now - LONGEST_AGO <= since <= now:
            raise Invalid(
                "since_time must lie within the last 7 days; name when the trouble began",
                reason="SINCE_OUTSIDE",
                field="since_time",
            )
        return since

    async def _roll_back(
        self, attempt: Attempt, newest: str, actor: str, reason: str
    ) -> Attempt | patcher_pb2.RollbackRefusal:
        if not _brought(attempt):
            return _not(attempt, "NOTHING_TO_ROLL_BACK", f"a {attempt.action} brought nothing new")
        if attempt.id != newest:
            why = f"attempt {newest} came later on this plugin and goes back first; ask again when it has"
            return _not(attempt, "LATER_ATTEMPT", why)
        if attempt.state is State.ROLLING_BACK:
            return attempt
        try:
            plugin = await get_plugin(self.ctx, attempt.plugin)
        except Problem as problem:
            return _not(attempt, problem.reason, problem.message)
        if plugin is None or plugin.state == "retired":
            return _not(attempt, "PLUGIN_GONE", "the plugin has left")
        if attempt.state is State.SUCCESS and plugin.generation != attempt.generation:
            return _not(attempt, "ATTEMPT_OUTDATED", "the plugin has moved on since this attempt")

        async def work(tx: Transaction) -> Attempt | None:
            await attempts.get(tx, attempt.id, lock=True)
            other = await attempts.occupying(tx, attempt.plugin, attempt.id)
            if other is not None and attempt.state is State.SUCCESS:
                return None
            with use_traceparent(attempt.traceparent):
                return await observe(tx, self.ctx, attempt.id, RollbackRequested(actor, reason))

        try:
            after = await self.ctx.database.transaction(work)
        except Problem as problem:
            # The others go back all the same; this one is named, and asked for again.
            return _not(attempt, problem.reason, problem.message)
        if after is None:
            return _not(attempt, "PLUGIN_BUSY", "another attempt has the plugin; ask again when it is over")
        if after.state not in ROLLED_BACK_STATES:
            return _not(attempt, "ATTEMPT_NOT_APPLIED", f"it is {after.state}")
        return after


def _brought(attempt: Attempt) -> bool:
    """Whether it brought something that could go back; nobody waits for what never will."""
    return attempt.action is not Action.RESTART and not attempt.other_slot


def _not(attempt: Attempt, reason: str, message: str) -> patcher_pb2.RollbackRefusal:
    return patcher_pb2.RollbackRefusal(attempt=attempt.id, reason=reason, message=message)
