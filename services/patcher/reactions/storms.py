"""Storms: while ingest says that one is on, automation for its package and type pauses; rolling back does not.

Rule: what has a permit goes its way; a command without one is taken back and its attempt waits until the storm is over.
"""

from libs.common.bus import Once, Reaction
from libs.common.database import Transaction
from libs.common.errands import send
from prunella.v1.events_pb2 import Event
from services.patcher.attempt import ErrandKind
from services.patcher.context import SCHEMA, ServiceContext
from services.patcher.store import storms


async def on_storm_started(ctx: ServiceContext, event: Event, once: Once) -> None:
    """Automation pauses."""
    message = event.storm_started
    reason = (
        event.reason or f"{message.plugins} of {message.fleet} {message.package} plugins have {message.type} at once"
    )

    async def pause(tx: Transaction) -> None:
        if await storms.started(tx, message.storm, message.package, message.type, reason):
            scope, payload = f"storms/{message.package}/{message.type}", {"gate": "STORM", "reason": reason}
            await send(tx, SCHEMA, ErrandKind.STOP, scope, payload, database=ctx.database)

    await once(pause)


async def on_storm_ended(_ctx: ServiceContext, event: Event, once: Once) -> None:
    """Automation goes on; the sweep of held attempts sees to it."""
    message = event.storm_ended

    async def resume(tx: Transaction) -> None:
        await storms.ended(tx, message.storm, message.package, message.type, event.reason)

    await once(resume)


REACTIONS: dict[str, Reaction] = {"storm_started": on_storm_started, "storm_ended": on_storm_ended}
