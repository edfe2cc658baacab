"""Rows of proposals ⇄ dataclasses."""

from __future__ import annotations

from typing import Any

from libs.common.database import Transaction
from libs.common.paging import Page
from services.queue.proposals import Proposal

# No id comes after this one.
LAST = "ffffffff-ffff-ffff-ffff-ffffffffffff"
COLUMNS = "id, merchant, action, target, reason, author, state, decided_by, decision_reason, create_time, expire_time"
INSERT = f"""
INSERT INTO queue.proposals ({COLUMNS})
VALUES (CAST(:id AS uuid), :merchant, :action, :target, :reason, :author, :state, '', '', :create_time, :expire_time)
"""
LOCK = f"SELECT {COLUMNS} FROM queue.proposals WHERE id = CAST(:id AS uuid) FOR UPDATE"
DECIDE = """
UPDATE queue.proposals SET state = :state, decided_by = :actor, decision_reason = :reason WHERE id = CAST(:id AS uuid)
"""
LIST = f"""
SELECT {COLUMNS} FROM queue.proposals
WHERE (:state = '' OR state = :state) AND id < CAST(:after AS uuid)
ORDER BY id DESC LIMIT :limit
"""
EXPIRE = f"""
UPDATE queue.proposals SET state = 'expired', decision_reason = 'nobody decided in time'
WHERE id IN (
    SELECT id FROM queue.proposals WHERE state = 'open' AND expire_time <= :now
    ORDER BY expire_time LIMIT :limit FOR UPDATE SKIP LOCKED)
RETURNING {COLUMNS}
"""


async def insert(tx: Transaction, proposal: Proposal) -> None:
    """Saves a new proposal."""
    own = ("id", "merchant", "action", "target", "reason", "author", "state")
    values = {name: getattr(proposal, name) for name in own}
    await tx.run(INSERT, create_time=proposal.create_time, expire_time=proposal.expire_time, **values)


async def lock(tx: Transaction, proposal: str) -> Proposal | None:
    """One proposal, locked until the commit."""
    row = await tx.first(LOCK, id=proposal)
    return None if row is None else _proposal(row)


async def decide(tx: Transaction, proposal: str, state: str, actor: str, reason: str) -> None:
    """Writes what was decided."""
    await tx.run(DECIDE, id=proposal, state=state, actor=actor, reason=reason)


async def page(tx: Transaction, state: str, page: Page) -> list[Proposal]:
    """A page of proposals, newest first."""
    (after,) = page.after or (LAST,)
    return [_proposal(row) for row in await tx.all(LIST, state=state, after=after, limit=page.limit)]


async def expire(tx: Transaction, limit: int) -> list[Proposal]:
    """Ends what nobody decided on in time."""
    return [_proposal(row) for row in await tx.all(EXPIRE, now=tx.now, limit=limit)]


def _proposal(row: Any) -> Proposal:
    return Proposal(
        id=str(row.id),
        merchant=row.merchant,
        action=row.action,
        target=row.target,
        reason=row.reason,
        author=row.author,
        state=row.state,
        create_time=row.create_time,
        expire_time=row.expire_time,
        decided_by=row.decided_by,
        decision_reason=row.decision_reason,
    )
