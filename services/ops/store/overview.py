"""What is wrong now, what is being done about it, and what is needed of people.

Rule: only rows that are not over are read, by partial indexes; the timeline itself is never looked through.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from libs.common.database import Transaction

WHOSE = "(CAST(:merchant AS text) = '' OR {alias}.merchant = :merchant)"
WRONG = f"""
SELECT i.incident, i.plugin, i.merchant, i.type, i.severity, i.state, i.began_at, i.evidence, i.rounds,
       coalesce(l.label, '') AS label, a.attempt, a.action, a.from_release, a.to_release, a.state AS doing, a.held_by
FROM (
    SELECT * FROM ops.incidents i WHERE i.ended_at IS NULL AND {WHOSE.format(alias="i")}
    ORDER BY i.severity DESC, i.began_at DESC LIMIT :limit) i
LEFT JOIN ops.labels l ON l.plugin = i.plugin
LEFT JOIN LATERAL (
    SELECT * FROM ops.attempts a WHERE a.incident = i.incident AND a.incident <> ''
    ORDER BY a.ended_at IS NULL DESC, a.created_at DESC LIMIT 1) a ON true
ORDER BY i.severity DESC, i.began_at DESC
"""
COUNTS = f"""
SELECT i.severity, count(*) AS count FROM ops.incidents i
WHERE i.ended_at IS NULL AND {WHOSE.format(alias="i")} GROUP BY i.severity
"""
# A need ends with its incident, with the life of its plugin, and when its time has run out.
WANTED = f"""
FROM ops.needs n
LEFT JOIN ops.incidents i ON i.incident = n.incident AND n.incident <> ''
LEFT JOIN ops.left_fleet f ON f.plugin = n.plugin AND n.plugin <> ''
WHERE n.wanted AND (n.until IS NULL OR n.until > :now) AND i.ended_at IS NULL AND f.at IS NULL
    AND {WHOSE.format(alias="n")}
"""
NEEDS = f"""
SELECT n.kind, n.subject, n.severity, n.at, n.line, n.command, n.incident, n.plugin, n.merchant,
       coalesce(l.label, '') AS label
FROM (SELECT n.* {WANTED} ORDER BY n.severity DESC, n.at LIMIT :limit) n
LEFT JOIN ops.labels l ON l.plugin = n.plugin
ORDER BY n.severity DESC, n.at
"""
NEED_COUNTS = f"SELECT n.kind, count(*) AS count {WANTED} GROUP BY n.kind"
DEAD = """
SELECT consumer, count(*) AS count, min(create_time) AS at FROM bus.dead_letters
WHERE redrive_time IS NULL GROUP BY consumer
"""
DONE = f"""
SELECT count(*) FILTER (WHERE i.began_at >= :since) AS opened,
       count(*) FILTER (WHERE i.mitigated_at >= :since) AS healed,
       count(*) FILTER (WHERE i.closed_at >= :since AND i.mitigated_at IS NULL) AS closed,
       count(*) FILTER (WHERE i.escalated_at >= :since) AS escalated
FROM ops.incidents i
WHERE (i.began_at >= :since OR i.ended_at >= :since OR i.ended_at IS NULL) AND {WHOSE.format(alias="i")}
"""
TRIED = f"""
SELECT a.state, count(*) AS count FROM ops.attempts a
WHERE a.ended_at >= :since AND {WHOSE.format(alias="a")} GROUP BY a.state
"""
HEALTH = "SELECT service, health, since, probed_at FROM ops.service_health ORDER BY service"


async def wrong(tx: Transaction, merchant: str, limit: int) -> Sequence[Any]:
    """Incidents that are not over with their last attempt, the worst and then the newest first."""
    return await tx.all(WRONG, merchant=merchant, limit=limit)


async def counts(tx: Transaction, merchant: str) -> dict[int, int]:
    """Incidents that are not over, by severity."""
    return {row.severity: row.count for row in await tx.all(COUNTS, merchant=merchant)}


async def needs(tx: Transaction, merchant: str, now: datetime, limit: int) -> Sequence[Any]:
    """What is needed of people, the most urgent and then the oldest first."""
    return await tx.all(NEEDS, merchant=merchant, now=now, limit=limit)


async def need_counts(tx: Transaction, merchant: str, now: datetime) -> dict[str, int]:
    """What is needed of people, by kind."""
    return {row.kind: row.count for row in await tx.all(NEED_COUNTS, merchant=merchant, now=now)}


async def dead(tx: Transaction) -> Sequence[Any]:
    """Parked facts by consumer: how many, since when."""
    return await tx.all(DEAD)


async def done(tx: Transaction, merchant: str, since: datetime) -> tuple[Any, dict[str, int]]:
    """Since a moment: incidents opened, healed, closed, escalated; attempts that ended by state."""
    (row,) = await tx.all(DONE, merchant=merchant, since=since)
    tried = await tx.all(TRIED, merchant=merchant, since=since)
    return row, {one.state: one.count for one in tried}


async def health(tx: Transaction) -> Sequence[Any]:
    """Each service as it was last probed."""
    return await tx.all(HEALTH)
