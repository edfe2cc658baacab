"""The routes of the seeds' dashboard: incidents and attempts under their old names.

Rule: they are aliases. `approve` approves the incident's waiting attempt, as ApproveAttempt does, with the quorum it
has; where none waits it answers 409. `manual-action` closes or escalates the incident, or wants a remedy by hand.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from starlette.routing import BaseRoute, Route

from libs.common import names
from libs.common.connect import ConnectHandler
from libs.common.connect.rest import RestCall, route
from libs.common.errors import Invalid, Refused
from prunella.v1 import decider_pb2, ingest_pb2, patcher_pb2
from prunella.v1.events_pb2 import Action, Severity
from services.ops.web import legacy_shapes

LIMIT = 100
FARTHEST = 400
AT_ONCE = 10
KEY = "idempotency-key"
INCIDENTS, ATTEMPTS = "/api/ops/plugin-incidents", "/api/ops/autopatch-attempts"
REMEDIES = ("patch", "rollback", "restart", "config_fix")

Text = Annotated[str, msgspec.Meta(max_length=500)]
ShortText = Annotated[str, msgspec.Meta(max_length=128)]


class Approval(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an approval."""

    reason: Text = ""
    role: ShortText = ""


class ManualAction(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a manual action; `version` is what a patch or config_fix brings."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    action: Literal["close", "escalate", "patch", "rollback", "restart", "config_fix"] = "close"
    version: ShortText = ""


def routes(door: ConnectHandler) -> list[BaseRoute]:
    """For the application of ops."""
    one = INCIDENTS + "/{incident}"
    return [
        Route(INCIDENTS, route(door, incidents, "Service"), methods=["GET"]),
        Route(ATTEMPTS, route(door, attempts, "Service"), methods=["GET"]),
        Route(f"{one}/approve", route(door, approve, "Service"), methods=["POST"]),
        Route(f"{one}/manual-action", route(door, manual_action, "Service"), methods=["POST"]),
    ]


async def incidents(call: RestCall) -> dict[str, Any]:
    """Newest first, with what was decided."""
    call.authorize("IngestService/ListIncidents")
    query = call.query("status", "severity", "limit", "offset")
    status, severity = query.get("status", ""), query.get("severity", "")
    _among("status", status, legacy_shapes.INCIDENT_STATUSES)
    _among("severity", severity, legacy_shapes.SEVERITIES)
    limit, offset = _number(query, "limit", 1, LIMIT, LIMIT), _number(query, "offset", 0, FARTHEST, 0)
    request = ingest_pb2.ListIncidentsRequest(page_size=offset + limit)
    if severity:
        request.severity = Severity.Value(f"SEVERITY_{severity.upper()}")
    pages = await asyncio.gather(
        *(_incidents(call, request, state) for state in legacy_shapes.INCIDENT_STATES.get(status, (status,)))
    )
    found = sorted((one for page in pages for one in page), key=lambda one: one.name, reverse=True)
    found = found[offset : offset + limit]
    room = asyncio.Semaphore(AT_ONCE)
    decisions = await asyncio.gather(*(_decision(call, one.name, room) for one in found))
    return {"incidents": [legacy_shapes.incident(one, made) for one, made in zip(found, decisions, strict=True)]}


async def _incidents(call: RestCall, wanted: ingest_pb2.ListIncidentsRequest, state: str) -> list[ingest_pb2.Incident]:
    request = ingest_pb2.ListIncidentsRequest(state=state)
    request.MergeFrom(wanted)
    page = await call.invoke("IngestService/ListIncidents", request, ingest_pb2.ListIncidentsResponse)
    return list(page.incidents)


async def attempts(call: RestCall) -> dict[str, Any]:
    """Newest first."""
    call.authorize("PatcherService/ListAttempts")
    query = call.query("status", "limit")
    status = query.get("status", "")
    _among("status", status, tuple(legacy_shapes.STATUSES))
    limit = _number(query, "limit", 1, LIMIT, LIMIT)
    pages = await asyncio.gather(
        *(_attempts(call, limit, state=state) for state in legacy_shapes.STATUSES.get(status, ("",)))
    )
    # Names end with ids that rise with time.
    found = sorted((one for page in pages for one in page), key=lambda one: one.name, reverse=True)
    return {"attempts": [legacy_shapes.attempt(one) for one in found[:limit]]}


async def approve(call: RestCall) -> dict[str, Any]:
    """Approves what waits for people."""
    call.authorize("PatcherService/ApproveAttempt")
    body = await call.json(Approval)
    incident = await _incident(call)
    about = names.parse("incidents", incident.name)
    waiting = await _attempts(call, 1, incident=about, state="awaiting_approval")
    if not waiting and call.request.headers.get(KEY):
        # A repeat comes when nothing waits any more; ApproveAttempt knows what it was answered.
        waiting = await _attempts(call, 1, incident=about)
    if not waiting:
        raise Refused(
            f"no attempt for {incident.name} waits for an approval", reason="NOTHING_TO_APPROVE", state=incident.state
        )
    request = patcher_pb2.GetAttemptRequest(name=waiting[0].name)
    shown = (await call.invoke("PatcherService/GetAttempt", request, patcher_pb2.GetAttemptResponse)).attempt
    yes = patcher_pb2.ApproveAttemptRequest(
        name=shown.name,
        plan_hash=shown.approval.plan_hash,
        role=body.role,
        reason=body.reason,
        request_id=_request_id(call),
    )
    answer = await call.invoke("PatcherService/ApproveAttempt", yes, patcher_pb2.ApproveAttemptResponse)
    return {"ok": True, "attempt": legacy_shapes.attempt(answer.attempt)}


async def manual_action(call: RestCall) -> dict[str, Any]:
    """Closes or hands over an incident, or wants a remedy for it."""
    call.authorize("IngestService/CloseIncident")
    body = await call.json(ManualAction)
    name, request_id = _name(call), _request_id(call)
    if body.action in REMEDIES:
        wanted = patcher_pb2.CreateAttemptRequest(
            incident=name,
            action=Action.Value(f"ACTION_{body.action.upper()}"),
            target=body.version,
            reason=body.reason,
            request_id=request_id,
        )
        made = await call.invoke("PatcherService/CreateAttempt", wanted, patcher_pb2.CreateAttemptResponse)
        return {"ok": made.attempt.state != "refused", "attempt": legacy_shapes.attempt(made.attempt)}
    if body.action == "escalate":
        hand_over = ingest_pb2.EscalateIncidentRequest(name=name, reason=body.reason, request_id=request_id)
        handed = await call.invoke("IngestService/EscalateIncident", hand_over, ingest_pb2.EscalateIncidentResponse)
        return {"ok": True, "incident": legacy_shapes.incident(handed.incident, None)}
    close = ingest_pb2.CloseIncidentRequest(name=name, reason=body.reason, request_id=request_id)
    closed = await call.invoke("IngestService/CloseIncident", close, ingest_pb2.CloseIncidentResponse)
    return {"ok": True, "incident": legacy_shapes.incident(closed.incident, None)}


async def _incident(call: RestCall) -> ingest_pb2.Incident:
    request = ingest_pb2.GetIncidentRequest(name=_name(call))
    return (await call.invoke("IngestService/GetIncident", request, ingest_pb2.GetIncidentResponse)).incident


async def _attempts(call: RestCall, limit: int, **filters: str) -> list[patcher_pb2.Attempt]:
    request = patcher_pb2.ListAttemptsRequest(page_size=limit, **filters)
    return list((await call.invoke("PatcherService/ListAttempts", request, patcher_pb2.ListAttemptsResponse)).attempts)


async def _decision(call: RestCall, incident: str, room: asyncio.Semaphore) -> decider_pb2.Decision | None:
    request = decider_pb2.ListDecisionsRequest(incident=names.parse("incidents", incident), page_size=1)
    async with room:
        page = await call.invoke("DeciderService/ListDecisions", request, decider_pb2.ListDecisionsResponse)
    return page.decisions[0] if page.decisions else None


def _name(call: RestCall) -> str:
    return names.incident(str(call.request.path_params["incident"]))


def _request_id(call: RestCall) -> str:
    """The caller's key for repeats, or a fresh one; what is wrong with a key the method says."""
    return call.request.headers.get(KEY, "") or names.new_id()


def _among(field: str, word: str, known: tuple[str, ...]) -> None:
    if word and word not in known:
        raise Invalid(f"{field} must be one of {', '.join(known)}", reason="FILTER_UNKNOWN", field=field)


def _number(query: dict[str, str], field: str, least: int, most: int, default: int) -> int:
    word = query.get(field, str(default))
    if not (word.isascii() and word.isdecimal() and len(word) < 10 and least <= int(word) <= most):
        raise Invalid(
            f"{field} must be a whole number between {least} and {most}; for more use ListIncidents or ListAttempts",
            reason="NUMBER_INVALID",
            field=field,
        )
    return int(word)
