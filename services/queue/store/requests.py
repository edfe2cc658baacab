"""Rows that make a repeated request harmless: the caller, its id, the digest of the request, and the response."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from libs.common.database import Transaction

RESERVE = """
INSERT INTO queue.requests (caller, request_id, digest, create_time) VALUES (:caller, :request_id, :digest, :now)
ON CONFLICT (caller, request_id) DO NOTHING
"""
GET = "SELECT digest, response FROM queue.requests WHERE caller = :caller AND request_id = :request_id"
SAVE_RESPONSE = "UPDATE queue.requests SET response = :response WHERE caller = :caller AND request_id = :request_id"
PRUNE = """
DELETE FROM queue.requests WHERE (caller, request_id) IN (
    SELECT caller, request_id FROM queue.requests WHERE create_time < :before
    ORDER BY create_time LIMIT :limit FOR UPDATE SKIP LOCKED)
"""


async def reserve(tx: Transaction, caller: str, request_id: str, digest: str) -> bool:
    """Takes an id for this request; False when it was taken before. Waits for one who is about to take it."""
    return await tx.run(RESERVE, caller=caller, request_id=request_id, digest=digest, now=tx.now) == 1


async def get(tx: Transaction, caller: str, request_id: str) -> Any | None:
    """What came under this id before: its digest and its answer."""
    return await tx.first(GET, caller=caller, request_id=request_id)


async def save_response(tx: Transaction, caller: str, request_id: str, response: bytes) -> None:
    """Saves the answer."""
    await tx.run(SAVE_RESPONSE, caller=caller, request_id=request_id, response=response)


async def prune(tx: Transaction, before: datetime, limit: int) -> int:
    """Forgets requests that are older than `before`."""
    return await tx.run(PRUNE, before=before, limit=limit)
