"""Rows of approvals ⇄ dataclasses: what is to be approved by whom, and the votes.

Rule: a subject (attempts/… or rollouts/…) has at most one live approval; earlier ones stay as history.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from services.patcher.approvals import Approval, Quorum, Status, Times, Vote

COLUMNS = "id, merchant, subject, plan_hash, plan_text, status, due_time, create_time, expire_time, detail"
PUT = f"""
INSERT INTO patcher.approvals ({COLUMNS})
VALUES (:id, :merchant, :subject, :plan_hash, :plan_text, :status, :due_time, :create_time, :expire_time,
        CAST(:detail AS jsonb))
ON CONFLICT (id) DO UPDATE
SET plan_hash = :plan_hash, plan_text = :plan_text, status = :status, due_time = :due_time, expire_time = :expire_time,
    detail = CAST(:detail AS jsonb)
"""
LIVE = f"""
SELECT {COLUMNS} FROM patcher.approvals WHERE subject = :subject AND status IN ('open', 'approved')
"""
NEWEST = f"SELECT {COLUMNS} FROM patcher.approvals WHERE subject = :subject ORDER BY id DESC LIMIT 1"
NEWEST_OF = f"""
SELECT DISTINCT ON (subject) {COLUMNS} FROM patcher.approvals WHERE subject = ANY (CAST(:subjects AS text[]))
ORDER BY subject, id DESC
"""
MARK_USED = """
UPDATE patcher.approvals SET due_time = NULL WHERE subject = :subject AND status = 'approved' AND due_time IS NOT NULL
"""
DUE = """
SELECT subject FROM patcher.approvals WHERE status IN ('open', 'approved') AND due_time <= :now
ORDER BY due_time LIMIT 200
"""


def read(row: Any) -> Approval:
    """The approval in a row."""
    detail = row.detail
    return Approval(
        id=row.id,
        subject=row.subject,
        plan_hash=row.plan_hash,
        quorum=Quorum(detail["quorum"], tuple(detail["seats"]), tuple(detail["approvers"])),
        authors=frozenset(detail["authors"]),
        proposer=detail["proposer"],
        times=Times(timedelta(seconds=detail["timeout"]), timedelta(seconds=detail["validity"])),
        create_time=row.create_time,
        expire_time=row.expire_time,
        request_time=datetime.fromisoformat(detail["request_time"]),
        status=Status(row.status),
        votes=tuple(Vote(**each | {"roles": frozenset(each["roles"])}) for each in detail["votes"]),
        reminded=detail["reminded"],
        escalated=detail["escalated"],
        reason=detail["reason"],
    )


async def put(tx: Transaction, approval: Approval, plan_text: str, merchant: str) -> None:
    """Saves an approval with the plan that is read. Raises IntegrityError for a subject that has another live one."""
    detail = {
        "quorum": approval.quorum.size,
        "seats": approval.quorum.seats,
        "approvers": approval.quorum.approvers,
        "authors": sorted(approval.authors),
        "proposer": approval.proposer,
        "timeout": approval.times.timeout.total_seconds(),
        "validity": approval.times.validity.total_seconds(),
        "request_time": approval.request_time.isoformat(),
        "votes": [vars(vote) | {"roles": sorted(vote.roles)} for vote in approval.votes],
        "reminded": approval.reminded,
        "escalated": approval.escalated,
        "reason": approval.reason,
    }
    await tx.run(
        PUT,
        id=approval.id,
        merchant=merchant,
        subject=approval.subject,
        plan_hash=approval.plan_hash,
        plan_text=plan_text,
        status=approval.status.value,
        due_time=approval.due_time,
        create_time=approval.create_time,
        expire_time=approval.expire_time,
        detail=json.dumps(detail),
    )


async def live(tx: Transaction, subject: str, *, lock: bool = False) -> tuple[Approval, str] | None:
    """The subject's approval that is open or approved, with its plan's text; locked when asked."""
    row = await tx.first(f"{LIVE} FOR UPDATE" if lock else LIVE, subject=subject)
    return (read(row), row.plan_text) if row else None


async def newest(tx: Transaction, subject: str) -> tuple[Approval, str] | None:
    """The subject's latest approval, however it ended, with its plan's text."""
    row = await tx.first(NEWEST, subject=subject)
    return (read(row), row.plan_text) if row else None


async def newest_of(tx: Transaction, subjects: Sequence[str]) -> dict[str, tuple[Approval, str]]:
    """The latest approval of each of these subjects that has one, with its plan's text."""
    rows = await tx.all(NEWEST_OF, subjects=list(subjects)) if subjects else []
    return {row.subject: (read(row), row.plan_text) for row in rows}


async def mark_used(tx: Transaction, subject: str) -> None:
    """Notes that an approval was used: it does not expire any more."""
    await tx.run(MARK_USED, subject=subject)


async def due(tx: Transaction, now: datetime) -> list[str]:
    """Subjects whose approval is due for a reminder, an escalation or its end."""
    return [row.subject for row in await tx.all(DUE, now=now)]
