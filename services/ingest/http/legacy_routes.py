"""The seeds' REST routes for plugins without a stream: a heartbeat, and a receipt for a command.

Rule: they are aliases of Heartbeat, AckCommand and FailCommand under the seeds' field names. Who beats is the
credential's business; a body that names another plugin is refused. A plain client gets a command that switches only
under a permit (gateway/polling.py). It cannot revert by itself either: what it acknowledged stays until a rollback is
handed out, and a commit is answered for it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
from starlette.routing import BaseRoute, Route

from libs.common.access import plugin_credential
from libs.common.connect import ConnectHandler
from libs.common.connect.rest import RestCall, route
from libs.common.errors import Denied, Refused, Unavailable
from libs.common.text import clean_text
from prunella.v1 import agent_pb2 as pb
from services.ingest.command_lifecycle import Command, Kind
from services.ingest.context import ServiceContext
from services.ingest.gateway import polling, receipts
from services.ingest.store import generations
from services.ingest.store.plugins import Identity
from services.ingest.wire.commands import kind_name
from services.ingest.wire.timestamps import from_json

DONE = {
    Kind.UPDATE: pb.COMMAND_OUTCOME_APPLIED,
    Kind.CONFIG_UPDATE: pb.COMMAND_OUTCOME_APPLIED,
    Kind.RESTART: pb.COMMAND_OUTCOME_APPLIED,
    Kind.ROLLBACK: pb.COMMAND_OUTCOME_REVERTED,
    Kind.HEALTH_CHECK: pb.COMMAND_OUTCOME_DONE,
    Kind.COMMIT: pb.COMMAND_OUTCOME_COMMITTED,
}
Text = Annotated[str, msgspec.Meta(max_length=256)]
LONGEST_DETAIL = 2000


class Heartbeat(msgspec.Struct):
    """A heartbeat as the seeds' client sends it; further fields are ignored."""

    plugin_version: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    plugin_id: Text = ""
    env: Annotated[dict[Text, Text | int | float | bool | None], msgspec.Meta(max_length=32)] = {}
    uptime: Annotated[float, msgspec.Meta(ge=0, le=1e10)] = 0.0
    errors_last_24h: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    webhook_fail_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    timestamp: Text | int | float | None = None


def routes(ctx: ServiceContext, handler: ConnectHandler) -> list[BaseRoute]:
    """For the application of ingest."""

    async def heartbeat(call: RestCall) -> dict[str, Any]:
        call.authorize("AgentGateway/Heartbeat")
        identity = await _who(ctx, call)
        body = await call.json(Heartbeat)
        if body.plugin_id not in {"", identity.plugin}:
            raise Denied(
                "plugin_id is not the plugin of the credential; leave it out, or send the credential of that plugin",
                reason="PLUGIN_DIFFERS",
                field="plugin_id",
            )
        request = pb.HeartbeatRequest(beat=await _beat(ctx, identity, body))
        answer = await call.invoke("AgentGateway/Heartbeat", request, pb.HeartbeatResponse)
        handed = [command for command in answer.commands if await _handed_out(call, command)]
        seconds = answer.beat_interval.ToTimedelta().total_seconds()
        return {"ok": True, "commands": [_command(one) for one in handed], "next_heartbeat_seconds": seconds}

    async def ack(call: RestCall) -> dict[str, Any]:
        call.authorize("AgentGateway/AckCommand")
        command, detail = await _own(ctx, call), await _detail(call)
        if command.live and command.kind in polling.SWITCHES:
            await _permitted(ctx, await _who(ctx, call), command)
        request = pb.AckCommandRequest(result=_result(command, DONE[command.kind], detail))
        await call.invoke("AgentGateway/AckCommand", request, pb.AckCommandResponse)
        return {"ok": True}

    async def fail(call: RestCall) -> dict[str, Any]:
        call.authorize("AgentGateway/FailCommand")
        command, detail = await _own(ctx, call), await _detail(call)
        request = pb.FailCommandRequest(result=_result(command, pb.COMMAND_OUTCOME_FAILED, detail))
        await call.invoke("AgentGateway/FailCommand", request, pb.FailCommandResponse)
        return {"ok": True}

    return [
        Route("/api/plugins/heartbeat", route(handler, heartbeat, "Plugin"), methods=["POST"]),
        Route("/api/plugins/commands/{command}/ack", route(handler, ack, "Plugin"), methods=["POST"]),
        Route("/api/plugins/commands/{command}/fail", route(handler, fail, "Plugin"), methods=["POST"]),
    ]


async def _who(ctx: ServiceContext, call: RestCall) -> Identity:
    return await ctx.identities.check(*plugin_credential(call.authorization))


async def _beat(ctx: ServiceContext, identity: Identity, body: Heartbeat) -> pb.Beat:
    # Without a boot: what comes here is in the order in which it comes, and no rival of an agent that streams.
    made = pb.Beat(
        release=body.plugin_version,
        environment={key: value if isinstance(value, str) else json.dumps(value) for key, value in body.env.items()},
        errors_last_24h=body.errors_last_24h,
        webhook_fail_rate=body.webhook_fail_rate,
    )
    made.uptime.FromMilliseconds(round(body.uptime * 1000))
    if (sent := from_json(body.timestamp, "timestamp")) is not None:
        made.time.CopyFrom(sent)
    async with ctx.database.reading() as tx:
        running = await generations.running(tx, identity.plugin)
    if running is not None and running.release in {"", body.plugin_version}:
        made.generation = running.generation
        if running.kind is Kind.CONFIG_UPDATE:
            made.config_digest = running.digest
        elif running.kind is Kind.UPDATE:
            made.digest = running.digest
    return made


async def _handed_out(call: RestCall, command: pb.Command) -> bool:
    """Whether a plain client gets a command; what it cannot decide itself is decided here for it."""
    if Kind(command.kind) is Kind.COMMIT:
        await _settle(call, command, pb.COMMAND_OUTCOME_COMMITTED, "a plain client keeps what it applied")
        return False
    return True


async def _permitted(ctx: ServiceContext, identity: Identity, command: Command) -> None:
    """Raises Refused for a receipt about a switch that was never permitted."""
    permit = await polling.permit(ctx, identity, command)
    if permit.granted or permit.permit:
        return
    if permit.gate == polling.NO_ANSWER:
        raise Unavailable("nobody can say now whether this was permitted", reason="NO_ANSWER", retry_after=5.0)
    raise Refused(f"this command was not permitted ({permit.gate})", reason="NOT_PERMITTED", gate=permit.gate)


async def _settle(call: RestCall, command: pb.Command, outcome: pb.CommandOutcome.ValueType, detail: str) -> None:
    result = _result(command, outcome, detail)
    await call.invoke("AgentGateway/AckCommand", pb.AckCommandRequest(result=result), pb.AckCommandResponse)


def _command(command: pb.Command) -> dict[str, Any]:
    """A row of `plugin_agent_commands`."""
    kind = kind_name(Kind(command.kind))
    payload: dict[str, Any] = {"cmd": kind, "version": command.release, "attempt": command.attempt}
    payload |= {"generation": command.generation, "digest": command.digest, "size": command.size}
    if command.config:
        payload["config"] = json.loads(command.config)
    deadline = command.deadline_time.ToJsonString()
    return {"id": command.id, "command_type": kind, "command_payload": payload, "status": "sent", "deadline": deadline}


async def _own(ctx: ServiceContext, call: RestCall) -> Command:
    """The command in the path, when it is this plugin's. Raises NotFound."""
    return await receipts.own_command(ctx, await _who(ctx, call), str(call.request.path_params["command"]))


async def _detail(call: RestCall) -> str:
    """What the client reports of how it went: its `response` or `error`, as text."""
    body = await call.json(dict[str, Any])
    detail = body.get("response", body.get("error", body.get("error_message", body)))
    text = detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False)
    return clean_text(text, LONGEST_DETAIL)


def _result(command: Command | pb.Command, outcome: pb.CommandOutcome.ValueType, detail: str) -> pb.CommandResult:
    return pb.CommandResult(
        command=command.id,
        attempt=command.attempt,
        generation=command.generation,
        fence=command.fence,
        outcome=outcome,
        detail=detail,
        release=command.release,
        digest=command.digest,
    )
