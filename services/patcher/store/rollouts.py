"""Rows of rollouts and their history ⇄ dataclasses.

Rule: a rollout's row is the lock of everything that belongs to it: members, slots and control group change only in a
transaction that holds it. The row is a projection of the append-only history, and is only written together with it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from libs.common.database import Transaction
from services.patcher.rollout import (
    Bounds,
    Change,
    Concurrency,
    Counts,
    Judgement,
    MemberState,
    Rollout,
    Rules,
    State,
    Tally,
    Transition,
)
from services.patcher.verdict import Result

PLAIN = (
    "id",
    "package",
    "target",
    "create_time",
    "update_time",
    "deadline_time",
    "wave",
    "reason",
    "closed",
    "end_time",
)
COLUMNS = f"{', '.join(PLAIN)}, state, config, digest, author, traceparent, settings, detail"

INSERT = f"""
INSERT INTO patcher.rollouts ({COLUMNS})
VALUES ({", ".join(f":{name}" for name in PLAIN)}, :state, :config, :digest, :author,
        :traceparent, :settings, CAST(:detail AS jsonb))
"""
UPDATE = """
UPDATE patcher.rollouts SET state = :state, wave = :wave, reason = :reason, closed = :closed,
    deadline_time = :deadline_time, update_time = :update_time, end_time = :end_time,
    detail = CAST(:detail AS jsonb)
WHERE id = :id
"""
GET = f"SELECT {COLUMNS} FROM patcher.rollouts WHERE id = :id"
LIST = f"""
SELECT {COLUMNS} FROM patcher.rollouts
WHERE (:package = '' OR package = :package) AND (:state = '' OR state = :state) AND (:after = '' OR id < :after)
ORDER BY id DESC LIMIT :limit
"""
UNFINISHED = f"""
SELECT {COLUMNS} FROM patcher.rollouts
WHERE state NOT IN ('halted', 'aborted') AND NOT (state = 'succeeded' AND closed) ORDER BY id LIMIT 500
"""
OPEN_TO_LATE = """
SELECT id FROM patcher.rollouts
WHERE package = :package AND config = :config AND state = 'succeeded' AND NOT closed ORDER BY id LIMIT 100
"""
LOCK_PACKAGE = "SELECT pg_advisory_xact_lock(hashtextextended('prunella rollouts of ' || :package, 0))"
APPEND = """
INSERT INTO patcher.rollout_history (rollout, number, create_time, from_state, to_state, wave, observation, reason,
    actor)
VALUES (:rollout, (SELECT coalesce(max(number), 0) + 1 FROM patcher.rollout_history WHERE rollout = :rollout),
        :create_time, :from_state, :to_state, :wave, :observation, :reason, :actor)
"""
HISTORY = """
SELECT create_time, from_state, to_state, wave, observation, reason, actor FROM patcher.rollout_history
WHERE rollout = :rollout ORDER BY number LIMIT 1000
"""


@dataclass(frozen=True)
class StoredRollout:
    """A rollout with what its heart need not know. `settings` are the settings as the author gave them."""

    rollout: Rollout
    config: bool
    digest: str
    author: str
    traceparent: str
    settings: bytes


@dataclass(frozen=True)
class HistoryEntry:
    """A row of the history."""

    create_time: datetime
    transition: Transition
    actor: str


async def insert(tx: Transaction, stored: StoredRollout) -> None:
    """Saves a new rollout."""
    await tx.run(INSERT, **_values(stored))


async def save(tx: Transaction, stored: StoredRollout, change: Change) -> None:
    """Saves a rollout with the transitions of a change; who made it stands in its facts."""
    values = _values(stored)
    fixed = ("package", "target", "create_time", "config", "digest", "author", "traceparent", "settings")
    await tx.run(UPDATE, **{name: value for name, value in values.items() if name not in fixed})
    actor = next((fact.actor for fact in change.facts if fact.actor), "")
    about = {"rollout": stored.rollout.id, "create_time": tx.now, "actor": actor}
    for each in change.transitions:
        await tx.run(APPEND, **about, **vars(each) | {"reason": each.reason[:2000]})


async def get(tx: Transaction, rollout: str, *, lock: bool = False) -> StoredRollout | None:
    """One rollout; locked until the end of the transaction when settings."""
    row = await tx.first(f"{GET} FOR UPDATE" if lock else GET, id=rollout)
    return _read(row) if row else None


async def page(
    tx: Transaction, *, package: str, state: str, after: Sequence[Any] | None, limit: int
) -> list[StoredRollout]:
    """Rollouts, newest first; `after` holds the id of the last one seen."""
    before = str(after[0]) if after else ""
    return [_read(row) for row in await tx.all(LIST, package=package, state=state, after=before, limit=limit)]


async def unfinished(tx: Transaction) -> list[StoredRollout]:
    """Rollouts that may still move: live ones, and those over that bring the build to plugins that return."""
    return [_read(row) for row in await tx.all(UNFINISHED)]


async def open_to_late(tx: Transaction, package: str, *, config: bool) -> list[str]:
    """Rollouts of a package that are over and still wait for plugins."""
    return [row.id for row in await tx.all(OPEN_TO_LATE, package=package, config=config)]


async def lock_package(tx: Transaction, package: str) -> None:
    """Has rollouts of one package made one after another."""
    await tx.run(LOCK_PACKAGE, package=package)


async def history(tx: Transaction, rollout: str) -> list[HistoryEntry]:
    """The history, oldest first."""
    return [
        HistoryEntry(
            r.create_time, Transition(State(r.from_state), State(r.to_state), r.wave, r.observation, r.reason), r.actor
        )
        for r in await tx.all(HISTORY, rollout=rollout)
    ]


def _values(stored: StoredRollout) -> dict[str, Any]:
    found = stored.rollout
    judgement = found.judgement
    detail = {
        "tallies": [
            {
                "planned": tally.planned,
                "counts": {state.value: count for state, count in tally.counts.items()},
                "exposed": tally.exposed,
                "broken": list(tally.broken),
            }
            for tally in found.tallies
        ],
        "budget": found.budget,
        "rules": asdict(found.rules),
        "bounds": {
            name: value.total_seconds() if isinstance(value, timedelta) else value
            for name, value in vars(found.bounds).items()
        },
        "concurrency": asdict(found.concurrency),
        "control": asdict(found.control),
        "doubted": found.doubted,
        "waited": found.waited,
        "final_state": found.final_state.value,
        "judgement": asdict(judgement) if judgement else None,
    }
    return {name: getattr(found, name) for name in PLAIN} | {
        "state": found.state.value,
        "config": stored.config,
        "digest": stored.digest,
        "author": stored.author,
        "traceparent": stored.traceparent,
        "settings": stored.settings,
        "detail": json.dumps(detail),
    }


def _read(row: Any) -> StoredRollout:
    detail = row.detail
    times = {name: timedelta(seconds=value) for name, value in detail["bounds"].items() if name != "exposure"}
    rollout = Rollout(
        **{name: getattr(row, name) for name in PLAIN},
        tallies=tuple(_tally(each) for each in detail["tallies"]),
        budget=detail["budget"],
        rules=Rules(**detail["rules"]),
        bounds=Bounds(exposure=detail["bounds"]["exposure"], **times),
        state=State(row.state),
        concurrency=Concurrency(**detail["concurrency"]),
        control=Counts(**detail["control"]),
        doubted=detail["doubted"],
        waited=detail["waited"],
        final_state=State(detail["final_state"]),
        judgement=_judgement(detail["judgement"]) if detail["judgement"] else None,
    )
    return StoredRollout(rollout, row.config, row.digest, row.author, row.traceparent, bytes(row.settings))


def _tally(row: dict[str, Any]) -> Tally:
    counts = {MemberState(state): count for state, count in row["counts"].items()}
    return Tally(row["planned"], counts, row["exposed"], tuple(row["broken"]))


def _judgement(row: dict[str, Any]) -> Judgement:
    parsed = {"result": Result(row["result"]), "wave": Counts(**row["wave"]), "control": Counts(**row["control"])}
    return Judgement(**row | parsed)
