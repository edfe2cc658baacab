"""Someone asked: the plane at a glance."""

# ruff: noqa: N802 - gRPC names its methods so

from __future__ import annotations

import asyncio
from typing import Any

from libs.common.database import Transaction
from libs.common.errors import Invalid
from prunella.v1 import overview_pb2 as pb
from services.ops import overview
from services.ops.context import ServiceContext
from services.ops.handlers.sibling_cache import SiblingCache
from services.ops.store import overview as store
from services.ops.wire import overview as wire
from services.ops.wire.filters import merchant as merchant_of
from services.ops.wire.filters import timestamp


class OverviewHandlers:
    """The overview's part of OpsService."""

    ctx: ServiceContext
    siblings: SiblingCache

    async def GetOverview(self, request: pb.GetOverviewRequest, _context: Any) -> pb.GetOverviewResponse:
        """Active incidents, recent outcomes, and what needs a person's attention."""
        merchant = merchant_of(request.merchant)
        if not 0 <= request.limit <= overview.MOST_LINES:
            raise Invalid(
                f"limit must be between 0 and {overview.MOST_LINES}, it was {request.limit}",
                reason="BAD_LIMIT",
                field="limit",
            )
        limit = request.limit or overview.DEFAULT_LINES
        fleet, queue = await asyncio.gather(self.siblings.fleet(merchant), self.siblings.queue(merchant))
        async with self.ctx.database.reading() as reading:
            now = reading.now
            active = [wire.active_incident(row) for row in await store.active(reading, merchant, limit)]
            items, counts = await _attention(reading, merchant, limit)
            return pb.GetOverviewResponse(
                time=timestamp(now),
                active_incidents=active,
                active_by_severity=wire.by_severity(await store.counts(reading, merchant)),
                recent=await _recent(reading, merchant),
                attention=items,
                attention_by_kind=counts,
                fleet=wire.fleet(fleet, now),
                queue=wire.queue(queue),
                services=[wire.service_status(row, now) for row in await store.health(reading)],
            )


async def _recent(reading: Transaction, merchant: str) -> pb.RecentOutcomes:
    since = reading.now - overview.RECENT
    row, attempts = await store.recent(reading, merchant, since)
    return pb.RecentOutcomes(
        since_time=timestamp(since),
        opened=row.opened,
        healed=row.healed,
        closed=row.closed,
        escalated=row.escalated,
        attempts=attempts,
    )


async def _attention(reading: Transaction, merchant: str, limit: int) -> tuple[list[pb.AttentionItem], dict[str, int]]:
    """The most urgent items, and all of them by kind; dead letters belong to no merchant."""
    items = [wire.attention(row) for row in await store.attention(reading, merchant, reading.now, limit)]
    counts = await store.attention_counts(reading, merchant, reading.now)
    dead = [] if merchant else await store.dead_letters(reading)
    if dead:
        items += [wire.dead_letters(row) for row in dead]
        counts["dead_letter"] = sum(row.count for row in dead)
    return sorted(items, key=lambda item: -item.severity)[:limit], counts
