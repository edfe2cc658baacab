"""Door 3, time passed: what was committed on low evidence is looked at until there is proof, or time is up.

Rule: ingest is queried before the transaction; under the watch's lock the heart decides again. What turns out worse is
taken back by an attempt of its own, created in the transaction that ends the watch: it passes the gates and asks for
its permit like any other.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from libs.common.database import Transaction
from libs.common.errors import NotFound, Problem
from libs.common.names import new_id
from libs.common.telemetry import counter
from prunella.v1 import ingest_pb2
from services.patcher import watch as heart
from services.patcher import wire
from services.patcher.attempt import Attempt, State
from services.patcher.context import ServiceContext
from services.patcher.operations.create_attempt import Target, create, draft, resolve
from services.patcher.policy import Action, Policy
from services.patcher.store import attempts, releases, watches
from services.patcher.store import policy as policies
from services.patcher.sweeps.attempts import TELEMETRY_TIMEOUT, evidence, rules
from services.patcher.sweeps.concurrency import each, traced
from services.patcher.verdict import judge
from services.patcher.watch import Looked, MovedOn, NotSeen, Observation, Watch

MOST = 200
ENDED = counter("attempt_watches_ended_total", "Watches after a commit on low evidence, by how they ended", ("state",))
# What brought something that can be taken back.
TAKEN_BACK = frozenset({Action.PATCH, Action.CONFIG_FIX})
Seen = tuple[Observation, ingest_pb2.Plugin | None]


async def look(ctx: ServiceContext, now: datetime) -> int:
    """Looks at the watches whose time has come."""
    async with ctx.database.reading() as tx:
        found = await watches.due(tx, now, MOST)
        if not found:
            return 0
        policy = await policies.get(tx)
        watched = {watch.attempt: attempt for watch in found if (attempt := await attempts.get(tx, watch.attempt))}

    async def one(attempt: Attempt) -> None:
        watch = next(watch for watch in found if watch.attempt == attempt.id)
        observation, plugin = await _seen(ctx, policy, watch, attempt, now)
        after = heart.next(watch, observation, now)

        async def settle() -> None:
            await ctx.database.transaction(lambda tx: _settle(tx, ctx, observation, attempt, plugin))

        # Looks that decide nothing would fill the trace.
        await (traced(attempt, f"watch {after.state}", settle) if after.over else settle())

    return await each(list(watched.values()), one)


async def _seen(ctx: ServiceContext, policy: Policy, watch: Watch, attempt: Attempt, now: datetime) -> Seen:
    """What the plugin shows, and the plugin itself. Raises nothing: who cannot be asked now is asked later."""
    if attempt.state is not State.SUCCESS:
        return MovedOn(f"the attempt is {attempt.state}"), None
    request = ingest_pb2.GetTelemetryRequest(
        plugin=attempt.plugin, generation=watch.generation, switch_time=wire.timestamp(attempt.switch_time)
    )
    try:
        message = await ctx.ingest.GetTelemetry(request, timeout=TELEMETRY_TIMEOUT)
        if not watch.generation:
            # It went back to its other slot: what runs there is what is watched.
            request.generation = message.plugin.generation
            message = await ctx.ingest.GetTelemetry(request, timeout=TELEMETRY_TIMEOUT)
    except NotFound:
        return MovedOn("the plugin left"), None
    except Problem:
        return NotSeen(), None
    plugin = message.plugin
    if plugin.state != "active":
        return MovedOn(f"the plugin is {plugin.state}"), plugin
    if watch.generation not in {0, plugin.generation}:
        return MovedOn("the plugin runs something else by now"), plugin
    found = evidence(replace(attempt, generation=plugin.generation), message, now)
    before = watch.before or found.before
    # An agent that is away says nothing of the remedy, and nobody has to hurry: its silence is an incident of its own.
    verdict = judge(replace(found, before=before, silent=0.0, last_call=False), rules(ctx, policy))
    return Looked(verdict, before), plugin


async def _settle(
    tx: Transaction, ctx: ServiceContext, observation: Observation, attempt: Attempt, plugin: ingest_pb2.Plugin | None
) -> None:
    known = await watches.lock(tx, attempt.id)
    if known is None or known.over:
        return
    after = heart.next(known, observation, tx.now)
    if isinstance(observation, Looked) and plugin is not None:
        after = replace(after, generation=plugin.generation)
    await watches.save(tx, after)
    if not after.over:
        return
    worse = after.state is heart.State.WORSE and plugin is not None and attempt.action in TAKEN_BACK
    rollback = await _roll_back(tx, ctx, attempt, plugin, after.reason) if worse and plugin is not None else ""
    verdict = observation.verdict if isinstance(observation, Looked) else None
    tx.record(wire.watch_ended(after, attempt, verdict, rollback))
    tx.after_commit(ENDED.labels(after.state.value).inc)


async def _roll_back(
    tx: Transaction, ctx: ServiceContext, attempt: Attempt, plugin: ingest_pb2.Plugin, reason: str
) -> str:
    """The attempt that takes a remedy back which turned out worse, to what ran before it."""
    published = attempt.action is Action.PATCH and await releases.get(tx, attempt.package, attempt.from_release)
    back_to = attempt.from_release if published else ""
    target = await resolve(tx, attempt.plugin, plugin, Action.ROLLBACK, back_to) if published else Target("", "")
    wanted = await draft(
        tx,
        ctx,
        attempt.plugin,
        plugin,
        target,
        id=new_id(tx.now),
        # The incident it healed is over, and no rollout wants it: it stands for itself.
        incident="",
        decision="",
        action=Action.ROLLBACK,
        severity=attempt.severity,
        symptom=attempt.symptom,
        round=1,
        # Figures say so, so there is nothing to be unsure of.
        confidence=1.0,
        traceparent=attempt.traceparent,
    )
    why = f"{attempt.target or attempt.action}, watched after its commit on low evidence, turned out worse: {reason}"
    return (await create(tx, ctx, wanted, plugin, None, reason=why)).id


SWEEPS: dict[str, tuple[float, Callable[[ServiceContext, datetime], Awaitable[int]]]] = {"watches": (2.0, look)}
