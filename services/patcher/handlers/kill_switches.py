"""Kill switches: how people stop automation, and let it go on.

Rule: engaging waits for permits that are being given, and when it answers no further one is given. The answer lists
what was already under way. Each engagement has an epoch of its own, also of a switch that is engaged already, and a
release names the one it ends: a release that comes late ends no later stop.
"""

# ruff: noqa: N802 - the proto names the methods

import logging
from typing import Any

from libs.common import access
from libs.common.bus import fact
from libs.common.database import Transaction
from libs.common.errands import send
from libs.common.errors import Invalid, Stale, Unavailable
from libs.common.names import is_id
from libs.common.telemetry import counter
from prunella.v1 import events_pb2, patcher_pb2, patcher_pb2_grpc
from services.patcher import wire
from services.patcher.attempt import PERMIT_AGE, Attempt, ErrandKind, RollbackRequested, State
from services.patcher.context import SCHEMA, ServiceContext
from services.patcher.handlers.policy import required_reason
from services.patcher.operations.apply_change import observe
from services.patcher.policy import GLOBAL, KILL_SWITCH, Action
from services.patcher.store import attempts, kill_switches
from services.patcher.store.kill_switches import KillSwitch

log = logging.getLogger(__name__)

ENGAGE_TRIES = 3
SWITCHES = counter("kill_switch_changes_total", "Kill switches that were engaged or released", ("scope", "change"))


class KillSwitchHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The kill switches' part of PatcherService."""

    ctx: ServiceContext

    async def EngageKillSwitch(
        self, request: patcher_pb2.EngageKillSwitchRequest, context: Any
    ) -> patcher_pb2.EngageKillSwitchResponse:
        """Stops automation in a scope; when this returns, no further switch is permitted there."""
        scope, actor, reason = checked_scope(request.scope), access.caller(context), required_reason(request.reason)
        answer = await self._engage(request, scope, actor, reason)
        if request.revert_in_flight:
            await self._revert(request, answer, actor, reason)
        log.warning("kill switch %s engaged by %s, %d in flight: %s", scope, actor, len(answer.in_flight), reason)
        return answer

    async def _engage(
        self, request: patcher_pb2.EngageKillSwitchRequest, scope: str, actor: str, reason: str
    ) -> patcher_pb2.EngageKillSwitchResponse:
        ctx = self.ctx
        for attempt in range(ENGAGE_TRIES):
            try:
                async with kill_switches.exclusive(ctx.database, ctx.settings.database_url, scope) as tx:
                    earlier = await ctx.requests.take(tx, request, patcher_pb2.EngageKillSwitchResponse)
                    if earlier is not None:
                        return earlier
                    switch = await kill_switches.engage(tx, scope, actor, reason)
                    _tell(tx, switch)
                    stop = {"gate": KILL_SWITCH, "reason": f"the kill switch {scope} is engaged"}
                    await send(tx, SCHEMA, ErrandKind.STOP, scope, stop, database=ctx.database)
                    flying = await attempts.in_flight(tx, scope, tx.now - PERMIT_AGE)
                    answer = patcher_pb2.EngageKillSwitchResponse(
                        kill_switch=wire.kill_switch(switch), in_flight=[wire.attempt_of(each) for each in flying]
                    )
                    await ctx.requests.keep(tx, request, answer)
                    return answer
            except Unavailable as problem:
                if attempt == ENGAGE_TRIES - 1:
                    raise
                log.warning("engaging %s is tried again: %s", scope, problem.message)
        raise AssertionError("unreachable")

    async def _revert(
        self,
        request: patcher_pb2.EngageKillSwitchRequest,
        answer: patcher_pb2.EngageKillSwitchResponse,
        actor: str,
        reason: str,
    ) -> None:
        """Takes back what the answer still shows as applied, and keeps what became of it.

        A repeat after a crash goes on where the first stopped; one of a finished request finds nothing to do.
        """
        wanted = RollbackRequested(actor, f"kill switch: {reason}")
        for shown in answer.in_flight:
            if shown.state not in {State.PROBATION, State.APPLYING}:
                continue

            async def work(tx: Transaction, shown: patcher_pb2.Attempt = shown) -> Attempt | None:
                return await observe(tx, self.ctx, shown.name.rpartition("/")[2], wanted)

            if (found := await self.ctx.database.transaction(work)) is not None:
                shown.CopyFrom(wire.attempt_of(found))
        await self.ctx.database.transaction(lambda tx: self.ctx.requests.keep(tx, request, answer))

    async def ReleaseKillSwitch(
        self, request: patcher_pb2.ReleaseKillSwitchRequest, context: Any
    ) -> patcher_pb2.ReleaseKillSwitchResponse:
        """Ends one engagement; what was held goes on within a second or two. Raises Stale when another followed it."""
        scope, actor, reason = checked_scope(request.scope), access.caller(context), required_reason(request.reason)
        if request.epoch < 1:
            raise Invalid(
                "epoch must name the engagement that is to end; read it from ListKillSwitches",
                reason="EPOCH_MISSING",
                field="epoch",
            )

        async def work(tx: Transaction) -> patcher_pb2.ReleaseKillSwitchResponse:
            await tx.run(kill_switches.LOCK, scope=scope)
            switch = await kill_switches.get(tx, scope)
            if switch is not None and switch.engaged:
                _check_epoch(switch, request.epoch)
                switch = await kill_switches.release(tx, scope, actor, reason)
                _tell(tx, switch)
            shown = wire.kill_switch(switch) if switch else patcher_pb2.KillSwitch(scope=scope)
            return patcher_pb2.ReleaseKillSwitchResponse(kill_switch=shown)

        return await self.ctx.requests.once(request, patcher_pb2.ReleaseKillSwitchResponse, work)

    async def ListKillSwitches(
        self, _request: patcher_pb2.ListKillSwitchesRequest, _context: Any
    ) -> patcher_pb2.ListKillSwitchesResponse:
        """Every switch that is or was engaged."""
        async with self.ctx.database.reading() as tx:
            found = await kill_switches.list_all(tx)
        return patcher_pb2.ListKillSwitchesResponse(kill_switches=[wire.kill_switch(switch) for switch in found])


def _check_epoch(switch: KillSwitch, epoch: int) -> None:
    """Raises Stale when this is not the engagement that stands."""
    if switch.epoch == epoch:
        return
    problem = Stale(
        f"the kill switch {switch.scope} is engaged as epoch {switch.epoch} by {switch.actor} ({switch.reason[:200]}), "
        f"not as epoch {epoch}; when that one may end too, release epoch {switch.epoch} with a new request id",
        reason="KILL_SWITCH_ENGAGED_AGAIN",
        field="epoch",
    )
    problem.metadata |= {"scope": switch.scope, "epoch": str(switch.epoch)}
    raise problem


def _tell(tx: Transaction, switch: KillSwitch) -> None:
    """Records what became of a switch with its transaction."""
    kind = events_pb2.KillSwitchEngaged if switch.engaged else events_pb2.KillSwitchReleased
    scope = switch.scope
    plugin = scope.removeprefix("plugins/") if scope.startswith("plugins/") else ""
    shown = kind(scope=scope, epoch=switch.epoch)
    tx.record(fact(SCHEMA, shown, actor=switch.actor, reason=switch.reason, plugin=plugin))
    series = SWITCHES.labels(scope.partition("/")[0], "engaged" if switch.engaged else "released")
    tx.after_commit(series.inc)


def checked_scope(scope: str) -> str:
    """The scope when it is one. Raises Invalid."""
    kind, _, name = scope.partition("/")
    good = (
        scope == GLOBAL
        or (kind in {"merchants", "plugins"} and is_id(name))
        or (kind == "actions" and name in set(Action))
    )
    if not good:
        raise Invalid(
            f"{scope[:80]!r} is none of global, merchants/{{merchant}}, plugins/{{plugin}} and actions/{{action}}",
            reason="KILL_SWITCH_SCOPE",
            field="scope",
        )
    return scope
