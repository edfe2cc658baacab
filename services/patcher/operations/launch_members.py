"""Advancing a rollout: what is due is done, members are launched, and rollbacks that wait are requested.

Rule: ingest is queried for each plugin before the transaction; under the rollout's lock the heart decides again, and a
plugin is started by writing its row, its slot and its attempt at once. Whoever comes second finds nothing left to do.
"""

import asyncio
from dataclasses import dataclass

from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import current_telemetry, new_traceparent, use_traceparent
from libs.common.telemetry.spans import Attributes
from prunella.v1 import ingest_pb2
from services.patcher import attempt as attempt_heart
from services.patcher import rollout as heart
from services.patcher.attempt import Attempt
from services.patcher.context import ServiceContext
from services.patcher.operations import apply_change
from services.patcher.operations.apply_rollout_change import observe, save, start_effect
from services.patcher.operations.create_attempt import Target, draft
from services.patcher.operations.ingest_queries import get_plugin
from services.patcher.operations.roll_back_members import roll_back
from services.patcher.policy import Action, Severity
from services.patcher.rollout import MemberState, PluginLeft, Started, StartMembers, Tick
from services.patcher.store import members, rollouts
from services.patcher.store.members import MemberRow
from services.patcher.store.rollouts import StoredRollout

AT_ONCE = 32
# Looked at beyond what is wanted, since some may be away.
EXTRA = 8


@dataclass(frozen=True)
class Candidate:
    """A waiting member and what ingest says of its plugin."""

    row: MemberRow
    plugin: ingest_pb2.Plugin | None


async def advance(ctx: ServiceContext, rollout: str) -> bool:
    """Does what is due for a rollout; whether there was anything. Raises Unavailable when ingest is away."""
    async with ctx.database.reading() as tx:
        stored = await rollouts.get(tx, rollout)
        if stored is None:
            return False
        change = heart.next(stored.rollout, Tick(), tx.now)
        want = start_effect(change)
        rows = await members.upcoming(tx, rollout, want.wave, min(want.most, AT_ONCE) + EXTRA) if want else []
        rollbacks = await members.rollback_pending(tx, rollout, AT_ONCE)
    ready = await _candidates(ctx, rows)
    if rows or change.transitions or change.rollout != stored.rollout:
        await ctx.database.transaction(lambda tx: _launch(tx, ctx, rollout, ready))
    for row in rollbacks:
        await roll_back(ctx, rollout, row)
    return bool(rows or rollbacks or change.transitions)


async def _candidates(ctx: ServiceContext, rows: list[MemberRow]) -> list[Candidate]:
    found = await asyncio.gather(*(get_plugin(ctx, row.member.plugin) for row in rows))
    return [Candidate(row, plugin) for row, plugin in zip(rows, found, strict=True)]


async def _launch(tx: Transaction, ctx: ServiceContext, rollout: str, ready: list[Candidate]) -> None:
    stored = await rollouts.get(tx, rollout, lock=True)
    if stored is None:
        return
    for known in ready:
        why = _unfit(stored, known.plugin)
        row = await members.get(tx, rollout, known.row.member.plugin) if why else None
        if row is not None and row.member.state is MemberState.WAITING:
            stored = await observe(tx, ctx, stored, PluginLeft(row.member, why))
    change = heart.next(stored.rollout, Tick(), tx.now)
    stored = await save(tx, ctx, stored, change)
    if want := start_effect(change):
        await _start(tx, ctx, stored, want, [one for one in ready if one.plugin and not _unfit(stored, one.plugin)])


def _unfit(stored: StoredRollout, plugin: ingest_pb2.Plugin | None) -> str:
    """Why a plugin is left out, empty when it is not."""
    if plugin is None or plugin.state == "retired":
        return "the plugin left"
    if plugin.state != "active":
        return f"the plugin is {plugin.state}"
    if not stored.config and plugin.release == stored.rollout.target:
        return f"it runs {stored.rollout.target} already"
    if stored.config and plugin.config_digest == stored.digest:
        return f"it has configuration {stored.rollout.target} already"
    kind = "config_update" if stored.config else "update"
    return "" if kind in plugin.capabilities else f"its agent cannot carry out {kind}"


async def _start(
    tx: Transaction, ctx: ServiceContext, stored: StoredRollout, want: StartMembers, ready: list[Candidate]
) -> None:
    """Starts up to as many as are wanted; plugins that are away or busy are passed over for now."""
    rollout, started = stored.rollout.id, 0
    waiting = {row.member.plugin: row for row in await members.upcoming(tx, rollout, want.wave, 2 * AT_ONCE)}
    for known in ready:
        row = waiting.get(known.row.member.plugin)
        if started >= want.most or row is None or known.plugin is None or not known.plugin.connected:
            continue
        change = heart.next(stored.rollout, Started(row.member), tx.now)
        if change.member is None or change.member.state is not MemberState.STARTED:
            return
        if not await members.take_slot(tx, rollout, row.member.plugin, stored.rollout.budget):
            return
        wanted = await _draft(tx, ctx, stored, row.member.plugin, known.plugin)
        stored = await save(tx, ctx, stored, change, row.member, attempt=wanted.id)
        await _begin(tx, ctx, wanted)
        started += 1


async def _draft(
    tx: Transaction, ctx: ServiceContext, stored: StoredRollout, plugin_id: str, plugin: ingest_pb2.Plugin
) -> Attempt:
    version = stored.rollout.target
    release, configuration = (plugin.release, version) if stored.config else (version, "")
    return await draft(
        tx,
        ctx,
        plugin_id,
        plugin,
        Target(release, stored.digest, configuration),
        id=new_id(),
        incident="",
        decision="",
        action=Action.CONFIG_FIX if stored.config else Action.PATCH,
        severity=Severity.LOW,
        symptom="",
        round=1,
        # An operator chose the build, so there is nothing to be unsure of.
        confidence=1.0,
        traceparent=new_traceparent(),
        rollout=stored.rollout.id,
    )


async def _begin(tx: Transaction, ctx: ServiceContext, wanted: Attempt) -> None:
    def root() -> None:
        attributes: Attributes = {"attempt": wanted.id, "rollout": wanted.rollout, "plugin": wanted.plugin}
        current_telemetry().span_at(
            "rollout reaches a plugin", now, now, parent="", traceparent=wanted.traceparent, attributes=attributes
        )

    now = tx.now
    with use_traceparent(wanted.traceparent):
        gates = await apply_change.evaluate_gates(tx, wanted)
        change = attempt_heart.create(wanted, gates.observation, now)
        await apply_change.save(tx, ctx, change, None, new=True)
        await apply_change.after_gates(tx, gates, change.attempt, None)
    tx.after_commit(root)
