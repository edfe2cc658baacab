"""Active incidents, recent outcomes, and what needs a person's attention.

Rule: only rows that are not over are read, by partial indexes; the timeline itself is never looked through.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from libs.common.database import Transaction

WHOSE = "(CAST(:merchant AS text) = '' OR {alias}.merchant = :merchant)"
ACTIVE = f"""
SELECT i.incident, i.plugin, i.merchant, i.type, i.severity, i.state, i.start_time, i.evidence, i.reopened,
       coalesce(l.label, '') AS label, a.attempt, a.action, a.from_release, a.to_release, a.state AS attempt_state,
       a.held_by
FROM (
    SELECT * FROM ops.incidents i WHERE i.end_time IS NULL AND {WHOSE.format(alias="i")}
    ORDER BY i.severity DESC, i.start_time DESC LIMIT :limit) i
LEFT JOIN ops.labels l ON l.plugin = i.plugin
LEFT JOIN LATERAL (
    SELECT * FROM ops.attempts a WHERE a.incident = i.incident AND a.incident <> ''
    ORDER BY a.end_time IS NULL DESC, a.create_time DESC LIMIT 1) a ON true
ORDER BY i.severity DESC, i.start_time DESC
"""
COUNTS = f"""
SELECT i.severity, count(*) AS count FROM ops.incidents i
WHERE i.end_time IS NULL AND {WHOSE.format(alias="i")} GROUP BY i.severity
"""
# An item ends with its incident, with the life of its plugin, and when it expires.
OPEN_ITEMS = f"""
FROM ops.attention n
LEFT JOIN ops.incidents i ON i.incident = n.incident AND n.incident <> ''
LEFT JOIN ops.retired_plugins f ON f.plugin = n.plugin AND n.plugin <> ''
WHERE n.active AND (n.expire_time IS NULL OR n.expire_time > :now) AND i.end_time IS NULL AND f.retire_time IS NULL
    AND {WHOSE.format(alias="n")}
"""
ATTENTION = f"""
SELECT n.kind, n.subject, n.severity, n.time, n.line, n.command, n.incident, n.plugin, n.merchant,
       coalesce(l.label, '') AS label
FROM (SELECT n.* {OPEN_ITEMS} ORDER BY n.severity DESC, n.time LIMIT :limit) n
LEFT JOIN ops.labels l ON l.plugin = n.plugin
ORDER BY n.severity DESC, n.time
"""
ATTENTION_COUNTS = f"SELECT n.kind, count(*) AS count {OPEN_ITEMS} GROUP BY n.kind"
DEAD_LETTERS = """
SELECT consumer, count(*) AS count, min(create_time) AS time FROM bus.dead_letters
WHERE redrive_time IS NULL GROUP BY consumer
"""
RECENT = f"""
SELECT count(*) FILTER (WHERE i.start_time >= :since) AS opened,
       count(*) FILTER (WHERE i.end_time >= :since AND i.state = 'mitigated') AS healed,
       count(*) FILTER (WHERE i.end_time >= :since AND i.state = 'closed') AS closed,
       count(*) FILTER (WHERE i.escalate_time >= :since) AS escalated
FROM ops.incidents i
WHERE (i.start_time >= :since OR i.end_time >= :since OR i.end_time IS NULL) AND {WHOSE.format(alias="i")}
"""
RECENT_ATTEMPTS = f"""
SELECT a.state, count(*) AS count FROM ops.attempts a
WHERE a.end_time >= :since AND {WHOSE.format(alias="a")} GROUP BY a.state
"""
HEALTH = "SELECT service, health, since_time, probe_time FROM ops.service_health ORDER BY service"


async def active(tx: Transaction, merchant: str, limit: int) -> Sequence[Any]:
    """Incidents that are not over with their last attempt, the worst and then the newest first."""
    return await tx.all(ACTIVE, merchant=merchant, limit=limit)


async def counts(tx: Transaction, merchant: str) -> dict[int, int]:
    """Incidents that are not over, by severity."""
    return {row.severity: row.count for row in await tx.all(COUNTS, merchant=merchant)}


async def attention(tx: Transaction, merchant: str, now: datetime, limit: int) -> Sequence[Any]:
    """Attention items, the most urgent and then the oldest first."""
    return await tx.all(ATTENTION, merchant=merchant, now=now, limit=limit)


async def attention_counts(tx: Transaction, merchant: str, now: datetime) -> dict[str, int]:
    """Attention items, by kind."""
    return {row.kind: row.count for row in await tx.all(ATTENTION_COUNTS, merchant=merchant, now=now)}


async def dead_letters(tx: Transaction) -> Sequence[Any]:
    """Dead letters by consumer: how many, since when."""
    return await tx.all(DEAD_LETTERS)


async def recent(tx: Transaction, merchant: str, since: datetime) -> tuple[Any, dict[str, int]]:
    """Since a moment: incidents opened, healed, closed, escalated; attempts that ended by state."""
    (row,) = await tx.all(RECENT, merchant=merchant, since=since)
    attempts = await tx.all(RECENT_ATTEMPTS, merchant=merchant, since=since)
    return row, {one.state: one.count for one in attempts}


async def health(tx: Transaction) -> Sequence[Any]:
    """Each service as it was last probed."""
    return await tx.all(HEALTH)
