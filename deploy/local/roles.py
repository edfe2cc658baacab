"""Database roles: one per service, owner of nothing.

Rule: a service can read and write its own schema and tell facts in its own name, and that is all. Passwords are derived
from the owner's, so that every plane on one server agrees about them without writing them down anywhere. Where the
owner has none they come from a secret; without either there is no password, for it would be the same everywhere.
"""

from __future__ import annotations

import hashlib
import hmac

import asyncpg

from libs.common import database_address
from libs.common.database_connection import connect

SERVICES = ("ingest", "decider", "patcher", "queue", "ops")
LOCK = 7_319_001
SHORTEST_SECRET = 16


class NotAllowed(Exception):  # noqa: N818 - says what it means
    """The owner of DATABASE_URL may not create roles; the text is the line to type."""


class SecretMissing(Exception):  # noqa: N818 - says what it means
    """Nothing secret is known to derive passwords from; the text is what to do."""


def role(service: str) -> str:
    """The role of a service."""
    return f"prunella_{service}"


def password(owner_url: str, service: str, secret: str = "") -> str:
    """A service's password, from the owner's; from `secret` when the owner has none. Raises SecretMissing."""
    key = database_address.parse(owner_url).password
    if not key and len(secret) < SHORTEST_SECRET:
        raise SecretMissing(
            "DATABASE_URL has no password from which those of the services' roles could be derived. Set "
            f"PRUNELLA_ROLE_SECRET to a secret of at least {SHORTEST_SECRET} characters and keep it, for example "
            "that of: openssl rand -hex 32"
        )
    key = key or secret
    return hmac.new(key.encode(), role(service).encode(), hashlib.sha256).hexdigest()[:48]


def url(owner_url: str, service: str, secret: str = "") -> str:
    """The address that a service uses; the owner's address with another user."""
    return database_address.parse(owner_url).as_user(role(service), password(owner_url, service, secret))


async def create(owner_url: str, secret: str = "") -> None:
    """Creates the roles or gives them their passwords again; safe to repeat, also at the same time.

    Raises NotAllowed when the owner may not, SecretMissing before anything is done.
    """
    passwords = {service: password(owner_url, service, secret) for service in SERVICES}
    connection = await connect(owner_url, "migrate", command_timeout=20, pooled=True)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            for service in SERVICES:
                name = role(service)
                verb = "ALTER" if await _exists(connection, name) else "CREATE"
                await connection.execute(f"{verb} ROLE {name} LOGIN PASSWORD '{passwords[service]}'")
            database = await connection.fetchval("SELECT quote_ident(current_database())")
            await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {', '.join(map(role, SERVICES))}")
    except asyncpg.InsufficientPrivilegeError as refusal:
        user = await connection.fetchval("SELECT quote_ident(current_user)")
        raise NotAllowed(
            f"the database refuses to let {user} make roles ({refusal}). As an administrator type:  "
            f'psql -c "ALTER ROLE {user} CREATEROLE"'
        ) from refusal
    finally:
        await connection.close(timeout=5)


async def _exists(connection: asyncpg.Connection, name: str) -> bool:
    return bool(await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name))
