"""Which configurations are known, and which of them a plugin should have.

Rule: a plugin should have what it was given and committed last; before that, what it was first heard with, if that is
published. What is taken back after its commit is expected no longer, what was on trial never was.
"""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.database import Transaction
from services.ingest.commands import Kind, Word

CHUNK = 1000
KNOW = """
INSERT INTO ingest.configurations (package, version, plugin, digest)
VALUES (:package, :version, :plugin, :digest) ON CONFLICT DO NOTHING
"""
GIVEN = """
UPDATE ingest.pulses SET version = version + 1, expected_config = coalesce((
    SELECT c.digest FROM ingest.commands c
    JOIN ingest.generations g ON g.plugin = c.plugin AND g.generation = c.generation
    WHERE c.plugin = CAST(:plugin AS uuid) AND c.kind = :kind AND g.final = :committed
    ORDER BY c.generation DESC LIMIT 1), '')
WHERE id = CAST(:plugin AS uuid) AND EXISTS (
    SELECT 1 FROM ingest.commands
    WHERE plugin = CAST(:plugin AS uuid) AND generation = :generation AND kind = :kind)
"""
ADOPT = """
WITH found AS (
    SELECT u.id, p.config_digest FROM ingest.pulses u JOIN ingest.plugins p ON p.id = u.id
    WHERE u.id = ANY(CAST(:ids AS uuid[])) AND u.expected_config = '' AND EXISTS (
        SELECT 1 FROM ingest.configurations c
        WHERE c.package = p.package AND c.digest = p.config_digest AND c.plugin IN ('', CAST(p.id AS text)))
      AND NOT EXISTS (
        SELECT 1 FROM ingest.commands c JOIN ingest.generations g ON g.plugin = c.plugin AND g.generation = c.generation
        WHERE c.plugin = u.id AND c.kind = :kind AND c.digest = p.config_digest
          AND g.final IS DISTINCT FROM CAST(:committed AS smallint))
    ORDER BY u.id FOR UPDATE OF u
)
UPDATE ingest.pulses u SET version = u.version + 1, expected_config = found.config_digest
FROM found WHERE u.id = found.id RETURNING u.id
"""
HAVING = """
SELECT id FROM ingest.plugins
WHERE package = :package AND id > CAST(:after AS uuid) AND config_digest = :digest AND state = 'active'
  AND :plugin IN ('', CAST(id AS text))
ORDER BY id LIMIT :limit
"""
NOBODY = "00000000-0000-0000-0000-000000000000"
OURS = {"kind": int(Kind.CONFIG_UPDATE), "committed": int(Word.COMMITTED)}


async def know(tx: Transaction, *, package: str, version: str, plugin: str, digest: str) -> None:
    """A configuration is published; known twice it is known once."""
    await tx.run(KNOW, package=package, version=version, plugin=plugin, digest=digest)


async def given(tx: Transaction, plugin: str, generation: int) -> bool:
    """A generation became final: if it brought a configuration, what the plugin should have is looked up anew."""
    return await tx.run(GIVEN, plugin=plugin, generation=generation, **OURS) == 1


async def adopt(tx: Transaction, plugins: Sequence[str]) -> set[str]:
    """Those of whom nothing was expected should have from now on what they have, where that is published."""
    return {str(row.id) for row in await tx.all(ADOPT, ids=list(plugins), **OURS)}


async def having(tx: Transaction, *, package: str, plugin: str, digest: str, after: str = NOBODY) -> list[str]:
    """The next plugins (after one's id) that were heard with a configuration; `plugin` may name the only one."""
    rows = await tx.all(HAVING, package=package, plugin=plugin, digest=digest, after=after, limit=CHUNK)
    return [str(row.id) for row in rows]
