"""The moves of an attempt: into each state, with its deadline, its fact and its errands.

Rule: whoever enters a state through here leaves with that state's deadline set, its fact told and its history written.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from services.patcher.attempt.model import (
    FINAL,
    GRACE,
    TRIES,
    Attempt,
    Change,
    Errand,
    ErrandKind,
    Fact,
    State,
    Step,
    Told,
)
from services.patcher.attempt.observations import Purpose
from services.patcher.policy import Action

KINDS = {Action.PATCH: "update", Action.CONFIG_FIX: "config_update", Action.RESTART: "restart"}
SLOW_REVERT = timedelta(seconds=30)


def move(
    attempt: Attempt,
    now: datetime,
    state: State,
    observation: str,
    reason: str,
    deadline: datetime | None,
    facts: tuple[Fact, ...] = (),
    errands: tuple[Errand, ...] = (),
    **changes: Any,
) -> Change:
    """The attempt in a state, with its history."""
    end = (attempt.end_time or now) if state in FINAL else None
    moved = replace(attempt, state=state, reason=reason, deadline=deadline, update_time=now, end_time=end, **changes)
    return Change(moved, facts, errands, (Step(attempt.state, state, observation, reason),))


def refuse(attempt: Attempt, now: datetime, gate: str, reason: str) -> Change:
    """A gate said no."""
    facts = (Fact(Told.REFUSED, reason, gate=gate),)
    return move(attempt, now, State.REFUSED, "refused", reason, None, facts, called_off(attempt, reason), held_by="")


def fail(attempt: Attempt, now: datetime, failure: str, reason: str) -> Change:
    """It ended with nothing applied."""
    facts = (Fact(Told.FAILED, reason, failure=failure),)
    return move(attempt, now, State.FAILED, failure, reason, None, facts, called_off(attempt, reason), held_by="")


def cancel(attempt: Attempt, now: datetime, actor: str, reason: str) -> Change:
    """Somebody called it off with nothing applied."""
    facts = (Fact(Told.CANCELLED, reason, actor=actor),)
    return move(
        attempt, now, State.CANCELLED, "cancelled", reason, None, facts, called_off(attempt, reason), held_by=""
    )


def called_off(attempt: Attempt, reason: str) -> tuple[Errand, ...]:
    """The errand that withdraws a command nobody permitted."""
    return (withdraw(attempt, reason),) if attempt.state is State.APPLYING and attempt.command else ()


def withdraw(attempt: Attempt, reason: str) -> Errand:
    """Takes the switch command back."""
    payload = {"command": attempt.command, "reason": reason}
    return Errand(ErrandKind.WITHDRAW_COMMAND, f"{attempt.id}/withdraw/{attempt.tries}", payload)


def switch(attempt: Attempt, now: datetime) -> Change:
    """Sends the command that switches; the agent will ask for a permit before it does."""
    number = attempt.tries + 1
    if attempt.refusals >= TRIES:
        return fail(attempt, now, "command_refused", f"the agent refused the command {TRIES} times: {attempt.reason}")
    kind = "rollback" if attempt.other_slot else KINDS.get(attempt.action, "update")
    until = now + timedelta(seconds=attempt.bounds.apply_timeout)
    generation = attempt.from_generation if attempt.other_slot else 0
    errand = issue(attempt, Purpose.SWITCH, number, kind, generation, until)
    reason = f"command {kind} {attempt.target}".strip()
    return move(
        attempt,
        now,
        State.APPLYING,
        "allowed",
        reason,
        until + GRACE,
        errands=(errand,),
        tries=number,
        command="",
        held_by="",
    )


def commit(attempt: Attempt, now: datetime, reason: str) -> Change:
    """Tells the agent to keep what it runs; after the other slot's return there is nothing to keep."""
    told = Fact(Told.COMMITTING, reason)
    if attempt.other_slot:
        return succeed(attempt, now, reason)
    errand = issue(attempt, Purpose.COMMIT, 1, "commit", attempt.generation, attempt.last_word)
    return move(
        attempt, now, State.COMMITTING, "judged", reason, attempt.last_word, (told,), (errand,), commit_sent=True
    )


def succeed(attempt: Attempt, now: datetime, reason: str) -> Change:
    """The remedy is in force."""
    return move(attempt, now, State.SUCCESS, "committed", reason, None, (Fact(Told.SUCCEEDED, reason),), held_by="")


def roll_back(attempt: Attempt, now: datetime, observation: str, reason: str, *, actor: str = "") -> Change:
    """Takes the remedy back; no permit is needed for that."""
    if attempt.other_slot or attempt.rollbacks >= TRIES:
        facts = (Fact(Told.ROLLBACK_FAILED, reason),)
        return move(attempt, now, State.ROLLBACK_FAILED, observation, reason, None, facts)
    until = now + timedelta(seconds=attempt.bounds.dead_man) + SLOW_REVERT
    number = attempt.rollbacks + 1
    errand = issue(attempt, Purpose.ROLLBACK, number, "rollback", attempt.generation, until)
    facts = (Fact(Told.ROLLING_BACK, reason, actor=actor),)
    return move(
        attempt, now, State.ROLLING_BACK, observation, reason, until + GRACE, facts, (errand,), rollbacks=number
    )


def issue_health_check(attempt: Attempt) -> Errand:
    """Has the agent run the release's own probe, in place."""
    return issue(attempt, Purpose.HEALTH_CHECK, 1, "health_check", attempt.generation, attempt.last_commit)


def issue(attempt: Attempt, purpose: Purpose, number: int, kind: str, generation: int, until: datetime) -> Errand:
    """The errand that has ingest write a command down."""
    payload = {
        "purpose": purpose.value,
        "number": number,
        "kind": kind,
        "generation": generation,
        "until": until.isoformat(),
    }
    return Errand(ErrandKind.ISSUE_COMMAND, f"{attempt.id}/{purpose}/{number}", payload)
