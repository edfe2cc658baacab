"""Incidents: rows and dataclasses. At most one active row per plugin and type, kept by a partial unique index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from libs.common.paging import Page
from services.ingest.finding import Severity
from services.ingest.incident import Evidence, Incident, State, tried_from
from services.ingest.store import after

COLUMNS = """id, plugin, merchant, package, type, severity, state, round, open_time, first_bad_beat_time, update_time,
    act_by_time, end_time, attempt, permitted, action, remedy, tried, evidence, release, generation, healthy_windows,
    resolution, trace_id, traceparent, reopened, reopen_time, calm_time, escalate_time, closed_by, healed_generation,
    healed_decision"""
ACTIVE = "state IN ('open', 'in_progress', 'escalated', 'flapping')"
# What opened, or came back, while a storm of its pair was on is part of it; nothing has to be written down for that.
STORM = """LEFT JOIN LATERAL (
    SELECT s.id AS storm, s.end_time AS storm_end_time FROM ingest.storms s
    WHERE s.package = i.package AND s.type = i.type AND coalesce(i.reopen_time, i.open_time) >= s.count_from_time
      AND (s.end_time IS NULL OR coalesce(i.reopen_time, i.open_time) <= s.end_time)
    ORDER BY s.start_time DESC LIMIT 1
) AS during ON true"""
VIEW = f"SELECT {COLUMNS}, storm, storm_end_time FROM ingest.incidents i {STORM}"
INSERT = f"""
INSERT INTO ingest.incidents ({COLUMNS})
VALUES (CAST(:id AS uuid), CAST(:plugin AS uuid), :merchant, :package, :type, :severity, :state, :round, :open_time,
        :first_bad_beat_time, :update_time, :act_by_time, :end_time, :attempt, :permitted, :action, :remedy,
        CAST(:tried AS jsonb), CAST(:evidence AS jsonb), :release, :generation, :healthy_windows, :resolution,
        :trace_id, :traceparent,
        :reopened, :reopen_time, :calm_time, :escalate_time, :closed_by, :healed_generation, :healed_decision)
ON CONFLICT (plugin, type) WHERE {ACTIVE} DO NOTHING
"""
SAVE = """
UPDATE ingest.incidents SET severity = :severity, state = :state, round = :round, update_time = :update_time,
    end_time = :end_time, attempt = :attempt, permitted = :permitted, action = :action, remedy = :remedy,
    tried = CAST(:tried AS jsonb), evidence = CAST(:evidence AS jsonb), healthy_windows = :healthy_windows,
    resolution = :resolution, release = :release, generation = :generation, first_bad_beat_time = :first_bad_beat_time,
    act_by_time = :act_by_time, reopened = :reopened, reopen_time = :reopen_time, calm_time = :calm_time,
    escalate_time = :escalate_time, closed_by = :closed_by, healed_generation = :healed_generation,
    healed_decision = :healed_decision
WHERE id = CAST(:id AS uuid)
"""
ACTIVE_OF = f"""
{VIEW} WHERE plugin = ANY(CAST(:plugins AS uuid[])) AND {ACTIVE} ORDER BY plugin, id FOR UPDATE OF i
"""
TYPES_SINCE = """
SELECT DISTINCT type FROM ingest.incidents
WHERE plugin = CAST(:plugin AS uuid) AND generation = :generation AND coalesce(reopen_time, open_time) >= :since
ORDER BY type
"""
# What was wrong with a plugin last, of one type, whether that is over or not.
LAST_OF = f"""
{VIEW} WHERE plugin = CAST(:plugin AS uuid) AND type = :type
ORDER BY coalesce(i.reopen_time, i.open_time) DESC LIMIT 1 FOR UPDATE OF i
"""
GET = f"{VIEW} WHERE id = CAST(:id AS uuid)"
LOCK = GET + " FOR UPDATE OF i"
LIST = f"""
{VIEW}
WHERE (:plugin = '' OR plugin = CAST(nullif(:plugin, '') AS uuid)) AND (:state = '' OR state = :state)
  AND (:type = '' OR type = :type) AND (CAST(:severity AS integer) = 0 OR severity = :severity)
  AND (:after = '' OR id < CAST(nullif(:after, '') AS uuid))
ORDER BY id DESC LIMIT :limit
"""
OVERDUE = f"""
SELECT id, plugin FROM ingest.incidents i {STORM}
WHERE state IN ('open', 'in_progress') AND (storm IS NULL OR storm_end_time IS NOT NULL)
  AND (coalesce(greatest(act_by_time, storm_end_time + (act_by_time - coalesce(reopen_time, open_time))), act_by_time)
       <= :now OR (state = 'open' AND resolution <> ''))
UNION ALL
SELECT id, plugin FROM ingest.incidents i {STORM}
WHERE state = 'flapping' AND escalate_time IS NULL AND (storm IS NULL OR storm_end_time IS NOT NULL)
LIMIT :limit
"""
CALM = """
SELECT id, plugin FROM ingest.incidents WHERE state = 'flapping' AND calm_time <= :before
ORDER BY calm_time LIMIT :limit
"""


async def insert(tx: Transaction, incident: Incident) -> bool:
    """Saves a new incident; False when one of its type is active already."""
    own = ("id", "plugin", "merchant", "package", "type", "open_time")
    values = {name: getattr(incident, name) for name in own}
    traces = {"trace_id": incident.trace_id, "traceparent": incident.traceparent}
    return await tx.run(INSERT, **values, **traces, **_changing(incident)) == 1


async def save(tx: Transaction, incident: Incident) -> None:
    """Writes what may have changed."""
    await tx.run(SAVE, id=incident.id, **_changing(incident))


async def active_of(tx: Transaction, plugins: Sequence[str]) -> list[Incident]:
    """Active incidents of some plugins, locked until the commit."""
    return [_incident(row) for row in await tx.all(ACTIVE_OF, plugins=list(plugins))]


async def types_since(tx: Transaction, plugin: str, generation: int, since: datetime) -> list[str]:
    """Types of incidents that were opened about a generation of a plugin since then."""
    rows = await tx.all(TYPES_SINCE, plugin=plugin, generation=generation, since=since)
    return [row.type for row in rows]


async def last_of(tx: Transaction, plugin: str, type_: str) -> Incident | None:
    """The newest incident of a plugin and type, locked until the commit."""
    row = await tx.first(LAST_OF, plugin=plugin, type=type_)
    return None if row is None else _incident(row)


async def get(tx: Transaction, id_: str) -> Incident | None:
    """One incident."""
    row = await tx.first(GET, id=id_)
    return None if row is None else _incident(row)


async def lock(tx: Transaction, id_: str) -> Incident | None:
    """One incident, locked until the commit."""
    row = await tx.first(LOCK, id=id_)
    return None if row is None else _incident(row)


async def page(tx: Transaction, filters: dict[str, Any], page: Page) -> list[Incident]:
    """Incidents newest first."""
    return [_incident(row) for row in await tx.all(LIST, **after(page), **filters)]


async def overdue(tx: Transaction, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Incidents (with their plugins) whose time to act has passed."""
    return [(str(row.id), str(row.plugin)) for row in await tx.all(OVERDUE, now=now, limit=limit)]


async def calm(tx: Transaction, before: datetime, limit: int) -> list[tuple[str, str]]:
    """Flapping incidents (with their plugins) that are calm since `before`."""
    return [(str(row.id), str(row.plugin)) for row in await tx.all(CALM, before=before, limit=limit)]


def _changing(incident: Incident) -> dict[str, Any]:
    same = (
        "round", "first_bad_beat_time", "act_by_time", "update_time", "end_time", "attempt", "permitted", "action",
        "remedy", "healthy_windows", "resolution", *_REOPENING,
    )  # fmt: skip
    return {
        "severity": int(incident.severity),
        "state": str(incident.state),
        "tried": json.dumps([asdict(tried) for tried in incident.tried]),
        "evidence": json.dumps(asdict(incident.evidence)),
        "release": incident.release,
        "generation": incident.generation,
        **{name: getattr(incident, name) for name in same},
    }


def _incident(row: Any) -> Incident:
    evidence = row.evidence
    evidence["failing_inputs"] = tuple(evidence["failing_inputs"])
    return Incident(
        id=str(row.id),
        plugin=str(row.plugin),
        severity=Severity(row.severity),
        state=State(row.state),
        tried=tried_from(row.tried),
        evidence=Evidence(**evidence),
        storm=str(row.storm or ""),
        **{name: getattr(row, name) for name in _SAME},
    )


_REOPENING = (
    "reopened", "reopen_time", "calm_time", "escalate_time", "closed_by", "healed_generation", "healed_decision",
)  # fmt: skip
_SAME = (
    "merchant", "package", "type", "round", "open_time", "first_bad_beat_time", "update_time", "act_by_time",
    "end_time", "attempt", "permitted", "action", "remedy", "release", "generation", "healthy_windows", "resolution",
    "trace_id", "traceparent", "storm_end_time", *_REOPENING,
)  # fmt: skip
