"""What agents report of commands: that they have one, and what they made of it.

Rule: the receipt, the command's state and the fact are one transaction; a receipt that comes again is acknowledged
again and changes nothing.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from libs.common.database import Transaction
from libs.common.errors import NotFound
from libs.common.names import is_uuid
from libs.common.names import plugin as plugin_name
from libs.common.telemetry import counter, current_telemetry, use_traceparent
from prunella.v1 import agent_pb2 as pb
from services.ingest import command_lifecycle
from services.ingest.command_lifecycle import Command, Outcome, Receipt, Settlement
from services.ingest.context import ServiceContext
from services.ingest.store import commands as store
from services.ingest.store import configurations, generations, plugin_state
from services.ingest.store.plugins import Identity
from services.ingest.wire import commands as wire

_receipts = counter("command_receipts_total", "Receipts of agents for commands, by outcome", ("outcome",))

PENDING_TRIES = 5
UNCHANGED = Settlement(None, None, recorded=False, switched=False)


async def record(ctx: ServiceContext, identity: Identity, receipt: Receipt, result: pb.CommandResult) -> Settlement:
    """Saves an agent's receipt for its own command. Raises NotFound for any other."""
    command = await own_command(ctx, identity, receipt.command)
    outcome, clock_skew = receipt.outcome.name.lower(), 0.0

    async def work(tx: Transaction) -> Settlement:
        nonlocal clock_skew
        # The order of locks: plugin state, then command.
        await plugin_state.lock(tx, identity.plugin)
        clock_skew = await plugin_state.clock_skew(tx, identity.plugin)
        locked = await store.lock(tx, command.id)
        assert locked is not None
        if not await store.add_receipt(tx, receipt, locked.merchant):
            return UNCHANGED
        final_so_far = await generations.final_outcome(tx, identity.plugin, locked.generation)
        settlement = command_lifecycle.settle(locked.kind, locked.state, final_so_far, receipt)
        await store.settle(tx, locked, settlement, receipt.detail)
        if settlement.final is not None and Outcome.COMMITTED in (settlement.final, final_so_far):
            await configurations.expect_committed(tx, identity.plugin, locked.generation)
        if settlement.switched:
            await plugin_state.switched(tx, identity.plugin, tx.now.timestamp())
        if settlement.recorded:
            tx.record(wire.finished_fact(locked, outcome, receipt, plugin_name(identity.plugin)))
        return settlement

    with use_traceparent(command.traceparent), ctx.telemetry.span(f"receipt {outcome}"):
        settlement = await ctx.database.transaction(work)
    if settlement.switched or settlement.final is not None:
        ctx.committer.forget(identity.plugin)
    _receipts.labels(outcome).inc()
    current_telemetry().export_foreign("agent", wire.spans(result, command, clock_skew))
    return settlement


async def pending(ctx: ServiceContext, plugin: str) -> tuple[list[Command], bool]:
    """Commands a plugin still has to get, and whether its final receipt is to come; notes when there is neither."""
    live, probation = list[Command](), False
    for _ in range(PENDING_TRIES):
        async with ctx.database.reading() as tx:
            # The version first: what is issued after it keeps the flag.
            state = await plugin_state.get(tx, plugin)
            live = await store.live_of(tx, plugin)
            probation = await generations.in_probation(tx, plugin, tx.now)
        if state is None or not state.commands_pending or live or probation:
            break
        # A beat in between raises the version as well: nobody would look again, so we do.
        if await ctx.database.transaction(partial(plugin_state.none_pending, plugin=plugin, version=state.version)):
            break
    return live, probation


async def written(ctx: ServiceContext, command: str, at: datetime) -> None:
    """The command was written to the stream."""
    await ctx.database.transaction(lambda tx: store.written(tx, command, at))


async def received(ctx: ServiceContext, identity: Identity, command: str) -> None:
    """Stops the redelivery of a command the agent has."""
    if is_uuid(command):
        await ctx.database.transaction(lambda tx: store.received(tx, command, identity.plugin))


async def own_command(ctx: ServiceContext, identity: Identity, command: str) -> Command:
    """A command of this plugin. Raises NotFound for any other."""
    async with ctx.database.reading() as tx:
        found = await store.get(tx, command) if is_uuid(command) else None
    if found is None or found.plugin != identity.plugin:
        raise NotFound("this plugin has no such command", reason="COMMAND_UNKNOWN", field="command")
    return found
