"""The errand `ask_sira`: a decision nobody is sure of gets one more opinion, or is made without it.

Rule: one try within SIRA's deadline. Whatever goes wrong on the way makes the decision without an opinion; only an
incident that has ended or moved on meanwhile makes none.
"""

from typing import Any

from libs.common.database import Transaction
from libs.common.errands import Errand, Runner
from libs.common.errors import Problem
from services.decider.context import ASK_SIRA, SCHEMA, ServiceContext, conclude, still_open
from services.decider.decision import Opinion
from services.decider.store import decisions

# Seconds beside SIRA's own deadline, for the question to ingest.
INGEST_SECONDS = 6.0


async def ask(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    """Asks SIRA, and ingest whether the incident still stands. Raises Problem when SIRA gives no usable answer."""
    if ctx.sira is None:
        return {"stands": True, "opinion": None, "note": "there is no SIRA any more"}
    try:
        opinion = await ctx.sira.opinion(errand.payload["body"], errand.id)
    finally:
        await ctx.sira.record_changes(ctx.database, SCHEMA)
    return {
        "stands": await _still_open(ctx, errand),
        "opinion": {
            "action": opinion.action,
            "release": opinion.release,
            "confidence": opinion.confidence,
            "why": opinion.why,
            "model": opinion.model,
        },
        "note": "answered",
    }


async def settle(ctx: ServiceContext, tx: Transaction, errand: Errand, answer: dict[str, Any]) -> None:
    """Makes the decision with the opinion, or ends it when its incident did."""
    if not answer["stands"]:
        await decisions.supersede(tx, errand.subject)
        return
    opinion = Opinion(**answer["opinion"]) if answer["opinion"] else None
    await conclude(tx, ctx, errand.subject, opinion, answer["note"])


async def failed(ctx: ServiceContext, tx: Transaction, errand: Errand, error: str) -> None:
    """Makes the decision without an opinion."""
    await conclude(tx, ctx, errand.subject, None, f"no answer: {error}")


async def _still_open(ctx: ServiceContext, errand: Errand) -> bool:
    try:
        return await still_open(ctx, errand.payload["incident"], errand.payload["round"])
    except Problem:
        # patcher asks again before it acts, so deciding is the safer half.
        return True


def runners(ctx: ServiceContext) -> dict[str, Runner]:
    """The table of errands."""
    return {ASK_SIRA: Runner(ask, settle, failed, timeout=ctx.settings.sira_timeout + INGEST_SECONDS, attempts=1)}
