"""Rows of probes: how often a service was asked whether it serves, and how often it did, by the minute."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from libs.common.database import Transaction

COUNT = """
INSERT INTO ops.uptime_probes AS p (service, minute, probes, answered)
SELECT service, date_trunc('minute', CAST(:now AS timestamptz)), 1, CASE WHEN health = 'serving' THEN 1 ELSE 0 END
FROM unnest(CAST(:services AS text[]), CAST(:answers AS text[])) AS s(service, health)
ON CONFLICT (service, minute) DO UPDATE SET
    probes = p.probes + excluded.probes, answered = p.answered + excluded.answered
"""
HEALTH = """
INSERT INTO ops.service_health AS h (service, health, since_time, probe_time)
SELECT service, health, :now, :now
FROM unnest(CAST(:services AS text[]), CAST(:answers AS text[])) AS s(service, health)
ON CONFLICT (service) DO UPDATE SET
    since_time = CASE WHEN h.health = excluded.health THEN h.since_time ELSE excluded.since_time END,
    health = excluded.health, probe_time = excluded.probe_time
WHERE excluded.probe_time > h.probe_time
"""
DELETE = """
DELETE FROM ops.uptime_probes WHERE (service, minute) IN (
    SELECT service, minute FROM ops.uptime_probes WHERE minute < :before ORDER BY minute LIMIT :batch)
"""


async def count(tx: Transaction, health: Mapping[str, str]) -> None:
    """Counts one probe of each service; `health` says what it answered."""
    services = sorted(health)
    values = {"now": tx.now, "services": services, "answers": [health[name] for name in services]}
    await tx.run(COUNT, **values)
    await tx.run(HEALTH, **values)


async def delete_before(tx: Transaction, before: datetime, batch: int) -> int:
    """Removes up to `batch` minutes before a moment."""
    return await tx.run(DELETE, before=before, batch=batch)
