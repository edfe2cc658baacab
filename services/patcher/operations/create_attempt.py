"""How an attempt begins, whoever wants it: a decision or a person.

Rule: the same gates, the same end for what cannot be done, and an attempt of lower severity that only waits makes room.
"""

from dataclasses import replace

from libs.common.database import Transaction
from prunella.v1 import ingest_pb2
from prunella.v1.events_pb2 import Event
from services.patcher import attempt as heart
from services.patcher.attempt import FINAL, Attempt, AttemptEvent, CancelRequested, State
from services.patcher.context import ServiceContext
from services.patcher.operations.apply_change import Weighed, keep, observe, weigh, weighed_out
from services.patcher.policy import KILL_SWITCH, PLUGIN_BUSY, Action, Hold, Refuse
from services.patcher.store import attempts, configurations
from services.patcher.store.configurations import Configuration

CAPABILITY = {
    Action.PATCH: "update",
    Action.ROLLBACK: "rollback",
    Action.RESTART: "restart",
    Action.CONFIG_FIX: "config_update",
}
# What needs its own capability, whatever it brings.
OWN = frozenset({Action.RESTART, Action.CONFIG_FIX})


async def target(tx: Transaction, plugin_id: str, plugin: ingest_pb2.Plugin, action: Action, wanted: str) -> str:
    """The release an action brings; for a rollback without one what ran before, empty when that is unknown."""
    if action in OWN:
        return plugin.release
    if action is Action.ROLLBACK and not wanted:
        return await attempts.previous_release(tx, plugin_id, plugin.release)
    return wanted


async def configuration(tx: Transaction, plugin_id: str, plugin: ingest_pb2.Plugin, named: str) -> Configuration | None:
    """The configuration that is named, or the one the plugin should have when none is."""
    if not named:
        return await configurations.fitting(tx, plugin.package, plugin_id, plugin.expected_config_digest)
    found = await configurations.get(tx, plugin.package, named)
    return found if found is not None and found.plugin in {"", plugin_id} else None


async def begin(
    tx: Transaction,
    ctx: ServiceContext,
    wanted: Attempt,
    plugin: ingest_pb2.Plugin,
    cause: Event | None,
    *,
    author: str = "",
    reason: str = "",
) -> Attempt:
    """Asks the gates and saves the attempt with what follows; one that is refused is kept too.

    `author` and `reason` are a person's who wants it; `cause` is the decision's fact otherwise.
    """
    weighed = await weigh(tx, wanted)
    said = weighed.said
    if CAPABILITY.get(wanted.action) and plugin.capabilities:
        need = "rollback" if wanted.other_slot else "update" if wanted.digest else CAPABILITY[wanted.action]
        need = CAPABILITY[wanted.action] if wanted.action in OWN else need
        if need not in plugin.capabilities and not isinstance(said, Refuse):
            said = Refuse("CAPABILITY", f"the agent cannot do {need}")
    if isinstance(said, Hold) and said.gate == PLUGIN_BUSY:
        weighed = await _preempt(tx, ctx, wanted, cause) or weighed
        said = weighed.said
    if author and isinstance(said, Hold) and said.gate == KILL_SWITCH:
        # A decision waits for the release; a person who is stopped shall know it, and ask again.
        said = Refuse(said.gate, said.reason)
    weighed = replace(weighed, said=said)
    change = heart.create(wanted, weighed.gated, tx.now)
    # What a busy plugin runs may still be taken back; that is looked at again when it is free.
    unfit, waits = _unfit(wanted, plugin), change.attempt.held_by == PLUGIN_BUSY
    if unfit and change.attempt.state not in FINAL and not (waits and unfit[0] is AttemptEvent.CANCELLED):
        change = heart.end_at_creation(wanted, tx.now, *unfit)
    if author:
        told = (replace(fact, actor=author, reason=f"{fact.reason}: {reason}") for fact in change.facts)
        change = replace(change, facts=tuple(told))
    await keep(tx, ctx, change, cause, new=True)
    await weighed_out(tx, weighed, change.attempt, cause)
    return change.attempt


def _unfit(wanted: Attempt, plugin: ingest_pb2.Plugin) -> tuple[AttemptEvent, str, str] | None:
    if wanted.action is Action.PATCH and not wanted.digest:
        return (
            AttemptEvent.FAILED,
            "release_unknown",
            f"release {wanted.package} {wanted.to_release or '(none)'} is not published",
        )
    if wanted.action is Action.CONFIG_FIX and not wanted.digest:
        what = f"configuration {wanted.configuration}" if wanted.configuration else "no configuration"
        missing = "is not published for this plugin" if wanted.configuration else "is published for this plugin"
        return AttemptEvent.FAILED, "configuration_unknown", f"{what} of {wanted.package} {missing}"
    if wanted.action is Action.CONFIG_FIX and wanted.digest == plugin.config_digest:
        why = f"the plugin has configuration {wanted.configuration} already"
        return AttemptEvent.FAILED, "configuration_in_force", why
    if wanted.action is Action.ROLLBACK and wanted.to_release and not wanted.digest:
        return AttemptEvent.FAILED, "release_unknown", f"release {wanted.package} {wanted.to_release} is not published"
    if wanted.other_slot and not wanted.from_generation:
        return (
            AttemptEvent.FAILED,
            "nothing_before",
            "it runs what it was installed with; nothing is known to go back to",
        )
    if plugin.release != wanted.from_release:
        why = f"the plugin runs {plugin.release} now, the decision was about {wanted.from_release}"
        return AttemptEvent.CANCELLED, "", why
    return None


async def _preempt(tx: Transaction, ctx: ServiceContext, wanted: Attempt, cause: Event | None) -> Weighed | None:
    """Ends an attempt of lower severity that only waits, and asks the gates again."""
    other = await attempts.busy(tx, wanted.plugin, wanted.id)
    asked = other is not None and other.state is State.AWAITING_APPROVAL
    waits = asked or (other is not None and other.state in {State.PENDING, State.STAGED} and bool(other.held_by))
    if other is None or not waits or other.severity >= wanted.severity:
        return None
    await observe(tx, ctx, other.id, CancelRequested("patcher", f"preempted by attempt {wanted.id}"), cause=cause)
    return await weigh(tx, wanted)
