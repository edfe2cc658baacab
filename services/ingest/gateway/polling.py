"""What a client gets that polls instead of keeping a stream: it cannot ask for a permit, so it is asked for here.

Rule: a command that switches is handed out only under a permit that holds now, each time again: what was handed out
before automation was stopped is not handed out after it. What was refused from the start is settled as refused; what
was permitted once may have been applied, so it stays, and the client's own word about it is heard.
"""

from __future__ import annotations

from collections.abc import Sequence

from prunella.v1 import agent_pb2 as pb
from services.ingest.command_lifecycle import Command, Kind
from services.ingest.context import ServiceContext
from services.ingest.gateway import permits, receipts
from services.ingest.store import commands as store
from services.ingest.store.plugins import Identity
from services.ingest.wire import commands as wire

SWITCHES = frozenset({Kind.UPDATE, Kind.CONFIG_UPDATE, Kind.RESTART})
NO_ANSWER = "NO_ANSWER"


async def hand_out(ctx: ServiceContext, identity: Identity, live: Sequence[Command]) -> list[Command]:
    """The commands of these that a client gets now."""
    handed = []
    for command in live:
        # Before the permit is asked for: no stop that came by then may have been overlooked.
        at = ctx.clock.now()
        if command.kind not in SWITCHES:
            await receipts.written(ctx, command.id, at)
        elif await _permitted(ctx, identity, command):
            await ctx.database.transaction(lambda tx, one=command, at=at: store.handed_out(tx, one.id, at))  # type: ignore[misc]
        else:
            continue
        handed.append(command)
    return handed


async def permit(ctx: ServiceContext, identity: Identity, command: Command) -> pb.Permit:
    """The permit for a switch; the same question again gets the same permit while nothing stops automation."""
    question = pb.BeginApply(
        command=command.id,
        attempt=command.attempt,
        generation=command.generation,
        fence=command.fence,
        nonce=f"http-{command.id}",
    )
    return await permits.ask(ctx, identity, question)


async def _permitted(ctx: ServiceContext, identity: Identity, command: Command) -> bool:
    found = await permit(ctx, identity, command)
    if not found.granted and not found.permit and found.gate != NO_ANSWER:
        result = pb.CommandResult(
            command=command.id,
            attempt=command.attempt,
            generation=command.generation,
            fence=command.fence,
            outcome=pb.COMMAND_OUTCOME_REFUSED,
            detail=found.gate,
            release=command.release,
            digest=command.digest,
        )
        await receipts.record(ctx, identity, wire.receipt(result), result)
    return found.granted
