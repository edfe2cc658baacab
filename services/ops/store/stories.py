"""Which stories there are, and the facts one is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction

# An attempt that lives makes an open incident one in progress.
LIVE = "EXISTS (SELECT FROM ops.attempts a WHERE a.incident = i.incident AND a.incident <> '' AND a.end_time IS NULL)"
FILTERS = {
    "plugin": "i.plugin = :plugin",
    "merchant": "i.merchant = :merchant",
    "severity": "i.severity = :severity",
    "since": "i.start_time >= :since",
    "until": "i.start_time < :until",
}
STATES = {
    "open": f"i.state = 'open' AND i.end_time IS NULL AND NOT {LIVE}",
    "in_progress": f"i.state = 'open' AND i.end_time IS NULL AND {LIVE}",
    "escalated": "i.state = 'escalated' AND i.end_time IS NULL",
    "flapping": "i.state = 'flapping' AND i.end_time IS NULL",
    "mitigated": "i.state = 'mitigated'",
    "closed": "i.state = 'closed'",
}
PAGE = "SELECT i.incident, i.start_time FROM ops.incidents i WHERE (i.start_time, i.incident) < (:before, :under)"
# Each incident's facts by its own index, so that one with very many costs no other.
FACTS = """
SELECT t.event_id, t.incident, t.payload, coalesce(l.label, '') AS label
FROM unnest(CAST(:incidents AS text[])) AS w(incident)
CROSS JOIN LATERAL (
    SELECT event_id, incident, plugin, payload FROM ops.timeline
    WHERE incident = w.incident AND incident <> '' ORDER BY position DESC LIMIT :limit) t
LEFT JOIN ops.labels l ON l.plugin = t.plugin
"""


@dataclass(frozen=True, slots=True)
class StoryFilter:
    """Which stories; empty fields match all. `severity`: 1 to 4."""

    plugin: str = ""
    merchant: str = ""
    state: str = ""
    severity: int = 0
    since: datetime | None = None
    until: datetime | None = None


async def page(
    tx: Transaction, wanted: StoryFilter, *, before: datetime, under: str, limit: int
) -> list[tuple[str, datetime]]:
    """Incidents that began before a moment (of the same moment: with a lower id), newest first."""
    values: dict[str, Any] = {
        name: value for name in FILTERS if (value := getattr(wanted, name)) not in ("", 0, None)
    }  # fmt: skip
    where = "".join(f" AND {FILTERS[name]}" for name in values)
    where += f" AND {STATES[wanted.state]}" if wanted.state else ""
    sql = f"{PAGE}{where} ORDER BY i.start_time DESC, i.incident DESC LIMIT :limit"
    rows = await tx.all(sql, before=before, under=under, limit=limit, **values)
    return [(row.incident, row.start_time) for row in rows]


async def facts(tx: Transaction, incidents: Sequence[str], limit: int) -> dict[str, list[tuple[bytes, str]]]:
    """The facts of each incident with the label of their plugin, in no order, the newest `limit` of each."""
    found: dict[str, list[tuple[bytes, str]]] = {incident: [] for incident in incidents}
    for row in await tx.all(FACTS, incidents=list(incidents), limit=limit):
        found[row.incident].append((row.payload, row.label))
    return found
