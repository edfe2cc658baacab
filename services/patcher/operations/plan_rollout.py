"""A rollout is planned: which plugins it reaches, in which waves, and whether it has to be approved first.

Rule: members are drawn once, from the plugins as ingest knows them now; what runs the target already, and what has left
or is quarantined, is no member. No plugin is in two live rollouts. What the policy wants approved waits for votes on
its plan; everything else begins at once.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from libs.common import names
from libs.common.database import Transaction
from libs.common.errors import Conflict, Invalid
from libs.common.names import new_id
from libs.common.telemetry import current_traceparent, new_traceparent
from prunella.v1 import ingest_pb2, patcher_pb2
from services.patcher import rollout as heart
from services.patcher.approvals import Plan, Status, Subject, plan_hash, read_plan
from services.patcher.context import ServiceContext
from services.patcher.operations import approvals
from services.patcher.operations.apply_rollout_change import observe, record
from services.patcher.operations.create_attempt import unknown_target
from services.patcher.operations.ingest_queries import list_plugins
from services.patcher.policy import Action, Ask, GateInputs, GateRequest, Policy, Severity, objections
from services.patcher.rollout import Approved, Assignment, Change, Member, MemberState, Superseded, draw
from services.patcher.store import approvals as approval_store
from services.patcher.store import configurations, fleets, members, releases, rollouts
from services.patcher.store import policy as policies
from services.patcher.store.rollouts import StoredRollout
from services.patcher.wire.rollouts import Settings, candidate, read_settings

DEFAULT_BUDGET = 16
# A plan names its plugins one by one up to here, then all of them by one digest.
NAMED = 200
SEPARATOR = ", "


@dataclass(frozen=True)
class PlannedRollout:
    """A rollout before it is saved, with its members and what is known of their plugins."""

    stored: StoredRollout
    change: Change
    members: tuple[Member, ...]
    assignments: tuple[Assignment, ...]
    plugins: dict[str, ingest_pb2.Plugin]
    active: int


async def prepare(ctx: ServiceContext, request: patcher_pb2.CreateRolloutRequest, author: str) -> PlannedRollout:
    """Draws a rollout. Raises Invalid or NotFound, naming the field; Unavailable when ingest is away."""
    wanted = read_settings(request.settings)
    async with ctx.database.reading() as tx:
        digest = await _digest(tx, request)
        policy = await policies.get(tx)
    known = {names.id_of(plugin.name): plugin for plugin in await list_plugins(ctx, request.package)}
    active = {name: plugin for name, plugin in known.items() if plugin.state == "active"}
    reached = {name: plugin for name, plugin in active.items() if _reached(plugin, request, digest)}
    rollout = new_id(ctx.clock.now())
    assignments = draw(rollout, map(candidate, reached.values()), wanted.waves, _canaries(wanted, policy, active))
    change, drawn = heart.create(
        rollout,
        request.package,
        request.target,
        assignments,
        ctx.clock.now(),
        budget=wanted.budget or DEFAULT_BUDGET,
        rules=wanted.rules,
        bounds=wanted.bounds,
    )
    change = replace(
        change,
        rollout=replace(change.rollout, reason=request.reason.strip()),
        facts=tuple(replace(fact, actor=author, reason=f"{fact.reason}: {request.reason}") for fact in change.facts),
    )
    stored = StoredRollout(
        change.rollout,
        request.config,
        digest,
        author,
        current_traceparent() or new_traceparent(),
        request.settings.SerializeToString(),
    )
    return PlannedRollout(stored, change, drawn, assignments, reached, len(active))


async def _digest(tx: Transaction, request: patcher_pb2.CreateRolloutRequest) -> str:
    """The digest of what is brought. Raises NotFound when it is not published, Invalid when it is for one plugin."""
    package, target = request.package, request.target
    release = None if request.config else await releases.get(tx, package, target)
    config = await configurations.get(tx, package, target) if request.config else None
    if config is not None and config.plugin:
        raise Invalid(
            f"target must be a configuration for every plugin, {target} is for {names.plugin(config.plugin)} alone",
            reason="CONFIGURATION_FOR_ONE",
            field="target",
            plugin=config.plugin,
        )
    found = release or config
    if found is None:
        raise unknown_target(package, target, config=request.config)
    return found.digest


def _reached(plugin: ingest_pb2.Plugin, request: patcher_pb2.CreateRolloutRequest, digest: str) -> bool:
    if request.merchants and plugin.merchant not in request.merchants:
        return False
    return plugin.config_digest != digest if request.config else plugin.release != request.target


def _canaries(wanted: Settings, policy: Policy, active: dict[str, ingest_pb2.Plugin]) -> list[str]:
    """Plugins and merchants that come first. Raises Invalid for a plugin that nobody knows."""
    labels = {plugin.label: name for name, plugin in active.items() if plugin.label}
    found = [*wanted.canary_merchants, *policy.canary_merchants]
    for number, named in enumerate(wanted.canaries):
        name = labels.get(names.id_of(named), names.id_of(named))
        if name not in active:
            raise Invalid(
                f"settings.canaries[{number}] must name an active plugin of the package, {named[:80]!r} is none",
                reason="CANARY_UNKNOWN",
                field=f"settings.canaries[{number}]",
                canary=named[:80],
            )
        found.append(name)
    return found


async def create(tx: Transaction, ctx: ServiceContext, planned: PlannedRollout) -> StoredRollout:
    """Saves a rollout and lets it begin, or requests approval. Raises Conflict when another has one of its plugins."""
    stored, rollout = planned.stored, planned.stored.rollout
    await rollouts.lock_package(tx, rollout.package)
    await check_overlap(tx, planned)
    for earlier in await rollouts.open_to_late(tx, rollout.package, config=stored.config):
        if found := await rollouts.get(tx, earlier, lock=True):
            await observe(tx, ctx, found, Superseded(names.rollout(rollout.id)))
    await rollouts.insert(tx, stored)
    plugins = {name: (plugin.label, plugin.merchant) for name, plugin in planned.plugins.items()}
    await members.insert(tx, rollout.id, planned.members, planned.assignments, plugins)
    await fleets.put(tx, rollout.package, planned.active)
    await record(tx, stored, planned.change)
    policy = await policies.get(tx)
    approval = required_approval(policy, stored, _from(planned), len(planned.members))
    if approval is None:
        return await observe(tx, ctx, stored, Approved())
    authors = {approvals.operator_id(stored.author), await _publisher(tx, stored)} - {""}
    subject = Subject(names.rollout(rollout.id))
    plan = _plan(planned, policy)
    await approvals.request(tx, subject, approval, plan, authors=sorted(authors), proposer="", by=stored.author)
    return stored


async def _publisher(tx: Transaction, stored: StoredRollout) -> str:
    """Who published what is brought."""
    read = configurations.get if stored.config else releases.get
    made = await read(tx, stored.rollout.package, stored.rollout.target)
    return approvals.operator_id(made.publisher) if made else ""


async def check_overlap(tx: Transaction, planned: PlannedRollout) -> None:
    """Raises Conflict when a live rollout has one of these plugins."""
    taken = await members.reserved(tx, [member.plugin for member in planned.members])
    if taken is None:
        return
    plugin, other = taken
    raise Conflict(
        f"plugin {plugin} is in {names.rollout(other)}, which is not over: wait for its end, or abort it",
        reason="ROLLOUT_OVERLAP",
        field="package",
        plugin=plugin,
        rollout=names.rollout(other),
    )


def required_approval(
    policy: Policy, stored: StoredRollout, releases_before: Sequence[str], plugins: int
) -> Ask | None:
    """Whom the policy wants to approve a rollout: for many plugins, or for a major version; None when nobody."""
    for before in releases_before:
        inputs = GateInputs(
            request=GateRequest("", "", _action(stored), Severity.LOW, 1.0, None),
            now=stored.rollout.create_time,
            from_release=before,
            to_release=stored.rollout.target,
            plugins=plugins,
            proven=True,
        )
        for reply in objections(policy, inputs):
            if isinstance(reply, Ask):
                return reply
    return None


def current_plan(text: str, policy: Policy) -> Plan:
    """The plan that people were asked about, as it is under the policy of now; its plugins never change."""
    return replace(read_plan(text), policy_version=policy.version)


async def renew_request(tx: Transaction, stored: StoredRollout) -> bool:
    """Asks people anew when the plan they were asked about is another one by now; whether it is."""
    subject = Subject(names.rollout(stored.rollout.id))
    known = await approval_store.live(tx, subject.name)
    if known is None or known[0].status is not Status.OPEN:
        return False
    policy = await policies.get(tx)
    plan = current_plan(known[1], policy)
    if plan_hash(plan) == known[0].plan_hash:
        return False
    wanted = required_approval(policy, stored, plan.from_release.split(SEPARATOR), stored.rollout.count(*MemberState))
    approval = wanted or approvals.keep_asking(policy)
    authors = sorted(known[0].authors)
    await approvals.request(
        tx, subject, approval, plan, authors=authors, proposer="", by=approvals.operator_id(policy.updated_by)
    )
    return True


def _plan(planned: PlannedRollout, policy: Policy) -> Plan:
    rollout = planned.stored.rollout
    return Plan(
        subject=names.rollout(rollout.id),
        action=_action(planned.stored).value,
        package=rollout.package,
        from_release=SEPARATOR.join(_from(planned)),
        to_release="" if planned.stored.config else rollout.target,
        digest="" if planned.stored.config else planned.stored.digest,
        scope=_scope([member.plugin for member in planned.members]),
        policy_version=policy.version,
        config_digest=planned.stored.digest if planned.stored.config else "",
        rollout=names.rollout(rollout.id),
    )


def _scope(plugins: Sequence[str]) -> tuple[str, ...]:
    named = sorted(map(names.plugin, plugins))
    if len(named) <= NAMED:
        return tuple(named)
    return (f"{len(named)} plugins", f"sha256:{hashlib.sha256(' '.join(named).encode()).hexdigest()}")


def _from(planned: PlannedRollout) -> list[str]:
    return sorted({plugin.release for plugin in planned.plugins.values()})


def _action(stored: StoredRollout) -> Action:
    return Action.CONFIG_FIX if stored.config else Action.PATCH
