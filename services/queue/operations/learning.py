"""The step after a verified outcome: strategies gain or lose standing, and the classifier gets its lesson.

Rule: only what is verified counts: a report that stayed healed is a success of its strategy, one that came back within
the watch window or whose tries were used up is a failure. A worker's word alone counts for nothing, a crash neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from libs.common.database import Transaction
from services.queue import classifier
from services.queue.context import ServiceContext
from services.queue.report import Report
from services.queue.store import classifier_counts, strategies
from services.queue.store.strategies import Kept
from services.queue.strategies import Strategy, confidence, judge
from services.queue.wire import facts
from services.queue.wire.facts import StrategyMove


async def counted(tx: Transaction, ctx: ServiceContext, outcomes: Sequence[tuple[str, bool]]) -> None:
    """Counts verified outcomes, each of a strategy, and tells what that changes; unknown strategies count nowhere."""
    shelf = ctx.book.shelf
    named = {name: strategy for name, _ in outcomes if (strategy := shelf.named(name))}
    kept = await strategies.lock(tx, sorted(named))
    for name, strategy in sorted(named.items()):
        before = kept.get(name)
        if before is None:
            continue
        standing, reasons = before.standing, ""
        for success in (success for other, success in outcomes if other == name):
            verdict = judge(strategy, standing, shelf.rules, success=success)
            standing, reasons = verdict.standing, verdict.reason or reasons
        after = replace(before, standing=standing, reason=reasons or before.reason)
        await strategies.save(tx, after)
        if standing.state != before.standing.state:
            await tell(tx, strategy, before, after, actor="queue", reason=reasons)


async def tell(tx: Transaction, strategy: Strategy, before: Kept, after: Kept, *, actor: str, reason: str) -> None:
    """Writes a change of standing into the strategy's history and tells it."""
    sure = confidence(strategy, after.standing)
    states = before.standing.state, after.standing.state
    await strategies.note(
        tx, strategy.name, before=states[0], after=states[1], reason=reason, actor=actor, confidence=sure
    )
    move = StrategyMove(strategy.name, *states, sure, after.standing.approved)
    tx.record(facts.strategy_changed(move, actor=actor, reason=reason))


async def taught(tx: Transaction, verified: Sequence[tuple[str, Report]]) -> None:
    """Teaches the classifier what reports turned out to be: (type, report)."""
    if not verified:
        return
    model = await classifier_counts.known(tx, to_teach=True)
    changed: dict[str, classifier.Counts] = {}
    for type_, report in verified:
        model, rows = classifier.teach(model, type_, report)
        changed.update({row.type: row for row in rows})
    await classifier_counts.save(tx, list(changed.values()))
