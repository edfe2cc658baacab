"""POST /api/errors for plugins without a stream.

Rule: the credential says whose errors they are, before the body is read. A body is JSON of at most 1 MiB with up to 100
errors, each read for itself: one that is wrong is refused alone, and when all are, the request is. What is wrong is
answered with reason, field, message and remedy. The answer says what became of each error, and comes after they are
durable. A repeat with the same `Idempotency-Key` counts nothing
again; without one every request has new errors, unless an error carries the id of its cumulative counter.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from libs.common.access import plugin_credential
from libs.common.connect import body, rest
from libs.common.errors import Busy, Conflict, Denied, Invalid, Problem, Refused, Unauthenticated
from libs.common.names import new_id
from libs.common.text import clean_values
from libs.common.timestamps import bounded
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import queue_pb2
from services.ingest.context import ServiceContext
from services.ingest.gateway import error_forwarding
from services.ingest.store import plugin_state
from services.ingest.store.plugins import Identity
from services.ingest.wire import errors as wire

LARGEST = 1024 * 1024
# So many requests of one plugin are answered at once.
AT_ONCE = 4
STATUS: dict[type[Problem], int] = {
    Unauthenticated: 401,
    Denied: 403,
    Invalid: 400,
    Busy: 429,
    Refused: 409,
    Conflict: 409,
}
REASONS = {"QUEUE_UNKNOWN": 503, "BODY_TOO_LARGE": 413, "BODY_NOT_JSON_TYPE": 415, "BODY_LATE": 408}
REMEDIES = {
    401: "send the header Authorization: Plugin <plugin>:<secret>, as enrolment gave them",
    403: "ask an operator why the plugin is barred",
    408: "send the whole body within 10 seconds",
    409: "use another Idempotency-Key for other errors",
    413: "send fewer errors at once, or shorter stacks; several requests are fine",
    415: "send JSON with the header Content-Type: application/json",
    429: "wait as long as Retry-After says, then send it again",
    503: "keep the errors and send them again as Retry-After says",
}
SHAPE = 'send {"errors": [{"type": "TypeError", "message": "…", "stack": "…", "severity": "high"}]}'

Name = Annotated[str, msgspec.Meta(max_length=256)]


class Reported(msgspec.Struct, forbid_unknown_fields=True):
    """One error as JSON; see docs/protocol.md."""

    message: str
    type: Name = ""
    stack: str = ""
    context: dict[Name, str | int | float | bool | None] = {}
    id: Annotated[str, msgspec.Meta(max_length=128)] = ""
    occurrences: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] = 1
    severity: Name = ""
    module: Name = ""
    page_url: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    user_action: Name = ""
    session: Name = ""
    time: datetime | None = None


SAME = ("type", "message", "stack", "occurrences", "severity", "module", "page_url", "user_action", "session")


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """What is sent, as it is described."""

    errors: Annotated[list[Reported], msgspec.Meta(min_length=1, max_length=wire.MOST_REPORTS)]


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """What is sent, as it is read: every error for itself."""

    errors: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=wire.MOST_REPORTS)]


def routes(ctx: ServiceContext) -> list[BaseRoute]:
    """For the application of ingest."""
    running: Counter[str] = Counter()

    async def take(request: Request) -> Response:
        try:
            async with _room(running, await _who(ctx, request)) as identity:
                errors = read(await _body(request))
                outcomes = await _forward(ctx, identity, errors, request.headers.get("idempotency-key", ""))
        except Problem as problem:
            return refusal(problem)
        except ClientDisconnect:
            return Response(status_code=400)
        return JSONResponse({"outcomes": [_outcome(outcome) for outcome in outcomes]})

    return [Route("/api/errors", take, methods=["POST"])]


def read(content: bytes) -> list[Reported | Invalid]:
    """The errors in a body, or why one is none. Raises Invalid when the body is none, or no error in it is one."""
    envelope = _envelope(content)
    found = [_element(raw) for raw in envelope.errors]
    if not any(isinstance(one, Reported) for one in found):
        first = next(one for one in found if isinstance(one, Invalid))
        first.field = f"errors[0].{first.field}".rstrip(".")
        raise first
    return found


def _envelope(content: bytes) -> Envelope:
    try:
        content.decode()
        return rest.parse_json(content, Envelope, invalid="ERROR_INVALID", not_json="BODY_NOT_JSON")
    except UnicodeDecodeError as error:
        raise Invalid("the body is not UTF-8", reason="BODY_NOT_UTF8", field="body") from error
    except Invalid as problem:
        if problem.reason != "BODY_NOT_JSON":
            raise
        try:
            # JavaScript writes half a surrogate into its JSON, which is text that nobody can store.
            cleaned = msgspec.json.encode(clean_values(json.loads(content)))
        except (ValueError, RecursionError):
            raise problem from None
        return rest.parse_json(cleaned, Envelope, invalid="ERROR_INVALID")


def _element(raw: msgspec.Raw) -> Reported | Invalid:
    try:
        found = rest.parse_json(bytes(raw), Reported, invalid="ERROR_INVALID")
        if found.time is not None:
            found.time = bounded(found.time, "time")
        return found
    except Invalid as problem:
        if problem.field == "body":
            # Of the error as a whole, which is not the body.
            problem.field, problem.message = "", problem.message.removeprefix("body: ")
        return problem


def refusal(problem: Problem) -> Response:
    """A problem as an answer."""
    known = (code for kind, code in STATUS.items() if isinstance(problem, kind))
    status = REASONS.get(problem.reason) or next(known, 503)
    answer = {
        "error": problem.reason.lower(),
        "reason": problem.reason,
        "field": problem.field,
        "message": problem.message,
        "remedy": REMEDIES.get(status, SHAPE),
    }
    headers = {}
    if status in {429, 503} and not isinstance(problem, Refused):
        headers["Retry-After"] = str(math.ceil(problem.retry_after or 5))
    return JSONResponse(answer, status, headers)


async def _who(ctx: ServiceContext, request: Request) -> Identity:
    plugin, secret = plugin_credential(request.headers.get("authorization", ""))
    return await ctx.identities.check(plugin, secret)


@asynccontextmanager
async def _room(running: Counter[str], identity: Identity) -> AsyncIterator[Identity]:
    if running[identity.plugin] >= AT_ONCE:
        raise Busy("too many requests of this plugin at once", reason="REQUESTS_WAITING", retry_after=1.0)
    running[identity.plugin] += 1
    try:
        yield identity
    finally:
        running[identity.plugin] -= 1
        if not running[identity.plugin]:
            del running[identity.plugin]


async def _body(request: Request) -> bytes:
    if body.media_type(request) != "application/json":
        raise Invalid("the body must be application/json", reason="BODY_NOT_JSON_TYPE", field="content-type")
    return await body.read(request, LARGEST)


async def _forward(
    ctx: ServiceContext, identity: Identity, reported: Sequence[Reported | Invalid], key: str
) -> Sequence[queue_pb2.ReportOutcome]:
    if not re.fullmatch(r"[\x21-\x7e]{0,128}", key):
        raise Invalid(
            "an Idempotency-Key has up to 128 visible characters", reason="KEY_INVALID", field="idempotency-key"
        )
    async with ctx.database.reading() as tx:
        state = await plugin_state.get(tx, identity.plugin)
    release = state.release if state else ""
    outcomes = [queue_pb2.ReportOutcome() for _ in reported]
    good: list[tuple[int, queue_pb2.ReportedError]] = []
    for number, error in enumerate(reported):
        # Without an id of its own each error is a counter of its own, the same one when the request is repeated.
        own = hashlib.sha256(f"{identity.plugin}\0{key}\0{number}".encode()).hexdigest() if key else new_id()
        try:
            if isinstance(error, Invalid):
                raise error
            good.append((number, wire.reported_error(identity, release, _message(error, own))))
        except Invalid as problem:
            outcomes[number] = queue_pb2.ReportOutcome(
                refusal=problem.reason, field=problem.field, message=problem.message
            )
    request_id = hashlib.sha256(f"{identity.plugin}\0{key}".encode()).hexdigest() if key else ""
    answers = await ctx.error_forwarder.forward([error for _, error in good], error_forwarding.HTTP, request_id)
    for (number, _), outcome in zip(good, answers, strict=True):
        outcomes[number] = outcome
    return outcomes


def _message(error: Reported, own: str) -> pb.ErrorReport:
    message = pb.ErrorReport(
        id=error.id or own,
        context={name: value if isinstance(value, str) else _text(value) for name, value in error.context.items()},
        **{name: getattr(error, name) for name in SAME},
    )
    if error.time is not None:
        message.time.FromDatetime(error.time)
    return message


def _text(value: float | bool | None) -> str:
    return msgspec.json.encode(value).decode()


def _outcome(outcome: queue_pb2.ReportOutcome) -> dict[str, object]:
    if outcome.refusal:
        return {"refusal": outcome.refusal, "field": outcome.field, "message": outcome.message}
    return {"report": outcome.report, "created": outcome.created, "regression": outcome.regression}
