"""Which configurations are known, and which of them a plugin should have.

Rule: a plugin should have what it committed last; before that, what it first reported, if that is published. What is
rolled back after its commit is expected no longer, what was on trial never was. A configuration for all plugins of a
package has no merchant.
"""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.database import Transaction
from libs.common.names import is_uuid
from services.ingest.command_lifecycle import Kind, Outcome

CHUNK = 1000
SAVE = """
INSERT INTO ingest.configurations (package, version, merchant, plugin, digest)
VALUES (:package, :version, coalesce((SELECT merchant FROM ingest.plugins WHERE id = CAST(:id AS uuid)), ''), :plugin,
        :digest)
ON CONFLICT DO NOTHING
"""
EXPECT_COMMITTED = """
UPDATE ingest.plugin_state SET version = version + 1, expected_config_digest = coalesce((
    SELECT c.digest FROM ingest.commands c
    JOIN ingest.generations g ON g.plugin = c.plugin AND g.generation = c.generation
    WHERE c.plugin = CAST(:plugin AS uuid) AND c.kind = :kind AND g.final_outcome = :committed
    ORDER BY c.generation DESC LIMIT 1), '')
WHERE id = CAST(:plugin AS uuid) AND EXISTS (
    SELECT 1 FROM ingest.commands
    WHERE plugin = CAST(:plugin AS uuid) AND generation = :generation AND kind = :kind)
"""
ADOPT = """
WITH found AS (
    SELECT u.id, p.config_digest FROM ingest.plugin_state u JOIN ingest.plugins p ON p.id = u.id
    WHERE u.id = ANY(CAST(:ids AS uuid[])) AND u.expected_config_digest = '' AND EXISTS (
        SELECT 1 FROM ingest.configurations c
        WHERE c.package = p.package AND c.digest = p.config_digest AND c.plugin IN ('', CAST(p.id AS text)))
      AND NOT EXISTS (
        SELECT 1 FROM ingest.commands c JOIN ingest.generations g ON g.plugin = c.plugin AND g.generation = c.generation
        WHERE c.plugin = u.id AND c.kind = :kind AND c.digest = p.config_digest
          AND g.final_outcome IS DISTINCT FROM CAST(:committed AS smallint))
    ORDER BY u.id FOR UPDATE OF u
)
UPDATE ingest.plugin_state u SET version = u.version + 1, expected_config_digest = found.config_digest
FROM found WHERE u.id = found.id RETURNING u.id
"""
PLUGINS_WITH = """
SELECT id FROM ingest.plugins
WHERE package = :package AND id > CAST(:after AS uuid) AND config_digest = :digest AND state = 'active'
  AND :plugin IN ('', CAST(id AS text))
ORDER BY id LIMIT :limit
"""
NO_PLUGIN = "00000000-0000-0000-0000-000000000000"
OURS = {"kind": int(Kind.CONFIG_UPDATE), "committed": int(Outcome.COMMITTED)}


async def save(tx: Transaction, *, package: str, version: str, plugin: str, digest: str) -> None:
    """Saves a published configuration; a second time changes nothing."""
    await tx.run(
        SAVE,
        id=plugin if is_uuid(plugin) else NO_PLUGIN,
        package=package,
        version=version,
        plugin=plugin,
        digest=digest,
    )


async def expect_committed(tx: Transaction, plugin: str, generation: int) -> bool:
    """A generation became final: if it brought a configuration, what the plugin should have is looked up anew."""
    return await tx.run(EXPECT_COMMITTED, plugin=plugin, generation=generation, **OURS) == 1


async def adopt(tx: Transaction, plugins: Sequence[str]) -> set[str]:
    """Those of whom nothing was expected should have from now on what they have, where that is published."""
    return {str(row.id) for row in await tx.all(ADOPT, ids=list(plugins), **OURS)}


async def plugins_with(tx: Transaction, *, package: str, plugin: str, digest: str, after: str = NO_PLUGIN) -> list[str]:
    """The next plugins (after one's id) that reported a configuration; `plugin` may name the only one."""
    rows = await tx.all(PLUGINS_WITH, package=package, plugin=plugin, digest=digest, after=after, limit=CHUNK)
    return [str(row.id) for row in rows]
