"""What agents say besides beats: words on commands, receipts, goodbyes; and what becomes of cloned identities.

Rule: an agent's word, the command's state and the fact are one transaction; heard again, it is acknowledged again and
changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from libs.common import names
from libs.common.database import Transaction
from libs.common.errors import NotFound
from libs.common.telemetry import counter, export_foreign, use_traceparent
from prunella.v1 import agent_pb2 as pb
from services.ingest import commands
from services.ingest.commands import Command, Result, Settled, Word
from services.ingest.context import ServiceContext, keep
from services.ingest.gateway.identity import is_uuid
from services.ingest.incidents import closed
from services.ingest.store import commands as store
from services.ingest.store import configurations, incidents, plugins, pulses
from services.ingest.store.plugins import Identity
from services.ingest.wire import commands as wire
from services.ingest.wire import plugins as plugin_wire

_results = counter("command_results_total", "Agents' words on commands", ("word",))

RELAX_TRIES = 5
UNCHANGED = Settled(None, None, tell=False, switched=False)
# A plugin that leaves with one of these does not come back.
FOR_GOOD = frozenset({"retired", "uninstalled"})


async def record(ctx: ServiceContext, identity: Identity, said: Result, given: pb.CommandResult) -> Settled:
    """Keeps an agent's word on its own command. Raises NotFound for any other."""
    command = await _own(ctx, identity, said.command)

    async def work(tx: Transaction) -> Settled:
        # The order of locks: pulse, then command.
        await pulses.lock(tx, identity.plugin)
        locked = await store.lock(tx, command.id)
        assert locked is not None
        if not await store.note_result(tx, said):
            return UNCHANGED
        standing = await store.final_word(tx, identity.plugin, locked.generation)
        settled = commands.settle(locked.kind, locked.state, standing, said)
        await store.settle(tx, locked, settled, said.detail)
        if settled.final is not None and Word.COMMITTED in (settled.final, standing):
            await configurations.given(tx, identity.plugin, locked.generation)
        if settled.switched:
            await pulses.switched(tx, identity.plugin, tx.now.timestamp())
        if settled.tell:
            actor = names.plugin(identity.plugin)
            tx.record(wire.finished_fact(locked, said.word.name.lower(), identity.merchant, said, actor))
        return settled

    with use_traceparent(command.traceparent), ctx.telemetry.span(f"agent says {said.word.name.lower()}"):
        settled = await ctx.database.transaction(work)
    if settled.switched or settled.final is not None:
        ctx.committer.forget(identity.plugin)
    _results.labels(said.word.name.lower()).inc()
    export_foreign("agent", wire.spans(given, command))
    return settled


async def waiting(ctx: ServiceContext, plugin: str) -> tuple[list[Command], bool]:
    """Commands a plugin has to hear of, and whether its final word is to come; notes when there is neither."""
    live, probation = list[Command](), False
    for _ in range(RELAX_TRIES):
        async with ctx.database.reading() as tx:
            # The version first: what is issued after it keeps the flag.
            found = await pulses.get(tx, plugin)
            live = await store.live_of(tx, plugin)
            probation = await store.in_probation(tx, plugin, tx.now)
        if found is None or not found[0].waiting or live or probation:
            break
        # A beat in between raises the version as well: nobody would look again, so we do.
        if await ctx.database.transaction(partial(pulses.relax, plugin=plugin, version=found[0].version)):
            break
    return live, probation


async def written(ctx: ServiceContext, command: str, at: datetime) -> None:
    """The command went out."""
    await ctx.database.transaction(lambda tx: store.written(tx, command, at))


async def receipt(ctx: ServiceContext, identity: Identity, command: str) -> None:
    """Stops the redelivery of a command the agent has."""
    if is_uuid(command):
        await ctx.database.transaction(lambda tx: store.received(tx, command, identity.plugin))


async def goodbye(ctx: ServiceContext, identity: Identity, epoch: int, said: pb.Goodbye) -> None:
    """The plugin leaves: for a while without being blamed for it, or for good."""
    if said.reason in FOR_GOOD:
        await retire(ctx, identity, names.plugin(identity.plugin), "the plugin said goodbye for good")
        return
    back_by = said.back_by_time.ToDatetime(UTC).timestamp() if said.HasField("back_by_time") else 0.0
    await ctx.database.transaction(lambda tx: pulses.goodbye(tx, identity.plugin, epoch, back_by))
    ctx.committer.forget(identity.plugin)


async def retire(ctx: ServiceContext, identity: Identity, actor: str, reason: str) -> None:
    """Ends a plugin's life, its incidents and its commands; a second time changes nothing."""

    async def work(tx: Transaction) -> None:
        if await plugins.end(tx, identity.plugin, "retired") or await plugins.end(
            tx, identity.plugin, "retired", "quarantined"
        ):
            tx.record(plugin_wire.retired(identity.plugin, identity.merchant, actor, reason))
            await _shut(tx, identity.plugin, "the plugin is retired", actor)

    await ctx.database.transaction(work)
    forget(ctx, identity.plugin, "the plugin is retired")


async def quarantine(ctx: ServiceContext, identity: Identity, boots: Sequence[str]) -> None:
    """Shuts out both agents that use one identity."""

    async def work(tx: Transaction) -> None:
        if await plugins.end(tx, identity.plugin, "quarantined"):
            tx.record(plugin_wire.quarantined(identity.plugin, identity.merchant, boots))
            await pulses.end(tx, identity.plugin)

    await ctx.database.transaction(work)
    forget(ctx, identity.plugin, "two living agents use this identity")


def forget(ctx: ServiceContext, plugin: str, reason: str) -> None:
    """Drops what is kept in memory of a plugin that is barred now."""
    ctx.identities.forget(plugin)
    ctx.committer.forget(plugin)
    ctx.sessions.end(plugin, reason)


async def _shut(tx: Transaction, plugin: str, reason: str, actor: str) -> None:
    await pulses.end(tx, plugin)
    for incident in await incidents.active_of(tx, [plugin]):
        await keep(tx, incident, closed(incident, reason, tx.now), actor=actor)
    for command in await store.live_of(tx, plugin):
        await store.end(tx, command.id, commands.State.WITHDRAWN, reason)


async def _own(ctx: ServiceContext, identity: Identity, command: str) -> Command:
    async with ctx.database.reading() as tx:
        found = await store.get(tx, command) if is_uuid(command) else None
    if found is None or found.plugin != identity.plugin:
        raise NotFound("this plugin has no such command", reason="COMMAND_UNKNOWN", field="command")
    return found
