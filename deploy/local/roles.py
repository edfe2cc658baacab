"""Database roles: one per service, owner of nothing.

Rule: a service can read and write its own schema and tell facts in its own name, and that is all. Passwords are derived
from the owner's, so that every plane on one server agrees about them without writing them down anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg

SERVICES = ("ingest", "decider", "patcher", "queue", "ops")
LOCK = 7_319_001


class NotAllowed(Exception):  # noqa: N818 - says what it means
    """The owner of DATABASE_URL may not create roles; the text is the line to type."""


def role(service: str) -> str:
    """The role of a service."""
    return f"prunella_{service}"


def password(owner_url: str, service: str, secret: str = "") -> str:
    """A service's password, from the owner's; from `secret` when the owner has none."""
    key = unquote(urlsplit(owner_url).password or "") or secret
    return hmac.new(key.encode(), role(service).encode(), hashlib.sha256).hexdigest()[:48]


def url(owner_url: str, service: str, secret: str = "") -> str:
    """The address that a service uses; the owner's address with another user."""
    parts = urlsplit(owner_url)
    place = parts.netloc.rpartition("@")[2]
    user = f"{quote(role(service))}:{quote(password(owner_url, service, secret))}"
    return urlunsplit(parts._replace(netloc=f"{user}@{place}"))


async def create(owner_url: str, secret: str = "") -> None:
    """Creates the roles or gives them their passwords again; safe to repeat, also at the same time.

    Raises NotAllowed when the owner may not.
    """
    connection = await asyncpg.connect(owner_url, timeout=10, command_timeout=20)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
            for service in SERVICES:
                name = role(service)
                verb = "ALTER" if await _exists(connection, name) else "CREATE"
                word = password(owner_url, service, secret)
                await connection.execute(f"{verb} ROLE {name} LOGIN PASSWORD '{word}'")
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
