"""The transitions of an attempt: into each state with its deadline, its fact and its errands; and those of receipts.

Rule: whoever enters a state through here leaves with that state's deadline set, its fact recorded and its history
written. Only the agent knows what runs: its COMMITTED or REVERTED about the attempt's generation ends the attempt
whatever was planned meanwhile, and the first final receipt stands. Silence proves nothing, so it never ends a permitted
attempt.
"""

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from services.patcher.attempt.model import (
    FINAL,
    GRACE,
    HELD_LIMIT,
    TRIES,
    Attempt,
    AttemptEvent,
    Change,
    Errand,
    ErrandKind,
    Fact,
    Purpose,
    State,
    Transition,
)
from services.patcher.evidence import Probe
from services.patcher.policy import HOLDING_GATES, POLICY_GATES, Action
from services.patcher.verdict import Result

KINDS = {Action.PATCH: "update", Action.CONFIG_FIX: "config_update", Action.RESTART: "restart"}
SLOW_REVERT = timedelta(seconds=30)
APPLIED = frozenset({State.APPLYING, State.PROBATION, State.COMMITTING, State.ROLLING_BACK, State.UNCONFIRMED})
SETTLE = timedelta(seconds=5)
# How an agent begins its word when the new release ended right after its start.
# What an agent answers that is told to go back from what it went back from before.
ALREADY_REVERTED = "REVERTED"
DID_NOT_START = "DID_NOT_START"
# How it begins its word on a release that its host cannot run: that says nothing of the release itself.
REQUIREMENT_UNMET = "REQUIREMENT_UNMET"
# The gate of the permit function that looks whether the evidence still stands.
INCIDENT_OVER = "INCIDENT_OVER"


def move(
    attempt: Attempt,
    now: datetime,
    state: State,
    observation: str,
    reason: str,
    deadline: datetime | None = None,
    facts: tuple[Fact, ...] = (),
    errands: tuple[Errand, ...] = (),
    held_by: str = "",
    **changes: Any,
) -> Change:
    """The attempt in a state, with its history; held by no gate unless one is named."""
    changes |= {"state": state, "reason": reason, "deadline_time": deadline, "held_by": held_by, "update_time": now}
    moved = replace(attempt, end_time=(attempt.end_time or now) if state in FINAL else None, **changes)
    return Change(moved, facts, errands, (Transition(attempt.state, state, observation, reason),))


def refuse(attempt: Attempt, now: datetime, gate: str, reason: str) -> Change:
    """A gate said no."""
    facts = (Fact(AttemptEvent.REFUSED, reason, gate=gate),)
    return move(attempt, now, State.REFUSED, "refused", reason, None, facts, withdrawal(attempt, reason))


def fail(attempt: Attempt, now: datetime, failure: str, reason: str) -> Change:
    """It ended with nothing applied."""
    facts = (Fact(AttemptEvent.FAILED, reason, failure=failure),)
    return move(attempt, now, State.FAILED, failure, reason, None, facts, withdrawal(attempt, reason))


def cancel(attempt: Attempt, now: datetime, actor: str, reason: str) -> Change:
    """Somebody called it off with nothing applied."""
    facts = (Fact(AttemptEvent.CANCELLED, reason, actor=actor),)
    return move(attempt, now, State.CANCELLED, "cancelled", reason, None, facts, withdrawal(attempt, reason))


def healed(attempt: Attempt, now: datetime, reason: str) -> Change:
    """The illness was over before the remedy was applied."""
    why = f"healed by itself: {reason}" if reason else "healed by itself"
    facts = (Fact(AttemptEvent.CANCELLED, why, healed_by_itself=True),)
    return move(attempt, now, State.CANCELLED, "healed by itself", why, None, facts, withdrawal(attempt, why))


def withdrawal(attempt: Attempt, reason: str) -> tuple[Errand, ...]:
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
    errands = (issue(attempt, Purpose.SWITCH, number, kind, generation, until),)
    reason, late = f"command {kind} {attempt.target}".strip(), until + GRACE
    return move(attempt, now, State.APPLYING, "allowed", reason, late, errands=errands, tries=number, command="")


def commit(attempt: Attempt, now: datetime, reason: str) -> Change:
    """Tells the agent to keep what it runs; after the other slot's return there is nothing to keep."""
    if attempt.other_slot:
        return succeed(attempt, now, reason)
    until, facts = attempt.final_receipt_deadline, (Fact(AttemptEvent.COMMITTING, reason),)
    errands = (issue(attempt, Purpose.COMMIT, 1, "commit", attempt.generation, until),)
    return move(attempt, now, State.COMMITTING, "judged", reason, until, facts, errands, commit_sent=True)


def succeed(attempt: Attempt, now: datetime, reason: str) -> Change:
    """The remedy is in force; whether it helped is still to be seen when the evidence was low."""
    if attempt.low_evidence and attempt.verdict is not None:
        reason = f"{reason}, on low evidence ({attempt.verdict.explanation}); it is watched until there is proof"
    return move(attempt, now, State.SUCCESS, "committed", reason, None, (Fact(AttemptEvent.SUCCEEDED, reason),))


def roll_back(attempt: Attempt, now: datetime, observation: str, reason: str, *, actor: str = "") -> Change:
    """Takes the remedy back; no permit is needed for that."""
    if attempt.other_slot or attempt.rollbacks >= TRIES:
        facts = (Fact(AttemptEvent.ROLLBACK_FAILED, reason),)
        return move(attempt, now, State.ROLLBACK_FAILED, observation, reason, None, facts)
    until = now + timedelta(seconds=attempt.bounds.dead_man) + SLOW_REVERT
    number = attempt.rollbacks + 1
    errand = issue(attempt, Purpose.ROLLBACK, number, "rollback", attempt.generation, until)
    facts = (Fact(AttemptEvent.ROLLING_BACK, reason, actor=actor),)
    return move(
        attempt, now, State.ROLLING_BACK, observation, reason, until + GRACE, facts, (errand,), rollbacks=number
    )


def issue_health_check(attempt: Attempt) -> Errand:
    """Has the agent run the release's own probe, in place."""
    return issue(attempt, Purpose.HEALTH_CHECK, 1, "health_check", attempt.generation, attempt.commit_deadline)


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


# What the agent reports: receipts of commands, and beats.


class Outcome(enum.StrEnum):
    """The agent's word on a command, or its deadline passed in silence."""

    APPLIED = "applied"
    COMMITTED = "committed"
    REVERTED = "reverted"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True)
class CommandFinished:
    """The agent's word on a command, as ingest recorded it at `time`."""

    command: str
    kind: str
    generation: int
    fence: int
    outcome: Outcome
    detail: str
    time: datetime
    unsolicited: bool = False


@dataclass(frozen=True)
class BeatSeen:
    """What an authenticated beat says the plugin runs."""

    generation: int
    release: str
    digest: str
    beat_time: datetime


@dataclass(frozen=True)
class PluginLeft:
    """The plugin left for good; its agent will not be heard again."""

    reason: str


def reported(attempt: Attempt, report: CommandFinished | BeatSeen | PluginLeft, now: datetime) -> Change:
    """What a receipt, a beat or the plugin's leaving means."""
    match report:
        case CommandFinished():
            return _receipt(attempt, report, now)
        case BeatSeen():
            return _beat(attempt, report, now)
        case PluginLeft():
            return _plugin_left(attempt, report, now)


def _receipt(attempt: Attempt, receipt: CommandFinished, now: datetime) -> Change:
    """What a finished command means."""
    if receipt.kind == "health_check":
        return _probed(attempt, receipt)
    if attempt.state not in APPLIED or not _ours(attempt, receipt):
        return Change(attempt)
    if receipt.outcome is Outcome.COMMITTED:
        return succeed(_known(attempt, receipt), now, "the agent wrote COMMITTED")
    if receipt.outcome is Outcome.REVERTED:
        return (
            _other_slot(attempt, receipt, now)
            if attempt.other_slot
            else _reverted(_known(attempt, receipt), now, receipt)
        )
    if receipt.kind == "rollback" and not attempt.other_slot:
        return _rollback_failed(attempt, receipt, now)
    if receipt.kind == "commit":
        # A commit that failed or expired: the agent reverts by itself and will say so.
        return Change(attempt)
    if attempt.state is not State.APPLYING:
        return Change(attempt)
    if receipt.outcome is Outcome.APPLIED:
        return _applied(_known(attempt, receipt), receipt, now)
    return _not_applied(_known(attempt, receipt), receipt, now)


def _ours(attempt: Attempt, receipt: CommandFinished) -> bool:
    if attempt.command:
        return receipt.command == attempt.command or receipt.generation == attempt.generation
    return receipt.fence > attempt.fence


def _known(attempt: Attempt, receipt: CommandFinished) -> Attempt:
    if attempt.command:
        return attempt
    return replace(attempt, command=receipt.command, generation=receipt.generation, fence=receipt.fence)


def _probed(attempt: Attempt, receipt: CommandFinished) -> Change:
    if (
        attempt.state is not State.PROBATION
        or attempt.probe is not Probe.REQUESTED
        or receipt.generation != attempt.generation
    ):
        return Change(attempt)
    return Change(replace(attempt, probe=Probe.GOOD if receipt.outcome is Outcome.DONE else Probe.BAD))


def _applied(attempt: Attempt, receipt: CommandFinished, now: datetime) -> Change:
    known = replace(attempt, switch_time=min(receipt.time, now))
    if not attempt.permitted:
        return roll_back(known, now, "applied", "the agent switched without a permit")
    soft = known.commit_deadline - timedelta(seconds=0.3 * known.bounds.probation)
    facts = (Fact(AttemptEvent.APPLIED, f"generation {known.generation} runs"),)
    change = move(known, now, State.PROBATION, "applied", f"generation {known.generation} is watched", soft, facts)
    if now > known.commit_deadline:
        return change.then(roll_back(change.attempt, now, "applied", "the news of the switch came too late to commit"))
    return change


def _not_applied(attempt: Attempt, receipt: CommandFinished, now: datetime) -> Change:
    why = receipt.detail or receipt.outcome.value
    if receipt.outcome is Outcome.EXPIRED:
        # With a permit the silence proves nothing: the deadline of the attempt decides.
        return Change(attempt) if attempt.permitted else fail(attempt, now, "command_expired", "no answer in time")
    if attempt.permitted:
        return _reverted(attempt, now, receipt, f"nothing was switched: {why}", switched=False)
    if receipt.outcome is Outcome.FAILED:
        unmet = receipt.detail.startswith(REQUIREMENT_UNMET)
        return fail(attempt, now, "requirement_unmet" if unmet else "command_failed", why)
    if receipt.outcome is Outcome.REFUSED and receipt.detail == INCIDENT_OVER:
        return cancel(attempt, now, "patcher", "the permit was denied: its incident is over, or with a person")
    if receipt.outcome is Outcome.REFUSED and receipt.detail in POLICY_GATES:
        return refuse(attempt, now, receipt.detail, f"the permit was denied by {receipt.detail}")
    if receipt.outcome is Outcome.REFUSED:
        return _permit_denied(attempt, why, now)
    return Change(attempt)


def _permit_denied(attempt: Attempt, why: str, now: datetime) -> Change:
    held = why in HOLDING_GATES
    facts = (Fact(AttemptEvent.HELD, f"the permit was denied by {why}", gate=why),) if held else ()
    # A kill switch, a storm or a freeze is nobody's failure: only other refusals count towards the tries.
    gate = why if held else "PERMIT"
    attempt = replace(attempt, refusals=attempt.refusals + (0 if held else 1))
    return move(attempt, now, State.STAGED, "permit denied", why, now + HELD_LIMIT, facts, held_by=gate)


def _other_slot(attempt: Attempt, receipt: CommandFinished, now: datetime) -> Change:
    if attempt.state is not State.APPLYING:
        return Change(attempt)
    known = replace(attempt, command=receipt.command, fence=receipt.fence, permitted=True, permit_time=now)
    known = replace(known, switch_time=min(receipt.time, now))
    facts = (Fact(AttemptEvent.APPLIED, "the agent went back to its other slot"),)
    return move(known, now, State.PROBATION, "reverted", "the other slot is watched", known.commit_deadline, facts)


def _reverted(
    attempt: Attempt, now: datetime, receipt: CommandFinished, reason: str = "", *, switched: bool = True
) -> Change:
    """The agent runs what ran before."""
    why = reason or (f"the agent reverted: {receipt.detail}" if receipt.detail else "the agent wrote REVERTED")
    failure = _failure(attempt, receipt)
    # Asked for the first time to go back, it had gone already: its own word of that is still on its way.
    alone = receipt.unsolicited or (receipt.detail == ALREADY_REVERTED and attempt.rollbacks == 1)
    facts = (
        Fact(AttemptEvent.ROLLED_BACK, why, failure=failure, dead_man=alone, never_switched=not (switched or failure)),
    )
    return move(attempt, now, State.ROLLED_BACK, "reverted", why, None, facts)


def _failure(attempt: Attempt, receipt: CommandFinished | None) -> str:
    """What was wrong with the remedy itself; empty when it was taken back for any other reason."""
    if receipt is not None and receipt.detail.startswith(DID_NOT_START):
        return "did_not_start"
    return "verdict" if attempt.verdict is not None and attempt.verdict.result is Result.FAIL else ""


def _rollback_failed(attempt: Attempt, receipt: CommandFinished, now: datetime) -> Change:
    if attempt.state is not State.ROLLING_BACK or receipt.outcome is not Outcome.FAILED:
        # Expired or refused: another rollback or the dead-man may still do it.
        return Change(attempt)
    facts = (Fact(AttemptEvent.ROLLBACK_FAILED, receipt.detail or "the agent could not go back"),)
    return move(attempt, now, State.ROLLBACK_FAILED, "rollback failed", facts[0].reason, None, facts)


def unconfirmed(attempt: Attempt, now: datetime) -> Change:
    """The final word is overdue: a person is asked, and the plugin stays locked."""
    reason = "the agent's final word never came"
    return move(attempt, now, State.UNCONFIRMED, "deadline", reason, None, (Fact(AttemptEvent.UNCONFIRMED, reason),))


def _plugin_left(attempt: Attempt, left: PluginLeft, now: datetime) -> Change:
    """Nobody will ever say what became of an unconfirmed attempt."""
    if attempt.state is not State.UNCONFIRMED:
        return Change(attempt)
    facts = (Fact(AttemptEvent.ROLLBACK_FAILED, left.reason),)
    return move(attempt, now, State.ROLLBACK_FAILED, "gone", left.reason, None, facts)


def _beat(attempt: Attempt, seen: BeatSeen, now: datetime) -> Change:
    """What a beat tells about an unconfirmed attempt, once the dead-man must have acted."""
    since = attempt.switch_time or attempt.permit_time
    settled = since is not None and seen.beat_time >= since + timedelta(seconds=attempt.bounds.dead_man) + SETTLE
    if attempt.state is not State.UNCONFIRMED or attempt.state in FINAL or not settled:
        return Change(attempt)
    if seen.generation < attempt.generation:
        why = f"a beat says release {seen.release or '(unknown)'} runs"
        failure, alone = _failure(attempt, None), not attempt.rollbacks
        facts = (Fact(AttemptEvent.ROLLED_BACK, why, failure=failure, dead_man=alone),)
        return move(attempt, now, State.ROLLED_BACK, "seen", why, None, facts)
    if seen.generation > attempt.generation:
        return Change(attempt)
    if attempt.commit_sent and not attempt.rollbacks:
        # Without a commit it would have reverted by now.
        return succeed(attempt, now, "a beat says the committed generation runs")
    return roll_back(attempt, now, "seen", "a beat says a generation runs that nobody wanted kept")
