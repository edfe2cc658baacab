"""The order in which permits, kill switches and slots were committed, recorded by triggers in the database.

Rule: each row takes its number from one sequence while its transaction holds the locks that make it exclusive with its
rivals, so the order of numbers is the order of those locks: no clock is asked, and a restart of the server changes
nothing. What a transaction rolled back is not in it. Install it as the owner, before anything happens.
"""

from __future__ import annotations

from typing import Any

import asyncpg

INSTALL = """
CREATE SEQUENCE patcher.moments;
CREATE TABLE patcher.witness (
    moment bigint PRIMARY KEY DEFAULT nextval('patcher.moments'), word text NOT NULL, name text NOT NULL,
    scopes text[] NOT NULL DEFAULT '{}'
);
CREATE FUNCTION patcher.saw_permit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO patcher.witness (word, name, scopes)
    SELECT 'permit', NEW.attempt,
           ARRAY['global', 'merchants/' || a.merchant, 'plugins/' || a.plugin, 'actions/' || a.action]
    FROM patcher.attempts a WHERE a.id = NEW.attempt;
    RETURN NULL;
END $$;
CREATE FUNCTION patcher.saw_switch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO patcher.witness (word, name)
    VALUES (CASE WHEN NEW.engaged THEN 'engaged' ELSE 'released' END, NEW.scope);
    RETURN NULL;
END $$;
CREATE FUNCTION patcher.saw_slot() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO patcher.witness (word, name)
    VALUES (CASE TG_OP WHEN 'INSERT' THEN 'taken' ELSE 'freed' END, coalesce(NEW.package, OLD.package));
    RETURN NULL;
END $$;
CREATE TRIGGER saw AFTER INSERT ON patcher.permits FOR EACH ROW WHEN (NEW.granted)
    EXECUTE FUNCTION patcher.saw_permit();
CREATE TRIGGER saw AFTER INSERT OR UPDATE OF engaged ON patcher.kill_switches FOR EACH ROW
    EXECUTE FUNCTION patcher.saw_switch();
CREATE TRIGGER saw AFTER INSERT OR DELETE ON patcher.slots FOR EACH ROW EXECUTE FUNCTION patcher.saw_slot();
"""
SEEN = "SELECT moment, word, name, scopes FROM patcher.witness WHERE word = ANY($1) ORDER BY moment"


async def install(url: str) -> None:
    """Installs the recorder in the owner's database."""
    connection = await asyncpg.connect(url, timeout=5, command_timeout=10)
    try:
        await connection.execute(INSTALL)
    finally:
        await connection.close()


async def seen(connection: asyncpg.Connection, *words: str) -> list[Any]:
    """The recorded events of these words, in order."""
    return list(await connection.fetch(SEEN, words))


async def no_permit_under_a_kill(connection: asyncpg.Connection) -> list[str]:
    """3: no permit after an engage that covers it, until its release."""
    engaged: set[str] = set()
    found = []
    for row in await seen(connection, "permit", "engaged", "released"):
        if row["word"] == "permit":
            found += [f"attempt {row['name']} was permitted under {scope}" for scope in engaged & {*row["scopes"]}]
        elif row["word"] == "engaged":
            engaged.add(row["name"])
        else:
            engaged.discard(row["name"])
    return found


async def budget_kept(connection: asyncpg.Connection, limit: int) -> list[str]:
    """4: at no moment are more than `limit` slots of a package taken."""
    taken: dict[str, int] = {}
    found = []
    for row in await seen(connection, "taken", "freed"):
        package = row["name"]
        taken[package] = taken.get(package, 0) + (1 if row["word"] == "taken" else -1)
        if row["word"] == "taken" and taken[package] > limit:
            found.append(f"{taken[package]} slots of {package} are taken at moment {row['moment']}, {limit} may be")
    return found
