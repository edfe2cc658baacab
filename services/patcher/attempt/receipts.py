"""The agent's words: what a finished command, or a beat, says about an attempt.

Rule: only the agent knows what runs. Its COMMITTED or REVERTED about the attempt's generation ends the attempt
whatever was planned meanwhile, and the first final word stands. Silence proves nothing, so it never ends a permitted
attempt.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from services.patcher.attempt.model import FINAL, HELD_LIMIT, Attempt, Change, Fact, State, Told
from services.patcher.attempt.observations import CommandFinished, Gone, Outcome, Seen
from services.patcher.attempt.transitions import fail, move, refuse, roll_back, succeed, withdraw
from services.patcher.policy import HOLDING_GATES, POLICY_GATES
from services.patcher.verdict import Probe, Result

__all__ = ["gone", "heard", "seen", "unconfirmed", "withdraw"]

APPLIED = frozenset({State.APPLYING, State.PROBATION, State.COMMITTING, State.ROLLING_BACK, State.UNCONFIRMED})
SETTLE = timedelta(seconds=5)
# How an agent begins its word when the new release ended right after its start.
# What an agent answers that is told to go back from what it went back from before.
GONE_BACK = "REVERTED"
DID_NOT_START = "DID_NOT_START"


def heard(attempt: Attempt, word: CommandFinished, now: datetime) -> Change:
    """What a finished command means."""
    if word.kind == "health_check":
        return _probed(attempt, word)
    if attempt.state not in APPLIED or not _ours(attempt, word):
        return Change(attempt)
    if word.outcome is Outcome.COMMITTED:
        return succeed(_known(attempt, word), now, "the agent wrote COMMITTED")
    if word.outcome is Outcome.REVERTED:
        return _other_slot(attempt, word, now) if attempt.other_slot else reverted(_known(attempt, word), now, word)
    if word.kind == "rollback" and not attempt.other_slot:
        return _not_taken_back(attempt, word, now)
    if word.kind == "commit":
        # A commit that failed or expired: the agent reverts by itself and will say so.
        return Change(attempt)
    if attempt.state is not State.APPLYING:
        return Change(attempt)
    if word.outcome is Outcome.APPLIED:
        return _applied(_known(attempt, word), word, now)
    return _not_applied(_known(attempt, word), word, now)


def _ours(attempt: Attempt, word: CommandFinished) -> bool:
    if attempt.command:
        return word.command == attempt.command or word.generation == attempt.generation
    return word.fence > attempt.fence


def _known(attempt: Attempt, word: CommandFinished) -> Attempt:
    if attempt.command:
        return attempt
    return replace(attempt, command=word.command, generation=word.generation, fence=word.fence)


def _probed(attempt: Attempt, word: CommandFinished) -> Change:
    if (
        attempt.state is not State.PROBATION
        or attempt.probe is not Probe.ASKED
        or word.generation != attempt.generation
    ):
        return Change(attempt)
    return Change(replace(attempt, probe=Probe.GOOD if word.outcome is Outcome.DONE else Probe.BAD))


def _applied(attempt: Attempt, word: CommandFinished, now: datetime) -> Change:
    known = replace(attempt, switch_time=min(word.time, now))
    if not attempt.permitted:
        return roll_back(known, now, "applied", "the agent switched without a permit")
    soft = known.last_commit - timedelta(seconds=0.3 * known.bounds.probation)
    told = (Fact(Told.APPLIED, f"generation {known.generation} runs"),)
    change = move(known, now, State.PROBATION, "applied", f"generation {known.generation} is watched", soft, told)
    if now > known.last_commit:
        return change.then(roll_back(change.attempt, now, "applied", "the news of the switch came too late to commit"))
    return change


def _not_applied(attempt: Attempt, word: CommandFinished, now: datetime) -> Change:
    why = word.detail or word.outcome.value
    if word.outcome is Outcome.EXPIRED:
        # With a permit the silence proves nothing: the deadline of the attempt decides.
        return Change(attempt) if attempt.permitted else fail(attempt, now, "command_expired", "no answer in time")
    if attempt.permitted:
        return reverted(attempt, now, word, f"nothing was switched: {why}", switched=False)
    if word.outcome is Outcome.FAILED:
        return fail(attempt, now, "command_failed", why)
    if word.outcome is Outcome.REFUSED and word.detail in POLICY_GATES:
        return refuse(attempt, now, word.detail, f"the permit was denied by {word.detail}")
    if word.outcome is Outcome.REFUSED:
        return _put_back(attempt, why, now)
    return Change(attempt)


def _put_back(attempt: Attempt, why: str, now: datetime) -> Change:
    held = why in HOLDING_GATES
    told = (Fact(Told.HELD, f"the permit was denied by {why}", gate=why),) if held else ()
    # A kill switch, a storm or a freeze is nobody's failure: only other refusals count towards the tries.
    gate = why if held else "PERMIT"
    attempt = replace(attempt, refusals=attempt.refusals + (0 if held else 1))
    return move(attempt, now, State.STAGED, "permit denied", why, now + HELD_LIMIT, told, held_by=gate)


def _other_slot(attempt: Attempt, word: CommandFinished, now: datetime) -> Change:
    if attempt.state is not State.APPLYING:
        return Change(attempt)
    known = replace(
        attempt,
        command=word.command,
        fence=word.fence,
        permitted=True,
        permit_time=now,
        switch_time=min(word.time, now),
    )
    told = (Fact(Told.APPLIED, "the agent went back to its other slot"),)
    return move(known, now, State.PROBATION, "reverted", "the other slot is watched", known.last_commit, told)


def reverted(
    attempt: Attempt, now: datetime, word: CommandFinished, reason: str = "", *, switched: bool = True
) -> Change:
    """The agent runs what ran before."""
    why = reason or (f"the agent reverted: {word.detail}" if word.detail else "the agent wrote REVERTED")
    failure = _failure(attempt, word)
    # Asked for the first time to go back, it had gone already: its own word of that is still on its way.
    alone = word.unasked or (word.detail == GONE_BACK and attempt.rollbacks == 1)
    facts = (Fact(Told.ROLLED_BACK, why, failure=failure, dead_man=alone, unswitched=not (switched or failure)),)
    return move(attempt, now, State.ROLLED_BACK, "reverted", why, None, facts, held_by="")


def _failure(attempt: Attempt, word: CommandFinished | None) -> str:
    """What was wrong with the remedy itself; empty when it was taken back for any other reason."""
    if word is not None and word.detail.startswith(DID_NOT_START):
        return "did_not_start"
    return "verdict" if attempt.verdict is not None and attempt.verdict.result is Result.FAIL else ""


def _not_taken_back(attempt: Attempt, word: CommandFinished, now: datetime) -> Change:
    if attempt.state is not State.ROLLING_BACK or word.outcome is not Outcome.FAILED:
        # Expired or refused: another rollback or the dead-man may still do it.
        return Change(attempt)
    facts = (Fact(Told.ROLLBACK_FAILED, word.detail or "the agent could not go back"),)
    return move(attempt, now, State.ROLLBACK_FAILED, "rollback failed", facts[0].reason, None, facts)


def unconfirmed(attempt: Attempt, now: datetime) -> Change:
    """The final word is overdue: a person is asked, and the plugin stays locked."""
    reason = "the agent's final word never came"
    return move(attempt, now, State.UNCONFIRMED, "deadline", reason, None, (Fact(Told.UNCONFIRMED, reason),))


def gone(attempt: Attempt, left: Gone, now: datetime) -> Change:
    """Nobody will ever say what became of an unconfirmed attempt."""
    if attempt.state is not State.UNCONFIRMED:
        return Change(attempt)
    facts = (Fact(Told.ROLLBACK_FAILED, left.reason),)
    return move(attempt, now, State.ROLLBACK_FAILED, "gone", left.reason, None, facts)


def seen(attempt: Attempt, beat: Seen, now: datetime) -> Change:
    """What a beat tells about an unconfirmed attempt, once the dead-man must have acted."""
    since = attempt.switch_time or attempt.permit_time
    settled = since is not None and beat.beat_time >= since + timedelta(seconds=attempt.bounds.dead_man) + SETTLE
    if attempt.state is not State.UNCONFIRMED or attempt.state in FINAL or not settled:
        return Change(attempt)
    if beat.generation < attempt.generation:
        why = f"a beat says release {beat.release or '(unknown)'} runs"
        return move(
            attempt,
            now,
            State.ROLLED_BACK,
            "seen",
            why,
            None,
            (Fact(Told.ROLLED_BACK, why, failure=_failure(attempt, None), dead_man=not attempt.rollbacks),),
        )
    if beat.generation > attempt.generation:
        return Change(attempt)
    if attempt.commit_sent and not attempt.rollbacks:
        # Without a commit it would have reverted by now.
        return succeed(attempt, now, "a beat says the committed generation runs")
    return roll_back(attempt, now, "seen", "a beat says a generation runs that nobody wanted kept")
