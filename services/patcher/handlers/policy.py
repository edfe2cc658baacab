"""Policy and kill switches: what people allow, and how they stop it.

Rule: engaging a kill switch waits for permits that are being given, and when it answers no further one is given. The
answer lists what was already under way. Every change is told with who made it and why.
"""

# ruff: noqa: N802 - the proto names the methods

import logging
from dataclasses import replace
from typing import Any

from libs.common import access, paging
from libs.common.bus import fact
from libs.common.database import Transaction
from libs.common.errands import send
from libs.common.errors import Invalid, Stale, Unavailable
from libs.common.names import is_id
from libs.common.telemetry import counter
from prunella.v1 import events_pb2, patcher_pb2, patcher_pb2_grpc
from services.patcher import wire
from services.patcher.attempt import PERMIT_AGE, Attempt, Bounds, ErrandKind, RollbackRequested, State
from services.patcher.context import SCHEMA, ServiceContext
from services.patcher.operations.apply_change import observe
from services.patcher.policy import GLOBAL, KILL_SWITCH, Action, Allow, Difference, Policy, Replay, compare
from services.patcher.store import attempts, gate_inputs, kill_switches
from services.patcher.store import policy as policies
from services.patcher.store.kill_switches import KillSwitch

log = logging.getLogger(__name__)

ENGAGE_TRIES = 3
DECISIONS, MOST_DECISIONS = 100, 1000
CHANGES = counter("policy_changes_total", "Versions of the policy that people made")
SWITCHES = counter("kill_switch_changes_total", "Kill switches that were engaged or released", ("scope", "change"))
LONGEST_REASON = 500


class PolicyHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The policy's part of PatcherService."""

    def __init__(self, ctx: ServiceContext) -> None:
        self.ctx = ctx

    async def GetPolicy(self, _request: patcher_pb2.GetPolicyRequest, _context: Any) -> patcher_pb2.GetPolicyResponse:
        """The policy in force."""
        async with self.ctx.database.reading() as tx:
            found, _ = await policies.get(tx)
        return patcher_pb2.GetPolicyResponse(policy=wire.policy(found))

    async def UpdatePolicy(
        self, request: patcher_pb2.UpdatePolicyRequest, context: Any
    ) -> patcher_pb2.UpdatePolicyResponse:
        """Changes the fields in the mask. Raises Invalid naming the field, Stale when the etag is not the newest."""
        actor, reason = access.caller(context), required_reason(request.reason)

        async def work(tx: Transaction) -> patcher_pb2.UpdatePolicyResponse:
            found, by = await policies.get(tx, lock=True)
            if request.request_id and by == request.request_id:
                return patcher_pb2.UpdatePolicyResponse(policy=wire.policy(found))
            if request.policy.etag and request.policy.etag != str(found.version):
                raise Stale(f"the policy is at version {found.version} by now; read it again", reason="POLICY_CHANGED")
            made, differences = wire.changed_policy(request, found)
            _in_time(made, differences, self.ctx.settings.dead_man)
            if differences:
                made = replace(made, version=found.version + 1, update_time=tx.now, updated_by=actor, reason=reason)
                await policies.put(tx, made, request.request_id)
                await policies.append_change(tx, made, differences)
                tx.record(fact(SCHEMA, wire.policy_changed(made, differences), actor=actor, reason=reason))
                tx.after_commit(CHANGES.inc)
            return patcher_pb2.UpdatePolicyResponse(policy=wire.policy(made))

        return await self.ctx.database.transaction(work)

    async def ListPolicyChanges(
        self, request: patcher_pb2.ListPolicyChangesRequest, _context: Any
    ) -> patcher_pb2.ListPolicyChangesResponse:
        """Every version of the policy, newest first. Raises Invalid for bad paging."""
        page = paging.page(request, {"list": "policy_changes"}, int)
        async with self.ctx.database.reading() as tx:
            rows = await policies.changes(tx, page.after[0] if page.after else None, page.limit)
        found, next_token = page.cut(rows, lambda row: (row.version,))
        shown = [wire.policy_change(each) for each in found]
        return patcher_pb2.ListPolicyChangesResponse(changes=shown, next_page_token=next_token)

    async def PreviewPolicy(
        self, request: patcher_pb2.PreviewPolicyRequest, _context: Any
    ) -> patcher_pb2.PreviewPolicyResponse:
        """What other values would have made of the last decisions; changes nothing. Raises Invalid."""
        if not 0 <= request.decisions <= MOST_DECISIONS:
            rule = f"decisions must be between 1 and {MOST_DECISIONS}, or 0 for {DECISIONS}"
            raise Invalid(f"{rule}, not {request.decisions}", reason="DECISIONS_OUTSIDE", field="decisions")
        async with self.ctx.database.reading() as tx:
            old, _ = await policies.get(tx)
            new, _ = wire.changed_policy(request, old)
            decided = await attempts.decided(tx, request.decisions or DECISIONS)
            wider = max(old, new, key=lambda policy: policy.attempts_window)
            seen = [await gate_inputs.read_past(tx, wider, attempt) for attempt in decided]
        replays = [replay for replay in compare(old, new, seen) if _differs(replay)]
        shown = [wire.policy_replay(replay, decided[replay.index]) for replay in replays]
        return patcher_pb2.PreviewPolicyResponse(replays=shown, unchanged_count=len(decided) - len(shown))

    async def EngageKillSwitch(
        self, request: patcher_pb2.EngageKillSwitchRequest, context: Any
    ) -> patcher_pb2.EngageKillSwitchResponse:
        """Stops automation in a scope; when this returns, no further switch is permitted there."""
        scope, actor, reason = checked_scope(request.scope), access.caller(context), required_reason(request.reason)
        switch, flying = await self._engage(scope, actor, reason, request.request_id)
        if request.revert_in_flight:
            flying = [await self._revert(attempt, actor, reason) for attempt in flying]
        log.warning("kill switch %s engaged by %s, %d in flight: %s", scope, actor, len(flying), reason)
        return patcher_pb2.EngageKillSwitchResponse(
            kill_switch=wire.kill_switch(switch), in_flight=[wire.attempt_of(attempt) for attempt in flying]
        )

    async def _engage(self, scope: str, actor: str, reason: str, request_id: str) -> tuple[KillSwitch, list[Attempt]]:
        ctx = self.ctx
        for attempt in range(ENGAGE_TRIES):
            try:
                async with kill_switches.exclusive(ctx.database, ctx.settings.database_url, scope) as tx:
                    switch = await change_switch(tx, scope, True, actor, reason, request_id)
                    stop = {"gate": KILL_SWITCH, "reason": f"the kill switch {scope} is engaged"}
                    await send(tx, SCHEMA, ErrandKind.STOP, scope, stop, database=ctx.database)
                    return switch, await attempts.in_flight(tx, scope, tx.now - PERMIT_AGE)
            except Unavailable as problem:
                if attempt == ENGAGE_TRIES - 1:
                    raise
                log.warning("engaging %s is tried again: %s", scope, problem.message)
        raise AssertionError("unreachable")

    async def _revert(self, attempt: Attempt, actor: str, reason: str) -> Attempt:
        if attempt.state not in {State.PROBATION, State.APPLYING}:
            return attempt
        wanted = RollbackRequested(actor, f"kill switch: {reason}")
        found = await self.ctx.database.transaction(lambda tx: observe(tx, self.ctx, attempt.id, wanted))
        return found or attempt

    async def ReleaseKillSwitch(
        self, request: patcher_pb2.ReleaseKillSwitchRequest, context: Any
    ) -> patcher_pb2.ReleaseKillSwitchResponse:
        """Lets automation go on in a scope; what was held goes on within a second or two."""
        scope, actor, reason = checked_scope(request.scope), access.caller(context), required_reason(request.reason)

        async def work(tx: Transaction) -> KillSwitch:
            await tx.run(kill_switches.LOCK, scope=scope)
            return await change_switch(tx, scope, False, actor, reason, request.request_id)

        switch = await self.ctx.database.transaction(work)
        return patcher_pb2.ReleaseKillSwitchResponse(kill_switch=wire.kill_switch(switch))

    async def ListKillSwitches(
        self, _request: patcher_pb2.ListKillSwitchesRequest, _context: Any
    ) -> patcher_pb2.ListKillSwitchesResponse:
        """Every switch that is or was engaged."""
        async with self.ctx.database.reading() as tx:
            found = await kill_switches.list_all(tx)
        return patcher_pb2.ListKillSwitchesResponse(kill_switches=[wire.kill_switch(switch) for switch in found])


async def change_switch(
    tx: Transaction, scope: str, engaged: bool, actor: str, reason: str, request_id: str
) -> KillSwitch:
    """Sets a switch and tells it, unless it stands so already."""
    switch, changed = await kill_switches.change(
        tx, scope, engaged=engaged, actor=actor, reason=reason, request_id=request_id
    )
    if changed:
        kind = events_pb2.KillSwitchEngaged if engaged else events_pb2.KillSwitchReleased
        plugin = scope.removeprefix("plugins/") if scope.startswith("plugins/") else ""
        shown = kind(scope=scope, epoch=switch.epoch)
        tx.record(fact(SCHEMA, shown, actor=actor, reason=reason, plugin=plugin))
        series = SWITCHES.labels(scope.partition("/")[0], "engaged" if engaged else "released")
        tx.after_commit(series.inc)
    return switch


def _differs(replay: Replay) -> bool:
    """Whether the answer turns, and not only its wording."""
    before, after = replay.before.reply, replay.after.reply
    gates = [None if isinstance(reply, Allow) else reply.gate for reply in (before, after)]
    return type(before) is not type(after) or gates[0] != gates[1] or replay.before.teaches != replay.after.teaches


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


def required_reason(reason: str) -> str:
    """The reason a person gave. Raises Invalid when there is none."""
    text = reason.strip()
    if not text or len(text) > LONGEST_REASON:
        raise Invalid(
            f"reason must say why, in 1 to {LONGEST_REASON} characters", reason="REASON_MISSING", field="reason"
        )
    return text


def _in_time(made: Policy, differences: tuple[Difference, ...], dead_man: float) -> None:
    """Raises Invalid for a verdict that may take longer than an agent waits for its commit: it would have no effect."""
    longest = Bounds(dead_man=dead_man, health_timeout=dead_man).probation
    if any(each.field == "health_check_timeout" for each in differences) and (
        made.health_check_timeout.total_seconds() > longest
    ):
        raise Invalid(
            f"health_check_timeout may be at most {longest:g} s, since an agent reverts by itself {dead_man:g} s after "
            "a switch; set PATCHER_DEAD_MAN_SECONDS of the patcher higher first",
            reason="HEALTH_TIMEOUT_TOO_LONG",
            field="policy.health_check_timeout",
        )
