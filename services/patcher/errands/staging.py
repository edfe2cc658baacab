"""The errand that runs staging.

Rule: what an attempt no longer wants is not done, and what was proven before, under the same artifact, suite,
environment and isolation, is not proven again. Only a pass is kept: a failure is run once more before it speaks against
the release, and speaks then for the attempts that were waiting for it, not for later ones.
"""

import secrets
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from libs.common.database import Transaction
from libs.common.errands import Errand, Runner
from libs.common.telemetry import histogram
from services.patcher.attempt import QUEUE_LIMIT, Attempt, ErrandKind, Staged, StagingFinished, StagingLost, State
from services.patcher.context import ServiceContext
from services.patcher.operations.apply_change import observe, resume
from services.patcher.policy import Action
from services.patcher.staging import Request, StagingLostError, suite
from services.patcher.staging.signed import ReleaseError, verified, verified_configuration
from services.patcher.store import attempts, configurations, releases
from services.patcher.store import policy as policies
from services.patcher.store import staging as results
from services.patcher.store.configurations import Configuration
from services.patcher.store.releases import Release

# Two runs of the longest staging_timeout, and waiting for a sandbox; what runs is bounded by its runner.
LONGEST_STAGING = QUEUE_LIMIT + timedelta(hours=2, minutes=10)
STAGING_SECONDS = histogram(
    "staging_seconds", "Time a release took to prove itself", buckets=(0.5, 1, 2, 5, 15, 60, 300)
)


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


async def stage(ctx: ServiceContext, errand: Errand) -> dict[str, Any]:
    """The sandbox's result, from the cache when the same was proven before. Raises StagingLostError."""
    async with ctx.database.reading() as tx:
        attempt = await attempts.get(tx, errand.subject)
        if attempt is None or attempt.state is not State.STAGING:
            return {"unwanted": True}
        material = await _material(tx, attempt)
        policy = await policies.get(tx)
    host = await ctx.runner.host()
    if lacks := host.lacks(policy.min_isolation):
        unproven = Staged(False, 0, 0, 0.0, failures=(lacks,), ran=False, isolation=host.isolation.word)
        return {"result": asdict(unproven)}
    try:
        request = _request(attempt, material, ctx.keys)
    except ReleaseError as error:
        # What was published once no longer verifies, since somebody altered it, or what runs was never published.
        return {"result": asdict(Staged(False, 0, 0, 0.0, failures=(error.message,)))}
    request = replace(request, min_isolation=policy.min_isolation)
    config = material.configuration.digest if material.configuration else ""
    place = {
        "digest": request.manifest.digest,
        "suite": suite(request.manifest, attempt.failing_inputs, config),
        "environment": f"{ctx.runner.environment} {host.isolation.word}",
    }
    key = tuple(place.values())
    async with ctx.proving(key):
        async with ctx.database.reading() as tx:
            result = await results.get(tx, **place)
        if result is None:
            result = ctx.failure_while_waiting(key, attempt.update_time) or await _prove(ctx, request, place)
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
    result = await _run(ctx, request)
    if not result.passed:
        first = result.failures[0] if result.failures else "it did not pass"
        again = await _run(ctx, replace(request, nonce=secrets.token_hex(16)))
        result = replace(again, runs=2, first_failure=first)
    if result.passed:
        await ctx.database.transaction(lambda tx: results.put(tx, result=result, **place))
    else:
        ctx.remember_failure(tuple(place.values()), result)
    return result


async def _run(ctx: ServiceContext, request: Request) -> Staged:
    async with ctx.runner.turn():
        began = ctx.clock.monotonic()
        result = await ctx.runner.run(request)
        STAGING_SECONDS.observe(ctx.clock.monotonic() - began)
    return result


async def staging_done(ctx: ServiceContext, tx: Transaction, errand: Errand, answer: dict[str, Any]) -> None:
    """Tells the result and lets the attempt go on."""
    if "result" not in answer:
        return
    await observe(tx, ctx, errand.subject, StagingFinished(results.read(answer["result"])))
    await resume(tx, ctx, errand.subject)


async def staging_lost(ctx: ServiceContext, tx: Transaction, errand: Errand, error: str) -> None:
    """Every try gave nothing."""
    await observe(tx, ctx, errand.subject, StagingLost(error))


STAGING = {ErrandKind.STAGE.value: Runner(stage, staging_done, staging_lost, LONGEST_STAGING.total_seconds(), 4)}
