"""Occurrences of errors are counted, and what follows from it: a new report, a recurrence, the outcome of a strategy.

Rule: a batch is counted in one statement for each counter of a kind. What is merged, or beyond the bound of new kinds
(`kinds`), is counted beside it, and what it grew by goes to the report it belongs to. When the database will not take a
batch, its elements are counted one by one, each under a savepoint, and only those it will not take are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from libs.common.database import Transaction, unstorable
from libs.common.telemetry import current_telemetry, current_traceparent, use_traceparent
from services.queue.context import ServiceContext
from services.queue.kinds import Kind
from services.queue.operations.kind_places import count_elsewhere, place
from services.queue.operations.learning import record_outcomes
from services.queue.store import reports
from services.queue.store.reports import Occurrence
from services.queue.wire import facts
from services.queue.wire.reports import Refusal

log = logging.getLogger(__name__)

NOT_STORABLE = Refusal(
    "ERROR_NOT_STORABLE", "error", "this error cannot be stored and was logged here; leave it out, the others are kept"
)


@dataclass(frozen=True)
class Counted:
    """What became of one kind of error of a request."""

    report: str
    created: bool
    came_back: bool


async def count_batches(
    tx: Transaction, ctx: ServiceContext, batches: Sequence[Sequence[Occurrence]], source: str
) -> dict[Kind, Counted | Refusal]:
    """Counts batches of which each holds a kind at most once; what became of each kind."""
    found: dict[Kind, Counted | Refusal] = {}
    if not batches:
        return found
    placed = await place(tx, batches[0], ctx.settings.new_kinds)
    own = [[one for one in batch if placed.is_own(one)] for batch in batches]
    own[0] = [placed.promoted(one) for one in own[0]]
    for batch in own:
        if batch:
            await _count(tx, ctx, batch, source, found)
    others = [[one for one in batch if not placed.is_own(one)] for batch in batches]
    if others[0]:
        grown = await count_elsewhere(tx, placed, others, ctx.settings.new_kinds)
        if grown:
            await _count(tx, ctx, grown, source, found)
        for one in others[0]:
            target = placed.targets[one.plugin, one.fingerprint]
            known = found.get((one.plugin, target.fingerprint))
            found[one.plugin, one.fingerprint] = known or Counted(target.report, created=False, came_back=False)
    return found


async def count_one_by_one(
    tx: Transaction, ctx: ServiceContext, batches: Sequence[Sequence[Occurrence]], source: str
) -> dict[Kind, Counted | Refusal]:
    """The same, each element for itself, so that only what cannot be stored is refused."""
    found: dict[Kind, Counted | Refusal] = {}
    elements = sorted((one for batch in batches for one in batch), key=lambda one: (one.plugin, one.fingerprint))
    for one in elements:
        kind = (one.plugin, one.fingerprint)
        try:
            async with tx.savepoint():
                counted = await count_batches(tx, ctx, [[one]], source)
        except Exception as error:
            if not unstorable(error):
                raise
            log.exception("an error of plugin %s cannot be stored", one.plugin)
            found[kind] = NOT_STORABLE
            continue
        found[kind] = _together(found.get(kind), counted[kind])
    return found


def _together(before: Counted | Refusal | None, now: Counted | Refusal) -> Counted | Refusal:
    if not isinstance(before, Counted) or not isinstance(now, Counted):
        return before if isinstance(before, Refusal) else now
    return Counted(now.report, before.created or now.created, before.came_back or now.came_back)


async def _count(
    tx: Transaction,
    ctx: ServiceContext,
    batch: Sequence[Occurrence],
    source: str,
    found: dict[Kind, Counted | Refusal],
) -> None:
    by_kind = {(one.plugin, one.fingerprint): one for one in batch}
    recurred = []
    caller = current_traceparent()
    rows = await reports.upsert(tx, batch, source)
    # A kind with several counters is in several batches, and new in the first of them.
    new = {str(row.id) for row in rows if (row.plugin, row.fingerprint) not in found}
    if first := [one for one in batch if one.id in new]:
        await reports.insert_details(tx, first)
    for row in rows:
        one = by_kind[row.plugin, row.fingerprint]
        came_back = row.previous_state not in ("", row.state)
        created = str(row.id) == one.id and one.id in new
        known = found.get((row.plugin, row.fingerprint))
        if not isinstance(known, Refusal):
            known = known or Counted("", created=False, came_back=False)
            found[row.plugin, row.fingerprint] = Counted(
                str(row.id), created or known.created, came_back or known.came_back
            )
        if created or came_back:
            with use_traceparent(row.traceparent):
                tx.record(facts.error_reported(row, one.message or one.type, regression=came_back))
            tx.after_commit(partial(_span, row.traceparent, str(row.id), tx.now, created, caller))
        if row.previous_state == "resolved_pending" and came_back:
            recurred.append((row.strategy, False))
    await record_outcomes(tx, ctx, recurred)


def _span(traceparent: str, report: str, now: datetime, created: bool, caller: str) -> None:
    """The span a report's trace begins with, or goes on with; made after the commit."""
    links = [caller] if caller else []
    where = {"parent": "", "traceparent": traceparent} if created else {"parent": traceparent}
    name = "error reported" if created else "error came back"
    current_telemetry().span_at(name, now, now, links=links, attributes={"report": report}, **where)
