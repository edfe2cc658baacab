"""Something happened: every fact is saved on the timeline, once, and merged into the projections.

The row's key is the fact's id, so a second delivery changes nothing; order does not matter, since positions are given
later and by time, and projections merge in any order (services/ops/projections.py).
"""

from __future__ import annotations

from libs.common.bus import Once
from libs.common.database import Transaction
from libs.common.facts import NAMES
from libs.common.telemetry import current_traceparent
from prunella.v1.events_pb2 import Event
from services.ops import wire
from services.ops.context import ServiceContext
from services.ops.projections import project
from services.ops.store import projections, timeline


async def on_fact(ctx: ServiceContext, event: Event, once: Once) -> None:
    """Saves one fact."""
    trace = current_traceparent()[3:35]
    fact = wire.decoded_fact(event)
    updates = list(project(fact))

    async def effect(tx: Transaction) -> None:
        await timeline.insert(tx, fact, trace, event.SerializeToString())
        if event.plugin_enrolled.label:
            await timeline.save_label(tx, event.plugin, event.merchant, event.plugin_enrolled.label)
        for update in updates:
            await projections.merge(tx, update)
        tx.after_commit(ctx.place_soon)

    await once(effect)


REACTIONS = dict.fromkeys(sorted(NAMES), on_fact)
