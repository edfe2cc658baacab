"""Rolling back a rollout's members: as an operator rolls back one attempt, one plugin after another.

Rule: rolling back passes no gate. Only what the plugin still runs is rolled back; whoever has moved on meanwhile is
listed with its reason. A plugin that another attempt has is asked again until that attempt is over, or time is up.
"""

from libs.common.database import Transaction
from prunella.v1 import ingest_pb2
from services.patcher.attempt import Attempt, RollbackRequested, State
from services.patcher.context import ServiceContext
from services.patcher.operations.apply_change import observe as observe_attempt
from services.patcher.operations.apply_rollout_change import observe
from services.patcher.operations.ingest_queries import get_plugin
from services.patcher.rollout import (
    Member,
    MemberState,
    NotSwitched,
    Observation,
    PluginLeft,
    RollbackFailed,
    RolledBack,
)
from services.patcher.store import attempts, members, rollouts
from services.patcher.store.members import MemberRow

UNAPPLIED = frozenset({State.FAILED, State.CANCELLED, State.REFUSED})


async def roll_back(ctx: ServiceContext, rollout: str, row: MemberRow) -> None:
    """Has one plugin of a rollout rolled back. Raises Unavailable when ingest is away."""
    plugin = await get_plugin(ctx, row.member.plugin)

    async def work(tx: Transaction) -> None:
        stored = await rollouts.get(tx, rollout, lock=True)
        fresh = await members.get(tx, rollout, row.member.plugin)
        if stored is None or fresh is None or fresh.rollback_requested:
            return
        if fresh.member.state is not MemberState.ROLLING_BACK:
            return
        requested, observation = await _request(tx, ctx, fresh, plugin, stored.rollout.reason)
        if requested:
            await members.set_rollback_requested(tx, rollout, fresh.member.plugin, requested=True)
        if observation is not None:
            await observe(tx, ctx, stored, observation)

    await ctx.database.transaction(work)


async def _request(
    tx: Transaction, ctx: ServiceContext, row: MemberRow, plugin: ingest_pb2.Plugin | None, reason: str
) -> tuple[bool, Observation | None]:
    """Whether the plugin is done with for now, and what is known of it at once."""
    member = row.member
    if plugin is None or plugin.state == "retired":
        return True, PluginLeft(member, "the plugin left")
    attempt = await attempts.get(tx, row.attempt, lock=True)
    if attempt is None:
        return True, NotSwitched(member, "nothing was begun")
    if attempt.state is State.SUCCESS:
        if await attempts.occupying(tx, attempt.plugin, attempt.id) is not None:
            return False, None
        if plugin.generation != attempt.generation:
            return True, _moved_on(member, attempt, plugin)
    wanted = RollbackRequested("patcher", f"the rollout goes back: {reason}"[:500])
    after = await observe_attempt(tx, ctx, attempt.id, wanted) or attempt
    return True, _known(member, after)


def _moved_on(member: Member, attempt: Attempt, plugin: ingest_pb2.Plugin) -> Observation:
    if plugin.release == attempt.from_release and not (
        attempt.configuration and plugin.config_digest == attempt.digest
    ):
        return RolledBack(member)
    return RollbackFailed(member, f"it runs {plugin.release or 'something else'} by now")


def _known(member: Member, attempt: Attempt) -> Observation | None:
    if attempt.state in UNAPPLIED:
        return NotSwitched(member, attempt.reason)
    if attempt.state is State.ROLLED_BACK:
        return RolledBack(member)
    if attempt.state is State.ROLLBACK_FAILED:
        return RollbackFailed(member, attempt.reason)
    return None
