"""The state of plugins: what changes with every beat, written for many plugins in one statement.

Rule: a write names the version it was computed from; a row that has moved on is not written and not returned, and its
beats are evaluated again on what it holds now.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from libs.common.database import Transaction
from services.ingest.anomaly.schedule import last_sample
from services.ingest.beat import Health
from services.ingest.liveness import SET_BACK, Silence, Uptime
from services.ingest.plugin_state import PluginState, quiet_windows

# The stored fields of a state, in their order.
_TRANSIENT = {"quiet_windows", "attributes_hash", "sample_time", "like_itself", "baseline_changed"}
FIELDS = [name for name in PluginState.__slots__ if name not in _TRANSIENT]
COLUMNS = ", ".join("id" if name == "plugin" else name for name in FIELDS)
HEALTHS = {int(health): health for health in Health}
LOAD = f"SELECT {COLUMNS} FROM ingest.plugin_state WHERE id = ANY(CAST(:ids AS uuid[]))"
GET = f"SELECT {COLUMNS} FROM ingest.plugin_state WHERE id = CAST(:id AS uuid)"
LOCK = "SELECT 1 FROM ingest.plugin_state WHERE id = CAST(:id AS uuid) FOR UPDATE"
INSERT = """
INSERT INTO ingest.plugin_state (id, merchant, last_beat_time, release)
VALUES (CAST(:id AS uuid), :merchant, :now, :release)
"""
# What a beat writes, with the types of its columns; baselines that did not change are NULL.
SAVED = {
    "version": "bigint", "boot_ids": "text", "sequence": "bigint", "former_sequences": "text",
    "boot_time": "double precision", "boot_epoch": "bigint", "boot_returns": "smallint",
    "count_from_time": "double precision", "clock_skew": "double precision", "reported_rates": "bytea",
    "errors": "bigint", "webhook_attempts": "bigint",
    "webhook_failures": "bigint", "signature_failures": "bigint", "last_beat_time": "double precision",
    "beats": "bigint", "health": "smallint", "release": "text", "generation": "bigint", "digest": "text",
    "open_types": "integer", "errors_last_24h": "bigint", "errors_last_24h_base": "bigint", "polling": "boolean",
    "windows": "bytea", "baseline": "bytea",
}  # fmt: skip
SAVE = f"""
UPDATE ingest.plugin_state p SET version = u.version + 1,
    -- A late beat of a former boot is no sign of life.
    away = p.away AND p.beats = u.beats,
    back_by_time = CASE WHEN p.beats = u.beats THEN p.back_by_time ELSE 0 END,
    baseline = coalesce(u.baseline, p.baseline),
    {", ".join(f"{name} = u.{name}" for name in SAVED if name not in ("version", "baseline"))}
FROM unnest(CAST(:ids AS uuid[]), {", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in SAVED.items())})
    AS u(id, {", ".join(SAVED)})
WHERE p.id = u.id AND p.version = u.version AND p.active
RETURNING p.id
"""
CONNECT = f"""
UPDATE ingest.plugin_state SET session_epoch = session_epoch + 1, version = version + 1, connected = true, away = false,
    back_by_time = 0
WHERE id = ANY(CAST(:ids AS uuid[])) AND active RETURNING {COLUMNS}
"""
DISCONNECT = """
UPDATE ingest.plugin_state p SET connected = false
FROM unnest(CAST(:ids AS uuid[]), CAST(:epochs AS bigint[])) AS u(id, session_epoch)
WHERE p.id = u.id AND p.session_epoch = u.session_epoch AND p.connected
"""
GOODBYE = """
UPDATE ingest.plugin_state SET away = true, back_by_time = :back_by, version = version + 1
WHERE id = CAST(:id AS uuid) AND session_epoch = :epoch
"""
END = """
UPDATE ingest.plugin_state SET active = false, connected = false, session_epoch = session_epoch + 1,
    version = version + 1, open_types = 0
WHERE id = CAST(:id AS uuid) AND active
"""
# It is as if it had said that it is back by now: the time in which it was shut out is no silence of its own.
RELEASE = """
UPDATE ingest.plugin_state SET active = true, version = version + 1, boot_returns = 0, boot_time = :now,
    open_types = :types, away = true, back_by_time = :now
WHERE id = CAST(:id AS uuid)
"""
CLOCK_SKEW = "SELECT coalesce(clock_skew, 0) FROM ingest.plugin_state WHERE id = CAST(:id AS uuid)"
SWITCHED = """
UPDATE ingest.plugin_state SET count_from_time = :at, errors_last_24h_base = errors_last_24h, version = version + 1
WHERE id = CAST(:id AS uuid)
"""
ENDED = """
UPDATE ingest.plugin_state SET count_from_time = last_beat_time, errors_last_24h_base = errors_last_24h,
    version = version + 1,
    open_types = open_types & ~CAST(:cleared AS integer) WHERE id = CAST(:id AS uuid)
"""
SET_TYPES = """
UPDATE ingest.plugin_state SET version = version + 1, open_types = :types,
    errors_last_24h_base = CASE WHEN CAST(:ended AS boolean) THEN errors_last_24h ELSE errors_last_24h_base END,
    count_from_time = CASE WHEN CAST(:ended AS boolean) THEN last_beat_time ELSE count_from_time END
WHERE id = CAST(:id AS uuid)
"""
ADD_TYPES = """
UPDATE ingest.plugin_state SET open_types = open_types | CAST(:bits AS integer), version = version + 1
WHERE id = CAST(:id AS uuid)
"""
NONE_PENDING = """
UPDATE ingest.plugin_state SET commands_pending = false, version = version + 1
WHERE id = CAST(:id AS uuid) AND version = :version AND commands_pending
"""
SILENT = """
SELECT id, last_beat_time, polling, away, back_by_time FROM ingest.plugin_state
WHERE active AND (
  (last_beat_time < :before OR last_beat_time > :ahead) AND open_types & CAST(:missed AS integer) = 0
  AND NOT (away AND back_by_time = 0) AND (NOT away OR back_by_time < :before)
  AND (NOT polling OR last_beat_time < :polled_before OR last_beat_time > :ahead)
  OR away AND back_by_time = 0 AND (last_beat_time < :away_before OR last_beat_time > :ahead)
  AND open_types & CAST(:away_missed AS integer) = 0)
ORDER BY last_beat_time LIMIT :limit
"""
SAW_REPLICA = """
INSERT INTO ingest.replica_uptime AS known (replica, start_time, last_seen_time) VALUES (:replica, :at, :at)
ON CONFLICT (replica) DO UPDATE SET last_seen_time = :at,
    start_time = CASE WHEN known.last_seen_time BETWEEN :broken AND :ahead THEN known.start_time ELSE :at END
"""
UPTIMES = "SELECT start_time, last_seen_time FROM ingest.replica_uptime"
FORGET_REPLICAS = "DELETE FROM ingest.replica_uptime WHERE last_seen_time < :before"
# In the order of the plugins' hashes, which is as good as random, from a point on; the index walks no further than the
# draw needs. Who does not live, or was switched since, is left out before anybody is counted.
DRAW = f"""
SELECT {", ".join(f"s.{name}" for name in COLUMNS.split(", "))} FROM ingest.plugins p
JOIN ingest.plugin_state s ON s.id = p.id
WHERE p.package = :package AND p.id <> CAST(:id AS uuid) AND p.state = 'active'
  AND md5(CAST(p.id AS text)) {{beyond}} :point
  AND s.active AND s.count_from_time < :switch AND s.last_beat_time >= :switch
ORDER BY md5(CAST(p.id AS text)) LIMIT :limit
"""


async def load(tx: Transaction, ids: Iterable[str]) -> dict[str, PluginState]:
    """States by plugin id; unknown ids are left out."""
    rows = await tx.all(LOAD, ids=list(ids))
    return {str(row.id): _state(row) for row in rows}


async def get(tx: Transaction, plugin: str) -> PluginState | None:
    """The state of one plugin."""
    row = await tx.first(GET, id=plugin)
    return None if row is None else _state(row)


async def lock(tx: Transaction, plugin: str) -> bool:
    """Keeps beats of a plugin from being written until the commit; False for an unknown plugin."""
    return await tx.first(LOCK, id=plugin) is not None


async def insert(tx: Transaction, plugin: str, merchant: str, release: str) -> None:
    """The state of a plugin that has just enrolled and has not beaten yet."""
    await tx.run(INSERT, id=plugin, merchant=merchant, now=tx.now.timestamp(), release=release)


async def save(tx: Transaction, states: Sequence[PluginState]) -> set[str]:
    """Writes states computed from the version they carry; returns the ids that were still at it."""
    values = {name: list(map(attrgetter(name), states)) for name in SAVED}
    values["boot_ids"] = [",".join(boots) for boots in values["boot_ids"]]
    values["former_sequences"] = [",".join(map(str, sequences)) for sequences in values["former_sequences"]]
    values["health"] = [int(health) for health in values["health"]]
    values["baseline"] = [state.baseline if state.baseline_changed else None for state in states]
    rows = await tx.all(SAVE, ids=[state.plugin for state in states], **values)
    return {str(row[0]) for row in rows}


async def connect(tx: Transaction, plugins: Sequence[str]) -> dict[str, PluginState]:
    """Begins a session under a new epoch for each plugin that may have one."""
    rows = await tx.all(CONNECT, ids=sorted(plugins))
    return {str(row.id): _state(row) for row in rows}


async def disconnect(tx: Transaction, sessions: Sequence[tuple[str, int]]) -> None:
    """Notes that sessions (plugin, epoch) have ended, unless newer ones began."""
    ended = sorted(sessions)
    await tx.run(DISCONNECT, ids=[plugin for plugin, _ in ended], epochs=[epoch for _, epoch in ended])


async def goodbye(tx: Transaction, plugin: str, epoch: int, back_by: float) -> None:
    """Notes that the plugin left on its own; `back_by` in Unix seconds, 0 when it named no time."""
    await tx.run(GOODBYE, id=plugin, epoch=epoch, back_by=back_by)


async def end(tx: Transaction, plugin: str) -> None:
    """Accepts no more beats of a plugin."""
    await tx.run(END, id=plugin)


async def release(tx: Transaction, plugin: str, types: int) -> None:
    """Accepts beats of a plugin again, whose active incidents are of these types."""
    await tx.run(RELEASE, id=plugin, types=types, now=tx.now.timestamp())


async def clock_skew(tx: Transaction, plugin: str) -> float:
    """Seconds by which the plugin's own clock was ahead of ours; 0 when nothing is known of it."""
    return float(await tx.value(CLOCK_SKEW, id=plugin) or 0.0)


async def switched(tx: Transaction, plugin: str, at: float) -> None:
    """The plugin runs something else since `at`: the window that was open then belongs to neither."""
    await tx.run(SWITCHED, id=plugin, at=at)


async def ended(tx: Transaction, plugin: str, cleared: int) -> None:
    """Incidents of the types in `cleared` ended: windows count anew from the last beat, so that none is lost."""
    await tx.run(ENDED, id=plugin, cleared=cleared)


async def set_types(tx: Transaction, plugin: str, types: int, *, ended: bool) -> None:
    """These types of incidents are open now; when one ended, windows count anew."""
    await tx.run(SET_TYPES, id=plugin, types=types, ended=ended)


async def add_types(tx: Transaction, plugin: str, bits: int) -> None:
    """Notes types of incidents that opened without a beat."""
    await tx.run(ADD_TYPES, id=plugin, bits=bits)


async def none_pending(tx: Transaction, plugin: str, version: int) -> bool:
    """No command was pending for the plugin when its row had this version; False when it has another by now."""
    return await tx.run(NONE_PENDING, id=plugin, version=version) == 1


async def silent(
    tx: Transaction,
    before: float,
    polled_before: float,
    missed: int,
    limit: int,
    *,
    ahead: float = math.inf,
    away_before: float = 0.0,
    away_missed: int = 0,
) -> list[Silence]:
    """Plugins without a beat since `before` (who polls: `polled_before`; who left without naming a time: `away_before`)
    whose silence is not an incident yet, of the type `missed` or, of those who left, `away_missed`.

    A beat after `ahead` was heard before the clock was set back.

    Who may be silent for longer is left out here, so that many of them do not keep the others from being looked at.
    """
    bounds = {"before": before, "polled_before": polled_before, "away_before": away_before, "ahead": ahead}
    rows = await tx.all(SILENT, **bounds, missed=missed, away_missed=away_missed, limit=limit)
    return [Silence(str(row[0]), *row[1:]) for row in rows]


async def saw_replica(tx: Transaction, replica: str, at: float, gap: float) -> list[Uptime]:
    """Notes that a replica runs; returns the uptimes of all."""
    await tx.run(SAW_REPLICA, replica=replica, at=at, broken=at - gap, ahead=at + SET_BACK)
    await tx.run(FORGET_REPLICAS, before=at - 86_400.0)
    return [Uptime(*row) for row in await tx.all(UPTIMES)]


async def draw_peers(
    tx: Transaction, plugin: str, package: str, switch: float, limit: int, seed: str
) -> list[PluginState]:
    """Other plugins of a package that live and run what they ran before `switch`: at most `limit`, drawn by a seed."""
    point = hashlib.md5(seed.encode(), usedforsecurity=False).hexdigest()
    values = {"id": plugin, "package": package, "switch": switch, "point": point}
    rows = list(await tx.all(DRAW.format(beyond=">="), **values, limit=limit))
    if len(rows) < limit:
        rows += await tx.all(DRAW.format(beyond="<"), **values, limit=limit - len(rows))
    return [_state(row) for row in rows]


def _state(row: Any) -> PluginState:
    """A row, columns in the order of COLUMNS, as a state."""
    made: Any = PluginState(*row[: len(FIELDS)])
    made.plugin = str(made.plugin)
    made.boot_ids = tuple(filter(None, made.boot_ids.split(",")))
    made.former_sequences = tuple(map(int, filter(None, made.former_sequences.split(","))))
    made.health = HEALTHS[made.health]
    made.quiet_windows = quiet_windows(made.windows)
    made.sample_time = last_sample(made.baseline).at
    state: PluginState = made
    return state
