"""Reports that wait for triage are understood, outside of any transaction that somebody waits for.

Rule: classification only reads, so it happens before the transaction, a few reports at a time; saved then is what is
unchanged since it was read. A report nobody is sure of goes to the model; when its answer is late, triage ends
without it. A triage that raises gives the report to a person with the reason: it never comes around again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction, unstorable
from libs.common.telemetry import use_traceparent
from services.queue import triage
from services.queue.catalogue import Catalogue
from services.queue.classifier import Classifier
from services.queue.context import ServiceContext
from services.queue.errands.model_triage import deadline_seconds, send_model_triage, wants_model
from services.queue.operations.enqueue import save_triage
from services.queue.report import Blocker, Origin, Triage
from services.queue.store import classifier_counts, report_transitions, reports, state_counts, strategies

log = logging.getLogger(__name__)

BATCH = 200
# Batches in a round; the next round follows at once.
ROUNDS = 10
TURN = 10
LATE = "the model did not answer in time"


async def untriaged(ctx: ServiceContext, now: datetime) -> int:
    """Triages what waits, or sends it to the model; returns how many there were."""
    count = 0
    for _ in range(ROUNDS):
        async with ctx.database.reading() as tx:
            rows = await reports.untriaged(tx, now, BATCH)
            if not rows:
                return count
            statuses = {name: stored.status for name, stored in (await strategies.all_statuses(tx)).items()}
            classifier = await classifier_counts.load(tx)
        await _settle(ctx, await _judge(rows, ctx.catalogue.with_statuses(statuses), classifier))
        count += len(rows)
        if len(rows) < BATCH:
            break
    return count


async def _judge(rows: Sequence[Any], catalogue: Catalogue, classifier: Classifier) -> list[tuple[Any, Triage]]:
    judged = []
    for index, row in enumerate(rows):
        judged.append((row, _classify(row, catalogue, classifier)))
        if index % TURN == TURN - 1:
            await asyncio.sleep(0)
    return judged


def _classify(row: Any, catalogue: Catalogue, classifier: Classifier) -> Triage:
    try:
        report = reports.report(row)
        judged = triage.classify(report, catalogue, classifier)
        if row.state == "triaging" and triage.unsure(judged):
            return triage.with_opinion(report, catalogue, judged, None, LATE)
        return judged
    except Exception as error:
        log.exception("triage of report %s failed", row.id)
        return _broken(row, error)


def _broken(row: Any, error: Exception) -> Triage:
    return Triage(
        type=triage.UNKNOWN,
        severity=row.severity or row.reported_severity or "medium",
        auto_fixable=False,
        confidence=0.0,
        origin=Origin.NONE,
        tools=(),
        estimated_seconds=0.0,
        explanation=f"Triage failed with {type(error).__name__}. A person is asked.",
        strategy="",
        blocker=Blocker.UNSURE,
    )


async def _settle(ctx: ServiceContext, judged: Sequence[tuple[Any, Triage]]) -> None:
    for_model = [(row, one) for row, one in judged if row.state != "triaging" and wants_model(one, ctx)]
    for_model_ids = {str(row.id) for row, _ in for_model}
    rest = [(row, one) for row, one in judged if str(row.id) not in for_model_ids]
    if rest:
        await _save(ctx, rest)
    if for_model:
        await ctx.database.transaction(lambda tx: _ask_model(tx, ctx, [row for row, _ in for_model]))


async def _save(ctx: ServiceContext, judged: Sequence[tuple[Any, Triage]]) -> None:
    """Saves triages; when they cannot be stored together each is saved for itself, and a broken one says so."""
    try:
        await ctx.database.transaction(lambda tx: save_triage(tx, ctx, judged))
    except Exception as error:
        if not unstorable(error):
            raise
        if len(judged) > 1:
            for one in judged:
                await _save(ctx, [one])
            return
        ((row, triage_),) = judged
        log.exception("the triage of report %s cannot be stored", row.id)
        if triage_.blocker is not Blocker.UNSURE:
            await _save(ctx, [(row, _broken(row, error))])


async def _ask_model(tx: Transaction, ctx: ServiceContext, rows: Sequence[Any]) -> None:
    unchanged = await report_transitions.lock_unchanged(tx, rows)
    if not unchanged:
        return
    current = [row for row in rows if str(row.id) in unchanged]
    until = tx.now + timedelta(seconds=deadline_seconds(ctx))
    await report_transitions.mark_triaging(tx, sorted(unchanged), until)
    await state_counts.add_transitions(tx, "report", ((row.state, "triaging", 0) for row in current))
    for row in current:
        with use_traceparent(row.traceparent):
            await send_model_triage(tx, ctx, reports.report(row))
