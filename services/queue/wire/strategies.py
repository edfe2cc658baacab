"""Strategies as callers and workers see them."""

from __future__ import annotations

from typing import Any

from prunella.v1 import queue_pb2 as pb
from services.queue.store.strategies import StoredStatus
from services.queue.strategies import NEW, Fit, Step, Strategy, confidence


def name(strategy: str) -> str:
    """`strategies/{strategy}`."""
    return f"strategies/{strategy}"


def resource(strategy: Strategy, stored: StoredStatus | None) -> pb.Strategy:
    """A strategy with its status."""
    status = stored.status if stored else NEW
    proto = pb.Strategy(
        name=name(strategy.name),
        title=strategy.title,
        type=strategy.type,
        steps=[_step(step) for step in strategy.steps],
        check=pb.StrategyCheck(
            step=_step(strategy.check.step),
            path=strategy.check.path,
            comparison=strategy.check.comparison,
            value=strategy.check.value,
        ),
        state=status.state,
        confidence=confidence(strategy, status),
        successes=status.successes,
        failures=status.failures,
        approved=status.approved,
        approved_by=stored.approved_by if stored else "",
        reason=stored.reason if stored else "",
        patterns=[pattern.text for pattern in strategy.patterns],
        package=strategy.package,
    )
    proto.estimated_duration.FromMilliseconds(round(strategy.estimated_seconds * 1000))
    if stored:
        proto.update_time.FromDatetime(stored.updated)
    return proto


def _step(step: Step) -> pb.StrategyStep:
    return pb.StrategyStep(tool=step.tool, arguments=step.arguments, write=step.write, purpose=step.purpose)


def fit(found: Fit, stored: StoredStatus | None, *, best: bool) -> pb.StrategyFit:
    """How well a strategy fits, as callers see it."""
    return pb.StrategyFit(
        strategy=resource(found.strategy, stored), score=found.score, best=best, explanation=found.explanation
    )


def change(row: Any) -> pb.StrategyChange:
    """A change of status, as callers see it."""
    proto = pb.StrategyChange(
        from_state=row.from_state,
        to_state=row.to_state,
        reason=row.reason,
        actor=row.actor,
        confidence=row.confidence,
    )
    proto.create_time.FromDatetime(row.create_time)
    return proto
