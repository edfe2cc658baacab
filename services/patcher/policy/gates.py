"""The gates: each a question to the policy, answered with a sentence.

Rule: every attempt passes every gate again at each step that brings it nearer to a plugin. A kill switch, a storm, a
freeze, an unproven release or a full budget hold: the attempt waits where it is. Approvals are asked for. Every other
gate refuses, with its name and a reason for people. The severity cap, canaries, freezes and approvals are about what is
new to a plugin (patch, config_fix); restart and rollback return to what ran there before, so plugin_down (high) can be
healed under the default cap. Rolling an attempt back passes no gate at all.
"""

import hashlib
from collections.abc import Callable, Collection
from typing import Final

from services.patcher.approvals import describe
from services.patcher.freeze import frozen_until
from services.patcher.policy.model import (
    CAPPED,
    KILL_SWITCH,
    Action,
    Allow,
    Answer,
    Ask,
    GateInputs,
    GateRequest,
    Hold,
    Policy,
    Refuse,
    Reply,
    RollBack,
    Severity,
    scopes,
)
from services.patcher.policy.steps import WRITTEN_DOWN, Step, step
from services.patcher.rollout import concurrency

Gate = Callable[[Policy, GateInputs], Reply]
OPEN: Final = Allow()


def gate(policy: Policy, engaged: Collection[str], request: GateRequest) -> Answer:
    """The gates that need no more than the wish itself, the kill switches first."""
    if (stopped := _stopped(engaged, request)) != OPEN:
        return stopped
    if not policy.autopatch_enabled:
        return Refuse("AUTOPATCH_DISABLED", "automatic remedies are switched off in the policy")
    if policy.autopatch_merchants and request.merchant not in policy.autopatch_merchants:
        return Refuse("ALLOW_LIST", f"merchant {request.merchant or '(none)'} is not on the allow-list")
    if request.action in CAPPED and not Severity.UNKNOWN < request.severity <= policy.autopatch_max_severity:
        cap = policy.autopatch_max_severity.name.lower()
        return Refuse("SEVERITY", f"severity {request.severity.name.lower()} is not within the cap {cap}")
    if not request.confidence >= policy.min_confidence:
        return Refuse("CONFIDENCE", f"confidence {request.confidence:.2f} is below {policy.min_confidence:.2f}")
    if policy.require_staging and request.staged is False and request.action is not Action.RESTART:
        return Refuse("STAGING", "the release has not passed staging")
    return OPEN


def ask(policy: Policy, inputs: GateInputs) -> Reply:
    """Asks every gate of this step and gives the first answer that is not yes."""
    gates = AFTER_SWITCH if inputs.probation else BEFORE_SWITCH
    return next((reply for each in gates if (reply := each(policy, inputs)) != OPEN), OPEN)


def objections(policy: Policy, inputs: GateInputs) -> tuple[Reply, ...]:
    """What every gate of this step has against it, not only the first; empty when nothing has."""
    gates = AFTER_SWITCH if inputs.probation else BEFORE_SWITCH
    return tuple(dict.fromkeys(reply for each in gates if (reply := each(policy, inputs)) != OPEN))


def kill(_policy: Policy, inputs: GateInputs) -> Reply:
    """A kill switch comes before everything: what it holds goes on when it is released, and nobody is asked."""
    return _stopped(inputs.engaged, inputs.request)


def _stopped(engaged: Collection[str], request: GateRequest) -> Answer:
    covering = [scope for scope in scopes(request.plugin, request.merchant, request.action) if scope in engaged]
    return Hold(KILL_SWITCH, f"the kill switch {covering[0]} is engaged") if covering else OPEN


def basic(policy: Policy, inputs: GateInputs) -> Reply:
    """Kill switch, on and off, allow-list, severity, confidence, staging."""
    return gate(policy, inputs.engaged, inputs.request)


def storm(_policy: Policy, inputs: GateInputs) -> Reply:
    """While many plugins fail alike, the cause is most likely outside them."""
    if not inputs.storm:
        return OPEN
    return Hold("STORM", f"automation pauses: {inputs.storm}")


def staging_time(policy: Policy, inputs: GateInputs) -> Reply:
    """The sandbox answers in time or has not proven anything."""
    limit = policy.staging_timeout.total_seconds()
    if inputs.staging is None or inputs.staging <= limit:
        return OPEN
    return Refuse("STAGING", f"the sandbox has run for {inputs.staging:.0f} s, {limit:.0f} s are allowed")


def isolation(policy: Policy, inputs: GateInputs) -> Reply:
    """What ran with too little around it has proven nothing that counts, and might have done anything."""
    if not policy.require_staging or inputs.isolation is None or inputs.isolation >= policy.min_isolation:
        return OPEN
    had, least = inputs.isolation.word, policy.min_isolation.word
    return Refuse("ISOLATION", f"the sandbox had isolation {had}, the policy asks for {least}")


def attempts(policy: Policy, inputs: GateInputs) -> Reply:
    """A plugin that is touched again and again needs a person."""
    since = inputs.now - policy.attempts_window
    count = sum(time > since for time in inputs.recent_permits)
    if count < policy.max_attempts:
        return OPEN
    return Refuse("ATTEMPTS", f"{count} attempts on this plugin within {policy.attempts_window}, no more are allowed")


def canary(policy: Policy, inputs: GateInputs) -> Reply:
    """Where there are canaries, a release that has healed nobody yet goes to them first."""
    request = inputs.request
    unproven = request.action in CAPPED and not inputs.proven
    if not unproven or not (policy.canary_percentage or policy.canary_merchants):
        return OPEN
    if is_canary(policy, request.plugin, request.merchant, inputs.to_release):
        return OPEN
    return Hold("CANARY", f"{inputs.to_release or 'the change'} has not healed a canary yet, and this is none")


def is_canary(policy: Policy, plugin: str, merchant: str, release: str) -> bool:
    """Whether a plugin is among the first: its merchant is listed, or the draw of this release falls on it."""
    if merchant in policy.canary_merchants:
        return True
    draw = int.from_bytes(hashlib.sha256(f"{release}/{plugin}".encode()).digest()[:8], "big") / 2**64
    return draw * 100 < policy.canary_percentage


def freeze(policy: Policy, inputs: GateInputs) -> Reply:
    """Within a freeze window nothing new is brought to a plugin."""
    if inputs.request.action not in CAPPED:
        return OPEN
    found = frozen_until(policy.freeze_windows, inputs.now)
    return Hold("FREEZE", found.reason) if found else OPEN


def major(policy: Policy, inputs: GateInputs) -> Reply:
    """What is no plain step forward needs people: a major version, a way back or a pre-release nobody wrote down."""
    patched = inputs.request.action is Action.PATCH
    if not policy.require_multisig_for_major or not patched or inputs.approved:
        return OPEN
    kind = step(inputs.from_release, inputs.to_release)
    if kind is Step.FORWARD or (inputs.named and kind in WRITTEN_DOWN):
        return OPEN
    return _require_approval(policy, f"{inputs.from_release or '(unknown)'} → {inputs.to_release} is {kind}")


def high_impact(policy: Policy, inputs: GateInputs) -> Reply:
    """What is brought to many plugins at once, or to one in high distress, needs people."""
    request = inputs.request
    if not policy.require_multisig_for_high_impact or request.action not in CAPPED or inputs.approved:
        return OPEN
    if inputs.plugins > policy.high_impact_plugins:
        return _require_approval(policy, f"it touches {inputs.plugins} plugins, more than {policy.high_impact_plugins}")
    if request.severity >= Severity.HIGH:
        return _require_approval(policy, f"its severity is {request.severity.name.lower()}")
    return OPEN


def budget(policy: Policy, inputs: GateInputs) -> Reply:
    """So many attempts at once and no more."""
    limit = in_flight_limit(policy, inputs.fleet)
    if inputs.in_flight < limit:
        return OPEN
    return Hold("BUDGET", f"{inputs.in_flight} attempts are in flight, {limit} may be")


def in_flight_limit(policy: Policy, fleet: int) -> int:
    """How many attempts may be in flight among a package's plugins; small fleets always have one."""
    return concurrency.in_flight_limit(policy.max_in_flight, policy.max_in_flight_percentage, fleet)


def health_time(policy: Policy, inputs: GateInputs) -> Reply:
    """A plugin that is not well in time after its switch goes back."""
    probation, limit = inputs.probation, policy.health_check_timeout.total_seconds()
    if probation is None or probation.healthy or probation.since <= limit:
        return OPEN
    return RollBack(
        "HEALTH_TIMEOUT", f"not healthy {probation.since:.0f} s after the switch, {limit:.0f} s are allowed"
    )


def health_interval(policy: Policy, inputs: GateInputs) -> Reply:
    """How often it is looked at."""
    probation, interval = inputs.probation, policy.health_check_interval.total_seconds()
    if probation is None or probation.last_look >= interval:
        return OPEN
    return Hold("HEALTH_INTERVAL", f"looked {probation.last_look:.1f} s ago, the next look is after {interval:.1f} s")


def error_rate(policy: Policy, inputs: GateInputs) -> Reply:
    """Too many failures after the switch take it back."""
    probation, limit = inputs.probation, policy.rollback_error_rate_threshold
    if probation is None or not probation.error_rate > limit:
        return OPEN
    return RollBack("ERROR_RATE", f"{probation.error_rate:.1f} % fail after the switch, {limit:.1f} % may")


def silence(policy: Policy, inputs: GateInputs) -> Reply:
    """Silence after the switch takes it back."""
    probation, limit = inputs.probation, policy.rollback_heartbeat_missed.total_seconds()
    if probation is None or probation.silent <= limit:
        return OPEN
    return RollBack(
        "HEARTBEAT_MISSED", f"silent for {probation.silent:.0f} s after the switch, {limit:.0f} s are allowed"
    )


def learning(policy: Policy, _situation: GateInputs) -> Reply:
    """Whether the outcome may teach; it is kept either way."""
    if policy.learning_enabled:
        return OPEN
    return Refuse("LEARNING", "learning is switched off in the policy: the outcome is kept and teaches nothing")


def _require_approval(policy: Policy, why: str) -> Ask:
    return Ask("APPROVAL", f"{why}: {describe(policy.quorum)} must approve", policy.quorum, policy.approval_timeout)


# In a storm a refusal would ask a person for each plugin. Holds that may last come before people are asked about the
# plan, and what is claimed at once comes last.
BEFORE_SWITCH: Final[tuple[Gate, ...]] = (
    kill, storm, basic, isolation, staging_time, attempts, canary, freeze, major, high_impact, budget,
)  # fmt: skip
AFTER_SWITCH: Final[tuple[Gate, ...]] = (error_rate, silence, health_time, health_interval)
