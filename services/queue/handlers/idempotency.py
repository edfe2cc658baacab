"""A repeated request is answered as the first was, and changes nothing again.

Rule: a request with an id takes it in the transaction of its effect, under the name of its caller; the same id with
other content is refused. One without an id is done as often as it comes. What takes many transactions asks first what
it was answered before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from libs.common import access
from libs.common.database import Transaction
from libs.common.errors import Invalid, Refused
from services.queue.context import ServiceContext
from services.queue.store import requests

MessageT = TypeVar("MessageT", bound=Message)
LONGEST_ID = 128


async def idempotent(
    ctx: ServiceContext, request: Message, response: type[MessageT], work: Callable[[Transaction], Awaitable[MessageT]]
) -> MessageT:
    """Does `work` in one transaction, at most once for the request's `request_id`. Raises Refused for a reused id."""
    request_id = _id(request)
    if not request_id:
        return await ctx.database.transaction(work)
    caller = access.caller()
    digest = _digest(request)

    async def guarded(tx: Transaction) -> MessageT:
        if not await requests.reserve(tx, caller, request_id, digest):
            return _repeated(await requests.get(tx, caller, request_id), digest, response)
        answer = await work(tx)
        await requests.save_response(tx, caller, request_id, answer.SerializeToString())
        return answer

    return await ctx.database.transaction(guarded)


async def earlier_response(ctx: ServiceContext, request: Message, response: type[MessageT]) -> MessageT | None:
    """What this request was answered before, for work of many transactions. Raises Refused for a reused id."""
    request_id = _id(request)
    if not request_id:
        return None
    async with ctx.database.reading() as tx:
        found = await requests.get(tx, access.caller(), request_id)
    return None if found is None else _repeated(found, _digest(request), response)


def _id(request: Message) -> str:
    request_id: str = getattr(request, "request_id", "")
    if len(request_id) > LONGEST_ID or not request_id.isprintable():
        raise Invalid(
            f"request_id must be printable and at most {LONGEST_ID} characters; a UUID is best",
            reason="BAD_REQUEST_ID",
            field="request_id",
        )
    return request_id


def _repeated(earlier: object, digest: str, response: type[MessageT]) -> MessageT:
    if getattr(earlier, "digest", digest) != digest:
        raise Refused(
            "this request_id belongs to another request; use a fresh one",
            reason="REQUEST_ID_REUSED",
            field="request_id",
        )
    return response.FromString(getattr(earlier, "response", None) or b"")


def _digest(request: Message) -> str:
    body = request.DESCRIPTOR.full_name.encode() + b"\n" + request.SerializeToString(deterministic=True)
    return hashlib.sha256(body).hexdigest()
