"""Rows of releases. A version is immutable: the same bytes again are the same release, other bytes are a conflict."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction

COLUMNS = "digest, package, version, size, envelope, publish_time, publisher, key_ids"
INSERT = f"""
INSERT INTO patcher.releases ({COLUMNS}, artifact)
VALUES (:digest, :package, :version, :size, :envelope, :publish_time, :publisher, CAST(:key_ids AS text[]), :artifact)
ON CONFLICT DO NOTHING
"""
GET = f"SELECT {COLUMNS} FROM patcher.releases WHERE package = :package AND version = :version"
BY_DIGEST = f"SELECT {COLUMNS} FROM patcher.releases WHERE digest = :digest"
LIST = f"""
SELECT {COLUMNS} FROM patcher.releases
WHERE (:package = '' OR package = :package)
  AND (CAST(:before AS timestamptz) IS NULL OR (publish_time, digest) < (CAST(:before AS timestamptz), :digest))
ORDER BY publish_time DESC, digest DESC LIMIT :limit
"""
PIECE = "SELECT substring(artifact FROM :start FOR :length) FROM patcher.releases WHERE digest = :digest"


@dataclass(frozen=True)
class Release:
    """A signed release; the artifact stays in the database."""

    digest: str
    package: str
    version: str
    size: int
    envelope: bytes
    publish_time: datetime
    publisher: str
    key_ids: tuple[str, ...]


def read(row: Any) -> Release:
    """The release in a row."""
    return Release(**row._asdict() | {"key_ids": tuple(row.key_ids)})


async def insert(tx: Transaction, release: Release, artifact: bytes) -> bool:
    """Saves a release; False when its digest or its version is taken."""
    values = {name: getattr(release, name) for name in COLUMNS.split(", ")}
    return bool(await tx.run(INSERT, **values | {"key_ids": list(release.key_ids)}, artifact=artifact))


async def get(tx: Transaction, package: str, version: str) -> Release | None:
    """A release by its name."""
    row = await tx.first(GET, package=package, version=version)
    return read(row) if row else None


async def by_digest(tx: Transaction, digest: str) -> Release | None:
    """A release by the digest of its artifact."""
    row = await tx.first(BY_DIGEST, digest=digest)
    return read(row) if row else None


async def page(tx: Transaction, *, package: str, after: Sequence[Any] | None, limit: int) -> list[Release]:
    """Releases, newest first; `after` is (publish_time, digest) of the last one seen."""
    before, digest = after or (None, "")
    return [read(row) for row in await tx.all(LIST, package=package, before=before, digest=digest, limit=limit)]


async def piece(tx: Transaction, digest: str, offset: int, length: int) -> bytes | None:
    """Bytes of an artifact from an offset; None when there is no such artifact."""
    found = await tx.value(PIECE, digest=digest, start=offset + 1, length=length)
    return None if found is None else bytes(found)
