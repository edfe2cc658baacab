"""What attempts want done outside: run staging, have commands written down or withdrawn.

Rule: the errand's id is the request_id outside, so doing it twice is harmless; what an attempt no longer wants is not
done. Staging may take minutes, so its lease is short and renewed while it runs: a patcher that dies gives it back
within seconds.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from libs.common import names
from libs.common.cancellation import end
from libs.common.database import Transaction
from libs.common.errands import Errand, Runner, send
from libs.common.errors import Conflict, Invalid, NotFound, Problem, Refused
from libs.common.telemetry import histogram
from prunella.v1 import agent_pb2, ingest_pb2
from services.patcher import wire
from services.patcher.attempt import (
    Attempt,
    AutomationStopped,
    CancelRequested,
    CommandIssued,
    CommandLost,
    ErrandKind,
    Purpose,
    Staged,
    StagingFinished,
    StagingLost,
    State,
)
from services.patcher.context import SCHEMA, ServiceContext
from services.patcher.operations.apply_change import go_on, observe
from services.patcher.operations.ingest_queries import why_not
from services.patcher.policy import Action
from services.patcher.staging import Request, StagingLostError, suite
from services.patcher.staging.signed import ReleaseError, verified, verified_configuration
from services.patcher.store import attempts, configurations, kill_switches, leases, releases, storms
from services.patcher.store import staging as results
from services.patcher.store.configurations import Configuration
from services.patcher.store.releases import Release

LONGEST_STAGING = 3700.0
COMMAND_TIMEOUT = 5.0
TRIES = 40
STAGING_SECONDS = histogram(
    "staging_seconds", "Time a release took to prove itself", buckets=(0.5, 1, 2, 5, 15, 60, 300)
)
WANTED = {
    Purpose.SWITCH: State.APPLYING,
    Purpose.COMMIT: State.COMMITTING,
    Purpose.ROLLBACK: State.ROLLING_BACK,
    Purpose.HEALTH_CHECK: State.PROBATION,
}


@contextlib.asynccontextmanager
async def leased(ctx: ServiceContext, errand: Errand) -> AsyncIterator[None]:
    """Keeps a short lease alive around the block."""

    async def renew() -> None:
        while True:
            with contextlib.suppress(Problem):
                await ctx.database.transaction(lambda tx: leases.renew(tx, errand.id, errand.token))
            await asyncio.sleep(leases.RENEWAL)

    renewing = asyncio.create_task(renew(), name=f"lease {errand.id}")
    try:
        yield
    finally:
        await end([renewing])


async def stage(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    """The sandbox's result, from the cache when the same was proven before. Raises StagingLostError."""
    async with leased(ctx, errand):
        return await _stage(ctx, errand)


@dataclass(frozen=True)
class Material:
    """What an attempt brings to the sandbox: a release, and the configuration where that is what is new."""

    release: Release | None
    artifact: bytes | None
    configuration: Configuration | None


async def _material(tx: Transaction, attempt: Attempt) -> Material:
    configuration = None
    if attempt.action is Action.CONFIG_FIX:
        configuration = await configurations.get(tx, attempt.package, attempt.configuration)
        release = await releases.get(tx, attempt.package, attempt.from_release)
    else:
        release = await releases.by_digest(tx, attempt.digest)
    artifact = await releases.piece(tx, release.digest, 0, release.size) if release else None
    return Material(release, artifact, configuration)


async def _stage(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    async with ctx.database.reading() as tx:
        attempt = await attempts.get(tx, errand.subject)
        if attempt is None or attempt.state is not State.STAGING:
            return {"unwanted": True}
        material = await _material(tx, attempt)
    try:
        request = _request(attempt, material, ctx.keys)
    except ReleaseError as error:
        # What was published once no longer verifies, since somebody altered it, or what runs was never published.
        return {"result": asdict(Staged(False, 0, 0, 0.0, failures=(error.message,)))}
    config = material.configuration.digest if material.configuration else ""
    place = {
        "digest": request.manifest.digest,
        "suite": suite(request.manifest, attempt.failing_inputs, config),
        "environment": ctx.runner.environment,
    }
    async with ctx.proving(tuple(place.values())):
        async with ctx.database.reading() as tx:
            result = await results.get(tx, **place)
        if result is None:
            result = await _prove(ctx, request, place)
    return {"result": asdict(result)}


def _request(attempt: Attempt, material: Material, keys: tuple[bytes, ...]) -> Request:
    """What is to be proven. Raises ReleaseError, or StagingLostError when it is gone."""
    fixes, document = attempt.action is Action.CONFIG_FIX, b""
    if material.release is None or material.artifact is None:
        if not fixes:
            raise StagingLostError("the release is gone")
        raise ReleaseError(
            f"release {attempt.package} {attempt.from_release} is not published, so nothing can be proven of it",
            "RELEASE_UNKNOWN",
        )
    manifest = verified(material.release.envelope, material.artifact, keys)
    if fixes:
        if material.configuration is None:
            raise StagingLostError("the configuration is gone")
        _, document = verified_configuration(material.configuration.envelope, material.configuration.document, keys)
    return Request(
        nonce=secrets.token_hex(16),
        manifest=manifest,
        artifact=material.artifact,
        failing_inputs=attempt.failing_inputs,
        seconds=attempt.bounds.staging_timeout,
        attempt=attempt.id,
        plugin=attempt.plugin,
        merchant=attempt.merchant,
        config=document,
    )


async def _prove(ctx: ServiceContext, request: Request, place: dict[str, str]) -> Staged:
    began = ctx.clock.monotonic()
    result = await ctx.runner.run(request)
    STAGING_SECONDS.observe(ctx.clock.monotonic() - began)
    # A run that got nowhere may have had bad luck with the machine: only tests that ran are worth keeping.
    if result.tests_run:
        await ctx.database.transaction(lambda tx: results.put(tx, result=result, **place))
    return result


async def staging_done(ctx: ServiceContext, tx: Transaction, errand: Errand, told: dict[str, Any]) -> None:
    """Tells the result and lets the attempt go on."""
    if "result" not in told:
        return
    await observe(tx, ctx, errand.subject, StagingFinished(results.read(told["result"])))
    await go_on(tx, ctx, errand.subject)


async def staging_lost(ctx: ServiceContext, tx: Transaction, errand: Errand, error: str) -> None:
    """Every try gave nothing."""
    await observe(tx, ctx, errand.subject, StagingLost(error))


async def issue(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    """Has ingest write the command down. Raises its Problem when that may pass."""
    purpose = Purpose(errand.payload["purpose"])
    async with ctx.database.reading() as tx:
        attempt = await attempts.get(tx, errand.subject)
        wanted = attempt is not None and _wanted(attempt, purpose, errand.payload["number"])
        material = Material(None, None, None)
        if attempt and wanted and purpose is Purpose.SWITCH:
            material = await _sent(tx, attempt, errand.payload["kind"])
    if attempt is None or not wanted:
        return {"unwanted": True}
    request = ingest_pb2.IssueCommandRequest(
        request_id=errand.id,
        plugin=attempt.plugin,
        attempt=attempt.id,
        incident=attempt.incident,
        kind=wire.KINDS[errand.payload["kind"]],
        release=attempt.to_release,
        dead_man_duration=wire.duration(attempt.bounds.dead_man),
        deadline_time=wire.timestamp(datetime.fromisoformat(errand.payload["until"])),
        generation=errand.payload["generation"],
    )
    if (release := material.release) is not None:
        request.envelope, request.digest, request.size = release.envelope, release.digest, release.size
    if (configuration := material.configuration) is not None:
        request.envelope, request.digest = configuration.envelope, configuration.digest
        request.config = configuration.document
    try:
        command: agent_pb2.Command = (await ctx.ingest.IssueCommand(request, timeout=COMMAND_TIMEOUT - 1)).command
    except (Invalid, NotFound, Refused, Conflict) as problem:
        # Asked again ingest would say the same.
        return {"refused": f"{problem.reason}: {problem.message}"[:500]}
    await ctx.bus.wake(attempt.plugin)
    return {"command": command.id, "generation": command.generation, "fence": command.fence}


async def _sent(tx: Transaction, attempt: Attempt, kind: str) -> Material:
    """What goes along with the command that switches."""
    if kind == "config_update":
        return Material(None, None, await configurations.get(tx, attempt.package, attempt.configuration))
    return Material(await releases.by_digest(tx, attempt.digest) if kind == "update" else None, None, None)


def _wanted(attempt: Attempt, purpose: Purpose, number: int) -> bool:
    current = {Purpose.SWITCH: attempt.tries, Purpose.ROLLBACK: attempt.rollbacks}.get(purpose, number)
    return attempt.state is WANTED[purpose] and current == number


async def issued(ctx: ServiceContext, tx: Transaction, errand: Errand, told: dict[str, Any]) -> None:
    """Writes down which command it became, or that it never will be one."""
    if "refused" in told:
        await not_issued(ctx, tx, errand, told["refused"])
    if "command" in told:
        purpose, number = Purpose(errand.payload["purpose"]), errand.payload["number"]
        word = CommandIssued(purpose, number, told["command"], told["generation"], told["fence"])
        await observe(tx, ctx, errand.subject, word)


async def not_issued(ctx: ServiceContext, tx: Transaction, errand: Errand, error: str) -> None:
    """Every try failed."""
    word = CommandLost(Purpose(errand.payload["purpose"]), errand.payload["number"], error)
    await observe(tx, ctx, errand.subject, word)


async def withdraw(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    """Has ingest withdraw a command nobody permitted; one that is over already is as good."""
    request = ingest_pb2.WithdrawCommandRequest(
        name=names.command(errand.payload["command"]), request_id=errand.id, reason=errand.payload["reason"]
    )
    with contextlib.suppress(NotFound, Refused):
        await ctx.ingest.WithdrawCommand(request, timeout=COMMAND_TIMEOUT - 1)
    return {}


async def ready(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    """Whether an attempt that may go on still has something to go on for. Raises Unavailable."""
    async with ctx.database.reading() as tx:
        attempt = await attempts.get(tx, errand.subject)
    if attempt is None or attempt.state not in {State.PENDING, State.STAGED}:
        return {"unwanted": True}
    return {"not": await why_not(ctx, attempt)}


async def resumed(ctx: ServiceContext, tx: Transaction, errand: Errand, told: dict[str, Any]) -> None:
    """Lets it go on, or ends it."""
    if told.get("not"):
        await observe(tx, ctx, errand.subject, CancelRequested("patcher", told["not"]))
    elif "not" in told:
        await go_on(tx, ctx, errand.subject)


async def look(_doors: ServiceContext, _errand: Errand) -> dict[str, Any]:
    """Nothing to do outside: what is stopped is known in the database alone."""
    return {}


async def stopped(ctx: ServiceContext, tx: Transaction, errand: Errand, _told: dict[str, Any]) -> None:
    """Takes commands back that no permit was given for, in the scope of a kill switch or a storm that is still on."""
    if not await _on(tx, errand.subject):
        return
    found = await attempts.waiting_for_agent(tx, errand.subject)
    for attempt in found:
        await observe(tx, ctx, attempt, AutomationStopped(errand.payload["gate"], errand.payload["reason"]))
    if len(found) == attempts.AT_ONCE:
        await send(tx, SCHEMA, ErrandKind.STOP, errand.subject, errand.payload, database=ctx.database)


async def _on(tx: Transaction, scope: str) -> bool:
    """Whether a scope is still stopped: an errand that comes late must not stop what was let go on since."""
    if scope.startswith("storms/"):
        _, package, symptom = scope.split("/", 2)
        return (package, symptom) in await storms.raging(tx)
    await tx.run(kill_switches.LOCK, scope=scope)
    return scope in await kill_switches.engaged(tx)


async def _nothing(_doors: ServiceContext, _tx: Transaction, _errand: Errand, _told: Any) -> None:
    return


STAGING = {ErrandKind.STAGE.value: Runner(stage, staging_done, staging_lost, LONGEST_STAGING, 4)}
COMMANDS = {
    ErrandKind.ISSUE_COMMAND.value: Runner(issue, issued, not_issued, COMMAND_TIMEOUT, TRIES),
    ErrandKind.WITHDRAW_COMMAND.value: Runner(withdraw, _nothing, _nothing, COMMAND_TIMEOUT, TRIES),
    ErrandKind.GO_ON.value: Runner(ready, resumed, _nothing, COMMAND_TIMEOUT, TRIES),
    ErrandKind.STOP.value: Runner(look, stopped, _nothing, COMMAND_TIMEOUT, TRIES),
}
