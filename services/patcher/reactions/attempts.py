"""Door 2, something happened: a decision wants to be carried out, an agent has spoken, a cause is gone.

Rule: one attempt per decision, however often and in whatever order facts arrive. Before anything begins ingest is asked
whether the cause still stands; what an attempt makes of a late word is its heart's business.
"""

import asyncio
from dataclasses import replace

from libs.common.bus import Once, Reaction
from libs.common.database import Transaction
from libs.common.names import new_id
from libs.common.telemetry import current_traceparent
from prunella.v1 import ingest_pb2
from prunella.v1.events_pb2 import DecisionMade, Event
from services.patcher import attempt as heart
from services.patcher import wire
from services.patcher.attempt import FINAL, Attempt, CancelRequested, State, Told
from services.patcher.doors import Doors, bounds, fleet_of, keep, observe, plugin_of, stands, weigh, weighed_out
from services.patcher.doors.steps import Weighed
from services.patcher.policy import PLUGIN_BUSY, Action, Hold, Refuse
from services.patcher.store import attempts, configurations, fleets, releases
from services.patcher.store import policy as policies
from services.patcher.store.configurations import Configuration

MOST_INPUTS, LONGEST_INPUT = 10, 4096
CAPABILITY = {
    Action.PATCH: "update",
    Action.ROLLBACK: "rollback",
    Action.RESTART: "restart",
    Action.CONFIG_FIX: "config_update",
}
# What needs its own capability, whatever it brings.
OWN = frozenset({Action.RESTART, Action.CONFIG_FIX})


async def on_decision_made(doors: Doors, event: Event, once: Once) -> None:
    """Begins an attempt. Raises Unavailable when ingest is away."""
    told = event.decision_made
    action = wire.ACTIVE.get(told.action)
    plugin, fleet = None, None
    if action is not None:
        # Three questions, one wait: somebody's plugin is broken meanwhile.
        plugin, standing, fleet = await asyncio.gather(
            plugin_of(doors, event.plugin),
            stands(doors, event.incident, told.round),
            fleet_of(doors, told.package),
        )
        plugin = plugin if standing else None
    if action is None or plugin is None or plugin.state != "active":
        await once(_nothing)
        return
    attempt, trace = new_id(), current_traceparent()

    async def begin(tx: Transaction) -> None:
        if await attempts.of_decision(tx, told.decision):
            return
        if fleet is not None:
            await fleets.put(tx, told.package, fleet)
        wanted = await _wanted(tx, doors, event, plugin, action, attempt, trace)
        await _begin(tx, doors, wanted, event, plugin)

    await once(begin)


async def _wanted(
    tx: Transaction, doors: Doors, event: Event, plugin: ingest_pb2.Plugin, action: Action, attempt: str, trace: str
) -> Attempt:
    told: DecisionMade = event.decision_made
    policy, _ = await policies.get(tx)
    version = await _target(tx, event, plugin, action)
    release = await releases.get(tx, plugin.package, version) if version and action not in OWN else None
    fix = await _configuration(tx, event, plugin) if action is Action.CONFIG_FIX else None
    if action is Action.ROLLBACK and release is None and not told.release:
        # Nothing published is known to have run before: the agent's other slot is.
        version = ""
    return Attempt(
        id=attempt,
        incident=event.incident,
        decision=told.decision,
        plugin=event.plugin,
        merchant=plugin.merchant,
        package=plugin.package,
        action=action,
        from_release=told.from_release or plugin.release,
        to_release=version,
        digest=fix.digest
        if fix
        else release.digest
        if release
        else (plugin.digest if action is Action.RESTART else ""),
        severity=wire.severity(told.severity),
        symptom=told.type,
        round=told.round,
        confidence=told.confidence,
        bounds=bounds(doors.settings, policy),
        create_time=tx.now,
        update_time=tx.now,
        deadline=tx.now + heart.HELD_LIMIT,
        from_generation=plugin.generation,
        failing_inputs=tuple(text[:LONGEST_INPUT] for text in told.evidence.failing_inputs[:MOST_INPUTS]),
        trace=trace,
        configuration=fix.version if fix else told.release if action is Action.CONFIG_FIX else "",
    )


async def _configuration(tx: Transaction, event: Event, plugin: ingest_pb2.Plugin) -> Configuration | None:
    """The configuration a decision names, or the one the plugin should have when it names none."""
    named = event.decision_made.release
    if not named:
        return await configurations.fitting(tx, plugin.package, event.plugin, plugin.expected_config_digest)
    found = await configurations.get(tx, plugin.package, named)
    return found if found is not None and found.plugin in {"", event.plugin} else None


async def _target(tx: Transaction, event: Event, plugin: ingest_pb2.Plugin, action: Action) -> str:
    if action in OWN:
        return plugin.release
    wanted = event.decision_made.release
    if action is Action.ROLLBACK and not wanted:
        return await attempts.previous_release(tx, event.plugin, plugin.release)
    return wanted


async def _begin(tx: Transaction, doors: Doors, wanted: Attempt, event: Event, plugin: ingest_pb2.Plugin) -> None:
    weighed = await weigh(tx, wanted)
    said = weighed.said
    if CAPABILITY.get(wanted.action) and plugin.capabilities:
        need = "rollback" if wanted.other_slot else "update" if wanted.digest else CAPABILITY[wanted.action]
        need = CAPABILITY[wanted.action] if wanted.action in OWN else need
        if need not in plugin.capabilities and not isinstance(said, Refuse):
            said = Refuse("CAPABILITY", f"the agent cannot do {need}")
    if isinstance(said, Hold) and said.gate == PLUGIN_BUSY:
        weighed = await _preempt(tx, doors, wanted, event) or weighed
        said = weighed.said
    weighed = replace(weighed, said=said)
    change = heart.begin(wanted, weighed.gated, tx.now)
    # What a busy plugin runs may still be taken back; that is looked at again when it is free.
    unfit, waits = _unfit(wanted, plugin), change.attempt.held_by == PLUGIN_BUSY
    if unfit and change.attempt.state not in FINAL and not (waits and unfit[0] is Told.CANCELLED):
        change = heart.stillborn(wanted, tx.now, *unfit)
    await keep(tx, doors, change, event, new=True)
    await weighed_out(tx, weighed, change.attempt, event)


def _unfit(wanted: Attempt, plugin: ingest_pb2.Plugin) -> tuple[Told, str, str] | None:
    if wanted.action is Action.PATCH and not wanted.digest:
        return (
            Told.FAILED,
            "release_unknown",
            f"release {wanted.package} {wanted.to_release or '(none)'} is not published",
        )
    if wanted.action is Action.CONFIG_FIX and not wanted.digest:
        what = f"configuration {wanted.configuration}" if wanted.configuration else "no configuration"
        missing = "is not published for this plugin" if wanted.configuration else "is published for this plugin"
        return Told.FAILED, "configuration_unknown", f"{what} of {wanted.package} {missing}"
    if wanted.action is Action.CONFIG_FIX and wanted.digest == plugin.config_digest:
        why = f"the plugin has configuration {wanted.configuration} already"
        return Told.FAILED, "configuration_in_force", why
    if wanted.action is Action.ROLLBACK and wanted.to_release and not wanted.digest:
        return Told.FAILED, "release_unknown", f"release {wanted.package} {wanted.to_release} is not published"
    if wanted.other_slot and not wanted.from_generation:
        return Told.FAILED, "nothing_before", "it runs what it was installed with; nothing is known to go back to"
    if plugin.release != wanted.from_release:
        why = f"the plugin runs {plugin.release} now, the decision was about {wanted.from_release}"
        return Told.CANCELLED, "", why
    return None


async def _preempt(tx: Transaction, doors: Doors, wanted: Attempt, event: Event) -> Weighed | None:
    """Ends an attempt of lower severity that only waits, and asks the gates again."""
    other = await attempts.busy(tx, wanted.plugin, wanted.id)
    asked = other is not None and other.state is State.AWAITING_APPROVAL
    waits = asked or (other is not None and other.state in {State.PENDING, State.STAGED} and bool(other.held_by))
    if other is None or not waits or other.severity >= wanted.severity:
        return None
    await observe(tx, doors, other.id, CancelRequested("patcher", f"preempted by attempt {wanted.id}"), cause=event)
    return await weigh(tx, wanted)


async def on_command_finished(doors: Doors, event: Event, once: Once) -> None:
    """The agent's word on a command."""
    attempt, word = wire.command_finished(event)

    async def hear(tx: Transaction) -> None:
        if attempt:
            await observe(tx, doors, attempt, word, cause=event)

    await once(hear)


async def on_cause_gone(doors: Doors, event: Event, once: Once) -> None:
    """The incident ended or a person took over, or the plugin left: what has no permit is called off."""

    async def call_off(tx: Transaction) -> None:
        column, value = ("incident", event.incident) if event.incident else ("plugin", event.plugin)
        wish = CancelRequested(event.actor or event.source, event.reason or "its cause is gone")
        for attempt in await attempts.live_of(tx, column, value):
            await observe(tx, doors, attempt, wish, cause=event)

    await once(call_off)


async def _nothing(_tx: Transaction) -> None:
    return


REACTIONS: dict[str, Reaction] = {
    "decision_made": on_decision_made,
    "command_finished": on_command_finished,
    "incident_closed": on_cause_gone,
    "incident_escalated": on_cause_gone,
    "plugin_retired": on_cause_gone,
}
