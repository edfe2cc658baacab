"""Brings a database and a NATS to what the services expect: roles, schemas, tables, streams.

Rule: the owner migrates, the services only use. Repeating it changes nothing, and two at the same time wait for each
other. For servers of yours: `DATABASE_URL=… NATS_URL=… python -m deploy.local.migrate` (the owner's address; what each
service's DATABASE_URL must be is printed with `--show`). Where that address has no password, those of the roles come
from PRUNELLA_ROLE_SECRET.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from nats.errors import Error as NatsError

from deploy.local import roles
from libs.common import database_address

NATS_SECONDS = 30.0
# The exit status for a database of another build.
OTHER_BUILD = 3


class Unreachable(Exception):  # noqa: N818 - says what it means
    """A server does not answer or does not let us in; the text says which, and why."""


def folder(package: str) -> Path | None:
    """Where a package's migrations are; None when it has none."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "migrations" / "versions").is_dir():
            return Path(place) / "migrations"
    return None


def folders() -> dict[str, Path]:
    """Schema → folder of its migrations, the shared one first."""
    packages = {"bus": "libs.common", **{service: f"services.{service}" for service in roles.SERVICES}}
    return {schema: found for schema, package in packages.items() if (found := folder(package))}


def fingerprint() -> str:
    """Changes whenever a migration does."""
    digest = hashlib.sha256()
    for schema, place in folders().items():
        for file in sorted((place / "versions").glob("*.py")):
            digest.update(f"{schema}/{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


async def tables(owner_url: str) -> None:
    """Migrates every schema and grants it to its service."""
    from libs.common.migration import migrate

    places = folders()
    for service in roles.SERVICES:
        await migrate(owner_url, "bus", places["bus"], roles.role(service))
    for schema, place in places.items():
        if schema != "bus":
            await migrate(owner_url, schema, place, roles.role(schema))


async def migrate_all(owner_url: str, nats_url: str, secret: str = "") -> None:
    """The whole step: roles, tables, streams.

    Raises Unreachable for a server that does not answer, NotAllowed when the owner may not make roles, UnknownRevision
    for a database of another build, in which nothing is changed.
    """
    from sqlalchemy.exc import DBAPIError

    from libs.common.bus import provision
    from libs.common.migration import check_revisions

    try:
        await check_revisions(owner_url, folders())
        await roles.create(owner_url, secret)
    except (OSError, TimeoutError, asyncpg.PostgresError, DBAPIError) as problem:
        why = getattr(problem, "orig", problem)
        raise Unreachable(f"PostgreSQL at {place(owner_url)} does not let us in: {why!r}") from problem
    await tables(owner_url)
    if not nats_url:
        return
    try:
        async with asyncio.timeout(NATS_SECONDS):
            await provision(nats_url)
    except (OSError, TimeoutError, NatsError) as problem:
        raise Unreachable(f"NATS at {place(nats_url)} does not let us in: {problem!r}") from problem


def place(url: str) -> str:
    """Host and port of an address, without its password."""
    if url.startswith(database_address.SCHEMES):
        return database_address.parse(url).place
    return urlsplit(url).netloc.rpartition("@")[2]


def main() -> int:
    """Migrates what DATABASE_URL and NATS_URL name."""
    from libs.common.migration import UnknownRevision

    owner, secret = os.environ.get("DATABASE_URL", ""), os.environ.get("PRUNELLA_ROLE_SECRET", "")
    if not owner:
        print(
            "set DATABASE_URL to the owner's address: postgresql://owner:password@host:port/database", file=sys.stderr
        )
        return 2
    try:
        database_address.parse(owner)
    except ValueError as wrong:
        print(f"migrate: DATABASE_URL {wrong}", file=sys.stderr)
        return 2
    try:
        roles.password(owner, roles.SERVICES[0], secret)
        asyncio.run(migrate_all(owner, os.environ.get("NATS_URL", ""), secret))
    except roles.SecretMissing as problem:
        print(f"migrate: {problem}", file=sys.stderr)
        return 2
    except (roles.NotAllowed, Unreachable) as problem:
        print(f"migrate: {problem}", file=sys.stderr)
        return 1
    except UnknownRevision as problem:
        print(f"migrate: {problem}", file=sys.stderr)
        return OTHER_BUILD
    if "--show" in sys.argv:
        for service in roles.SERVICES:
            print(f"{service} DATABASE_URL={roles.url(owner, service, secret)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
