"""A request that is repeated gets its first answer, and acts once.

Rule: a request with an id takes it in the transaction of its effect, under the name of its caller. The same request
again is answered from the table and changes nothing; while the first is still at work the second waits for it. Another
method or other content under a used id is refused. A refusal is rolled back with the id, so what was refused may be
asked again. A request without an id is done as often as it comes. Ids are remembered for `retention`; answers must hold
no secret, and the digest is keyed, so that the table tells nothing of a secret in a request.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from google.protobuf.message import Message

from libs.common import access
from libs.common.database import Database, Transaction
from libs.common.errors import Invalid, Refused

MessageT = TypeVar("MessageT", bound=Message)
LONGEST_ID: Final = 128
# Seconds between two rounds that forget, and how many requests one transaction of them forgets.
PRUNE_SECONDS: Final = 60.0
MOST_PRUNED: Final = 2000

TABLE: Final = """
CREATE TABLE {schema}.requests (
    caller text NOT NULL,
    request_id text NOT NULL,
    method text NOT NULL,
    digest text NOT NULL,
    answer bytea,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (caller, request_id)
);
CREATE INDEX requests_created ON {schema}.requests (create_time)
"""
TAKE: Final = """
INSERT INTO {schema}.requests (caller, request_id, method, digest, create_time)
VALUES (:caller, :request_id, :method, :digest, :now)
ON CONFLICT (caller, request_id) DO NOTHING
"""
GET: Final = "SELECT method, digest, answer FROM {schema}.requests WHERE caller = :caller AND request_id = :request_id"
KEEP: Final = """
UPDATE {schema}.requests SET answer = :answer WHERE caller = :caller AND request_id = :request_id
"""
PRUNE: Final = """
DELETE FROM {schema}.requests WHERE (caller, request_id) IN (
    SELECT caller, request_id FROM {schema}.requests WHERE create_time < :before
    ORDER BY create_time LIMIT :limit FOR UPDATE SKIP LOCKED)
"""


def requests_table_sql(schema: str) -> str:
    """The table of a service's requests, for its first migration."""
    return TABLE.format(schema=schema)


class Requests:
    """The requests that one service has answered, in its own schema; `retention` is in seconds."""

    def __init__(self, database: Database, schema: str, key: str, retention: float) -> None:
        self._database = database
        self._key = bytes.fromhex(key)
        self.retention = timedelta(seconds=retention)
        self._take, self._get, self._keep, self._prune = (
            statement.format(schema=schema) for statement in (TAKE, GET, KEEP, PRUNE)
        )

    async def once(
        self, request: Message, response: type[MessageT], work: Callable[[Transaction], Awaitable[MessageT]]
    ) -> MessageT:
        """Does `work` in one transaction, at most once for the request's id. Raises Invalid, Refused for a used id."""

        async def guarded(tx: Transaction) -> MessageT:
            earlier = await self.take(tx, request, response)
            if earlier is not None:
                return earlier
            answer = await work(tx)
            await self.keep(tx, request, answer)
            return answer

        return await self._database.transaction(guarded)

    async def earlier(self, request: Message, response: type[MessageT]) -> MessageT | None:
        """What this request was answered before, for work that asks siblings or needs many transactions first.

        None when it is new. Raises Invalid, Refused for a used id.
        """
        request_id = checked_id(request)
        if not request_id:
            return None
        async with self._database.reading() as tx:
            found = await tx.first(self._get, caller=access.caller(), request_id=request_id)
        return None if found is None else self._repeated(found, request, response)

    async def take(self, tx: Transaction, request: Message, response: type[MessageT]) -> MessageT | None:
        """Takes the request's id in a transaction; the first answer when it was taken before for the same request.

        Waits for a duplicate that is still at work. Raises Invalid, Refused for a used id.
        """
        request_id = checked_id(request)
        if not request_id:
            return None
        named = {"caller": access.caller(), "request_id": request_id}
        about = {"method": method_of(request), "digest": self._digest(request), "now": tx.now}
        if await tx.run(self._take, **named, **about):
            return None
        return self._repeated(await tx.first(self._get, **named), request, response)

    async def keep(self, tx: Transaction, request: Message, answer: Message) -> None:
        """Keeps the answer for repeats, in the transaction that took the id or a later one."""
        if request_id := checked_id(request):
            named = {"caller": access.caller(), "request_id": request_id}
            await tx.run(self._keep, **named, answer=answer.SerializeToString())

    async def prune(self, now: datetime) -> int:
        """Forgets requests older than the retention; how many."""
        before, forgotten = now - self.retention, 0
        while True:
            gone = await self._database.transaction(lambda tx: tx.run(self._prune, before=before, limit=MOST_PRUNED))
            forgotten += gone
            if gone < MOST_PRUNED:
                return forgotten

    def _repeated(self, earlier: Any, request: Message, response: type[MessageT]) -> MessageT:
        if earlier is not None and not hmac.compare_digest(earlier.digest, self._digest(request)):
            before, now = earlier.method, method_of(request)
            difference = f"this is {now}" if before != now else "its content was another"
            problem = Refused(
                f"this request_id was used for {before} before, and {difference}; send it with a new request id",
                reason="REQUEST_ID_REUSED",
                field="request_id",
            )
            problem.metadata["method"] = before
            raise problem
        return response.FromString((earlier and earlier.answer) or b"")

    def _digest(self, request: Message) -> str:
        made = hmac.new(self._key, method_of(request).encode() + b"\n", hashlib.sha256)
        made.update(request.SerializeToString(deterministic=True))
        return made.hexdigest()


class _HasRequests(Protocol):
    requests: Requests


async def prune_requests(ctx: _HasRequests, now: datetime) -> int:
    """The sweep that forgets old requests of a service; how many."""
    return await ctx.requests.prune(now)


def method_of(request: Message) -> str:
    """The method that a request is of; each has a request message of its own name."""
    return str(request.DESCRIPTOR.name).removesuffix("Request")


def checked_id(request: Message) -> str:
    """The request's id, empty when it has none. Raises Invalid for one that cannot be kept."""
    request_id: str = getattr(request, "request_id", "")
    if len(request_id) > LONGEST_ID or not request_id.isprintable():
        raise Invalid(
            f"request_id must be printable and at most {LONGEST_ID} characters; a UUID is best",
            reason="BAD_REQUEST_ID",
            field="request_id",
        )
    return request_id
