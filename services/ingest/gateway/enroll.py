"""Enrolment: a one-time token becomes an identity.

Rule: a token is good for one enrolment key. The same key again gets the same plugin and secret, for an answer may be
lost; another key gets nothing. A token is for one merchant, and an agent that claims another is refused. A label
belongs to one plugin that is not retired; a token that replaces is for the plugin that had the label when it was made,
and enrolling with it retires that one and nobody else. Secrets are derived from the shared key, so that they need not
be stored to be answered twice: only their digest is. A token is derived from everything that was asked for it, and by
whom.
"""

from __future__ import annotations

import json
import secrets
from datetime import timedelta
from typing import Any

from libs.common import names
from libs.common.database import Transaction
from libs.common.errors import Conflict, Invalid, Unauthenticated
from libs.common.timestamps import length
from prunella.v1 import agent_pb2 as pb
from prunella.v1 import ingest_pb2
from services.ingest.context import ServiceContext
from services.ingest.gateway import departure
from services.ingest.gateway.identity import derived, digest
from services.ingest.store import plugin_state, plugins
from services.ingest.store.plugins import Identity, Token
from services.ingest.wire import beats
from services.ingest.wire import plugins as wire
from services.ingest.wire.timestamps import stamp

LIFETIME = timedelta(days=1)
LONGEST_LIFETIME = timedelta(days=30)


async def create_token(
    ctx: ServiceContext, request: ingest_pb2.CreateEnrollmentTokenRequest, caller: str
) -> ingest_pb2.CreateEnrollmentTokenResponse:
    """A new token and when it expires; the same request of the same caller gets the same token.

    Raises Invalid, Conflict.
    """
    lifetime = _check_token(request)
    asked = request.SerializeToString(deterministic=True).hex() if request.request_id else secrets.token_hex(16)
    token = derived(ctx.settings.key, "token", caller, asked)

    async def work(tx: Transaction) -> ingest_pb2.CreateEnrollmentTokenResponse:
        known = await plugins.token_expiry(tx, digest(token))
        if known is not None:
            return ingest_pb2.CreateEnrollmentTokenResponse(expire_time=stamp(known))
        taken = await plugins.labelled(tx, request.label) if request.label else None
        if taken is not None and not request.replace:
            raise _label_taken(request.label)
        await plugins.add_token(
            tx,
            digest(token),
            merchant=_merchant_of(request, taken),
            package=request.package,
            label=request.label,
            expire_time=tx.now + lifetime,
            replaces=taken.plugin if taken else "",
            actor=caller,
        )
        return ingest_pb2.CreateEnrollmentTokenResponse(expire_time=stamp(tx.now + lifetime))

    answer = await ctx.requests.once(request, ingest_pb2.CreateEnrollmentTokenResponse, work)
    # The answer that is kept for repeats does not have it.
    answer.token = token
    return answer


async def enroll(ctx: ServiceContext, request: pb.EnrollRequest) -> pb.EnrollResponse:
    """The identity behind a token. Raises Unauthenticated, Invalid, Conflict."""
    _check(request)
    environment = json.dumps(dict(beats.environment(request)))
    new = names.new_id(ctx.clock.now())

    replaced = ""

    async def work(tx: Transaction) -> tuple[str, str]:
        nonlocal replaced
        token = await plugins.token(tx, digest(request.token))
        if token is None:
            raise Unauthenticated("there is no such enrolment token", reason="TOKEN_UNKNOWN", field="token")
        if token.plugin:
            return _again(ctx, request, token)
        if token.expire_time <= tx.now:
            raise Unauthenticated(
                "the enrolment token has expired; ask for a new one", reason="TOKEN_EXPIRED", field="token"
            )
        package, merchant = _agreed(token.package, request.package, "package"), token.merchant
        if request.merchant and request.merchant != merchant:
            raise _mismatch("merchant", merchant, request.merchant)
        label = token.label or await _unused_label(tx, package, new)
        replaced = await _replace(tx, token, label, new)
        secret = _secret(ctx, request, new)
        own = {"package": package, "merchant": merchant, "label": label}
        if not await plugins.insert(tx, new, secret=digest(secret), environment=environment, **own):
            raise _label_taken(label)
        await plugin_state.insert(tx, new, merchant, request.release)
        await plugins.use_token(tx, token.digest, request.enrollment_key, new)
        tx.record(wire.enrolled(new, merchant, package, request.release, label, replaced))
        return new, secret

    plugin, secret = await ctx.database.transaction(work)
    if replaced:
        departure.forget(ctx, replaced, "another plugin came in its place")
    return pb.EnrollResponse(plugin=plugin, secret=secret, release_keys=ctx.settings.keys())


async def _unused_label(tx: Transaction, package: str, new: str) -> str:
    """What a plugin is called that nobody gave a name: few digits, and more of them when somebody has those."""
    short = f"{package[:100]}-{new[-6:]}"
    return short if await plugins.labelled(tx, short) is None else f"{package[:100]}-{new[-12:]}"


async def _replace(tx: Transaction, token: Token, label: str, new: str) -> str:
    """Retires whom the token replaces, if it still has the label; who that was. Raises Conflict if another has it."""
    taken = await plugins.labelled(tx, label)
    if taken is None:
        return ""
    if taken.plugin != token.replaces:
        raise _label_taken(label)
    await departure.retire_in(tx, taken, token.actor, f"{label} is enrolled anew in its place", names.plugin(new))
    return taken.plugin


def _merchant_of(request: ingest_pb2.CreateEnrollmentTokenRequest, replaced: Identity | None) -> str:
    """A plugin that comes in another's place comes to the same merchant. Raises Invalid."""
    if replaced is not None and request.merchant and request.merchant != replaced.merchant:
        raise Invalid(
            f"{request.label} is at merchant {replaced.merchant}; leave merchant out, or retire the plugin first",
            reason="MERCHANT_DIFFERS",
            field="merchant",
        )
    merchant = request.merchant or (replaced.merchant if replaced else "")
    if not merchant:
        raise _merchant_missing()
    return merchant


def _merchant_missing() -> Invalid:
    return Invalid(
        "merchant is needed: say whose installation the plugin will be", reason="FIELD_MISSING", field="merchant"
    )


def _check_token(request: ingest_pb2.CreateEnrollmentTokenRequest) -> timedelta:
    """How long the token will be good. Raises Invalid."""
    _check_names(request, "merchant", "package", "label")
    if request.replace and not request.label:
        raise Invalid("replace needs the label of the plugin to replace", reason="FIELD_MISSING", field="label")
    if not request.merchant and not request.replace:
        raise _merchant_missing()
    lifetime = length(request.lifetime, "lifetime") if request.HasField("lifetime") else LIFETIME
    if not timedelta(0) < lifetime <= LONGEST_LIFETIME:
        raise Invalid("lifetime must be above 0 and at most 30 days", reason="LIFETIME_INVALID", field="lifetime")
    return lifetime


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
        raise _mismatch(field, promised, requested)
    if not (promised or requested):
        raise Invalid(f"{field} is needed, by token or by request", reason="FIELD_MISSING", field=field)
    return promised or requested


def _mismatch(field: str, promised: str, requested: str) -> Invalid:
    return Invalid(f"the token is for {field} {promised}, not {requested}", reason="TOKEN_MISMATCH", field=field)


def _secret(ctx: ServiceContext, request: pb.EnrollRequest, plugin: str) -> str:
    return derived(ctx.settings.key, "secret", request.token, request.enrollment_key, plugin)


def _label_taken(label: str) -> Conflict:
    return Conflict(
        f"another plugin is called {label}; choose another label, or replace that plugin (prunella plugins token"
        " --replace)",
        reason="LABEL_TAKEN",
        field="label",
    )
