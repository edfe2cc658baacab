"""Commands, the agents' receipts for them, and the final outcome of each generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from libs.common.paging import Page
from services.ingest.command_lifecycle import Command, Kind, Receipt, Settlement, State
from services.ingest.store import after, generations

COLUMNS = """id, request_id, plugin, merchant, attempt, incident, kind, generation, fence, state, deadline_time,
    issue_time, release, envelope, digest, size, dead_man_seconds, config, traceparent, first_write_time, end_time,
    detail"""
LIVE = "state IN ('pending', 'delivered', 'received')"
LOCK_PLUGIN = "SELECT state FROM ingest.plugins WHERE id = CAST(:plugin AS uuid) FOR UPDATE"
# One statement, since an agent waits for it: numbers, flag, supersession, command, generation. It runs after
# LOCK_PLUGIN, so a repeat of the same request sees the command that was made and makes nothing.
ISSUE = f"""
WITH numbers AS (
    UPDATE ingest.plugins p SET last_fence = p.last_fence + 1,
        last_generation = greatest(p.last_generation, u.generation) + CAST(:makes AS integer)
    FROM ingest.plugin_state u
    WHERE p.id = CAST(:plugin AS uuid) AND u.id = p.id AND p.state = 'active'
      AND NOT EXISTS (SELECT 1 FROM ingest.commands WHERE request_id = :request_id)
    RETURNING p.last_fence, p.last_generation, p.merchant
), pending AS (
    UPDATE ingest.plugin_state SET commands_pending = true, version = version + 1
    WHERE id = CAST(:plugin AS uuid) AND EXISTS (SELECT 1 FROM numbers)
), superseded AS (
    UPDATE ingest.commands SET state = 'superseded', end_time = :now, detail = 'a newer command took its place'
    WHERE plugin = CAST(:plugin AS uuid) AND {LIVE} AND EXISTS (SELECT 1 FROM numbers)
), made AS (
    INSERT INTO ingest.commands ({COLUMNS})
    SELECT CAST(:id AS uuid), :request_id, CAST(:plugin AS uuid), merchant, :attempt, :incident, :kind,
        CASE WHEN CAST(:generation AS bigint) = 0 THEN last_generation ELSE CAST(:generation AS bigint) END, last_fence,
        :state, :deadline_time, :issue_time, :release, :envelope, :digest, :size, :dead_man_seconds, :config,
        :traceparent, NULL, NULL, ''
    FROM numbers RETURNING merchant, generation, fence
), generations AS (
    INSERT INTO ingest.generations (plugin, merchant, generation, attempt)
    SELECT CAST(:plugin AS uuid), merchant, generation, :attempt FROM made ON CONFLICT DO NOTHING
)
SELECT merchant, fence, generation FROM made
"""
BY_REQUEST = f"SELECT {COLUMNS} FROM ingest.commands WHERE request_id = :request_id"
GET = f"SELECT {COLUMNS} FROM ingest.commands WHERE id = CAST(:id AS uuid)"
LOCK = GET + " FOR UPDATE"
LIVE_OF = f"SELECT {COLUMNS} FROM ingest.commands WHERE plugin = CAST(:plugin AS uuid) AND {LIVE} ORDER BY fence"
LIST = f"""
SELECT {COLUMNS} FROM ingest.commands
WHERE (:plugin = '' OR plugin = CAST(nullif(:plugin, '') AS uuid)) AND (:attempt = '' OR attempt = :attempt)
  AND (:after = '' OR id < CAST(nullif(:after, '') AS uuid))
ORDER BY id DESC LIMIT :limit
"""
WRITTEN = """
UPDATE ingest.commands SET first_write_time = coalesce(first_write_time, :at),
    state = CASE WHEN state = 'pending' THEN 'delivered' ELSE state END
WHERE id = CAST(:id AS uuid)
"""
HANDED_OUT = """
UPDATE ingest.commands SET first_write_time = coalesce(first_write_time, :at), hand_out_time = :at,
    state = CASE WHEN state = 'pending' THEN 'delivered' ELSE state END
WHERE id = CAST(:id AS uuid)
"""
RECEIVED = """
UPDATE ingest.commands SET state = 'received'
WHERE id = CAST(:id AS uuid) AND plugin = CAST(:plugin AS uuid) AND state IN ('pending', 'delivered')
"""
END = f"""
UPDATE ingest.commands SET state = :state, end_time = :now, detail = :detail WHERE id = CAST(:id AS uuid) AND {LIVE}
"""
ADD_RECEIPT = """
INSERT INTO ingest.receipts (command, merchant, outcome, receive_time, detail, release, digest, unsolicited)
VALUES (CAST(:command AS uuid), :merchant, :outcome, :now, :detail, :release, :digest, :unsolicited)
ON CONFLICT DO NOTHING
"""
OVERDUE = (
    f"SELECT {COLUMNS} FROM ingest.commands WHERE {LIVE} AND deadline_time <= :now ORDER BY deadline_time LIMIT :limit"
)
UNDELIVERED = """
SELECT DISTINCT plugin FROM ingest.commands WHERE state IN ('pending', 'delivered') LIMIT :limit
"""


async def lock_plugin(tx: Transaction, plugin: str) -> str | None:
    """The state of a plugin for which nobody else issues commands until the commit."""
    state: str | None = await tx.value(LOCK_PLUGIN, plugin=plugin)
    return state


async def issue(tx: Transaction, command: Command, *, makes: bool) -> Command | None:
    """Saves a command with the next fence (and generation, if it makes one), and supersedes every live one before it.

    None when its request made one before, or the plugin is not active.
    """
    values = {name: getattr(command, name) for name in _ISSUED}
    own = {"kind": int(command.kind), "state": str(command.state), "makes": int(makes), "now": tx.now}
    row = await tx.first(ISSUE, **values, **own)
    if row is None:
        return None
    return replace(command, merchant=row.merchant, fence=row.fence, generation=row.generation)


async def by_request(tx: Transaction, request_id: str) -> Command | None:
    """The command that was made for a request."""
    return _one(await tx.first(BY_REQUEST, request_id=request_id))


async def get(tx: Transaction, id_: str) -> Command | None:
    """One command."""
    return _one(await tx.first(GET, id=id_))


async def lock(tx: Transaction, id_: str) -> Command | None:
    """One command, locked until the commit."""
    return _one(await tx.first(LOCK, id=id_))


async def live_of(tx: Transaction, plugin: str) -> list[Command]:
    """Commands that are still to be delivered to a plugin or answered by it, oldest first."""
    return [command(row) for row in await tx.all(LIVE_OF, plugin=plugin)]


async def page(tx: Transaction, filters: dict[str, Any], page: Page) -> list[Command]:
    """Commands newest first."""
    return [command(row) for row in await tx.all(LIST, **after(page), **filters)]


async def written(tx: Transaction, id_: str, at: datetime) -> None:
    """The command was written to the stream; the first time stays."""
    await tx.run(WRITTEN, id=id_, at=at)


async def handed_out(tx: Transaction, id_: str, at: datetime) -> None:
    """The command was handed to a client that polls, under a permit asked for at this time; the last time stays."""
    await tx.run(HANDED_OUT, id=id_, at=at)


async def received(tx: Transaction, id_: str, plugin: str) -> None:
    """The agent has it."""
    await tx.run(RECEIVED, id=id_, plugin=plugin)


async def end(tx: Transaction, id_: str, state: State, detail: str) -> bool:
    """Ends a live command; False when it had ended."""
    return await tx.run(END, id=id_, state=str(state), detail=detail, now=tx.now) == 1


async def overdue(tx: Transaction, now: datetime, limit: int) -> Sequence[Command]:
    """Live commands whose deadline has passed."""
    return [command(row) for row in await tx.all(OVERDUE, now=now, limit=limit)]


async def undelivered(tx: Transaction, limit: int) -> list[str]:
    """Plugins with commands that no agent has confirmed."""
    return [str(row.plugin) for row in await tx.all(UNDELIVERED, limit=limit)]


async def add_receipt(tx: Transaction, receipt: Receipt, merchant: str) -> bool:
    """Saves the agent's receipt; False when it was saved before."""
    values = {name: getattr(receipt, name) for name in ("command", "detail", "release", "digest", "unsolicited")}
    return await tx.run(ADD_RECEIPT, merchant=merchant, outcome=int(receipt.outcome), now=tx.now, **values) == 1


async def settle(tx: Transaction, command: Command, settlement: Settlement, detail: str) -> None:
    """Writes what a receipt changed."""
    if settlement.state is not None:
        await end(tx, command.id, settlement.state, detail)
    if settlement.final is not None:
        await generations.end(tx, command, settlement.final)


def _one(row: Any | None) -> Command | None:
    return None if row is None else command(row)


def command(row: Any) -> Command:
    """A row as a command."""
    return Command(
        id=str(row.id),
        plugin=str(row.plugin),
        kind=Kind(row.kind),
        state=State(row.state),
        envelope=bytes(row.envelope),
        config=bytes(row.config),
        **{name: getattr(row, name) for name in _SAME},
    )


_SAME = (
    "request_id", "merchant", "attempt", "incident", "generation", "fence", "deadline_time", "issue_time", "release",
    "digest", "size", "dead_man_seconds", "traceparent", "first_write_time", "end_time", "detail",
)  # fmt: skip
_ISSUED = (
    "id", "request_id", "plugin", "attempt", "incident", "generation", "deadline_time", "issue_time", "release",
    "envelope", "digest", "size", "dead_man_seconds", "config", "traceparent",
)  # fmt: skip
