"""Door 3, time passed: what waits for a gate goes on, probation is judged, overdue states end, lost words are found.

Rule: every live state is looked at by one of these duties; replicas may do the same work at once, the row's lock and
the heart make it one effect.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from libs.common.database import Transaction
from libs.common.errors import Problem
from libs.common.telemetry import use_traceparent
from prunella.v1 import agent_pb2, ingest_pb2
from services.patcher import attempt as heart
from services.patcher import wire
from services.patcher.attempt import (
    Attempt,
    BeatSeen,
    CancelRequested,
    DeadlinePassed,
    Observation,
    PluginLeft,
    State,
    VerdictReached,
)
from services.patcher.context import ServiceContext
from services.patcher.evidence import Evidence, Level, Probe, Rules
from services.patcher.freeze import frozen_until
from services.patcher.operations.apply_change import evaluate_gates, observe, resume
from services.patcher.operations.ingest_queries import cancel_reason, get_plugin
from services.patcher.policy import Action, Hold, Policy, in_flight_limit, scopes
from services.patcher.store import attempts, fleets, kill_switches, retention, slots, storms
from services.patcher.store import policy as policies
from services.patcher.sweeps.concurrency import each, traced
from services.patcher.verdict import Result, judge

TELEMETRY_TIMEOUT = 2.0
# Two looks before the latest commit, so that a pass can still be kept.
LAST_CALL = timedelta(seconds=1)


async def held(ctx: ServiceContext, now: datetime) -> int:
    """Lets attempts go on whose gate has opened, when their cause still stands."""
    async with ctx.database.reading() as tx:
        waiting = await attempts.held(tx)
        # A stopped fleet may hold very many: only those whose gate can have opened are asked one by one.
        hopeful = await _hopeful(tx, waiting, now) if waiting else []
        ready = [found for found in hopeful if not _still((await evaluate_gates(tx, found, lock=False)).reply, found)]
    await each(ready, lambda attempt: traced(attempt, "gate opened", lambda: _go_on(ctx, attempt)))
    return len(ready)


async def _hopeful(tx: Transaction, waiting: list[Attempt], now: datetime) -> list[Attempt]:
    stopped, active = await kill_switches.engaged(tx), await storms.active(tx)
    policy = await policies.get(tx)
    frozen = frozen_until(policy.freeze_windows, now) is not None
    free = await _free(tx, policy)
    hopeful = []
    for found in waiting:
        match found.held_by:
            case "KILL_SWITCH" if _stopped(found, stopped):
                continue
            case "STORM" if (found.package, found.symptom) in active:
                continue
            case "FREEZE" if frozen:
                continue
            case "BUDGET" if free.get(found.package, 1) <= 0:
                continue
            case "BUDGET":
                free[found.package] = free.get(found.package, 1) - 1
            case _:
                pass
        hopeful.append(found)
    return hopeful


async def _free(tx: Transaction, policy: Policy) -> dict[str, int]:
    taken = await slots.taken(tx)
    sizes = await fleets.sizes(tx)
    return {name: in_flight_limit(policy, sizes.get(name, 1)) - taken.get(name, 0) for name in sizes | taken}


def _stopped(found: Attempt, stopped: frozenset[str]) -> bool:
    return not stopped.isdisjoint(scopes(found.plugin, found.merchant, found.action))


def _still(reply: object, found: Attempt) -> bool:
    return isinstance(reply, Hold) and reply.gate == found.held_by


async def _go_on(ctx: ServiceContext, attempt: Attempt) -> None:
    why = await cancel_reason(ctx, attempt)

    async def work(tx: Transaction) -> None:
        if not why:
            await resume(tx, ctx, attempt.id)
            return
        await observe(tx, ctx, attempt.id, CancelRequested("patcher", why))

    await ctx.database.transaction(work)


async def probation(ctx: ServiceContext, now: datetime) -> int:
    """Judges what is in probation."""
    async with ctx.database.reading() as tx:
        watched = await attempts.in_state(tx, State.PROBATION)
        policy = await policies.get(tx)
    known = {attempt.id for attempt in watched}
    ctx.judged_times = {name: time for name, time in ctx.judged_times.items() if name in known}
    due = [attempt for attempt in watched if _due(ctx, policy, attempt, now)]
    return await each(due, lambda attempt: _judge(ctx, policy, attempt, now))


def _due(ctx: ServiceContext, policy: Policy, attempt: Attempt, now: datetime) -> bool:
    """Whether it is time for another look: one each interval of the policy, and no deadline passes without one."""
    before = ctx.judged_times.get(attempt.id)
    near = attempt.deadline_time is not None and now >= attempt.deadline_time - LAST_CALL
    if before is not None and now - before < policy.health_check_interval and not near:
        return False
    ctx.judged_times[attempt.id] = now
    return True


async def _judge(ctx: ServiceContext, policy: Policy, attempt: Attempt, now: datetime) -> None:
    request = ingest_pb2.GetTelemetryRequest(
        plugin=attempt.plugin, generation=attempt.generation, switch_time=wire.timestamp(attempt.switch_time)
    )
    try:
        message = await ctx.ingest.GetTelemetry(request, timeout=TELEMETRY_TIMEOUT)
        if attempt.other_slot and message.plugin.generation != attempt.generation:
            # The attempt's generation is the one that was left; what counts is the one that runs now.
            request.generation = message.plugin.generation
            message = await ctx.ingest.GetTelemetry(request, timeout=TELEMETRY_TIMEOUT)
    except Problem:
        if now < attempt.commit_deadline:
            raise
        await _observed(ctx, attempt, "no verdict", DeadlinePassed())
        return
    verdict = judge(evidence(attempt, message, now), rules(ctx, policy))
    if attempt.verdict == verdict and attempt.deadline_time and now < attempt.deadline_time:
        return
    if verdict.result is Result.INSUFFICIENT:
        # Looks that decide nothing would fill the trace.
        with use_traceparent(attempt.traceparent):
            await ctx.database.transaction(lambda tx: observe(tx, ctx, attempt.id, VerdictReached(verdict)))
        return
    await _observed(ctx, attempt, f"verdict {verdict.result}", VerdictReached(verdict))


async def _observed(ctx: ServiceContext, attempt: Attempt, name: str, observation: Observation) -> None:
    async def work() -> None:
        await ctx.database.transaction(lambda tx: observe(tx, ctx, attempt.id, observation))

    await traced(attempt, name, work)


def rules(ctx: ServiceContext, policy: Policy) -> Rules:
    """The bounds of a verdict under a policy."""
    return Rules(
        beats=ctx.settings.probation_beats,
        threshold=policy.rollback_error_rate_threshold / 100.0,
        silence=policy.rollback_heartbeat_missed.total_seconds(),
    )


def evidence(attempt: Attempt, message: ingest_pb2.GetTelemetryResponse, now: datetime) -> Evidence:
    """What a verdict is made of."""
    switched = attempt.switch_time or attempt.update_time
    beaten = wire.time_of(message.plugin.last_beat_time) if message.plugin.HasField("last_beat_time") else switched
    running = message.plugin.generation == attempt.generation or attempt.other_slot
    requested = attempt.probe is not Probe.NOT_REQUESTED
    return Evidence(
        before=wire.sums(message.before),
        after=wire.sums(message.after),
        control=wire.sums(message.control),
        symptom=attempt.symptom,
        health=wire.HEALTH.get(message.plugin.health, "") if running else "",
        silent=(now - max(beaten, switched)).total_seconds(),
        probe=attempt.probe,
        findings=tuple(message.findings),
        levels=tuple(Level(one.name, one.usual, one.present, one.spread) for one in message.levels),
        drifts=attempt.action is Action.CONFIG_FIX and message.plugin.config_digest not in {"", attempt.digest},
        last_call=requested and attempt.deadline_time is not None and now >= attempt.deadline_time - LAST_CALL,
    )


async def deadlines(ctx: ServiceContext, now: datetime) -> int:
    """Ends states that have lasted too long."""
    async with ctx.database.reading() as tx:
        late = [found for name in await attempts.overdue(tx, now) if (found := await attempts.get(tx, name))]

    return await each(late, lambda attempt: _observed(ctx, attempt, "deadline passed", DeadlinePassed()))


async def unconfirmed(ctx: ServiceContext, _now: datetime) -> int:
    """Looks for agents that are heard again."""
    async with ctx.database.reading() as tx:
        lost = await attempts.in_state(tx, State.UNCONFIRMED)
    return await each(lost, lambda attempt: _refresh(ctx, attempt))


async def _refresh(ctx: ServiceContext, attempt: Attempt) -> None:
    plugin = await get_plugin(ctx, attempt.plugin)
    if plugin is None or plugin.state == "retired":
        await _observed(ctx, attempt, "agent gone", PluginLeft("the plugin left before its agent's final word"))
        return
    if not plugin.HasField("last_beat_time") or plugin.health == agent_pb2.HEALTH_UNSPECIFIED:
        return
    seen = BeatSeen(plugin.generation, plugin.release, plugin.digest, wire.time_of(plugin.last_beat_time))
    # Most looks find nothing: only one that ends the attempt belongs into its trace.
    if heart.next(attempt, seen, ctx.clock.now()).transitions:
        await _observed(ctx, attempt, "agent heard again", seen)


async def clean_up(ctx: ServiceContext, now: datetime) -> int:
    """Removes what nobody will ask for again."""
    return await ctx.database.transaction(lambda tx: retention.clean_up(tx, now))


SWEEPS: dict[str, tuple[float, Callable[[ServiceContext, datetime], Awaitable[int]]]] = {
    "held": (1.0, held),
    "probation": (0.5, probation),
    "deadlines": (1.0, deadlines),
    "unconfirmed": (3.0, unconfirmed),
    "clean_up": (600.0, clean_up),
}
