"""Rows of attempts ⇄ dataclasses.

Rule: the row is a projection of the append-only history (`attempt_history`), and is only written together with it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from services.patcher.attempt import LIVE, Attempt, Bounds, Change, Staged, State
from services.patcher.evidence import Probe
from services.patcher.policy import PLUGIN_BUSY, Action, Severity
from services.patcher.store import attempt_history
from services.patcher.verdict import Result, Verdict

DETAIL = ("bounds", "staging", "verdict", "probe", "failing_inputs", "named")
PLAIN = tuple(field.name for field in fields(Attempt) if field.name not in DETAIL)
FIXED = frozenset({
    "id", "incident", "decision", "plugin", "merchant", "package", "action", "severity", "round", "create_time",
    "traceparent", "rollout", "author",
})  # fmt: skip
COLUMNS = ", ".join(PLAIN)
MOVING = tuple(name for name in PLAIN if name not in FIXED)

INSERT = f"""
INSERT INTO patcher.attempts ({COLUMNS}, staged, detail)
VALUES ({", ".join(f":{name}" for name in PLAIN)}, :staged, CAST(:detail AS jsonb))
"""
UPDATE = f"""
UPDATE patcher.attempts SET {", ".join(f"{name} = :{name}" for name in MOVING)}, staged = :staged,
    detail = CAST(:detail AS jsonb)
WHERE id = :id
"""
GET = f"SELECT {COLUMNS}, detail FROM patcher.attempts WHERE id = :id"
INCIDENT_OVER = "SELECT patcher.incident_over(:incident, :author, :since)"
OF_DECISION = "SELECT id FROM patcher.attempts WHERE decision = :decision"
AT_ONCE = 100
LIVE_STATES = ", ".join(f"'{state}'" for state in sorted(LIVE))
BUSY = f"""
SELECT {COLUMNS}, detail FROM patcher.attempts
WHERE plugin = :plugin AND id <> :id AND state IN ({LIVE_STATES}) AND held_by <> '{PLUGIN_BUSY}'
"""
LOCK_PLUGIN = "SELECT pg_advisory_xact_lock(hashtextextended('prunella attempt of ' || :plugin, 0))"
LIST = f"""
SELECT {COLUMNS}, detail FROM patcher.attempts
WHERE (:incident = '' OR incident = :incident) AND (:plugin = '' OR plugin = :plugin)
  AND (:state = '' OR state = :state) AND (:after = '' OR id < :after)
ORDER BY id DESC LIMIT :limit
"""
OF = f"SELECT id FROM patcher.attempts WHERE {{column}} = :value AND state IN ({LIVE_STATES}) ORDER BY id LIMIT 100"
HELD = f"""
SELECT {COLUMNS}, detail FROM patcher.attempts
WHERE state IN ('pending', 'staged') AND held_by <> '' ORDER BY update_time LIMIT 1000
"""
NEXT_FOR_SLOT = """
SELECT a.id FROM patcher.attempts a
WHERE a.package = :package AND a.state IN ('pending', 'staged') AND a.held_by = 'BUDGET'
  AND NOT EXISTS (SELECT 1 FROM patcher.errands e WHERE e.subject = a.id AND e.kind = 'resume' AND e.state = 'pending')
ORDER BY a.update_time LIMIT 1
"""
WAITING_FOR_AGENT = f"""
SELECT id FROM patcher.attempts
WHERE state = 'applying' AND NOT permitted
  AND (:scope = 'global' OR 'merchants/' || merchant = :scope OR 'plugins/' || plugin = :scope
       OR 'actions/' || action = :scope OR 'storms/' || package || '/' || symptom = :scope)
ORDER BY id LIMIT {AT_ONCE}
"""
RECENT = f"""
SELECT {COLUMNS}, detail FROM patcher.attempts
WHERE permitted AND permit_time >= :since AND (:package = '' OR package = :package)
  AND state IN ('success', 'applying', 'probation', 'committing', 'rolling_back', 'unconfirmed')
ORDER BY id DESC LIMIT :limit
"""
DECIDED = f"SELECT {COLUMNS}, detail FROM patcher.attempts WHERE decision <> '' ORDER BY id DESC LIMIT :limit"
IN_STATE = f"SELECT {COLUMNS}, detail FROM patcher.attempts WHERE state = :state ORDER BY update_time LIMIT 500"
OVERDUE = f"""
SELECT id FROM patcher.attempts WHERE state IN ({LIVE_STATES}) AND state <> 'probation' AND deadline_time <= :now
ORDER BY deadline_time LIMIT 200
"""
IN_FLIGHT = f"""
SELECT {COLUMNS}, detail FROM patcher.attempts
WHERE (state = 'probation' OR (permitted AND state = 'applying') OR id IN (
         SELECT attempt FROM patcher.permits WHERE granted AND create_time >= :since))
  AND (:scope = 'global' OR 'merchants/' || merchant = :scope OR 'plugins/' || plugin = :scope
       OR 'actions/' || action = :scope)
  AND end_time IS NULL
ORDER BY id LIMIT 500
"""
PREVIOUS = """
SELECT from_release FROM patcher.attempts
WHERE plugin = :plugin AND state = 'success' AND to_release = :release AND from_release NOT IN ('', :release)
ORDER BY id DESC LIMIT 1
"""


def read(row: Any) -> Attempt:
    """The attempt in a row."""
    detail = row.detail
    staging, verdict = detail["staging"], detail["verdict"]
    values = {name: getattr(row, name) for name in PLAIN}
    return Attempt(
        **values
        | {
            "action": Action(row.action),
            "severity": Severity(row.severity),
            "state": State(row.state),
            "bounds": Bounds(**detail["bounds"]),
            "staging": Staged(**staging | {"failures": tuple(staging["failures"])}) if staging else None,
            "verdict": Verdict(**verdict | {"result": Result(verdict["result"])}) if verdict else None,
            "probe": Probe(detail["probe"]),
            "named": detail["named"],
            "failing_inputs": tuple(detail["failing_inputs"]),
        }
    )


def write(attempt: Attempt) -> dict[str, Any]:
    """The values of a row."""
    detail = {
        "bounds": asdict(attempt.bounds),
        "staging": asdict(attempt.staging) if attempt.staging else None,
        "verdict": asdict(attempt.verdict) if attempt.verdict else None,
        "probe": attempt.probe.value,
        "named": attempt.named,
        "failing_inputs": list(attempt.failing_inputs),
    }
    plain = {"action": attempt.action.value, "severity": int(attempt.severity), "state": attempt.state.value}
    staged = attempt.staging.passed if attempt.staging else None
    values = {name: getattr(attempt, name) for name in PLAIN} | plain
    return values | {"staged": staged, "detail": json.dumps(detail)}


async def insert(tx: Transaction, change: Change) -> None:
    """Saves a new attempt with its first steps. Raises IntegrityError for a decision or plugin that has one."""
    await tx.run(INSERT, **write(change.attempt))
    await attempt_history.append(tx, change)


async def save(tx: Transaction, change: Change) -> None:
    """Saves a changed attempt with its steps."""
    values = write(change.attempt)
    await tx.run(UPDATE, **{name: value for name, value in values.items() if name == "id" or name not in FIXED})
    await attempt_history.append(tx, change)


async def get(tx: Transaction, attempt: str, *, lock: bool = False) -> Attempt | None:
    """One attempt; locked until the end of the transaction when asked."""
    row = await tx.first(f"{GET} FOR UPDATE" if lock else GET, id=attempt)
    return read(row) if row else None


async def incident_over(tx: Transaction, attempt: Attempt) -> bool:
    """Whether the incident of an attempt has ended, or was handed to people, by what ingest has committed."""
    about = {"incident": attempt.incident, "author": attempt.author, "since": attempt.create_time}
    return bool(attempt.incident and await tx.value(INCIDENT_OVER, **about))


async def of_decision(tx: Transaction, decision: str) -> str:
    """The attempt of a decision, or an empty text."""
    return str(await tx.value(OF_DECISION, decision=decision) or "")


async def occupying(tx: Transaction, plugin: str, but: str, *, lock: bool = True) -> Attempt | None:
    """The other attempt that has the plugin; under the lock nobody else takes it until the transaction ends."""
    if lock:
        await tx.run(LOCK_PLUGIN, plugin=plugin)
    row = await tx.first(BUSY, plugin=plugin, id=but)
    return read(row) if row else None


async def page(
    tx: Transaction, *, incident: str, plugin: str, state: str, after: Sequence[Any] | None, limit: int
) -> list[Attempt]:
    """Attempts, newest first; `after` is the id of the last one seen."""
    before = str(after[0]) if after else ""
    rows = await tx.all(LIST, incident=incident, plugin=plugin, state=state, after=before, limit=limit)
    return [read(row) for row in rows]


async def live_of(tx: Transaction, column: str, value: str) -> list[str]:
    """Live attempts of an incident or plugin."""
    assert column in {"incident", "plugin"}
    return [row.id for row in await tx.all(OF.format(column=column), value=value)]


async def held(tx: Transaction) -> list[Attempt]:
    """Attempts that wait for a gate, longest first."""
    return [read(row) for row in await tx.all(HELD)]


async def in_state(tx: Transaction, state: State) -> list[Attempt]:
    """Attempts in a state, longest untouched first."""
    return [read(row) for row in await tx.all(IN_STATE, state=state.value)]


async def next_for_slot(tx: Transaction, package: str) -> str:
    """The attempt of a package that has waited longest for a slot and was not called yet; empty when none waits."""
    return str(await tx.value(NEXT_FOR_SLOT, package=package) or "")


async def waiting_for_agent(tx: Transaction, scope: str) -> list[str]:
    """Attempts in a scope (of a kill switch, or storms/{package}/{type}) whose command has no permit yet."""
    return [row.id for row in await tx.all(WAITING_FOR_AGENT, scope=scope)]


async def recent(tx: Transaction, since: datetime, package: str, limit: int) -> list[Attempt]:
    """Attempts permitted since a moment that are in force or under way, newest first."""
    return [read(row) for row in await tx.all(RECENT, since=since, package=package, limit=limit)]


async def decided(tx: Transaction, limit: int) -> list[Attempt]:
    """Attempts that carry out decisions, newest first."""
    return [read(row) for row in await tx.all(DECIDED, limit=limit)]


async def overdue(tx: Transaction, now: datetime) -> list[str]:
    """Attempts whose state has lasted too long."""
    return [row.id for row in await tx.all(OVERDUE, now=now)]


async def in_flight(tx: Transaction, scope: str, since: datetime) -> list[Attempt]:
    """Attempts in a scope with a permit since then or in probation."""
    return [read(row) for row in await tx.all(IN_FLIGHT, scope=scope, since=since)]


async def previous_release(tx: Transaction, plugin: str, release: str) -> str:
    """What the plugin ran before the last attempt that brought it this release; empty when unknown."""
    return str(await tx.value(PREVIOUS, plugin=plugin, release=release) or "")
