"""The question before a switch, passed on to patcher.

Rule: no answer, no apply. A command that has ended is denied here; everything else is patcher's to say, within four
seconds, for the agent takes a yes only for five.
"""

from __future__ import annotations

import logging

from libs.common.errors import Problem
from libs.common.names import is_uuid
from libs.common.telemetry import counter, use_traceparent
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import patcher_pb2
from services.ingest.context import ServiceContext
from services.ingest.store import commands
from services.ingest.store.plugins import Identity

log = logging.getLogger(__name__)

ANSWER_SECONDS = 4.0
_permits = counter("permits_total", "Questions before a switch, by answer", ("answer",))


async def ask(ctx: ServiceContext, identity: Identity, question: pb.BeginApply) -> pb.Permit:
    """The permit for one switch; denied whenever anything is unclear. Never raises Problem."""
    denied = pb.Permit(command=question.command, nonce=question.nonce, granted=False)
    try:
        async with ctx.database.reading() as tx:
            command = await commands.get(tx, question.command) if is_uuid(question.command) else None
        if command is None or command.plugin != identity.plugin:
            denied.gate = "COMMAND_UNKNOWN"
        elif not command.live:
            denied.gate = f"COMMAND_{command.state.upper()}"
        elif (command.fence, command.generation) != (question.fence, question.generation) or not question.nonce:
            denied.gate = "COMMAND_MISMATCH"
        if denied.gate or command is None:
            _permits.labels("denied").inc()
            return denied
        request = patcher_pb2.AuthorizeApplyRequest(
            plugin=identity.plugin,
            command=question.command,
            attempt=command.attempt,
            generation=question.generation,
            fence=question.fence,
            request_id=question.nonce[:200],
        )
        with use_traceparent(command.traceparent), ctx.telemetry.span("begin apply"):
            answer = await ctx.patcher.AuthorizeApply(request, timeout=ANSWER_SECONDS)
    except Problem as problem:
        log.warning("no permit for plugin %s, command %s: %s", identity.plugin, question.command, problem.message)
        denied.gate = "NO_ANSWER"
        _permits.labels("no_answer").inc()
        return denied
    _permits.labels("granted" if answer.granted else "denied").inc()
    return pb.Permit(
        command=question.command, nonce=question.nonce, granted=answer.granted, permit=answer.permit, gate=answer.gate
    )
