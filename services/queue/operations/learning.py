"""What follows from a verified outcome: the status of its strategy, and an example for the classifier.

Rule: only what is verified counts: a report that stayed healed is a success of its strategy, one that came back within
the watch window or whose tries were used up is a failure. A completion alone counts for nothing, a crash neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from libs.common.database import Transaction
from services.queue import classifier
from services.queue.context import ServiceContext
from services.queue.report import Report
from services.queue.store import classifier_counts, strategies
from services.queue.store.strategies import StoredStatus
from services.queue.strategies import Strategy, confidence, judge
from services.queue.wire import facts


async def record_outcomes(tx: Transaction, ctx: ServiceContext, outcomes: Sequence[tuple[str, bool]]) -> None:
    """Counts verified outcomes, each of a strategy, and records what that changes; unknown strategies count nowhere."""
    strategy_set = ctx.catalogue.strategy_set
    named = {name: strategy for name, _ in outcomes if (strategy := strategy_set.named(name))}
    stored = await strategies.lock(tx, sorted(named))
    for name, strategy in sorted(named.items()):
        before = stored.get(name)
        if before is None:
            continue
        status, reasons = before.status, ""
        for success in (success for other, success in outcomes if other == name):
            update = judge(strategy, status, strategy_set.rules, success=success)
            status, reasons = update.status, update.reason or reasons
        after = replace(before, status=status, reason=reasons or before.reason)
        await strategies.save(tx, after)
        if status.state != before.status.state:
            await record_status_change(tx, strategy, before, after, actor="queue", reason=reasons)


async def record_status_change(
    tx: Transaction, strategy: Strategy, before: StoredStatus, after: StoredStatus, *, actor: str, reason: str
) -> None:
    """Records a change of status, in the strategy's history and as a fact."""
    old, new, sure = before.status, after.status, confidence(strategy, after.status)
    values = {"before": old.state, "after": new.state, "reason": reason, "actor": actor}
    await strategies.add_history(tx, strategy.name, confidence=sure, **values)
    tx.record(facts.strategy_changed(strategy.name, old, new, sure, actor=actor, reason=reason))


async def train_classifier(tx: Transaction, verified: Sequence[tuple[str, Report]]) -> None:
    """Trains the classifier with what reports turned out to be: (type, report)."""
    if not verified:
        return
    trained = await classifier_counts.load(tx, for_update=True)
    changed: dict[str, classifier.TypeCounts] = {}
    for type_, report in verified:
        trained, rows = classifier.train(trained, type_, report)
        changed.update({row.type: row for row in rows})
    await classifier_counts.save(tx, list(changed.values()))
