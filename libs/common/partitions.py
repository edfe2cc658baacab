"""Partitions: a table that only grows is cut into weeks by the time in its key, so that retention drops whole weeks.

Rule: the key of such a table begins with a UUIDv7 (as `uuid`, or as text with COLLATE "C") or is a `timestamptz`; rows
of a week lie in a partition of their own, and what lies outside the weeks that exist (a clock far off) lies in the
default partition. Services own nothing, so a function of the owner makes the weeks; a service asks for those ahead.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from libs.common.clock import Clock
from libs.common.database import Database
from libs.common.runtime.loops import Loop

AHEAD: Final = timedelta(weeks=2)
EVERY: Final = 3600.0

# The week's first moment as a bound of the key: a UUIDv7 begins with its milliseconds (RFC 9562), as text too.
ENSURE = """
CREATE FUNCTION {schema}.ensure_partitions(p_from timestamptz, p_until timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '2s' SET timezone = 'UTC' AS $$
DECLARE
    parent record;
    week timestamptz;
    bounds text[];
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('prunella partitions {schema}', 0));
    FOR parent IN
        SELECT c.oid, c.relname, t.typname FROM pg_partitioned_table p
        JOIN pg_class c ON c.oid = p.partrelid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
        JOIN pg_type t ON t.oid = a.atttypid
        WHERE c.relnamespace = '{schema}'::regnamespace ORDER BY c.relname
    LOOP
        IF to_regclass(format('{schema}.%I', parent.relname || '_default')) IS NULL THEN
            EXECUTE format('CREATE TABLE {schema}.%I PARTITION OF {schema}.%I DEFAULT',
                           parent.relname || '_default', parent.relname);
        END IF;
        week := date_trunc('week', p_from);
        WHILE week <= p_until LOOP
            IF to_regclass(format('{schema}.%I', parent.relname || to_char(week, '_YYYYMMDD'))) IS NULL THEN
                SELECT array_agg(CASE parent.typname
                    WHEN 'uuid' THEN rpad(lpad(to_hex((extract(epoch FROM edge) * 1000)::bigint), 12, '0'), 32, '0')
                    WHEN 'text' THEN regexp_replace(
                        lpad(to_hex((extract(epoch FROM edge) * 1000)::bigint), 12, '0'), '^(.{{8}})', '\\1-')
                    ELSE edge::text END ORDER BY edge) INTO bounds
                FROM unnest(ARRAY[week, week + interval '7 days']) AS edge;
                BEGIN
                    EXECUTE format('CREATE TABLE {schema}.%I PARTITION OF {schema}.%I FOR VALUES FROM (%L) TO (%L)',
                        parent.relname || to_char(week, '_YYYYMMDD'), parent.relname, bounds[1], bounds[2]);
                    made := made + 1;
                EXCEPTION WHEN check_violation THEN
                    NULL; -- Rows of that week are in the default partition already, and stay there.
                END;
            END IF;
            week := week + interval '7 days';
        END LOOP;
    END LOOP;
    RETURN made;
END $$
"""
SCHEMAS = """
SELECT n.nspname AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.proname = 'ensure_partitions' AND has_schema_privilege(n.oid, 'USAGE') ORDER BY n.nspname
"""
FIRST = "SELECT {schema}.ensure_partitions(now(), now() + interval '14 days')"


def partition_statements(schema: str) -> tuple[str, str]:
    """The function and the first weeks: what a revision runs by `exec_driver_sql` after its partitioned tables."""
    return ENSURE.format(schema=schema), FIRST.format(schema=schema)


class Partitions:
    """A part of a service that makes the weeks ahead in every schema its role may use: its own, and the bus."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.name = "partitions"
        self._database = database
        self._clock = clock
        self._loop = Loop(self.name, self.run_once, every=EVERY)

    async def start(self) -> None:
        """Begins to look, at once and then every hour."""
        await self._loop.start()

    async def stop(self) -> None:
        """Ends the loop."""
        await self._loop.stop()

    async def run_once(self) -> int:
        """Makes the weeks that are missing; returns how many."""
        now, made = self._clock.now(), 0
        async with self._database.reading() as reading:
            schemas = [row.name for row in await reading.all(SCHEMAS)]
        for schema in schemas:
            statement = f"SELECT {schema}.ensure_partitions(:now, :until)"
            # One transaction for each schema, so that the locks of one are not held while another waits for its own.
            made += await self._database.transaction(
                lambda tx, ask=statement: tx.value(ask, now=now, until=now + AHEAD)  # type: ignore[misc]
            )
        return made
