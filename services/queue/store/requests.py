"""Rows that make a repeated request harmless: who asked, under which id, what it was, and what was answered."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from libs.common.database import Transaction

BEGIN = """
INSERT INTO queue.requests (caller, request_id, digest, at) VALUES (:caller, :request_id, :digest, :now)
ON CONFLICT (caller, request_id) DO NOTHING
"""
EARLIER = "SELECT digest, response FROM queue.requests WHERE caller = :caller AND request_id = :request_id"
ANSWER = "UPDATE queue.requests SET response = :response WHERE caller = :caller AND request_id = :request_id"
PRUNE = """
DELETE FROM queue.requests WHERE (caller, request_id) IN (
    SELECT caller, request_id FROM queue.requests WHERE at < :before ORDER BY at LIMIT :limit FOR UPDATE SKIP LOCKED)
"""


async def begin(tx: Transaction, caller: str, request_id: str, digest: str) -> bool:
    """Takes an id for this request; False when it was taken before. Waits for one who is about to take it."""
    return await tx.run(BEGIN, caller=caller, request_id=request_id, digest=digest, now=tx.now) == 1


async def earlier(tx: Transaction, caller: str, request_id: str) -> Any | None:
    """What came under this id before: its digest and its answer."""
    return await tx.first(EARLIER, caller=caller, request_id=request_id)


async def answer(tx: Transaction, caller: str, request_id: str, response: bytes) -> None:
    """Keeps the answer."""
    await tx.run(ANSWER, caller=caller, request_id=request_id, response=response)


async def prune(tx: Transaction, before: datetime, limit: int) -> int:
    """Forgets requests that are older than `before`."""
    return await tx.run(PRUNE, before=before, limit=limit)
