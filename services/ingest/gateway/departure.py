"""How plugins leave: for a while, for good, or shut out because two agents use one identity."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from libs.common import names
from libs.common.database import Transaction
from prunella.v1 import agent_pb2 as pb
from services.ingest import command_lifecycle
from services.ingest.context import ServiceContext, save_transition
from services.ingest.incident_lifecycle import closed
from services.ingest.store import commands, incidents, plugin_state, plugins
from services.ingest.store.plugins import Identity
from services.ingest.wire import plugins as wire

# A plugin that leaves with one of these does not come back.
FOR_GOOD = frozenset({"retired", "uninstalled"})


async def goodbye(ctx: ServiceContext, identity: Identity, epoch: int, message: pb.Goodbye) -> None:
    """The plugin leaves: for a while without being blamed for it, or for good."""
    if message.reason in FOR_GOOD:
        await retire(ctx, identity, names.plugin(identity.plugin), "the plugin said goodbye for good")
        return
    back_by = message.back_by_time.ToDatetime(UTC).timestamp() if message.HasField("back_by_time") else 0.0
    await ctx.database.transaction(lambda tx: plugin_state.goodbye(tx, identity.plugin, epoch, back_by))
    ctx.committer.forget(identity.plugin)


async def retire(ctx: ServiceContext, identity: Identity, actor: str, reason: str) -> None:
    """Ends a plugin's life, its incidents and its commands; a second time changes nothing."""

    async def work(tx: Transaction) -> None:
        if await plugins.end(tx, identity.plugin, "retired") or await plugins.end(
            tx, identity.plugin, "retired", "quarantined"
        ):
            tx.record(wire.retired(identity.plugin, identity.merchant, actor, reason))
            await _end_all(tx, identity.plugin, "the plugin is retired", actor)

    await ctx.database.transaction(work)
    _forget(ctx, identity.plugin, "the plugin is retired")


async def quarantine(ctx: ServiceContext, identity: Identity, boot_ids: Sequence[str]) -> None:
    """Shuts out both agents that use one identity."""

    async def work(tx: Transaction) -> None:
        if await plugins.end(tx, identity.plugin, "quarantined"):
            tx.record(wire.quarantined(identity.plugin, identity.merchant, boot_ids))
            await plugin_state.end(tx, identity.plugin)

    await ctx.database.transaction(work)
    _forget(ctx, identity.plugin, "two living agents use this identity")


def _forget(ctx: ServiceContext, plugin: str, reason: str) -> None:
    """Drops what is in memory of a plugin that is barred now."""
    ctx.identities.forget(plugin)
    ctx.committer.forget(plugin)
    ctx.sessions.end(plugin, reason)


async def _end_all(tx: Transaction, plugin: str, reason: str, actor: str) -> None:
    await plugin_state.end(tx, plugin)
    for incident in await incidents.active_of(tx, [plugin]):
        await save_transition(tx, incident, closed(incident, reason, tx.now), actor=actor)
    for command in await commands.live_of(tx, plugin):
        await commands.end(tx, command.id, command_lifecycle.State.WITHDRAWN, reason)
