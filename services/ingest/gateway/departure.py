"""How plugins leave: for a while, for good, or shut out because two agents use one identity; and how they are let in
again."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common import names
from libs.common.database import Transaction
from libs.common.errors import Refused
from prunella.v1 import agent_pb2 as pb
from services.ingest import command_lifecycle
from services.ingest.context import ServiceContext, save_transition
from services.ingest.detectors import bits
from services.ingest.incident_lifecycle import closed
from services.ingest.store import commands, incidents, plugin_state, plugins
from services.ingest.store.plugins import Identity
from services.ingest.wire import plugins as wire

# A plugin that leaves with one of these does not come back.
FOR_GOOD = frozenset({"retired", "uninstalled"})
# Seconds; a word at parting, or a clock that is years off, must not keep a plugin from ever being missed.
LONGEST_ABSENCE = 7 * 86_400.0


async def goodbye(ctx: ServiceContext, identity: Identity, epoch: int, message: pb.Goodbye) -> None:
    """The plugin leaves: for a while without being blamed for it, or for good."""
    if message.reason in FOR_GOOD:
        await retire(ctx, identity, names.plugin(identity.plugin), "the plugin said goodbye for good")
        return

    async def work(tx: Transaction) -> None:
        skew = await plugin_state.clock_skew(tx, identity.plugin)
        back_by = back_by_time(message, tx.now.timestamp(), skew)
        await plugin_state.goodbye(tx, identity.plugin, epoch, back_by)

    await ctx.database.transaction(work)
    ctx.committer.forget(identity.plugin)


def back_by_time(message: pb.Goodbye, now: float, skew: float) -> float:
    """When the plugin says it will be back (Unix seconds of ours), within a week from now; 0 when it named no time.

    `skew` is the seconds by which the agent's clock is ahead of ours: a time that it names, it names by its own.
    """
    if message.HasField("back_within_duration"):
        wanted = now + message.back_within_duration.seconds
    elif message.HasField("back_by_time"):
        wanted = message.back_by_time.seconds - skew
    else:
        return 0.0
    return min(max(wanted, now), now + LONGEST_ABSENCE)


async def retire(ctx: ServiceContext, identity: Identity, actor: str, reason: str) -> None:
    """Ends a plugin's life, its incidents and its commands; a second time changes nothing."""
    await ctx.database.transaction(lambda tx: retire_in(tx, identity, actor, reason))
    forget(ctx, identity.plugin, "the plugin is retired")


async def retire_in(tx: Transaction, identity: Identity, actor: str, reason: str, replaced_by: str = "") -> None:
    """Ends a plugin's life in a transaction; `forget` it afterwards."""
    if await plugins.end(tx, identity.plugin, "retired") or await plugins.end(
        tx, identity.plugin, "retired", "quarantined"
    ):
        tx.record(wire.retired(identity.plugin, identity.merchant, actor, reason, replaced_by))
        await _end_all(tx, identity.plugin, "the plugin is retired", actor)


async def quarantine(ctx: ServiceContext, identity: Identity, boot_ids: Sequence[str]) -> None:
    """Shuts out both agents that use one identity."""

    async def work(tx: Transaction) -> None:
        if await plugins.end(tx, identity.plugin, "quarantined"):
            tx.record(wire.quarantined(identity.plugin, identity.merchant, boot_ids))
            await plugin_state.end(tx, identity.plugin)

    await ctx.database.transaction(work)
    forget(ctx, identity.plugin, "two living agents use this identity")


async def release_in(tx: Transaction, identity: Identity, actor: str, reason: str) -> None:
    """Lets a quarantined plugin in again; one that is active stays as it is. `look_again` at it afterwards.

    Its credential is as it was: if two machines still use it, it is quarantined again. Raises Refused for a retired
    one.
    """
    await plugin_state.lock(tx, identity.plugin)
    if await plugins.release(tx, identity.plugin):
        active = await incidents.active_of(tx, [identity.plugin])
        await plugin_state.release(tx, identity.plugin, bits(incident.type for incident in active))
        tx.record(wire.quarantine_released(identity.plugin, identity.merchant, actor, reason))
    elif (await plugins.identities(tx, [identity.plugin]))[identity.plugin].state == "retired":
        raise Refused("the plugin is retired, and its credential with it; enrol a new one", reason="PLUGIN_RETIRED")


def look_again(ctx: ServiceContext, plugin: str) -> None:
    """Drops what is in memory of a plugin whose state changed."""
    ctx.identities.forget(plugin)
    ctx.committer.forget(plugin)


def forget(ctx: ServiceContext, plugin: str, reason: str) -> None:
    """Drops what is in memory of a plugin that is barred now."""
    look_again(ctx, plugin)
    ctx.sessions.end(plugin, reason)


async def _end_all(tx: Transaction, plugin: str, reason: str, actor: str) -> None:
    await plugin_state.end(tx, plugin)
    for incident in await incidents.active_of(tx, [plugin]):
        await save_transition(tx, incident, closed(incident, reason, tx.now), actor=actor)
    for command in await commands.live_of(tx, plugin):
        await commands.end(tx, command.id, command_lifecycle.State.WITHDRAWN, reason)
