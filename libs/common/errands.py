"""Errands: work outside the database that a state wants done (ask SIRA, run staging, issue a command).

Rule: an errand is a row saved with the state that wants it. A worker claims it with a lease token, calls out with
the row's id as `request_id`, and stores the answer under the token in one transaction; an answer under a stale
token is discarded. The lease is short and renewed while the errand runs, so that what a crashed process had begun is
done again, under the same id, within seconds, however long the errand itself may take. An answer that cannot be
settled is a try that failed, and whoever has had its tries is not done again: it ends as failed, with the reason, even
when those who wait for it cannot be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from libs.common.cancellation import cancel_and_wait
from libs.common.database import Database, Transaction, met_limit
from libs.common.errors import Problem, Unavailable
from libs.common.names import new_id
from libs.common.telemetry import Telemetry, current_traceparent, use_traceparent
from libs.common.telemetry.spans import Attributes
from libs.common.text import clean_text

log = structlog.get_logger()

LEASE_SECONDS = 15.0
RENEW_SECONDS = 5.0
MAX_DELAY_SECONDS = 30.0
POLL_SECONDS = 0.5  # between looks into the table without a signal

TABLE = """
CREATE TABLE {schema}.errands (
    id uuid PRIMARY KEY,
    kind text NOT NULL,
    subject text NOT NULL,
    key text UNIQUE,
    payload jsonb NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'failed')),
    due_time timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    lease_token bigint NOT NULL DEFAULT 0,
    lease_expire_time timestamptz,
    answer jsonb,
    error text NOT NULL DEFAULT '',
    traceparent text NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE INDEX errands_pending ON {schema}.errands (due_time) WHERE state = 'pending'
"""
SEND = """
INSERT INTO {schema}.errands (id, kind, subject, key, payload, due_time, traceparent, create_time)
VALUES (:id, :kind, :subject, :key, CAST(:payload AS jsonb), :due_time, :traceparent, :now)
ON CONFLICT (key) DO NOTHING
"""
CLAIM = """
WITH due AS MATERIALIZED (
    SELECT id FROM {schema}.errands
    WHERE state = 'pending' AND due_time <= :now AND (lease_expire_time IS NULL OR lease_expire_time < :now)
      AND kind = ANY(CAST(:kinds AS text[]))
    ORDER BY due_time LIMIT :count FOR UPDATE SKIP LOCKED)
UPDATE {schema}.errands e SET attempts = attempts + 1, lease_token = lease_token + 1, lease_expire_time = :until
FROM due WHERE e.id = due.id
RETURNING e.id, e.kind, e.subject, e.payload, e.attempts, e.lease_token, e.traceparent, e.error
"""
RENEW = """
UPDATE {schema}.errands SET lease_expire_time = :until WHERE id = :id AND lease_token = :token AND state = 'pending'
"""
FENCE = """
UPDATE {schema}.errands
SET state = :state, answer = CAST(:answer AS jsonb), error = :error, lease_expire_time = NULL, due_time = :due_time
WHERE id = :id AND lease_token = :token AND state = 'pending'
"""


@dataclass(frozen=True)
class Errand:
    """One claimed errand; `id` is its idempotency key outside, `token` its fence inside."""

    id: str
    kind: str
    subject: str
    payload: dict[str, Any]
    attempts: int
    token: int
    traceparent: str
    error: str = ""  # why the last try failed


@dataclass(frozen=True)
class Runner:
    """How errands of one kind are done: `run` outside a transaction, then `settle`; `failed` after `attempts` tries.

    `timeout` is in seconds, for one try.
    """

    run: Callable[[Any, Errand], Awaitable[dict[str, Any]]]
    settle: Callable[[Any, Transaction, Errand, dict[str, Any]], Awaitable[None]]
    failed: Callable[[Any, Transaction, Errand, str], Awaitable[None]]
    timeout: float = 10.0
    attempts: int = 8


def errands_table_sql(schema: str) -> str:
    """The table of a service's errands, for its first migration."""
    return TABLE.format(schema=schema)


async def send(
    transaction: Transaction,
    schema: str,
    kind: str,
    subject: str,
    payload: Mapping[str, Any],
    *,
    due_time: datetime | None = None,
    key: str | None = None,
    database: Database | None = None,
) -> str:
    """Saves an errand with the state that wants it; a second one with the same `key` is not made. Returns its id."""
    errand = new_id()
    await transaction.run(
        SEND.format(schema=schema),
        id=errand,
        kind=kind,
        subject=subject,
        key=key,
        payload=json.dumps(payload),
        due_time=due_time or transaction.now,
        traceparent=current_traceparent(),
        now=transaction.now,
    )
    if database is not None:
        transaction.after_commit(lambda: database.signal(f"{schema}.errands"))
    return errand


class Errands:
    """The workers of one service's errands. Replicas share the table."""

    def __init__(
        self,
        database: Database,
        schema: str,
        runners: Mapping[str, Runner],
        ctx: Any,
        telemetry: Telemetry,
        workers: int = 8,
    ) -> None:
        self.name = "errands"
        self.database = database
        self.schema = schema
        self.runners = runners
        self.ctx = ctx
        self.telemetry = telemetry
        self.workers = workers
        self._loop: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begins to look for errands."""
        self._loop = asyncio.create_task(self._poll(), name=f"{self.schema} errands")

    async def stop(self) -> None:
        """Takes nothing new; what runs gets 3 s, and its lease brings back the rest."""
        if self._loop:
            await cancel_and_wait([self._loop])
        if self._running:
            _, late = await asyncio.wait(set(self._running), timeout=3)
            await cancel_and_wait(late)

    async def _poll(self) -> None:
        while True:
            try:
                if not await self.claim():
                    await self.database.wait(f"{self.schema}.errands", POLL_SECONDS)
                elif len(self._running) >= self.workers:
                    await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            except (TimeoutError, Problem, OSError) as error:
                log.debug("errands_wait", schema=self.schema, error=str(error))
                await asyncio.sleep(0.5)
            except Exception:
                log.exception("errands_failed", schema=self.schema)
                await asyncio.sleep(1.0)

    async def run_once(self) -> int:
        """Does every errand that is due and waits for their ends; how many there were."""
        count = await self.claim()
        if self._running:
            await asyncio.wait(set(self._running))
        return count

    async def claim(self) -> int:
        """Claims what is due, up to the free workers, and starts it; how many."""
        free = self.workers - len(self._running)
        if free <= 0:
            return 0

        async def work(transaction: Transaction) -> list[Errand]:
            until = transaction.now + timedelta(seconds=LEASE_SECONDS)
            statement = CLAIM.format(schema=self.schema)
            kinds = list(self.runners)
            rows = await transaction.all(statement, now=transaction.now, until=until, count=free, kinds=kinds)
            return [
                Errand(str(r.id), r.kind, r.subject, r.payload, r.attempts, r.lease_token, r.traceparent, r.error)
                for r in rows
            ]

        claimed = await self.database.transaction(work)
        for errand in claimed:
            task = asyncio.create_task(self._run(errand), name=f"{self.schema} {errand.kind}")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return len(claimed)

    async def _run(self, errand: Errand) -> None:
        runner = self.runners[errand.kind]
        if errand.error and errand.attempts > runner.attempts:
            await self._fail(errand, runner, errand.error)
            return
        attributes: Attributes = {"errand": errand.id, "subject": errand.subject, "attempt": errand.attempts}
        with (
            self.telemetry.use(),
            use_traceparent(errand.traceparent),
            self.telemetry.span(f"errand {errand.kind}", attributes=attributes)
            if errand.traceparent
            else contextlib.nullcontext(),
        ):
            renewal = asyncio.create_task(self._renew(errand), name=f"{self.schema} lease")
            try:
                async with asyncio.timeout(runner.timeout):
                    answer = await runner.run(self.ctx, errand)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it raises is this errand's failure
                await self._fail(errand, runner, _reason(error))
                return
            finally:
                await cancel_and_wait([renewal])
            try:
                await self._store(
                    errand, "done", json.dumps(answer), lambda tx: runner.settle(self.ctx, tx, errand, answer)
                )
            except Exception as error:
                log.exception("errand_not_settled", schema=self.schema, kind=errand.kind, errand=errand.id)
                # When the database was away the lease runs out, and the same errand is done again under the same id.
                waits = isinstance(error, Unavailable) and not met_limit(error)
                if not waits or errand.attempts >= 2 * runner.attempts:
                    await self._fail(errand, runner, _reason(error))

    async def _renew(self, errand: Errand) -> None:
        """Renews the lease while the errand runs. One that was lost is not won back: the fence refuses the answer."""

        async def renew(transaction: Transaction) -> int:
            until = transaction.now + timedelta(seconds=LEASE_SECONDS)
            return await transaction.run(
                RENEW.format(schema=self.schema), id=errand.id, token=errand.token, until=until
            )

        held = 1
        while held:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                held = await self.database.transaction(renew)
            except (TimeoutError, Problem, OSError) as error:
                log.debug("errand_lease_not_renewed", schema=self.schema, errand=errand.id, error=str(error))

    async def _fail(self, errand: Errand, runner: Runner, error: str) -> None:
        log.warning("errand_failed", schema=self.schema, kind=errand.kind, errand=errand.id, error=error)
        last = errand.attempts >= runner.attempts
        state = "failed" if last else "pending"

        async def work(transaction: Transaction) -> None:
            if last:
                await runner.failed(self.ctx, transaction, errand, error)

        async def nothing(_transaction: Transaction) -> None:
            return None

        try:
            await self._store(errand, state, "null", work, error)
        except Exception:
            log.exception("errand_not_settled", schema=self.schema, kind=errand.kind, errand=errand.id)
            state = "failed" if errand.attempts >= 2 * runner.attempts else "pending"
            with contextlib.suppress(Problem):
                await self._store(errand, state, "null", nothing, error)

    async def _store(
        self, errand: Errand, state: str, answer: str, work: Callable[[Transaction], Awaitable[None]], error: str = ""
    ) -> None:
        delay = random.uniform(0.25, 0.5) * 2 ** min(errand.attempts, 8)  # noqa: S311 - spreads load, guards nothing

        async def settle(transaction: Transaction) -> None:
            due_time = transaction.now + timedelta(seconds=min(delay, MAX_DELAY_SECONDS))
            values = {"state": state, "answer": answer, "error": error, "due_time": due_time}
            fence = FENCE.format(schema=self.schema)
            if await transaction.run(fence, id=errand.id, token=errand.token, **values):
                await work(transaction)
            else:
                log.warning("errand_answer_stale", schema=self.schema, kind=errand.kind, errand=errand.id)

        await self.database.transaction(settle)


def _reason(error: Exception) -> str:
    return clean_text(f"{type(error).__name__}: {error}", 500)
