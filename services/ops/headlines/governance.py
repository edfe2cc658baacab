"""Headlines of governance: kill switches, policy, releases, approvals, storms and rollouts.

Rule: a rollout's headline carries the numbers its rule decided by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from services.ops.decoded_fact import DecodedFact

APPROVAL_OUTCOMES = {
    "approved": "people agreed",
    "rejected": "a person said no",
    "expired": "nobody decided in time",
    "void": "the plan changed, so what people said of it is void",
    "withdrawn": "nobody has to approve any more",
}


def _subject(fact: DecodedFact) -> str:
    return fact.label if fact.fields.get("subject", "").startswith("attempts/") else fact.text("subject", "a plan")


def _requested(fact: DecodedFact) -> str:
    roles = " or ".join(fact.fields.get("roles") or ()) or "anybody"
    return fact.with_reason(f"{_subject(fact)}: waits for {fact.text('quorum', '1')} to approve ({roles})")


def _vote(fact: DecodedFact) -> str:
    return f"{_subject(fact)}: {fact.actor} agreed, {fact.text('approvals', '0')} of {fact.text('quorum', '1')}"


def _approval_ended(fact: DecodedFact) -> str:
    outcome = fact.text("outcome", "")
    return fact.with_reason(f"{_subject(fact)}: {APPROVAL_OUTCOMES.get(outcome, outcome or 'the question ended')}")


def _overdue(fact: DecodedFact) -> str:
    next_step = "the next in line are asked" if fact.fields.get("escalated") else "a reminder goes out"
    return f"{_subject(fact)}: nobody has answered yet, {next_step}"


def _storm_started(fact: DecodedFact) -> str:
    share = f"{fact.text('plugins', '?')} of {fact.text('fleet', '?')}"
    return f"storm: {share} plugins of {fact.text('package')} have {fact.text('type')} at once; automation waits"


def _storm_ended(fact: DecodedFact) -> str:
    return fact.with_reason(f"storm over: {fact.text('type')} of {fact.text('package')}; automation goes on")


def _numbers(fact: DecodedFact) -> str:
    numbers: Mapping[str, Any] = fact.message("counts")
    counted = [
        f"{int(numbers[name])} {word}"
        for name, word in (
            ("healthy", "healthy"),
            ("counted_against", "against it"),
            ("in_flight", "on their way"),
            ("waiting", "waiting"),
            ("offline", "offline"),
            ("watched", "watched for proof"),
            ("rolled_back", "rolled back"),
        )
        if numbers.get(name)
    ]
    return ", ".join(counted)


def _rollout(what: str) -> Callable[[DecodedFact], str]:
    """The line of a rollout's fact; `what` may name the wave."""

    def say(fact: DecodedFact) -> str:
        done = what.format(wave=fact.text("wave", "0"))
        line = f"rollout of {fact.text('package')} {fact.text('target')}: {done}"
        numbers = _numbers(fact)
        return fact.with_reason(f"{line} ({numbers})" if numbers else line)

    return say


def _published(fact: DecodedFact) -> str:
    only = f" for {fact.label}" if fact.text("plugin", "") else ""
    return f"configuration {fact.text('package')} {fact.text('version')} published{only} by {fact.actor}"


def _dead_lettered(fact: DecodedFact) -> str:
    return fact.with_reason(f"{fact.text('consumer')} could not handle {fact.text('fact', 'a fact')} and gave it up")


HEADLINES: Mapping[str, Callable[[DecodedFact], str]] = {
    "kill_switch_engaged": lambda fact: fact.with_reason(
        f"kill switch engaged for {fact.text('scope')} by {fact.actor}"
    ),
    "kill_switch_released": lambda fact: fact.with_reason(
        f"kill switch released for {fact.text('scope')} by {fact.actor}"
    ),
    "policy_changed": lambda fact: fact.with_reason(
        f"policy changed by {fact.actor}: {', '.join(fact.fields.get('fields') or ()) or 'nothing'}"
    ),
    "release_published": lambda fact: f"{fact.text('package')} {fact.text('version')} published by {fact.actor}",
    "breaker_changed": lambda fact: fact.with_reason(
        f"breaker {fact.text('breaker')}: {fact.text('from', 'new')} → {fact.text('to')}"
    ),
    "approval_requested": _requested,
    "approval_given": _vote,
    "approval_ended": _approval_ended,
    "approval_overdue": _overdue,
    "storm_started": _storm_started,
    "storm_ended": _storm_ended,
    "rollout_created": _rollout("made, its members are drawn"),
    "rollout_wave_started": _rollout("wave {wave} began"),
    "rollout_wave_passed": _rollout("wave {wave} passed"),
    "rollout_paused": _rollout("paused"),
    "rollout_resumed": _rollout("goes on"),
    "rollout_promoted": _rollout("a person vouches for wave {wave}"),
    "rollout_budget_changed": _rollout("another number may be in flight"),
    "rollout_halted": _rollout("halted in wave {wave}"),
    "rollout_aborted": _rollout("aborted in wave {wave}"),
    "rollout_rolled_back": _rollout("taken back"),
    "rollout_succeeded": _rollout("every wave passed"),
    "rollout_closed": _rollout("closed, nobody joins any more"),
    "configuration_published": _published,
    "fact_dead_lettered": _dead_lettered,
}
