"""What happens to an attempt is a result of its plugin in a rollout; and operators approve or reject a rollout.

Rule: a result counts only when it is of the newest attempt of the plugin, and the heart knows a repeated one. What a
gate or the sandbox says of every plugin alike pauses the rollout instead of leaving out one plugin after another.
"""

import logging
from collections.abc import Callable

from libs.common.bus import Once, Reaction, fact_name
from libs.common.database import Transaction
from libs.common.errors import Problem
from prunella.v1.events_pb2 import Event
from services.patcher.approvals import Subject
from services.patcher.context import ServiceContext
from services.patcher.operations import approvals
from services.patcher.operations.apply_rollout_change import observe
from services.patcher.operations.launch_members import advance
from services.patcher.rollout import (
    Approved,
    Member,
    MemberState,
    NotSwitched,
    Observation,
    Outcome,
    PauseRequested,
    Rejected,
    Settled,
    State,
    Switched,
    Unproven,
)
from services.patcher.store import members, rollouts

log = logging.getLogger(__name__)

# Said of one plugin, true for all.
GATES_FOR_ALL = frozenset({"AUTOPATCH_DISABLED", "CONFIDENCE", "SEVERITY", "STAGING"})
FAILURES_FOR_ALL = frozenset({"release_unknown", "staging_failed", "staging_lost", "staging_timeout"})
FOR_GOOD = frozenset({"command_not_issued", "command_refused"})
RUNS_IT = frozenset({MemberState.HEALTHY, MemberState.WATCHED})
PAUSABLE = frozenset({State.RUNNING, State.SOAKING})


def _failed(event: Event, member: Member) -> Observation:
    message = event.attempt_failed
    return NotSwitched(member, event.reason, retry=message.failure not in FOR_GOOD)


def _cancelled(event: Event, member: Member) -> Observation:
    # What the plane itself called off may be tried again; what a person called off stays so.
    return NotSwitched(member, event.reason, retry=event.actor in {"", "patcher"})


def _refused(event: Event, member: Member) -> Observation:
    return NotSwitched(member, event.reason, retry=event.attempt_refused.gate in GATES_FOR_ALL)


def _rolled_back(event: Event, member: Member) -> Observation:
    # An agent that got no answer in time says nothing about the build; one that fell silent under it may.
    if event.attempt_rolled_back.never_switched:
        return NotSwitched(member, event.reason, retry=True)
    return Settled(member, Outcome.REVERTED, event.reason)


def _settled(outcome: Outcome) -> Callable[[Event, Member], Observation]:
    return lambda event, member: Settled(member, outcome, event.reason)


def _succeeded(event: Event, member: Member) -> Observation:
    if event.attempt_succeeded.verdict.low_evidence:
        return Unproven(member, event.reason)
    return Settled(member, Outcome.HEALTHY, event.reason)


def _watched(event: Event, member: Member) -> Observation:
    """How a watch ended: who stays unproven, or runs something else by now, stays unknown."""
    ends = {"proven": Outcome.HEALTHY, "worse": Outcome.BROKEN}
    going_back = member.state in {MemberState.ROLLING_BACK, MemberState.ROLLBACK_FAILED}
    # What is rolled back already needs no word on whether it was good.
    outcome = None if going_back else ends.get(event.attempt_watch_ended.outcome)
    return Settled(member, outcome, event.reason) if outcome else Unproven(member, event.reason)


OBSERVATIONS: dict[str, Callable[[Event, Member], Observation]] = {
    "apply_authorized": lambda _event, member: Switched(member),
    "attempt_succeeded": _succeeded,
    "attempt_watch_ended": _watched,
    "attempt_rolled_back": _rolled_back,
    "attempt_rollback_failed": _settled(Outcome.BROKEN),
    "attempt_unconfirmed": _settled(Outcome.SILENT),
    "attempt_failed": _failed,
    "attempt_cancelled": _cancelled,
    "attempt_refused": _refused,
}


def affects_all(event: Event) -> bool:
    """Whether what stopped this attempt would stop every other one of the rollout."""
    return event.attempt_failed.failure in FAILURES_FOR_ALL or event.attempt_refused.gate in GATES_FOR_ALL


async def on_attempt(ctx: ServiceContext, event: Event, once: Once) -> None:
    """A word about an attempt of a rollout; then the next plugin is started at once."""
    moved = ""

    async def apply(tx: Transaction) -> None:
        nonlocal moved
        switch_number = await members.of_attempt(tx, getattr(event, fact_name(event)).attempt)
        if switch_number is None:
            return
        stored = await rollouts.get(tx, switch_number[0], lock=True)
        row = await members.get(tx, *switch_number)
        if stored is None or row is None:
            return
        name, member = fact_name(event), row.member
        if name == "attempt_succeeded" and member.state is MemberState.ROLLING_BACK:
            # Its commit was quicker than the rollback: it has to be asked once more.
            await members.set_rollback_requested(tx, stored.rollout.id, member.plugin, requested=False)
        stored = await observe(tx, ctx, stored, OBSERVATIONS[name](event, member), cause=event)
        if affects_all(event) and stored.rollout.state in PAUSABLE:
            await observe(tx, ctx, stored, PauseRequested("patcher", event.reason), cause=event)
        moved = stored.rollout.id

    await once(apply)
    await _advance(ctx, moved)


async def on_incident(ctx: ServiceContext, event: Event, once: Once) -> None:
    """A plugin that was well after its switch fell ill while its rollout goes on."""

    async def apply(tx: Transaction) -> None:
        rollout = await members.reserved_by(tx, event.plugin)
        stored = await rollouts.get(tx, rollout, lock=True) if rollout else None
        row = await members.get(tx, rollout, event.plugin) if rollout else None
        if stored is None or row is None or row.member.state not in RUNS_IT:
            return
        why = f"{getattr(event, fact_name(event)).type}: {event.reason}"
        await observe(tx, ctx, stored, Settled(row.member, Outcome.BROKEN, why), cause=event)

    await once(apply)


async def on_approval(ctx: ServiceContext, event: Event, once: Once) -> None:
    """People, or the end of their time, decided about a rollout."""
    message = event.approval_ended
    collection, _, rollout = message.subject.partition("/")

    async def apply(tx: Transaction) -> None:
        stored = await rollouts.get(tx, rollout, lock=True) if collection == "rollouts" else None
        if stored is None or stored.rollout.state is not State.PENDING:
            return
        if message.outcome == "approved":
            await approvals.mark_used(tx, Subject(message.subject))
            await observe(tx, ctx, stored, Approved(), cause=event)
        elif message.outcome not in {"void", "withdrawn"}:
            await observe(tx, ctx, stored, Rejected(event.actor, f"{message.outcome}: {event.reason}"), cause=event)

    await once(apply)
    await _advance(ctx, rollout if collection == "rollouts" else "")


async def _advance(ctx: ServiceContext, rollout: str) -> None:
    """The sweep would do it a moment later."""
    if not rollout:
        return
    try:
        await advance(ctx, rollout)
    except Problem as problem:
        log.debug("rollout %s waits: %s", rollout, problem.message)


REACTIONS: dict[str, Reaction] = {
    **dict.fromkeys(OBSERVATIONS, on_attempt),
    "incident_opened": on_incident,
    "incident_reopened": on_incident,
    "approval_ended": on_approval,
}
