"""Rows of approvals ⇄ dataclasses: what was asked of whom, and what they said.

Rule: a subject (attempts/… or rollouts/…) has at most one approval that lives; earlier ones stay as history.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from services.patcher.approvals import Approval, Quorum, Status, Times, Vote

COLUMNS = "id, subject, plan, plan_text, standing, due, create_time, expire_time, detail"
PUT = f"""
INSERT INTO patcher.approvals ({COLUMNS})
VALUES (:id, :subject, :plan, :plan_text, :standing, :due, :create_time, :expire_time, CAST(:detail AS jsonb))
ON CONFLICT (id) DO UPDATE
SET plan = :plan, plan_text = :plan_text, standing = :standing, due = :due, expire_time = :expire_time,
    detail = CAST(:detail AS jsonb)
"""
LIVING = f"""
SELECT {COLUMNS} FROM patcher.approvals WHERE subject = :subject AND standing IN ('waiting', 'approved')
"""
NEWEST = f"SELECT {COLUMNS} FROM patcher.approvals WHERE subject = :subject ORDER BY id DESC LIMIT 1"
NEWEST_OF = f"""
SELECT DISTINCT ON (subject) {COLUMNS} FROM patcher.approvals WHERE subject = ANY (CAST(:subjects AS text[]))
ORDER BY subject, id DESC
"""
SETTLE = """
UPDATE patcher.approvals SET due = NULL WHERE subject = :subject AND standing = 'approved' AND due IS NOT NULL
"""
DUE = """
SELECT subject FROM patcher.approvals WHERE standing IN ('waiting', 'approved') AND due <= :now
ORDER BY due LIMIT 200
"""


def read(row: Any) -> Approval:
    """The approval in a row."""
    kept = row.detail
    return Approval(
        id=row.id,
        subject=row.subject,
        plan=row.plan,
        quorum=Quorum(kept["quorum"], tuple(kept["seats"]), tuple(kept["approvers"])),
        authors=frozenset(kept["authors"]),
        proposer=kept["proposer"],
        times=Times(timedelta(seconds=kept["answer"]), timedelta(seconds=kept["lasts"])),
        create_time=row.create_time,
        expire_time=row.expire_time,
        request_time=datetime.fromisoformat(kept["asked_time"]),
        status=Status(row.status),
        votes=tuple(_vote(each) for each in kept["votes"]),
        reminded=kept["reminded"],
        escalated=kept["escalated"],
        reason=kept["reason"],
    )


def _vote(kept: dict[str, Any]) -> Vote:
    return Vote(**kept | {"roles": frozenset(kept["roles"])})


async def put(tx: Transaction, approval: Approval, plan_text: str) -> None:
    """Saves an approval with the plan people read. Raises IntegrityError for a subject that has another living one."""
    detail = {
        "quorum": approval.quorum.size,
        "seats": approval.quorum.seats,
        "approvers": approval.quorum.approvers,
        "authors": sorted(approval.authors),
        "proposer": approval.proposer,
        "answer": approval.times.timeout.total_seconds(),
        "lasts": approval.times.validity.total_seconds(),
        "asked_time": approval.request_time.isoformat(),
        "votes": [vars(vote) | {"roles": sorted(vote.roles)} for vote in approval.votes],
        "reminded": approval.reminded,
        "escalated": approval.escalated,
        "reason": approval.reason,
    }
    await tx.run(
        PUT,
        id=approval.id,
        subject=approval.subject,
        plan=approval.plan,
        plan_text=plan_text,
        status=approval.status.value,
        due=approval.due,
        create_time=approval.create_time,
        expire_time=approval.expire_time,
        detail=json.dumps(detail),
    )


async def living(tx: Transaction, subject: str, *, lock: bool = False) -> tuple[Approval, str] | None:
    """The subject's approval that waits or holds, with its plan's text; locked when asked."""
    row = await tx.first(f"{LIVING} FOR UPDATE" if lock else LIVING, subject=subject)
    return (read(row), row.plan_text) if row else None


async def newest(tx: Transaction, subject: str) -> tuple[Approval, str] | None:
    """The subject's latest approval, however it ended, with its plan's text."""
    row = await tx.first(NEWEST, subject=subject)
    return (read(row), row.plan_text) if row else None


async def newest_of(tx: Transaction, subjects: Sequence[str]) -> dict[str, tuple[Approval, str]]:
    """The latest approval of each of these subjects that has one, with its plan's text."""
    rows = await tx.all(NEWEST_OF, subjects=list(subjects)) if subjects else []
    return {row.subject: (read(row), row.plan_text) for row in rows}


async def settle(tx: Transaction, subject: str) -> None:
    """Notes that an approval was used: it has nothing more to say."""
    await tx.run(SETTLE, subject=subject)


async def due(tx: Transaction, now: datetime) -> list[str]:
    """Subjects whose approval has something to say by now: a reminder, an escalation, its end."""
    return [row.subject for row in await tx.all(DUE, now=now)]
