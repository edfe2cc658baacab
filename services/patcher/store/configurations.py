"""Rows of configurations. A version is immutable: the same document again is the same one, another is a conflict."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.database import Transaction

COLUMNS = "package, version, plugin, merchant, digest, document, envelope, publish_time, publisher"
INSERT = f"""
INSERT INTO patcher.configurations ({COLUMNS})
VALUES (:package, :version, :plugin, :merchant, :digest, :document, :envelope, :publish_time, :publisher)
ON CONFLICT DO NOTHING
"""
GET = f"SELECT {COLUMNS} FROM patcher.configurations WHERE package = :package AND version = :version"
# A page of documents would be too large for an answer.
LISTED = COLUMNS.replace("document", "CAST('' AS bytea) AS document")
LIST = f"""
SELECT {LISTED} FROM patcher.configurations
WHERE (:package = '' OR package = :package) AND (:plugin = '' OR plugin = :plugin)
  AND (CAST(:before AS timestamptz) IS NULL
       OR (publish_time, package, version) < (CAST(:before AS timestamptz), :last_package, :last_version))
ORDER BY publish_time DESC, package DESC, version DESC LIMIT :limit
"""
# What a plugin should have goes first, then what was made for it alone, then what is for all; newest first.
FITTING = f"""
SELECT {COLUMNS} FROM patcher.configurations
WHERE package = :package AND plugin IN ('', :plugin)
ORDER BY digest = :expected DESC, plugin <> '' DESC, publish_time DESC, version DESC LIMIT 1
"""


@dataclass(frozen=True)
class Configuration:
    """A signed configuration with its document in canonical form; `plugin`, and with it `merchant`, is empty when
    it is for all.
    """

    package: str
    version: str
    plugin: str
    merchant: str
    digest: str
    document: bytes
    envelope: bytes
    publish_time: datetime
    publisher: str


def read(row: Any) -> Configuration:
    """The configuration in a row."""
    return Configuration(**row._asdict())


async def insert(tx: Transaction, configuration: Configuration) -> bool:
    """Saves a configuration; False when its version is taken."""
    return bool(await tx.run(INSERT, **{name: getattr(configuration, name) for name in COLUMNS.split(", ")}))


async def get(tx: Transaction, package: str, version: str) -> Configuration | None:
    """A configuration by its name."""
    row = await tx.first(GET, package=package, version=version)
    return read(row) if row else None


async def fitting(tx: Transaction, package: str, plugin: str, expected: str) -> Configuration | None:
    """The configuration a plugin should have; `expected` is its digest where that is known."""
    row = await tx.first(FITTING, package=package, plugin=plugin, expected=expected)
    return read(row) if row else None


async def page(
    tx: Transaction, *, package: str, plugin: str, after: Sequence[Any] | None, limit: int
) -> list[Configuration]:
    """Configurations without their documents, newest first; `after` is the key of the last one seen."""
    before, last_package, last_version = after or (None, "", "")
    last = {"before": before, "last_package": last_package, "last_version": last_version}
    return [read(row) for row in await tx.all(LIST, package=package, plugin=plugin, limit=limit, **last)]
