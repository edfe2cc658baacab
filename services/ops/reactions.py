"""Something happened: every fact goes on the timeline, once, and leaves its marks on what people see.

The row's key is the fact's id, so a second delivery changes nothing; order does not matter, since positions are given
later and by time, and marks are merged (services/ops/marks.py).
"""

from __future__ import annotations

from datetime import UTC

from libs.common.bus import Once
from libs.common.database import Transaction
from libs.common.facts import NAMES, fact_name
from libs.common.telemetry import current_traceparent
from prunella.v1.events_pb2 import Event
from services.ops.context import ServiceContext
from services.ops.store import insight, timeline
from services.ops.wire.marks import left_by


async def on_fact(ctx: ServiceContext, event: Event, once: Once) -> None:
    """Writes one fact down."""
    trace = current_traceparent()[3:35]
    left = left_by(event)

    async def effect(tx: Transaction) -> None:
        await timeline.tell(
            tx,
            event=event.id,
            time=event.time.ToDatetime(UTC),
            fact=fact_name(event),
            plugin=event.plugin,
            incident=event.incident,
            trace=trace,
            payload=event.SerializeToString(),
        )
        if event.plugin_enrolled.label:
            await timeline.label(tx, event.plugin, event.plugin_enrolled.label)
        for mark in left:
            await insight.write(tx, mark)
        tx.after_commit(ctx.hurry)

    await once(effect)


REACTIONS = dict.fromkeys(sorted(NAMES), on_fact)
