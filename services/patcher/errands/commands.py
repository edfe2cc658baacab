"""The errands about commands: have them written down or withdrawn, let attempts go on, stop what has no permit yet.

Rule: the errand's id is the request_id outside, so doing it twice is harmless; what an attempt no longer wants is not
done.
"""

import contextlib
from datetime import datetime
from typing import Any

from libs.common import names
from libs.common.database import Transaction
from libs.common.errands import Errand, Runner, send
from libs.common.errors import Conflict, Invalid, NotFound, Refused
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
    State,
)
from services.patcher.context import SCHEMA, ServiceContext
from services.patcher.errands.staging import Material
from services.patcher.operations.apply_change import observe, resume
from services.patcher.operations.ingest_queries import cancel_reason
from services.patcher.store import attempts, configurations, kill_switches, releases, storms

COMMAND_TIMEOUT = 5.0
TRIES = 40
WANTED = {
    Purpose.SWITCH: State.APPLYING,
    Purpose.COMMIT: State.COMMITTING,
    Purpose.ROLLBACK: State.ROLLING_BACK,
    Purpose.HEALTH_CHECK: State.PROBATION,
}


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


async def issued(ctx: ServiceContext, tx: Transaction, errand: Errand, answer: dict[str, Any]) -> None:
    """Writes down which command it became, or that it never will be one."""
    if "refused" in answer:
        await not_issued(ctx, tx, errand, answer["refused"])
    if "command" in answer:
        purpose, number = Purpose(errand.payload["purpose"]), errand.payload["number"]
        observation = CommandIssued(purpose, number, answer["command"], answer["generation"], answer["fence"])
        await observe(tx, ctx, errand.subject, observation)


async def not_issued(ctx: ServiceContext, tx: Transaction, errand: Errand, error: str) -> None:
    """Every try failed."""
    observation = CommandLost(Purpose(errand.payload["purpose"]), errand.payload["number"], error)
    await observe(tx, ctx, errand.subject, observation)


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
    return {"not": await cancel_reason(ctx, attempt)}


async def resumed(ctx: ServiceContext, tx: Transaction, errand: Errand, answer: dict[str, Any]) -> None:
    """Lets it go on, or ends it."""
    if answer.get("not"):
        await observe(tx, ctx, errand.subject, CancelRequested("patcher", answer["not"]))
    elif "not" in answer:
        await resume(tx, ctx, errand.subject)


async def nothing_outside(_ctx: ServiceContext, _errand: Errand) -> dict[str, Any]:
    """Nothing to do outside: what is stopped is known in the database alone."""
    return {}


async def stopped(ctx: ServiceContext, tx: Transaction, errand: Errand, _answer: dict[str, Any]) -> None:
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
        return (package, symptom) in await storms.active(tx)
    await tx.run(kill_switches.LOCK, scope=scope)
    return scope in await kill_switches.engaged(tx)


async def _nothing(_ctx: ServiceContext, _tx: Transaction, _errand: Errand, _answer: Any) -> None:
    return


COMMANDS = {
    ErrandKind.ISSUE_COMMAND.value: Runner(issue, issued, not_issued, COMMAND_TIMEOUT, TRIES),
    ErrandKind.WITHDRAW_COMMAND.value: Runner(withdraw, _nothing, _nothing, COMMAND_TIMEOUT, TRIES),
    ErrandKind.RESUME.value: Runner(ready, resumed, _nothing, COMMAND_TIMEOUT, TRIES),
    ErrandKind.STOP.value: Runner(nothing_outside, stopped, _nothing, COMMAND_TIMEOUT, TRIES),
}
