"""The audit log: entries, the kept nodes of their tree, signed checkpoints, and what was found wrong.

What was logged stays: a trigger refuses to change or remove entries, nodes and checkpoints. It guards against mistakes;
against whoever owns the database only the signatures help.
"""

import secrets

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ops.audit_log (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    origin text NOT NULL,
    size bigint NOT NULL,
    peaks bytea NOT NULL,
    cursor timestamptz NOT NULL,
    checked bigint NOT NULL,
    searched_time timestamptz NOT NULL,
    searched_id uuid NOT NULL
);
CREATE TABLE ops.audit_entries (
    index bigint PRIMARY KEY,
    event_id uuid NOT NULL UNIQUE,
    time timestamptz NOT NULL,
    fact text NOT NULL,
    actor text NOT NULL,
    plugin text NOT NULL,
    incident text NOT NULL,
    leaf_hash bytea NOT NULL,
    entry bytea NOT NULL
);
CREATE INDEX audit_entries_time ON ops.audit_entries (time);
CREATE INDEX audit_entries_fact ON ops.audit_entries (fact, index);
CREATE INDEX audit_entries_actor ON ops.audit_entries (actor, index);
CREATE INDEX audit_entries_plugin ON ops.audit_entries (plugin, index) WHERE plugin <> '';
CREATE INDEX audit_entries_incident ON ops.audit_entries (incident, index) WHERE incident <> '';
CREATE TABLE ops.audit_nodes (
    level integer NOT NULL,
    index bigint NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (level, index)
);
CREATE TABLE ops.audit_checkpoints (
    size bigint PRIMARY KEY,
    root bytea NOT NULL,
    note text NOT NULL,
    key text NOT NULL,
    time timestamptz NOT NULL
);
CREATE TABLE ops.audit_keys (
    key text PRIMARY KEY,
    since timestamptz NOT NULL
);
CREATE TABLE ops.audit_findings (
    index bigint NOT NULL,
    event_id text NOT NULL,
    why text NOT NULL,
    time timestamptz NOT NULL,
    PRIMARY KEY (index, event_id, why)
)
"""
REFUSE = """
CREATE FUNCTION ops.audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what was logged stays: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = '23001';
END $$
"""
LOG = """
INSERT INTO ops.audit_log (origin, size, peaks, cursor, checked, searched_time, searched_id)
VALUES ('{origin}', 0, '', 'epoch', 0, 'epoch', '00000000-0000-0000-0000-000000000000')
"""
KEPT = ("audit_entries", "audit_nodes", "audit_checkpoints")


def upgrade() -> None:
    """Makes the tables and the one row of the log, whose origin is its name for ever."""
    for statement in TABLES.split(";\n"):
        op.execute(statement)
    op.execute(REFUSE)
    for table in KEPT:
        op.execute(
            f"CREATE TRIGGER stays BEFORE UPDATE OR DELETE OR TRUNCATE ON ops.{table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION ops.audit_stays()"
        )
    op.execute(LOG.format(origin=f"prunella/audit/{secrets.token_hex(8)}"))


def downgrade() -> None:
    """Removes them with everything in them."""
    for table in ("findings", "keys", "checkpoints", "nodes", "entries", "log"):
        op.execute(f"DROP TABLE ops.audit_{table}")
    op.execute("DROP FUNCTION ops.audit_stays()")
