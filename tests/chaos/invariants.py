"""Checkers of the invariants, over the database of a plane that has come to rest (DESIGN, section 6).

Each returns complaints in words; an empty list means that it holds. They read as the owner, since no service may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

OPEN_TWICE = """
SELECT plugin, type, count(*) AS open FROM ingest.incidents WHERE state IN ('open', 'in_progress', 'escalated')
GROUP BY plugin, type HAVING count(*) > 1
"""
OVERLAPPING = """
SELECT a.id AS one, b.id AS other FROM ingest.incidents a JOIN ingest.incidents b
  ON a.plugin = b.plugin AND a.type = b.type AND a.id < b.id
WHERE tstzrange(a.open_time, coalesce(a.end_time, 'infinity'))
   && tstzrange(b.open_time, coalesce(b.end_time, 'infinity'))
"""
MISSED = """
SELECT f.id, f.fact FROM bus.facts f WHERE f.fact = ANY($2::text[])
  AND NOT EXISTS (SELECT 1 FROM bus.inbox i WHERE i.consumer = $1 AND i.event_id = f.id)
"""
PARKED = "SELECT consumer, fact, reason FROM bus.dead_letter WHERE redriven_at IS NULL"
# Whatever a reaction starts is keyed by its cause: two of one kind mean that a fact had its effect twice.
TWICE = {
    "decisions of a round": """
        SELECT incident || ' round ' || round AS what, count(*) FROM decider.decisions
        GROUP BY 1 HAVING count(*) > 1""",
    "attempts of a decision": "SELECT decision AS what, count(*) FROM patcher.attempts GROUP BY 1 HAVING count(*) > 1",
    "entries of a fact on the timeline": """
        SELECT event_id::text AS what, count(*) FROM ops.timeline GROUP BY 1 HAVING count(*) > 1""",
    "ends of an incident": """
        SELECT incident AS what, count(*) FROM bus.facts WHERE fact IN ('incident_mitigated', 'incident_closed')
        GROUP BY 1 HAVING count(*) > 1""",
}
PERMITS = """
SELECT p.permit, k.fact AS switch FROM patcher.permits p, bus.facts k
WHERE p.granted AND k.fact = 'kill_switch_engaged' AND p.create_time > k.time + interval '1 second'
  AND p.create_time < coalesce((SELECT min(r.time) FROM bus.facts r
                                WHERE r.fact = 'kill_switch_released' AND r.time > k.time), 'infinity')
  AND $1::boolean
"""
UNENDED = """
SELECT a.id, a.state FROM patcher.attempts a WHERE a.permitted
  AND a.state NOT IN ('success', 'rolled_back', 'rollback_failed', 'unconfirmed')
"""
# COMMITTED is 2 and REVERTED is 3 (agent.proto, CommandOutcome).
CONTRADICTED = """
SELECT a.id, a.state, g.final FROM patcher.attempts a
JOIN ingest.generations g ON g.plugin::text = a.plugin AND g.generation = a.generation AND g.attempt = a.id
WHERE (a.state = 'success' AND g.final IS DISTINCT FROM 2) OR (a.state = 'rolled_back' AND g.final IS DISTINCT FROM 3)
"""
LIVE = """
SELECT (SELECT count(*) FROM patcher.attempts WHERE state NOT IN
          ('success', 'rolled_back', 'rollback_failed', 'unconfirmed', 'failed', 'cancelled', 'refused'))
     + (SELECT count(*) FROM ingest.incidents WHERE state IN ('open', 'in_progress'))
"""


async def one_incident(connection: asyncpg.Connection) -> list[str]:
    """1: at most one open incident per plugin and type, at any time in its history."""
    twice = [f"{row['open']} open {row['type']} of {row['plugin']}" for row in await connection.fetch(OPEN_TWICE)]
    overlapping = await connection.fetch(OVERLAPPING)
    return twice + [f"incidents {row['one']} and {row['other']} overlap" for row in overlapping]


async def anomalies_covered(connection: asyncpg.Connection, anomalies: Sequence[tuple[str, str]]) -> list[str]:
    """1: every (plugin, type) that was in an acknowledged beat has an incident."""
    rows = await connection.fetch("SELECT DISTINCT plugin::text, type FROM ingest.incidents")
    known = {(row["plugin"], row["type"]) for row in rows}
    return [f"no incident covers {kind} of {plugin}" for plugin, kind in anomalies if (plugin, kind) not in known]


async def one_effect(connection: asyncpg.Connection, consumers: Mapping[str, Sequence[str]]) -> list[str]:
    """2: every fact has an inbox row in each consumer that wants it, and its effect once."""
    found = [f"parked: {row['fact']} of {row['consumer']}: {row['reason']}" for row in await connection.fetch(PARKED)]
    for consumer, facts in consumers.items():
        found += [
            f"{consumer} missed {row['fact']} {row['id']}" for row in await connection.fetch(MISSED, consumer, facts)
        ]
    for name, statement in TWICE.items():
        found += [f"{row['count']} {name}: {row['what']}" for row in await connection.fetch(statement)]
    return found


async def no_apply_after_kill(connection: asyncpg.Connection) -> list[str]:
    """3: no permit of the global switch's time. (Exactly, with commits racing: test_patcher_authorize.py.)"""
    return [f"permit {row['permit']} under a kill switch" for row in await connection.fetch(PERMITS, True)]


async def every_apply_ends(connection: asyncpg.Connection) -> list[str]:
    """5: every permitted attempt has an end, and the agent's final word is the database's."""
    unended = [f"attempt {row['id']} stands at {row['state']}" for row in await connection.fetch(UNENDED)]
    contradicted = await connection.fetch(CONTRADICTED)
    return unended + [f"attempt {row['id']} is {row['state']}, the agent said {row['final']}" for row in contradicted]


async def at_rest(connection: asyncpg.Connection, consumers: Mapping[str, Sequence[str]]) -> bool:
    """Whether nothing is under way and every fact has arrived."""
    if await connection.fetchval(LIVE):
        return False
    for consumer, facts in consumers.items():
        if await connection.fetch(MISSED, consumer, facts):
            return False
    return True


async def complaints(url: str, consumers: Mapping[str, Sequence[str]], anomalies: Sequence[Any] = ()) -> list[str]:
    """All of them at once."""
    connection = await asyncpg.connect(url)
    try:
        return [
            *await one_incident(connection),
            *await anomalies_covered(connection, anomalies),
            *await one_effect(connection, consumers),
            *await no_apply_after_kill(connection),
            *await every_apply_ends(connection),
        ]
    finally:
        await connection.close()
