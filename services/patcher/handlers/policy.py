"""Policy: what people allow.

Rule: every change is told with who made it and why.
"""

# ruff: noqa: N802 - the proto names the methods

from dataclasses import replace
from typing import Any

from libs.common import access, paging
from libs.common.bus import fact
from libs.common.database import Transaction
from libs.common.errors import Invalid, Stale
from libs.common.telemetry import counter
from prunella.v1 import patcher_pb2, patcher_pb2_grpc
from services.patcher import wire
from services.patcher.attempt import Bounds
from services.patcher.context import SCHEMA, ServiceContext
from services.patcher.policy import Allow, Difference, Policy, Replay, compare
from services.patcher.store import attempts, gate_inputs
from services.patcher.store import policy as policies

DECISIONS, MOST_DECISIONS = 100, 1000
CHANGES = counter("policy_changes_total", "Versions of the policy that people made")
LONGEST_REASON = 500


class PolicyHandlers(patcher_pb2_grpc.PatcherServiceServicer):
    """The policy's part of PatcherService."""

    def __init__(self, ctx: ServiceContext) -> None:
        self.ctx = ctx

    async def GetPolicy(self, _request: patcher_pb2.GetPolicyRequest, _context: Any) -> patcher_pb2.GetPolicyResponse:
        """The policy in force."""
        async with self.ctx.database.reading() as tx:
            found = await policies.get(tx)
        sandbox = wire.sandbox(await self.ctx.runner.host())
        return patcher_pb2.GetPolicyResponse(policy=wire.policy(found), sandbox=sandbox)

    async def UpdatePolicy(
        self, request: patcher_pb2.UpdatePolicyRequest, context: Any
    ) -> patcher_pb2.UpdatePolicyResponse:
        """Changes the fields in the mask. Raises Invalid naming the field, Stale when the etag is not the newest."""
        actor, reason = access.caller(context), required_reason(request.reason)

        async def work(tx: Transaction) -> patcher_pb2.UpdatePolicyResponse:
            found = await policies.get(tx, lock=True)
            if request.policy.etag and request.policy.etag != str(found.version):
                raise Stale(f"the policy is at version {found.version} by now; read it again", reason="POLICY_CHANGED")
            made, differences = wire.changed_policy(request, found)
            _in_time(made, differences, self.ctx.settings.dead_man)
            if differences:
                made = replace(made, version=found.version + 1, update_time=tx.now, updated_by=actor, reason=reason)
                await policies.put(tx, made)
                await policies.append_change(tx, made, differences)
                tx.record(fact(SCHEMA, wire.policy_changed(made, differences), actor=actor, reason=reason))
                tx.after_commit(CHANGES.inc)
            return patcher_pb2.UpdatePolicyResponse(policy=wire.policy(made))

        return await self.ctx.requests.once(request, patcher_pb2.UpdatePolicyResponse, work)

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
            old = await policies.get(tx)
            new, _ = wire.changed_policy(request, old)
            decided = await attempts.decided(tx, request.decisions or DECISIONS)
            wider = max(old, new, key=lambda policy: policy.attempts_window)
            seen = [await gate_inputs.read_past(tx, wider, attempt) for attempt in decided]
        replays = [replay for replay in compare(old, new, seen) if _differs(replay)]
        shown = [wire.policy_replay(replay, decided[replay.index]) for replay in replays]
        return patcher_pb2.PreviewPolicyResponse(replays=shown, unchanged_count=len(decided) - len(shown))


def _differs(replay: Replay) -> bool:
    """Whether the answer turns, and not only its wording."""
    before, after = replay.before.reply, replay.after.reply
    gates = [None if isinstance(reply, Allow) else reply.gate for reply in (before, after)]
    return type(before) is not type(after) or gates[0] != gates[1] or replay.before.teaches != replay.after.teaches


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
