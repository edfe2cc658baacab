"""Rollouts go on as time passes, and their plugins come, go, and are compared with those that were not touched.

Rule: a plugin counts as away only when it was not connected at every look for a while, so that a pause of the plane
itself takes nobody out of a wave. Replicas may do the same at once: the rollout's lock makes it one effect.
"""

import hashlib
import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial

from libs.common import names
from libs.common.database import Transaction
from libs.common.errors import Problem
from libs.common.telemetry import use_traceparent
from prunella.v1 import ingest_pb2
from services.patcher import rollout as heart
from services.patcher.approvals import Subject
from services.patcher.attempt import CancelRequested
from services.patcher.attempt import State as AttemptState
from services.patcher.context import ServiceContext
from services.patcher.operations import approvals as door
from services.patcher.operations.apply_change import bounds
from services.patcher.operations.apply_change import observe as observe_attempt
from services.patcher.operations.apply_rollout_change import observe
from services.patcher.operations.ingest_queries import list_plugins
from services.patcher.operations.launch_members import advance
from services.patcher.operations.plan_rollout import renew_request
from services.patcher.rollout import (
    ControlGroupUpdated,
    Member,
    MemberState,
    Observation,
    PluginLeft,
    Returned,
    Rollout,
    State,
    Tick,
    WentOffline,
)
from services.patcher.store import approvals, control_group, fleets, members, rollouts
from services.patcher.store import policy as policies
from services.patcher.store.rollouts import StoredRollout

log = logging.getLogger(__name__)

AWAY = timedelta(seconds=10)
MOST_CONTROL = 500
MOST_AT_ONCE = 200
WATCHED = frozenset({State.RUNNING, State.SOAKING, State.PAUSED})
S = MemberState
COMING = (S.WAITING, S.OFFLINE, S.STARTED)


async def resume(ctx: ServiceContext, now: datetime) -> int:
    """Does what is due for every rollout."""
    async with ctx.database.reading() as tx:
        found = [stored.rollout for stored in await rollouts.unfinished(tx)]
    due = [rollout.id for rollout in found if _due(rollout, now)]
    return sum([await _quietly(ctx, rollout) for rollout in due])


def _due(rollout: Rollout, now: datetime) -> bool:
    """Whether time, or room in flight, brings something; asking the heart costs nothing."""
    change = heart.next(rollout, Tick(), now)
    return bool(change.effects or change.transitions) or rollout.state is State.ROLLING_BACK


async def _quietly(ctx: ServiceContext, rollout: str) -> bool:
    try:
        return await advance(ctx, rollout)
    except Problem as problem:
        log.warning("rollout %s waits: %s", rollout, problem.message)
        return False


async def refresh_members(ctx: ServiceContext, now: datetime) -> int:
    """Looks at the plugins of every package that has a rollout. Raises Unavailable when ingest is away."""
    async with ctx.database.reading() as tx:
        found = [stored for stored in await rollouts.unfinished(tx) if _watches(stored.rollout)]
    changed = 0
    for package in sorted({stored.rollout.package for stored in found}):
        known = {names.id_of(plugin.name): plugin for plugin in await list_plugins(ctx, package)}
        away = _away(ctx, known.values(), now)
        active = sum(plugin.state == "active" for plugin in known.values())
        await _count(ctx, package, active)
        for stored in found:
            if stored.rollout.package == package:
                changed += await _refresh(ctx, stored, known, away)
    return changed


def _watches(rollout: Rollout) -> bool:
    """Whether it matters who is connected: somebody is still to get the build, or is compared."""
    return rollout.state in WATCHED or bool(rollout.count(*COMING))


async def _count(ctx: ServiceContext, package: str, active: int) -> None:
    await ctx.database.transaction(lambda tx: fleets.put(tx, package, active))


def _away(ctx: ServiceContext, known: Iterable[ingest_pb2.Plugin], now: datetime) -> frozenset[str]:
    """Plugins that have not been connected for a while."""
    away = set()
    for plugin in known:
        name = names.id_of(plugin.name)
        if plugin.connected:
            ctx.absent_since.pop(name, None)
        elif now - ctx.absent_since.setdefault(name, now) >= AWAY:
            away.add(name)
    return frozenset(away)


async def _refresh(
    ctx: ServiceContext, stored: StoredRollout, known: dict[str, ingest_pb2.Plugin], away: frozenset[str]
) -> int:
    rollout = stored.rollout.id
    async with ctx.database.reading() as tx:
        states = await members.states(tx, rollout)
    news = [plugin for plugin, state in states.items() if _news(state, plugin, known, away)][:MOST_AT_ONCE]
    if news:
        await ctx.database.transaction(lambda tx: _tell(tx, ctx, rollout, news, known, away))
    if stored.rollout.state in WATCHED:
        await _compare(ctx, stored, states, known)
    return len(news)


def _news(state: S, plugin: str, known: dict[str, ingest_pb2.Plugin], away: frozenset[str]) -> bool:
    """Whether a plugin came, went, or left for good."""
    if state not in COMING:
        return False
    found = known.get(plugin)
    if found is None or found.state != "active":
        return True
    return found.connected if state is S.OFFLINE else plugin in away


async def _tell(
    tx: Transaction,
    ctx: ServiceContext,
    rollout: str,
    news: list[str],
    known: dict[str, ingest_pb2.Plugin],
    away: frozenset[str],
) -> None:
    stored = await rollouts.get(tx, rollout, lock=True)
    for plugin in news:
        row = await members.get(tx, rollout, plugin)
        if stored is None or row is None or not _news(row.member.state, plugin, known, away):
            continue
        if row.member.state is S.STARTED and not await _called_off(tx, ctx, row.attempt):
            continue
        stored = await observe(tx, ctx, stored, _observation(row.member, known.get(plugin)))


async def _called_off(tx: Transaction, ctx: ServiceContext, attempt: str) -> bool:
    """Whether an attempt that waits for a plugin that is away ended with nothing applied."""
    ended = await observe_attempt(tx, ctx, attempt, CancelRequested("patcher", "the plugin is not connected"))
    return ended is not None and ended.state is AttemptState.CANCELLED


def _observation(member: Member, found: ingest_pb2.Plugin | None) -> Observation:
    if found is None:
        return PluginLeft(member, "the plugin left")
    if found.state != "active":
        return PluginLeft(member, f"the plugin is {found.state}")
    return Returned(member) if member.state is S.OFFLINE else WentOffline(member)


async def _compare(
    ctx: ServiceContext, stored: StoredRollout, states: dict[str, MemberState], known: dict[str, ingest_pb2.Plugin]
) -> None:
    """Brings the control group up to date: connected plugins of the package that the rollout has not switched."""
    others = [
        plugin
        for name, plugin in known.items()
        if plugin.connected
        and plugin.state == "active"
        and states.get(name, S.WAITING) in COMING
        and (plugin.config_digest != stored.digest if stored.config else plugin.release != stored.rollout.target)
    ]
    others.sort(key=lambda plugin: hashlib.sha256(plugin.name.encode()).digest())
    sample = others[:MOST_CONTROL]
    well = {names.id_of(plugin.name): plugin.merchant for plugin in sample if not plugin.open_incidents}
    ill = {names.id_of(plugin.name): plugin.merchant for plugin in sample if plugin.open_incidents}

    async def work(tx: Transaction) -> None:
        found = await rollouts.get(tx, stored.rollout.id, lock=True)
        if found is None or found.rollout.state not in WATCHED or found.rollout.wave != stored.rollout.wave:
            return
        policy = await policies.get(tx)
        before = tx.now - timedelta(seconds=bounds(ctx.settings, policy).probation)
        counts = await control_group.watch(tx, found.rollout.id, found.rollout.wave, well=well, ill=ill, before=before)
        if counts != found.rollout.control:
            await observe(tx, ctx, found, ControlGroupUpdated(counts))

    await ctx.database.transaction(work)


async def pending_approvals(ctx: ServiceContext, now: datetime) -> int:
    """Reminds and escalates where a rollout waits for people, ends what nobody answered, and asks anew."""
    async with ctx.database.reading() as tx:
        pending = [
            stored.rollout.id for stored in await rollouts.unfinished(tx) if stored.rollout.state is State.PENDING
        ]
        due = {name for name in await approvals.due(tx, now) if name.startswith("rollouts/")} if pending else set()

    async def work(tx: Transaction, rollout: str) -> bool:
        stored = await rollouts.get(tx, rollout, lock=True)
        if stored is None or stored.rollout.state is not State.PENDING:
            return False
        with use_traceparent(stored.traceparent):
            if names.rollout(rollout) in due:
                await door.tick(tx, Subject(names.rollout(rollout)))
                return True
            return await renew_request(tx, stored)

    return sum([await ctx.database.transaction(partial(work, rollout=rollout)) for rollout in pending])


SWEEPS = {
    "rollouts": (1.0, resume),
    "rollout_plugins": (3.0, refresh_members),
    "rollout_approvals": (1.0, pending_approvals),
}
