"""Enrolment: a one-time token becomes an identity.

Rule: a token is good for one enrolment key. The same key again gets the same plugin and secret, for an answer may be
lost; another key gets nothing. Secrets are derived from the shared key, so that they need not be stored to be answered
twice: only their digest is.
"""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta
from typing import Any

from libs.common import names
from libs.common.database import Transaction
from libs.common.errors import Conflict, Invalid, Unauthenticated
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import ingest_pb2
from services.ingest.context import ServiceContext
from services.ingest.gateway.identity import derived, digest
from services.ingest.store import plugin_state, plugins
from services.ingest.store.plugins import Token
from services.ingest.wire import beats
from services.ingest.wire import plugins as wire

LIFETIME = timedelta(days=1)
LONGEST_LIFETIME = timedelta(days=30)


async def create_token(ctx: ServiceContext, request: ingest_pb2.CreateEnrollmentTokenRequest) -> tuple[str, datetime]:
    """A new token and when it expires; the same request gets the same token. Raises Invalid."""
    _check_names(request, "merchant", "package", "label")
    lifetime = request.lifetime.ToTimedelta() if request.HasField("lifetime") else LIFETIME
    if not timedelta(0) < lifetime <= LONGEST_LIFETIME:
        raise Invalid("lifetime must be above 0 and at most 30 days", reason="LIFETIME_INVALID", field="lifetime")
    token = derived(ctx.settings.key, "token", request.request_id or secrets.token_hex(16))

    async def work(tx: Transaction) -> datetime:
        if request.label and await plugins.label_taken(tx, request.label) and not request.request_id:
            raise _label_taken(request.label)
        return await plugins.add_token(
            tx,
            digest(token),
            merchant=request.merchant,
            package=request.package,
            label=request.label,
            expire_time=tx.now + lifetime,
        )

    return token, await ctx.database.transaction(work)


async def enroll(ctx: ServiceContext, request: pb.EnrollRequest) -> pb.EnrollResponse:
    """The identity behind a token. Raises Unauthenticated, Invalid, Conflict."""
    _check(request)
    environment = json.dumps(dict(beats.environment(request)))
    new = names.new_id(ctx.clock.now())

    async def work(tx: Transaction) -> tuple[str, str]:
        token = await plugins.token(tx, digest(request.token))
        if token is None:
            raise Unauthenticated("there is no such enrolment token", reason="TOKEN_UNKNOWN", field="token")
        if token.plugin:
            return _again(ctx, request, token)
        if token.expire_time <= tx.now:
            raise Unauthenticated(
                "the enrolment token has expired; ask for a new one", reason="TOKEN_EXPIRED", field="token"
            )
        package, merchant = _agreed(token.package, request.package, "package"), token.merchant or request.merchant
        label = token.label or f"{package[:100]}-{new[-6:]}"
        if await plugins.label_taken(tx, label):
            raise _label_taken(label)
        secret = _secret(ctx, request, new)
        own = {"package": package, "merchant": merchant, "label": label}
        await plugins.insert(tx, new, secret=digest(secret), environment=environment, **own)
        await plugin_state.insert(tx, new, merchant, request.release)
        await plugins.use_token(tx, token.digest, request.enrollment_key, new)
        tx.record(wire.enrolled(new, merchant, package, request.release, label))
        return new, secret

    plugin, secret = await ctx.database.transaction(work)
    return pb.EnrollResponse(plugin=plugin, secret=secret, release_keys=ctx.settings.keys())


def _check(request: pb.EnrollRequest) -> None:
    if not request.token or not 8 <= len(request.enrollment_key) <= 200:
        raise Invalid(
            "token and enrollment_key (8 to 200 characters) are needed", reason="FIELD_MISSING", field="enrollment_key"
        )
    _check_names(request, "package", "release", "merchant")


def _check_names(request: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(request, field)
        if value and not names.is_id(value):
            raise Invalid(f"{field} must be letters, digits and ._+- (at most 128)", reason="NAME_INVALID", field=field)


def _again(ctx: ServiceContext, request: pb.EnrollRequest, token: Token) -> tuple[str, str]:
    if token.enrollment_key != request.enrollment_key:
        raise Unauthenticated(
            "the enrolment token was used by another agent; ask for a new one", reason="TOKEN_USED", field="token"
        )
    return token.plugin, _secret(ctx, request, token.plugin)


def _agreed(promised: str, requested: str, field: str) -> str:
    if promised and requested and promised != requested:
        raise Invalid(f"the token is for {field} {promised}, not {requested}", reason="TOKEN_MISMATCH", field=field)
    if not (promised or requested):
        raise Invalid(f"{field} is needed, by token or by request", reason="FIELD_MISSING", field=field)
    return promised or requested


def _secret(ctx: ServiceContext, request: pb.EnrollRequest, plugin: str) -> str:
    return derived(ctx.settings.key, "secret", request.token, request.enrollment_key, plugin)


def _label_taken(label: str) -> Conflict:
    return Conflict(f"another plugin is called {label}; choose another label", reason="LABEL_TAKEN", field="label")
