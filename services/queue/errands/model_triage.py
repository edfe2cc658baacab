"""The errand `model_triage`: a report that no rung was sure of gets one more opinion, or goes on without it.

Rule: one try within the model's deadline, and none while its breaker is open. Whatever goes wrong on the way ends
triage without an opinion, so a model that is down costs a report its deadline at most. What is known by then counts:
patterns and verified outcomes are consulted again when the answer is saved.
"""

from __future__ import annotations

from typing import Any

from libs.common.database import Transaction
from libs.common.errands import Errand, Runner, send
from services.queue import triage
from services.queue.context import SCHEMA, ServiceContext
from services.queue.errands.model_client import build_question
from services.queue.operations.enqueue import save_model_triage
from services.queue.report import Report, Triage
from services.queue.store import classifier_counts, reports, strategies
from services.queue.triage import Opinion

MODEL_TRIAGE = "model_triage"
# Seconds beside the model's own deadline, for recording what the breaker did.
EXTRA_SECONDS = 5.0
# Seconds its answer may still take to be saved before triage ends without it.
SETTLE_SECONDS = 5.0


def wants_model(judged: Triage, ctx: ServiceContext) -> bool:
    """Whether a model is asked: nobody was sure, there is one, and its breaker lets a question through."""
    return triage.unsure(judged) and ctx.model is not None and ctx.model.available()


def deadline_seconds(ctx: ServiceContext) -> float:
    """Seconds after which a report that was asked about is triaged without an answer."""
    return (ctx.model.timeout if ctx.model else 0.0) + EXTRA_SECONDS + SETTLE_SECONDS


async def send_model_triage(tx: Transaction, ctx: ServiceContext, report: Report) -> str:
    """Saves the errand with the state that wants it; returns its id."""
    payload = {"question": build_question(report, ctx.catalogue)}
    return await send(tx, SCHEMA, MODEL_TRIAGE, report.id, payload, database=ctx.database)


async def run(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    """Asks the model. Raises Problem when it gives no usable answer."""
    if ctx.model is None:
        return {"opinion": None, "note": "there is no model any more"}
    try:
        opinion = await ctx.model.opinion(errand.payload["question"], errand.id)
    finally:
        await ctx.model.record_changes(ctx.database, SCHEMA)
    return {"opinion": vars(opinion), "note": ""}


async def settle(ctx: ServiceContext, tx: Transaction, errand: Errand, answer: dict[str, Any]) -> None:
    """Saves the triage of the report with the opinion."""
    opinion = Opinion(**answer["opinion"]) if answer["opinion"] else None
    await _save(ctx, tx, errand.subject, opinion, answer["note"])


async def failed(ctx: ServiceContext, tx: Transaction, errand: Errand, error: str) -> None:
    """Saves the triage of the report without an opinion."""
    await _save(ctx, tx, errand.subject, None, f"the model gave no answer: {error}")


async def _save(ctx: ServiceContext, tx: Transaction, report: str, opinion: Opinion | None, note: str) -> None:
    row = await reports.get(tx, report)
    if row is None or row.state != "triaging":
        # A person was faster, or the deadline was.
        return
    found = reports.report(row)
    statuses = {name: stored.status for name, stored in (await strategies.all_statuses(tx)).items()}
    catalogue = ctx.catalogue.with_statuses(statuses)
    before = triage.classify(found, catalogue, await classifier_counts.load(tx))
    after = triage.with_opinion(found, catalogue, before, opinion, note) if triage.unsure(before) else before
    await save_model_triage(tx, ctx, report, after)


def runners(ctx: ServiceContext) -> dict[str, Runner]:
    """The table of errands. Without a model it stays, for questions an earlier run left behind."""
    timeout = ctx.model.timeout if ctx.model else 0.0
    return {MODEL_TRIAGE: Runner(run, settle, failed, timeout=timeout + EXTRA_SECONDS, attempts=1)}
