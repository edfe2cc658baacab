"""Headlines of the reins: people are asked and answer, storms come and go, rollouts bring something to many plugins.

Rule: as on the rest of the timeline. A rollout's line carries the numbers its rule decided by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.ops.timeline import Told

ENDED = {
    "approved": "people agreed",
    "rejected": "a person said no",
    "expired": "nobody decided in time",
    "void": "the plan changed, so what people said of it is void",
}


def _because(told: Told, line: str) -> str:
    return f"{line} · {told.reason}" if told.reason else line


def _about(told: Told) -> str:
    return told.who if told.fields.get("subject", "").startswith("attempts/") else told.text("subject", "a plan")


def _requested(told: Told) -> str:
    roles = " or ".join(told.fields.get("roles") or ()) or "anybody"
    return _because(told, f"{_about(told)}: waits for {told.text('quorum', '1')} to approve ({roles})")


def _given(told: Told) -> str:
    return f"{_about(told)}: {told.actor} agreed, {told.text('approvals', '0')} of {told.text('quorum', '1')}"


def _ended(told: Told) -> str:
    outcome = told.text("outcome", "")
    return _because(told, f"{_about(told)}: {ENDED.get(outcome, outcome or 'the question ended')}")


def _overdue(told: Told) -> str:
    next_step = "the next in line are asked" if told.fields.get("escalated") else "a reminder goes out"
    return f"{_about(told)}: nobody has answered yet, {next_step}"


def _storm(told: Told) -> str:
    share = f"{told.text('plugins', '?')} of {told.text('fleet', '?')}"
    return f"storm: {share} plugins of {told.text('package')} have {told.text('type')} at once; automation waits"


def _calm(told: Told) -> str:
    return _because(told, f"storm over: {told.text('type')} of {told.text('package')}; automation goes on")


def _numbers(told: Told) -> str:
    numbers: Mapping[str, Any] = told.part("counts")
    counted = [
        f"{int(numbers[name])} {word}"
        for name, word in (
            ("healthy", "healthy"),
            ("counted_against", "against it"),
            ("in_flight", "on their way"),
            ("waiting", "waiting"),
            ("offline", "offline"),
            ("rolled_back", "rolled back"),
        )
        if numbers.get(name)
    ]
    return ", ".join(counted)


def _rollout(what: str) -> Callable[[Told], str]:
    """The line of a rollout's fact; `what` may name the wave."""

    def say(told: Told) -> str:
        done = what.format(wave=told.text("wave", "0"))
        line = f"rollout of {told.text('package')} {told.text('target')}: {done}"
        numbers = _numbers(told)
        return _because(told, f"{line} ({numbers})" if numbers else line)

    return say


def _published(told: Told) -> str:
    only = f" for {told.who}" if told.text("plugin", "") else ""
    return f"configuration {told.text('package')} {told.text('version')} published{only} by {told.actor}"


HEADLINES: Mapping[str, Callable[[Told], str]] = {
    "approval_requested": _requested,
    "approval_given": _given,
    "approval_ended": _ended,
    "approval_overdue": _overdue,
    "storm_started": _storm,
    "storm_ended": _calm,
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
}
