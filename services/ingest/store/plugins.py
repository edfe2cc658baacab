"""Plugins: who they are, and the tokens they enrolled with."""

# ruff: noqa: S105 - statements about tokens, not tokens

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction
from libs.common.paging import Page
from services.ingest.store import after

IDENTITY = """
SELECT p.id, p.secret, p.package, p.merchant, p.state, p.label FROM ingest.plugins p
WHERE p.id = ANY(CAST(:ids AS uuid[]))
"""
VIEW = """
SELECT p.id, p.package, p.merchant, p.label, p.state, p.enroll_time, p.capabilities, p.environment, p.numbers,
       p.config_digest, u.expected_config_digest, u.release, u.generation, u.digest, u.health, u.connected,
       u.last_beat_time, u.beats, u.windows, u.count_from_time, u.away, u.back_by_time, u.clock_skew,
       (SELECT coalesce(array_agg(CAST(i.id AS text) ORDER BY i.id), '{}') FROM ingest.incidents i
        WHERE i.plugin = p.id AND i.state IN ('open', 'in_progress', 'escalated', 'flapping')
          AND i.calm_time IS NULL) AS open_incidents
FROM ingest.plugins p JOIN ingest.plugin_state u ON u.id = p.id
"""
ENVIRONMENT = "SELECT environment, config_digest FROM ingest.plugins WHERE id = CAST(:id AS uuid)"
BY_ID = VIEW + "WHERE p.id = CAST(:id AS uuid)"
# The living one, or who had the label last.
BY_LABEL = VIEW + "WHERE p.label = :label ORDER BY p.state = 'retired', p.id DESC LIMIT 1"
LIST = (
    VIEW
    + """
WHERE (:package = '' OR p.package = :package) AND (:merchant = '' OR p.merchant = :merchant)
  AND (:release = '' OR u.release = :release) AND (CAST(:health AS integer) = 0 OR u.health = :health)
  AND (:after = '' OR p.id < CAST(nullif(:after, '') AS uuid))
ORDER BY p.id DESC LIMIT :limit
"""
)
ADD_TOKEN = """
INSERT INTO ingest.enrollment_tokens (digest, merchant, package, label, expire_time, create_time, replaces, actor)
VALUES (:digest, :merchant, :package, :label, :expire_time, :now, CAST(nullif(:replaces, '') AS uuid), :actor)
ON CONFLICT (digest) DO NOTHING
"""
TOKEN = """
SELECT digest, merchant, package, label, expire_time, enrollment_key, plugin, replaces, actor
FROM ingest.enrollment_tokens
WHERE digest = :digest FOR UPDATE
"""
TOKEN_EXPIRY = "SELECT expire_time FROM ingest.enrollment_tokens WHERE digest = :digest"
USE_TOKEN = """
UPDATE ingest.enrollment_tokens SET enrollment_key = :key, plugin = CAST(:plugin AS uuid) WHERE digest = :digest
"""
LABELLED = "SELECT id FROM ingest.plugins WHERE label = :label AND state <> 'retired'"
INSERT = """
INSERT INTO ingest.plugins (id, package, merchant, label, secret, enroll_time, environment)
VALUES (CAST(:id AS uuid), :package, :merchant, :label, :secret, :now, CAST(:environment AS jsonb))
ON CONFLICT (label) WHERE state <> 'retired' DO NOTHING
"""
CAPABILITIES = """
UPDATE ingest.plugins p SET capabilities = string_to_array(u.capabilities, ','), agent_version = u.agent_version
FROM unnest(CAST(:ids AS uuid[]), CAST(:capabilities AS text[]), CAST(:agent_versions AS text[]))
    AS u(id, capabilities, agent_version)
WHERE p.id = u.id
  AND (p.capabilities <> string_to_array(u.capabilities, ',') OR p.agent_version <> u.agent_version)
"""
ATTRIBUTES = """
UPDATE ingest.plugins p SET
    environment = CASE WHEN u.environment = '' THEN p.environment ELSE CAST(u.environment AS jsonb) END,
    numbers = CASE WHEN u.numbers = '' THEN p.numbers ELSE CAST(u.numbers AS jsonb) END,
    config_digest = CASE WHEN u.config_digest = '' THEN p.config_digest ELSE u.config_digest END
FROM unnest(CAST(:ids AS uuid[]), CAST(:environments AS text[]), CAST(:numbers AS text[]),
            CAST(:config_digests AS text[])) AS u(id, environment, numbers, config_digest)
WHERE p.id = u.id
"""
END = "UPDATE ingest.plugins SET state = :state, end_time = :now WHERE id = CAST(:id AS uuid) AND state = :before"
RELEASE = """
UPDATE ingest.plugins SET state = 'active', end_time = NULL WHERE id = CAST(:id AS uuid) AND state = 'quarantined'
"""
SIZE = "SELECT count(*) FROM ingest.plugins WHERE state = 'active' AND package = :package"
GROUPS = """
SELECT p.package, u.release, u.health, count(*) AS plugins, count(*) FILTER (WHERE u.connected) AS connected,
       count(*) FILTER (WHERE u.away) AS away
FROM ingest.plugins p JOIN ingest.plugin_state u ON u.id = p.id
WHERE p.state = 'active' AND (CAST(:package AS text) = '' OR p.package = :package)
    AND (CAST(:merchant AS text) = '' OR p.merchant = :merchant)
GROUP BY p.package, u.release, u.health ORDER BY plugins DESC, p.package, u.release, u.health
"""
MOST_GROUPS = 500


@dataclass(frozen=True, slots=True)
class Identity:
    """What a credential is checked against, and what its facts carry. `secret` is a SHA-256 digest."""

    plugin: str
    secret: bytes
    package: str
    merchant: str
    state: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A one-time token as stored."""

    digest: bytes
    merchant: str
    package: str
    label: str
    expire_time: datetime
    enrollment_key: str
    # Who enrolled with it.
    plugin: str
    # Who is retired when somebody enrols with it, and in whose name.
    replaces: str
    actor: str


@dataclass(frozen=True, slots=True)
class AgentHello:
    """What an agent reports of itself when a session begins."""

    plugin: str
    capabilities: tuple[str, ...]
    agent_version: str


@dataclass(frozen=True, slots=True)
class Attributes:
    """What beats report of a plugin that rarely changes; JSON texts, empty when they say nothing."""

    plugin: str
    environment: str
    numbers: str
    config_digest: str


async def identities(tx: Transaction, ids: Sequence[str]) -> dict[str, Identity]:
    """Identities by plugin id; unknown ids are left out."""
    rows = await tx.all(IDENTITY, ids=list(ids))
    return {
        str(row.id): Identity(str(row.id), bytes(row.secret), row.package, row.merchant, row.state, row.label)
        for row in rows
    }


async def view(tx: Transaction, *, plugin: str = "", label: str = "") -> Any | None:
    """Everything people see of a plugin, by id or by label."""
    return await (tx.first(BY_ID, id=plugin) if plugin else tx.first(BY_LABEL, label=label))


async def environment(tx: Transaction, plugin: str) -> tuple[dict[str, str], str]:
    """Where a plugin runs, and the digest of its configuration."""
    row = await tx.first(ENVIRONMENT, id=plugin)
    return ({}, "") if row is None else (row.environment, row.config_digest)


async def page(tx: Transaction, filters: dict[str, Any], page: Page) -> Sequence[Any]:
    """Plugins newest first."""
    return await tx.all(LIST, **after(page), **filters)


async def add_token(
    tx: Transaction,
    digest: bytes,
    *,
    merchant: str,
    package: str,
    label: str,
    expire_time: datetime,
    replaces: str,
    actor: str,
) -> None:
    """Saves a token's digest; the same digest again changes nothing."""
    values = {"merchant": merchant, "package": package, "label": label, "expire_time": expire_time}
    await tx.run(ADD_TOKEN, digest=digest, now=tx.now, replaces=replaces, actor=actor, **values)


async def token_expiry(tx: Transaction, digest: bytes) -> datetime | None:
    """When a token expires; None when there is none."""
    found: datetime | None = await tx.value(TOKEN_EXPIRY, digest=digest)
    return found


async def token(tx: Transaction, digest: bytes) -> Token | None:
    """A token by its digest, locked until the commit."""
    row = await tx.first(TOKEN, digest=digest)
    if row is None:
        return None
    return Token(
        digest=bytes(row.digest),
        merchant=row.merchant,
        package=row.package,
        label=row.label,
        expire_time=row.expire_time,
        enrollment_key=row.enrollment_key or "",
        plugin=str(row.plugin or ""),
        replaces=str(row.replaces or ""),
        actor=row.actor,
    )


async def use_token(tx: Transaction, digest: bytes, key: str, plugin: str) -> None:
    """Binds a token to the agent that used it."""
    await tx.run(USE_TOKEN, digest=digest, key=key, plugin=plugin)


async def labelled(tx: Transaction, label: str) -> Identity | None:
    """The plugin that has this label; those that are retired have none any more."""
    row = await tx.first(LABELLED, label=label)
    return None if row is None else (await identities(tx, [str(row.id)]))[str(row.id)]


async def insert(
    tx: Transaction, plugin: str, *, package: str, merchant: str, label: str, secret: bytes, environment: str
) -> bool:
    """A new plugin; False when another has its label."""
    values = {"package": package, "merchant": merchant, "label": label, "secret": secret, "environment": environment}
    return await tx.run(INSERT, id=plugin, now=tx.now, **values) == 1


async def save_capabilities(tx: Transaction, hellos: Sequence[AgentHello]) -> None:
    """Writes what agents report they can do."""
    ordered = sorted(hellos, key=lambda hello: hello.plugin)
    await tx.run(
        CAPABILITIES,
        ids=[hello.plugin for hello in ordered],
        capabilities=[",".join(hello.capabilities) for hello in ordered],
        agent_versions=[hello.agent_version for hello in ordered],
    )


async def save_attributes(tx: Transaction, attributes: Sequence[Attributes]) -> None:
    """Writes what rarely changes."""
    await tx.run(
        ATTRIBUTES,
        ids=[one.plugin for one in attributes],
        environments=[one.environment for one in attributes],
        numbers=[one.numbers for one in attributes],
        config_digests=[one.config_digest for one in attributes],
    )


async def end(tx: Transaction, plugin: str, state: str, before: str = "active") -> bool:
    """Ends or bars a plugin; False when it was not in the state before."""
    return await tx.run(END, id=plugin, state=state, before=before, now=tx.now) == 1


async def release(tx: Transaction, plugin: str) -> bool:
    """Makes a quarantined plugin active; False when it is not quarantined."""
    return await tx.run(RELEASE, id=plugin) == 1


async def size(tx: Transaction, package: str) -> int:
    """How many active plugins a package has."""
    return int(await tx.value(SIZE, package=package))


async def groups(tx: Transaction, package: str, merchant: str) -> tuple[int, list[Any]]:
    """How many active plugins there are, and what they run and how they are, the largest groups first."""
    rows = await tx.all(GROUPS, package=package, merchant=merchant)
    return sum(row.plugins for row in rows), list(rows[:MOST_GROUPS])
