"""Checkers of the invariants, over the database of a plane that has come to rest (DESIGN, section 6).

Each returns complaints in words; an empty list means that it holds. They read as the owner, since no service may.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg

from prunella.v1.events_pb2 import Event
from services.ops.audit import comparison, note
from services.ops.audit.merkle import Peaks
from services.ops.store import audit

OPEN_TWICE = """
SELECT plugin, type, count(*) AS open FROM ingest.incidents
WHERE state IN ('open', 'in_progress', 'escalated', 'flapping')
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
PARKED = "SELECT consumer, fact, reason FROM bus.dead_letters WHERE redrive_time IS NULL"
# Whatever a reaction starts is keyed by its cause: two of one kind mean that a fact had its effect twice.
TWICE = {
    "decisions of a round": """
        SELECT incident || ' round ' || round AS what, count(*) FROM decider.decisions
        GROUP BY 1 HAVING count(*) > 1""",
    "attempts of a decision": "SELECT decision AS what, count(*) FROM patcher.attempts GROUP BY 1 HAVING count(*) > 1",
    "entries of a fact on the timeline": """
        SELECT event_id::text AS what, count(*) FROM ops.timeline GROUP BY 1 HAVING count(*) > 1""",
    "ends of an incident": """
        SELECT incident AS what, count(*) FILTER (WHERE fact <> 'incident_reopened') AS count FROM bus.facts
        WHERE fact IN ('incident_mitigated', 'incident_closed', 'incident_reopened') GROUP BY 1
        HAVING count(*) FILTER (WHERE fact <> 'incident_reopened')
             > 1 + count(*) FILTER (WHERE fact = 'incident_reopened')""",
}
# Times are of transactions that may still wait for a lock, so a second at both ends is nobody's fault.
SWITCHES = "SELECT time, fact, payload FROM bus.facts WHERE fact LIKE 'kill_switch_%' ORDER BY time, id"
PERMITS = """
SELECT 'permit ' || p.permit AS what, p.create_time AS time, a.merchant, p.plugin, a.action
FROM patcher.permits p LEFT JOIN patcher.attempts a ON a.id = p.attempt WHERE p.granted
"""
# What switches (update, config_update, restart) and was handed to a client that polls; and what was applied of it.
HAND_OUTS = """
SELECT 'command ' || c.id || ' handed out' AS what, c.hand_out_time AS time, c.merchant, c.plugin::text, a.action
FROM ingest.commands c LEFT JOIN patcher.attempts a ON a.id = c.attempt
WHERE c.hand_out_time IS NOT NULL AND c.kind IN (1, 3, 4)
"""
UNPERMITTED = """
SELECT c.id FROM ingest.receipts r JOIN ingest.commands c ON c.id = r.command
WHERE r.outcome = 1 AND c.kind IN (1, 3, 4)
  AND NOT EXISTS (SELECT 1 FROM patcher.permits p WHERE p.command = c.id::text AND p.granted)
"""
SLACK = timedelta(seconds=1)
TWO_AT_ONCE = """
SELECT a.id AS one, b.id AS other, a.plugin FROM patcher.attempts a JOIN patcher.attempts b
  ON a.plugin = b.plugin AND a.id < b.id AND a.permitted AND b.permitted
WHERE tstzrange(a.permit_time, coalesce(a.end_time, 'infinity'))
   && tstzrange(b.permit_time, coalesce(b.end_time, 'infinity'))
"""
# Whose plan needed people, with every answer that people gave about exactly this plan.
PLANNED = """
SELECT a.id, p.detail FROM patcher.attempts a LEFT JOIN patcher.approvals p
  ON p.subject = 'attempts/' || a.id AND p.plan_hash = a.plan_hash AND p.status <> 'open'
WHERE a.permitted AND a.plan_hash <> ''
"""
UNSIGNED = """
SELECT a.id, a.to_release, a.digest FROM patcher.attempts a WHERE a.permitted AND a.action = 'patch'
  AND NOT EXISTS (SELECT 1 FROM patcher.releases r
                  WHERE (r.package, r.version, r.digest) = (a.package, a.to_release, a.digest))
"""
UNENDED = """
SELECT a.id, a.state FROM patcher.attempts a WHERE a.permitted
  AND a.state NOT IN ('success', 'rolled_back', 'rollback_failed', 'unconfirmed')
"""
# COMMITTED is 2 and REVERTED is 3 (agent.proto, CommandOutcome).
CONTRADICTED = """
SELECT a.id, a.state, g.final_outcome FROM patcher.attempts a
JOIN ingest.generations g ON g.plugin::text = a.plugin AND g.generation = a.generation AND g.attempt = a.id
WHERE (a.state = 'success' AND g.final_outcome IS DISTINCT FROM 2)
   OR (a.state = 'rolled_back' AND g.final_outcome IS DISTINCT FROM 3)
"""
LIVE = """
SELECT (SELECT count(*) FROM patcher.attempts WHERE state NOT IN
          ('success', 'rolled_back', 'rollback_failed', 'unconfirmed', 'failed', 'cancelled', 'refused'))
     + (SELECT count(*) FROM ingest.incidents WHERE state IN ('open', 'in_progress'))
"""
TOLD = """
SELECT payload FROM bus.facts
WHERE fact IN ('tasks_claimed', 'tasks_finished', 'tasks_recovered', 'task_retried', 'task_cancelled')
"""
TASKS = """
SELECT t.id::text, t.state, t.attempts, t.max_attempts, t.crashes, t.token,
  (SELECT count(*) FROM queue.history h WHERE h.task = t.id AND h.report = t.report AND h.outcome = 'COMPLETED')
    AS completions,
  (SELECT count(*) FROM queue.history h WHERE h.task = t.id AND h.report = t.report
     AND h.outcome IN ('LEASE_LOST', 'RESET', 'REVOKED')) AS taken_back,
  (SELECT count(*) FROM queue.history h WHERE h.task = t.id AND h.report = t.report AND NOT h.success
     AND h.outcome NOT IN ('LEASE_LOST', 'RESET', 'REVOKED', 'NO_WORKER', 'RECURRED', 'RETRIED', 'CANCELLED'))
    AS failures
FROM queue.tasks t
"""


UNLOGGED = """
SELECT f.id, f.fact FROM bus.facts f
WHERE NOT EXISTS (SELECT 1 FROM ops.audit_entries e WHERE e.event_id = f.id) LIMIT 20
"""
LOGGED = """
SELECT e.index, e.event_id, e.leaf_hash, e.entry, f.id, f.time, f.source, f.fact, f.actor, f.plugin, f.merchant,
  f.incident, f.reason, f.cause_id, f.traceparent, f.payload
FROM ops.audit_entries e LEFT JOIN bus.facts f ON f.id = e.event_id ORDER BY e.index
"""


@dataclass
class Leases:
    """What was told of one task: who got it under which token, how each try ended, what people did."""

    taken: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    by_people: int = 0


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
    """3: no permit, and no hand-out to a client that polls, while a switch that covers it was engaged; and nothing
    applied without a permit. (Exactly, with commits racing: commit_order.py.)
    """
    stops = await _stops(connection)
    found = []
    for row in [*await connection.fetch(PERMITS), *await connection.fetch(HAND_OUTS)]:
        scopes = {"global", f"merchants/{row['merchant']}", f"plugins/{row['plugin']}", f"actions/{row['action']}"}
        found += [
            f"{row['what']} under the kill switch {scope}"
            for scope, since, until in stops
            if scope in scopes and row["time"] > since + SLACK and (until is None or row["time"] < until - SLACK)
        ]
    unpermitted = await connection.fetch(UNPERMITTED)
    return found + [f"command {row['id']} was applied without a permit" for row in unpermitted]


async def _stops(connection: asyncpg.Connection) -> list[tuple[str, datetime, datetime | None]]:
    """From when to when each scope was stopped."""
    stops: list[tuple[str, datetime, datetime | None]] = []
    open_since: dict[str, datetime] = {}
    for row in await connection.fetch(SWITCHES):
        event = Event.FromString(row["payload"])
        scope = getattr(event, row["fact"]).scope
        if row["fact"] == "kill_switch_engaged":
            open_since.setdefault(scope, row["time"])
        elif scope in open_since:
            stops.append((scope, open_since.pop(scope), row["time"]))
    return stops + [(scope, since, None) for scope, since in open_since.items()]


async def one_attempt(connection: asyncpg.Connection) -> list[str]:
    """4: no plugin has two attempts with a permit at once. (Slots and their budget: commit_order.py.)"""
    rows = await connection.fetch(TWO_AT_ONCE)
    return [f"attempts {row['one']} and {row['other']} of {row['plugin']} overlap" for row in rows]


async def only_approved(connection: asyncpg.Connection) -> list[str]:
    """6: what was permitted is a published release, approved by enough distinct people other than its authors."""
    found = [f"attempt {row['id']} brings no release" for row in await connection.fetch(UNSIGNED)]
    for row in await connection.fetch(PLANNED):
        asked = json.loads(row["detail"] or "{}")
        others = {*asked.get("authors", ()), asked.get("proposer", "")}
        said = {vote["operator"].strip().casefold() for vote in asked.get("votes", ()) if vote["approved"]}
        said -= {name.casefold() for name in others}
        if len(said) < asked.get("quorum", 1):
            found.append(f"attempt {row['id']} was permitted with the yes of {len(said)}: {', '.join(sorted(said))}")
    return found


async def every_apply_ends(connection: asyncpg.Connection) -> list[str]:
    """5: every permitted attempt has an end, and the agent's final word is the database's."""
    unended = [f"attempt {row['id']} stands at {row['state']}" for row in await connection.fetch(UNENDED)]
    contradicted = await connection.fetch(CONTRADICTED)
    return unended + [
        f"attempt {row['id']} is {row['state']}, the agent said {row['final_outcome']}" for row in contradicted
    ]


async def one_owner(connection: asyncpg.Connection, recorded: Iterable[tuple[str, int, str]] = ()) -> list[str]:
    """7: a task has one owner with a valid token, nothing is recorded under a stale one, each is done once.

    `recorded` is what workers were told, (task, token, worker): a fence that lets a stale word pass says yes to one
    whose token ended otherwise, and the database alone cannot show that.
    """
    told = leases([Event.FromString(row["payload"]) for row in await connection.fetch(TOLD)])
    found = [complaint for task, one in told.items() for complaint in _owners(task, one)]
    for task, token, worker in recorded:
        one = told[task]
        if worker not in one.taken[token]:
            found.append(f"task {task}: {worker} ended it under token {token}, which it never had")
        elif not any(end != "taken back" for end in one.ends[token]):
            found.append(f"task {task}: {worker} was told yes under token {token}, which ended otherwise")
    for row in await connection.fetch(TASKS):
        found += _recorded(row, told[row["id"]])
    return found


def leases(events: Iterable[Event]) -> dict[str, Leases]:
    """The leases of every task, from the facts."""
    found: dict[str, Leases] = defaultdict(Leases)
    for event in events:
        fact = event.WhichOneof("fact")
        if fact == "tasks_claimed":
            for lease in event.tasks_claimed.leases:
                found[lease.task].taken[lease.token].append(event.tasks_claimed.worker)
        elif fact == "tasks_finished":
            for end in event.tasks_finished.outcomes:
                found[end.task].ends[end.token].append(end.state)
        elif fact == "tasks_recovered":
            for end in event.tasks_recovered.outcomes:
                # Without a token nobody held it: no worker had its tools.
                if end.token:
                    found[end.task].ends[end.token].append("taken back")
        else:
            found[getattr(event, str(fact)).task].by_people += 1
    return found


def _owners(task: str, told: Leases) -> list[str]:
    found = [
        f"task {task}: token {token} was given to {', '.join(workers)}"
        for token, workers in told.taken.items()
        if len(workers) > 1
    ]
    for token, ends in told.ends.items():
        if not told.taken[token]:
            found.append(f"task {task}: ended under token {token}, which nobody had")
        if len(ends) > 1:
            found.append(f"task {task}: token {token} ended {len(ends)} times: {', '.join(ends)}")
    held = [token for token, workers in told.taken.items() if workers and not told.ends[token]]
    # The last lease may still be held; what a person took out has no end of its own.
    doubtful = [token for token in held if token < max(told.taken)]
    if len(doubtful) > told.by_people:
        found.append(f"task {task}: leased again while tokens {doubtful} were held: two owners")
    done = Counter(end for ends in told.ends.values() for end in ends)["completed"]
    if done > 1 + told.by_people:
        found.append(f"task {task}: done {done} times")
    return found


def _recorded(row: Any, told: Leases) -> list[str]:
    ends = Counter(end for ends in told.ends.values() for end in ends)
    failures = ends["retrying"] + ends["failed"]
    found = []
    pairs = {
        "completions": (row["completions"], ends["completed"]),
        "failed tries": (row["failures"], failures),
        "tries taken back": (row["taken_back"], ends["taken back"]),
    }
    if not told.by_people:
        pairs["attempts"] = (row["attempts"], failures)
    for what, (written, facts) in pairs.items():
        if written != facts:
            found.append(f"task {row['id']}: {written} {what} are written, {facts} were told")
    if row["attempts"] > row["max_attempts"]:
        found.append(f"task {row['id']}: {row['attempts']} attempts, at most {row['max_attempts']} are allowed")
    if row["token"] < max(told.taken, default=0):
        found.append(f"task {row['id']}: its token fell to {row['token']}")
    return found


async def every_fact_logged(connection: asyncpg.Connection) -> list[str]:
    """8: every fact is in the audit log once, as it was told, in the tree whose every checkpoint is signed."""
    found = [f"{row['fact']} {row['id']} is not in the audit log" for row in await connection.fetch(UNLOGGED)]
    signed = {row["size"]: row for row in await connection.fetch("SELECT size, root, note FROM ops.audit_checkpoints")}
    keys = [note.read_key(row["key"]) for row in await connection.fetch("SELECT key FROM ops.audit_keys")]
    peaks = Peaks()
    for row in await connection.fetch(LOGGED):
        told = audit.fact(SimpleNamespace(**dict(row))) if row["id"] else None
        why = comparison.mismatch(row["index"], str(row["event_id"]), row["leaf_hash"], row["entry"], told)
        found += [why] if why else []
        peaks, _ = peaks.append([row["leaf_hash"]])
        if (kept := signed.get(peaks.size)) and not (
            note.read(kept["note"]).signed_by(keys) and kept["root"] == note.read(kept["note"]).root == peaks.root
        ):
            found.append(f"the audit log is not what the checkpoint of {peaks.size} entries signed")
    return found


async def at_rest(connection: asyncpg.Connection, consumers: Mapping[str, Sequence[str]]) -> bool:
    """Whether nothing is under way and every fact has arrived."""
    if await connection.fetchval(LIVE):
        return False
    for consumer, facts in consumers.items():
        if await connection.fetch(MISSED, consumer, facts):
            return False
    return "ops" not in consumers or not await connection.fetch(UNLOGGED)


async def complaints(url: str, consumers: Mapping[str, Sequence[str]], anomalies: Sequence[Any] = ()) -> list[str]:
    """All of them at once."""
    connection = await asyncpg.connect(url)
    try:
        return [
            *await one_incident(connection),
            *await anomalies_covered(connection, anomalies),
            *await one_effect(connection, consumers),
            *await no_apply_after_kill(connection),
            *await one_attempt(connection),
            *await only_approved(connection),
            *await every_apply_ends(connection),
            *await one_owner(connection),
            *await every_fact_logged(connection),
        ]
    finally:
        await connection.close()
